package targets

import (
	"fmt"
	"strings"
	"testing"
	"unicode"

	commoncfg "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/prometheus/prometheus/model/relabel"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/config"
)

// targetAt is a target with labels, given as name, value, ….
func targetAt(address string, ls ...string) *targetgroup.Group {
	tg := &targetgroup.Group{Targets: []model.LabelSet{{model.AddressLabel: model.LabelValue(address)}}, Labels: model.LabelSet{}}
	for i := 0; i < len(ls); i += 2 {
		tg.Labels[model.LabelName(ls[i])] = model.LabelValue(ls[i+1])
	}
	return tg
}

// groupedByShard groups targets by the label shard.
func groupedByShard() *config.Group {
	cfg := config.DefaultGroup
	cfg.Name, cfg.GroupBy, cfg.ReplicaLabels = "shards", []string{"shard"}, []string{"replica"}
	cfg.ServiceDiscoveryConfigs = discovery.Configs{discovery.StaticConfig{}}
	return &cfg
}

func shardsText(cfg *config.Group, tgs ...*targetgroup.Group) string {
	list, findings := Shards(cfg, tgs)
	var b strings.Builder
	for _, s := range list {
		b.WriteString(GroupOf(cfg, s.Values).Name + ":")
		for _, e := range s.Endpoints {
			b.WriteString(" " + e.Key())
		}
		b.WriteByte('\n')
	}
	for _, f := range findings {
		b.WriteString("! " + f + "\n")
	}
	return b.String()
}

func relabeling(t *testing.T, cfg *config.Group, rules ...relabel.Config) {
	t.Helper()
	for _, r := range rules {
		r.Separator = ";"
		if r.Regex.Regexp == nil {
			r.Regex = relabel.DefaultRelabelConfig.Regex
		}
		if r.Action == "" {
			r.Action, r.Replacement = relabel.Replace, "$1"
		}
		cfg.RelabelConfigs = append(cfg.RelabelConfigs, &r)
	}
	require.NoError(t, cfg.Validate())
	require.NoError(t, Validate(cfg))
}

func TestShards(t *testing.T) {
	cfg := groupedByShard()
	require.Equal(t, `shards/1: http://a:1? http://b:1?
shards/2: http://c:1?
! label "color" of discovered targets is not used: labels of the whole group belong under its `+"`labels`"+`
! target "e:x" is not of the form host:port; it is left out
! target http://a:1 is in group "shards/1" and in "shards/2"; the second one does without it
! target http://d:1 lacks the label "shard" of `+"`group_by`"+`; it is left out
`, shardsText(cfg,
		targetAt("c:1", "shard", "2", "replica", "x"), targetAt("a:1", "shard", "1"), targetAt("b:1", "shard", "1", "__meta_x", "y"),
		targetAt("A:1", "shard", "1", "color", "red"), targetAt("a:1", "shard", "2"), targetAt("d:1"), targetAt("e:x", "shard", "1")))

	cfg.GroupBy = nil
	require.Equal(t, "shards:\n", shardsText(cfg))
}

func TestShards_Relabeling(t *testing.T) {
	cfg := groupedByShard()
	cfg.PathPrefix = "/p"
	cfg.QueryParams = map[string][]commoncfg.Secret{"tenant": {"1", "2"}}
	relabeling(t, cfg,
		relabel.Config{SourceLabels: model.LabelNames{"__meta_drop"}, Regex: relabel.MustNewRegexp("yes"), Action: relabel.Drop},
		relabel.Config{SourceLabels: model.LabelNames{"__meta_host"}, Regex: relabel.MustNewRegexp("(.+)"), TargetLabel: "__address__"},
		relabel.Config{SourceLabels: model.LabelNames{"__path_prefix__", "__meta_n"}, Regex: relabel.MustNewRegexp("(.+);(.+)"), TargetLabel: "__path_prefix__", Action: relabel.Replace, Replacement: "$1/$2"},
		relabel.Config{SourceLabels: model.LabelNames{"__param_tenant", "__meta_n"}, Regex: relabel.MustNewRegexp("1;(.+)"), TargetLabel: "__param_tenant"},
		relabel.Config{SourceLabels: model.LabelNames{"__scheme__"}, TargetLabel: "shard"},
	)
	require.Equal(t, `shards/http: http://b:1/p?tenant=1&tenant=2 http://c:1/p/7?tenant=7&tenant=2
shards/https: https://d/p?tenant=1&tenant=2
! target "e:1": its scheme "ftp" is neither http nor https; it is left out
! target "http://f:1/p": label __param_query: requests set this parameter themselves; it is left out
`, shardsText(cfg,
		targetAt("a:1", "__meta_drop", "yes"), targetAt("x:1", "__meta_host", "b:1"), targetAt("c:1", "__meta_n", "7"),
		targetAt("d:443", "__scheme__", "https"), targetAt("e:1", "__scheme__", "ftp"), targetAt("f:1", "__param_query", "up")))
}

func TestShards_NamesAreUniqueAndPrintable(t *testing.T) {
	cfg := &config.Group{Name: "g", GroupBy: []string{"a", "b"}}
	for want, values := range map[string][]string{
		"g/a/b":                {"a", "b"},
		"g/a%2Fb/c":            {"a/b", "c"},
		"g/a/b%2Fc":            {"a", "b/c"},
		"g/a%252Fb/c":          {"a%2Fb", "c"},
		"g/größe/%0A%E2%80%A8": {"größe", "\n\u2028"},
	} {
		require.Equal(t, want, NameOf(cfg, values))
		require.False(t, strings.ContainsFunc(NameOf(cfg, values), func(r rune) bool { return !unicode.IsPrint(r) }))
	}
	require.True(t, Makes(cfg, "g/x"))
	require.False(t, Makes(cfg, "gx"))
	long := targetAt("a:1", "a", strings.Repeat("x", 257), "b", "y")
	cfg.Scheme = "http"
	require.Equal(t, "! target http://a:1 has a label \"a\" that is not UTF-8, or longer than 256 bytes; it is left out\n", shardsText(cfg, long))
}

func TestShards_FindingsAreBounded(t *testing.T) {
	cfg := groupedByShard()
	var tgs []*targetgroup.Group
	for i := range 100 {
		tgs = append(tgs, targetAt(fmt.Sprintf("a:%d", i+1)))
	}
	_, findings := Shards(cfg, tgs)
	require.Len(t, findings, mostTargetFindings+1)
	require.Equal(t, "80 more targets are left out, or have labels that are not used", findings[mostTargetFindings])
}
