package config

import (
	"fmt"
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

func TestValidate_Holds(t *testing.T) {
	f := func(want string, selectors ...string) {
		t.Helper()
		g := groupWithTargets("a:1")
		g.Labels, g.ReplicaLabels, g.Holds = map[string]string{"region": "eu"}, []string{"replica"}, selectors
		if err := g.Validate(); want != "" {
			require.EqualError(t, err, want)
		} else {
			require.NoError(t, err)
		}
	}
	f("", `{source="oneprom"}`)
	f("", `{source="oneprom"}`, `ALERTS`, `{__name__=~".+:.+",region="eu",replica=""}`)
	f(`holds[0]: not a selector that leaves something out, as '{source="oneprom"}' does: 1:1: parse error: unexpected identifier "source" in label matching, expected "{"`[:0]+
		`holds[0]: not a selector that leaves something out, as '{source="oneprom"}' does: 1:7: parse error: unexpected "="`, `source="oneprom"`)
	f(`holds[1]: not a selector that leaves something out, as '{source="oneprom"}' does: each of its matchers matches series that lack the label`, `a`, `{source!="a"}`)
	f(`holds[1]: the selector is there twice: remove one`, `a`, `a`)
	f(`holds[0]: no series of the group matches it: its label region="eu" does not match region="us"`, `{region="us"}`)
	f(`holds[0]: no series of the group matches it: "replica" is one of its replica_labels, which are dropped`, `{replica="a"}`)
	f(`holds: more than 10 selectors: join some by a regular expression`, "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k")
}

func TestGroup_Portions(t *testing.T) {
	g := groupWithTargets("a:1")
	require.Equal(t, []*Group{g}, g.Portions(false))
	g.Holds = []string{`{s="a"}`, `{s=~"b.*"}`}
	whole := g.Portions(false)
	require.Len(t, whole, 1, "there is no range to be lifted")
	require.Empty(t, whole[0].Only())
	g.TimeRange.MinAge = model.Duration(time.Hour)
	portions := g.Portions(true)
	require.Len(t, portions, 3)
	for i, want := range []string{`[s="a"]`, `[s=~"b.*"]`, `[s!="a" s!~"b.*"]`} {
		require.Equal(t, want, fmt.Sprint(portions[i].Only()))
		require.Equal(t, i < 2, portions[i].TimeRange.IsZero())
		require.Equal(t, i < 2, portions[i].Portion.Held)
		require.True(t, portions[i].Portion.Denied)
	}
	g.Holds = append(g.Holds, `{s="c",x="y"}`)
	require.Empty(t, g.Portions(false)[3].Only(), "no matchers say that")
}
