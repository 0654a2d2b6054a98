package config

import (
	"testing"
	"time"

	commoncfg "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

// Errors of whole files, with their lines, are tested in proxy/config.

func groupWithTargets(addresses ...string) *Group {
	cfg := DefaultGroup
	cfg.Name = "g"
	tg := &targetgroup.Group{}
	for _, address := range addresses {
		tg.Targets = append(tg.Targets, model.LabelSet{model.AddressLabel: model.LabelValue(address)})
	}
	cfg.ServiceDiscoveryConfigs = discovery.Configs{discovery.StaticConfig{tg}}
	return &cfg
}

func TestTime_UnmarshalYAML(t *testing.T) {
	for text, want := range map[string]string{
		"2026-01-02T15:04:05Z":           "2026-01-02T15:04:05Z",
		"2026-01-02T15:04:05.25+02:00":   "2026-01-02T13:04:05.25Z",
		"'2026-01-02T15:04:05Z'":         "2026-01-02T15:04:05Z",
		"0":                              "1970-01-01T00:00:00Z",
		"1700000000":                     "2023-11-14T22:13:20Z",
		"1700000000.5":                   "2023-11-14T22:13:20.5Z",
		"-1":                             "1969-12-31T23:59:59Z",
		"1700000000000":                  "", // milliseconds
		"1h":                             "",
		"1m30":                           "", // once read as 1m30s after 1970
		"2026-01-02":                     "",
		"NaN":                            "",
		"Inf":                            "",
		"yesterday":                      "",
		"[2026-01-02T15:04:05Z]":         "",
		"2026-01-02T15:04:05.000000001Z": "2026-01-02T15:04:05.000000001Z",
	} {
		var got Time
		err := yaml.Unmarshal([]byte(text), &got)
		if want == "" {
			require.Error(t, err, text)
			continue
		}
		require.NoError(t, err, text)
		require.Equal(t, want, got.Format(time.RFC3339Nano), text)
		require.Equal(t, time.UTC, got.Location(), text)
	}
}

func TestPath_String(t *testing.T) {
	require.Empty(t, Path{}.String())
	require.Equal(t, "static_configs[0].targets[1]", Path{"static_configs", 0, "targets", 1}.String())
	require.Equal(t, `headers.X-A`, Path{"headers", "X-A"}.String())
	require.Equal(t, `labels["a.b"]`, Path{"labels", "a.b"}.String())
	require.Equal(t, `labels[""]`, Path{"labels", ""}.String())
}

func TestGroup_AsksLike(t *testing.T) {
	a, b := groupWithTargets("a"), groupWithTargets("b")
	b.Timeout, b.Labels = 1, map[string]string{"x": "y"}
	require.True(t, a.AsksLike(b))
	b.HTTPClientConfig.BasicAuth = &commoncfg.BasicAuth{Username: "tenant"}
	require.False(t, a.AsksLike(b))
	a.HTTPClientConfig.BasicAuth = &commoncfg.BasicAuth{Username: "tenant"}
	require.True(t, a.AsksLike(b))
	a.Headers = map[string]commoncfg.Secret{"X-Scope-OrgID": "1"}
	require.False(t, a.AsksLike(b))
}

func TestGroup_ValidateTellsAllAtOnce(t *testing.T) {
	cfg := groupWithTargets("a")
	require.NoError(t, cfg.Validate())
	cfg.Name, cfg.Scheme, cfg.Timeout = "", "ftp", 0
	require.EqualError(t, cfg.Validate(), "name: the group has no name: add `name: …`, unique among the groups\n"+
		"timeout: must be longer than 0s\n"+
		`scheme: "ftp" is neither http nor https`)
}

// UTF-8 names are label names, as in Prometheus 3.
func TestGroup_LabelNames(t *testing.T) {
	cfg := groupWithTargets("a")
	cfg.Labels = map[string]string{"region.name": "eu", "größe": "1"}
	require.NoError(t, cfg.Validate())
	cfg.ReplicaLabels = []string{"\xff"}
	require.EqualError(t, cfg.Validate(), `replica_labels[0]: "\xff" is not a label name`)
}
