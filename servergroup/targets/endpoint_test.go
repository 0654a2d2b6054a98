package targets

import (
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/config"
)

func TestTargetURL(t *testing.T) {
	for address, want := range map[string]string{
		"a":                "http://a/p",
		"a:9090":           "http://a:9090/p",
		"[::1]:9090":       "http://[::1]:9090/p",
		"":                 `target "" is not of the form host:port`,
		":9090":            `target ":9090" is not of the form host:port`,
		"a:b":              `target "a:b" is not of the form host:port`,
		"a b":              `target "a b" is not of the form host:port`,
		"a:0":              `target "a:0" is not of the form host:port: ports go from 1 to 65535`,
		"a:65536":          `target "a:65536" is not of the form host:port: ports go from 1 to 65535`,
		"http://a":         "target \"http://a\" is not of the form host:port: the rest of the URL belongs into `scheme` and `path_prefix`",
		"u:secret@a":       "target \"a\" comes with credentials: they belong into `basic_auth`",
		"u:sec@ret@a":      "target \"a\" comes with credentials: they belong into `basic_auth`",
		"http://u:secret@": "target \"\" comes with credentials: they belong into `basic_auth`",
		"a?token=secret":   `target "a" is not of the form host:port`,
		"a#b":              `target "a#b" is not of the form host:port`,
	} {
		u, err := targetURL("http", address, "/p/")
		if err != nil {
			require.EqualError(t, err, want)
			continue
		}
		require.Equal(t, want, u.String())
	}
}

func TestStaticTargets_HaveOneSpelling(t *testing.T) {
	tg := &targetgroup.Group{}
	for _, address := range []string{"A", "a:80", "a:443", "bad/target", "[::80]"} {
		tg.Targets = append(tg.Targets, model.LabelSet{model.AddressLabel: model.LabelValue(address)})
	}
	cfg := &config.Group{Scheme: "http", ServiceDiscoveryConfigs: discovery.Configs{discovery.StaticConfig{tg}}}
	require.Equal(t, []StaticTarget{
		{"http://a", "", config.Path{"static_configs", 0, "targets", 0}},
		{"http://a", "", config.Path{"static_configs", 0, "targets", 1}},
		{"http://a:443", "", config.Path{"static_configs", 0, "targets", 2}},
		{"http://[::80]", "", config.Path{"static_configs", 0, "targets", 4}},
	}, StaticTargets(cfg))
	cfg.Scheme = "https"
	require.Equal(t, "https://a:80", StaticTargets(cfg)[1].URL)
	require.Equal(t, "https://a", StaticTargets(cfg)[2].URL)
}
