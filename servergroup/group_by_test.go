package servergroup

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	commoncfg "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/prometheus/prometheus/model/relabel"
	"github.com/stretchr/testify/require"
)

// targetsAt are targets with labels, given as name, value, ….
func targetsAt(address string, ls ...string) *targetgroup.Group {
	tg := &targetgroup.Group{Source: address + strings.Join(ls, ","), Targets: []model.LabelSet{{model.AddressLabel: model.LabelValue(address)}}, Labels: model.LabelSet{}}
	for i := 0; i < len(ls); i += 2 {
		tg.Labels[model.LabelName(ls[i])] = model.LabelValue(ls[i+1])
	}
	return tg
}

func shardOf(srv *httptest.Server, value string) *targetgroup.Group {
	return targetsAt(strings.TrimPrefix(srv.URL, "http://"), "shard", value)
}

// byShard groups what discovery tells by the label shard.
func byShard(sd discovery.Config) Config {
	cfg := DefaultConfig
	cfg.Name, cfg.GroupBy, cfg.ReplicaLabels = "shards", []string{"shard"}, []string{"replica"}
	cfg.ServiceDiscoveryConfigs = discovery.Configs{sd}
	return cfg
}

func shardsText(cfg *Config, tgs ...*targetgroup.Group) string {
	list, findings := cfg.shards(tgs)
	var b strings.Builder
	for _, s := range list {
		b.WriteString(cfg.made(s.values).Name + ":")
		for _, e := range s.endpoints {
			b.WriteString(" " + e.key())
		}
		b.WriteByte('\n')
	}
	for _, f := range findings {
		b.WriteString("! " + f + "\n")
	}
	return b.String()
}

func relabeling(t *testing.T, cfg *Config, rules ...relabel.Config) {
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
}

func TestShards(t *testing.T) {
	cfg := byShard(make(toldSD))
	require.Equal(t, `shards/1: http://a:1? http://b:1?
shards/2: http://c:1?
! label "color" of discovered targets is not used: labels of the whole group belong under its `+"`labels`"+`
! target "e:x" is not of the form host:port; it is left out
! target http://a:1 is in group "shards/1" and in "shards/2"; the second one does without it
! target http://d:1 lacks the label "shard" of `+"`group_by`"+`; it is left out
`, shardsText(&cfg,
		targetsAt("c:1", "shard", "2", "replica", "x"), targetsAt("a:1", "shard", "1"), targetsAt("b:1", "shard", "1", "__meta_x", "y"),
		targetsAt("A:1", "shard", "1", "color", "red"), targetsAt("a:1", "shard", "2"), targetsAt("d:1"), targetsAt("e:x", "shard", "1")))

	cfg.GroupBy = nil
	require.Equal(t, "shards:\n", shardsText(&cfg))
}

func TestShards_Relabeling(t *testing.T) {
	cfg := byShard(make(toldSD))
	cfg.PathPrefix = "/p"
	cfg.QueryParams = map[string][]commoncfg.Secret{"tenant": {"1", "2"}}
	relabeling(t, &cfg,
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
`, shardsText(&cfg,
		targetsAt("a:1", "__meta_drop", "yes"), targetsAt("x:1", "__meta_host", "b:1"), targetsAt("c:1", "__meta_n", "7"),
		targetsAt("d:443", "__scheme__", "https"), targetsAt("e:1", "__scheme__", "ftp"), targetsAt("f:1", "__param_query", "up")))
}

func TestShards_NamesAreUniqueAndPrintable(t *testing.T) {
	cfg := &Config{Name: "g", GroupBy: []string{"a", "b"}}
	for want, values := range map[string][]string{
		"g/a/b":                {"a", "b"},
		"g/a%2Fb/c":            {"a/b", "c"},
		"g/a/b%2Fc":            {"a", "b/c"},
		"g/a%252Fb/c":          {"a%2Fb", "c"},
		"g/größe/%0A%E2%80%A8": {"größe", "\n\u2028"},
	} {
		require.Equal(t, want, cfg.nameOf(values))
		require.True(t, printable(cfg.nameOf(values)))
	}
	require.True(t, cfg.Makes("g/x"))
	require.False(t, cfg.Makes("gx"))
	long := targetsAt("a:1", "a", strings.Repeat("x", 257), "b", "y")
	cfg.Scheme = "http"
	require.Equal(t, "! target http://a:1 has a label \"a\" that is not UTF-8, or longer than 256 bytes; it is left out\n", shardsText(cfg, long))
}

func TestShards_FindingsAreBounded(t *testing.T) {
	cfg := byShard(make(toldSD))
	var tgs []*targetgroup.Group
	for i := range 100 {
		tgs = append(tgs, targetsAt(fmt.Sprintf("a:%d", i+1)))
	}
	_, findings := cfg.shards(tgs)
	require.Len(t, findings, mostTargetFindings+1)
	require.Equal(t, "80 more targets are left out, or have labels that are not used", findings[mostTargetFindings])
}

// tellTargets has discovery tell the only entry of a set, as receiveTargets does.
func tellTargets(s *Set, tgs ...*targetgroup.Group) {
	s.mtx.Lock()
	defer s.mtx.Unlock()
	s.current.Load().entries[0].setTargets(tgs)
}

func names(s *Set) []string {
	var list []string
	for _, g := range s.Status() {
		list = append(list, g.Name)
	}
	return list
}

// TestGroupBy_GroupsComeAndGo: what did not change stays as it is; a view that began
// before goes on.
func TestGroupBy_GroupsComeAndGo(t *testing.T) {
	a, b, c := backend(t, "load 15s\n foo 1x3"), backend(t, "load 15s\n foo 2x3"), backend(t, "load 15s\n foo 3x3")
	sd := make(toldSD, 1)
	sd <- []*targetgroup.Group{shardOf(a, "a"), shardOf(b, "b")}
	s, now, log := loggedSet(t, byShard(sd))
	require.Equal(t, []string{"shards/a", "shards/b"}, names(s))
	ready(t, s)
	before := s.current.Load().groups()
	replica := (*before[0].replicas.Load())[0]
	old := s.View(t.Context())

	tellTargets(s, shardOf(a, "a"), shardOf(c, "c"))
	require.Equal(t, []string{"shards/a", "shards/b", "shards/c"}, names(s))
	groups := s.current.Load().groups()
	require.Same(t, before[0], groups[0])
	require.Same(t, replica, (*groups[0].replicas.Load())[0])
	require.Contains(t, findingsOf(s, "shards/b")[0], "its last target has gone at 1970-01-01T00:01:00.000Z")
	require.Equal(t, 1, log.count("groups=3 new=1 forgotten=0"))

	// The one that has gone is missed at first, if it is concerned.
	got, ws, err := selectText(t, s, `foo`, 0, 0)
	require.NoError(t, err)
	require.Equal(t, `{__name__="foo", shard="a"} 0:1`+"\n"+`{__name__="foo", shard="c"} 0:3`+"\n", got)
	require.Len(t, strs(ws), 1)
	require.Contains(t, strs(ws)[0], `server group "shards/b" has no targets`)
	got, ws, err = selectText(t, s, `foo{shard=~"a|c"}`, 0, 0)
	require.NoError(t, err)
	require.Empty(t, strs(ws))
	require.Equal(t, 2, strings.Count(got, "\n"))

	now.ms.Add(time.Duration(DefaultConfig.ForgetAfter).Milliseconds() - 1)
	s.refresh()
	require.Len(t, names(s), 3)
	now.ms.Add(1)
	s.refresh()
	require.Equal(t, []string{"shards/a", "shards/c"}, names(s))
	require.Empty(t, s.current.Load().entries[0].gone)

	list, _, err := old.fetch(t.Context(), Selection{Matchers: matchersOf(t, "foo")})
	require.NoError(t, err)
	require.Len(t, list, 2)
	require.Equal(t, `{__name__="foo", shard="b"}`, list[1].Labels().String())

	// It comes back before it is forgotten.
	tellTargets(s, shardOf(a, "a"))
	c2 := s.current.Load().groups()[1]
	tellTargets(s, shardOf(a, "a"), shardOf(c, "c"))
	require.Same(t, c2, s.current.Load().groups()[1])
	require.Empty(t, findingsOf(s, "shards/c"))
}

// TestGroupBy_NoGroupIsNotNoData: before discovery has told any target, and when it tells
// none, answers do not look whole.
func TestGroupBy_NoGroupIsNotNoData(t *testing.T) {
	cfg := byShard(make(toldSD))
	cfg.ForgetAfter = 0
	s := newTestSet(t, PartialWarn, groupOf("other", backend(t, "load 15s\n foo 1x3")))
	e, err := newEntry(cfg, s.healths)
	require.NoError(t, err)
	e.begin(nil)
	gen := s.current.Load()
	s.current.Store(&generation{entries: append([]*entry{e}, gen.entries...), partial: PartialWarn})
	for _, step := range []struct {
		tgs  []*targetgroup.Group
		want []string
		warn string
	}{
		{nil, []string{"shards", "other"}, `server group "shards" has no targets`},
		{[]*targetgroup.Group{shardOf(backend(t, ""), "a")}, []string{"shards/a", "other"}, ""},
		{nil, []string{"shards", "other"}, `server group "shards" has no targets`},
	} {
		tellTargets(s, step.tgs...)
		require.Equal(t, step.want, names(s))
		_, ws, err := selectText(t, s, `foo`, 0, 0)
		require.NoError(t, err)
		require.Contains(t, strings.Join(strs(ws), "\n"), step.warn)
		require.Equal(t, step.warn == "", len(ws) == 0)
	}
}

func TestGroupBy_Limit(t *testing.T) {
	srv := backend(t, "load 15s\n foo 1x3")
	sd := make(toldSD, 1)
	at := func(values ...string) (tgs []*targetgroup.Group) {
		for _, v := range values {
			tg := shardOf(srv, v)
			tg.Labels["__path_prefix__"] = model.LabelValue("/" + v)
			tgs = append(tgs, tg)
		}
		return tgs
	}
	sd <- at("b", "c")
	cfg := byShard(sd)
	cfg.GroupLimit, cfg.ForgetAfter = 2, 0
	s, _, log := loggedSet(t, cfg)
	tellTargets(s, at("a", "b", "c", "d")...)
	require.Equal(t, []string{"shards/b", "shards/c", "shards"}, names(s), "those that were there stay")
	require.Equal(t, 1, log.count("more groups than the 2 that `group_limit` allows"))
	require.Contains(t, findingsOf(s, "shards/b")[0], "group_limit")
	tellTargets(s, at("a", "b")...)
	require.Equal(t, []string{"shards/a", "shards/b"}, names(s))
	require.Empty(t, findingsOf(s, "shards/a"))
}

// TestGroupBy_GroupsAreDisjoint: what is provable of groups that the configuration names
// is so of those that are made, and matchers decide which of them are asked.
func TestGroupBy_GroupsAreDisjoint(t *testing.T) {
	cfg := DefaultConfig
	cfg.Name, cfg.GroupBy = "shards", []string{"shard"}
	cfg.Labels = map[string]string{"site": "x"}
	cfg.ServiceDiscoveryConfigs = discovery.Configs{discovery.StaticConfig{targetsAt("a:1", "shard", "1"), targetsAt("b:1", "shard", "2"), targetsAt("c:1", "shard", "1")}}
	s := newTestSet(t, PartialWarn, cfg)
	for name, v := range map[string]*View{"live": s.View(t.Context()), "offline": Offline([]Config{cfg}, PartialWarn, time.UnixMilli(0))} {
		ps := v.Partitions([]Selection{{Matchers: matchersOf(t, "foo"), MaxT: 1}})
		require.Len(t, ps, 2, name)
		require.Equal(t, []Member{{"shards/1", 2}}, ps[0].Members())
		require.Equal(t, map[string]string{"shard": "1", "site": "x"}, ps[0].Labels())
		ps = v.Partitions([]Selection{{Matchers: matchersOf(t, `foo{shard="2"}`), MaxT: 1}})
		require.Len(t, ps, 1)
		require.Equal(t, "shards/2", ps[0].Name())
	}
}

// TestGroupBy_ReloadKeepsGroups: an entry that did not change keeps the groups it made.
func TestGroupBy_ReloadKeepsGroups(t *testing.T) {
	sd := make(toldSD, 1)
	sd <- []*targetgroup.Group{shardOf(backend(t, ""), "a")}
	load := func() Config {
		cfg := byShard(sd)
		relabeling(t, &cfg, relabel.Config{SourceLabels: model.LabelNames{"shard"}, Regex: relabel.MustNewRegexp("(.+)"), TargetLabel: "shard"})
		return cfg
	}
	s := newTestSet(t, PartialWarn, load())
	before := s.current.Load().groups()[0]
	require.NoError(t, s.Apply(t.Context(), []Config{load()}, PartialWarn))
	require.Same(t, before, s.current.Load().groups()[0])
	changed := load()
	changed.Region = "elsewhere"
	sd <- []*targetgroup.Group{shardOf(backend(t, ""), "b")}
	require.NoError(t, s.Apply(t.Context(), []Config{changed}, PartialWarn))
	require.Equal(t, "elsewhere", s.Status()[0].Region)
}
