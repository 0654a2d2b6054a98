package servergroup

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/prometheus/prometheus/model/relabel"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/partition"
	"github.com/oneprom/oneprom/servergroup/targets"
	"github.com/oneprom/oneprom/servergroup/view"
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
func byShard(sd discovery.Config) config.Group {
	cfg := config.DefaultGroup
	cfg.Name, cfg.GroupBy, cfg.ReplicaLabels = "shards", []string{"shard"}, []string{"replica"}
	cfg.ServiceDiscoveryConfigs = discovery.Configs{sd}
	return cfg
}

// setTargets has discovery tell the only entry of a set, as receiveTargets does.
func setTargets(s *Set, tgs ...*targetgroup.Group) {
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
	sd := make(fixedSD, 1)
	sd <- []*targetgroup.Group{shardOf(a, "a"), shardOf(b, "b")}
	s, now, log := loggedSet(t, byShard(sd))
	require.Equal(t, []string{"shards/a", "shards/b"}, names(s))
	ready(t, s)
	before := s.current.Load().groups()
	replica := (*before[0].replicas.Load())[0]
	old := s.View(t.Context())

	setTargets(s, shardOf(a, "a"), shardOf(c, "c"))
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

	now.ms.Add(time.Duration(config.DefaultGroup.ForgetAfter).Milliseconds() - 1)
	s.refresh()
	require.Len(t, names(s), 3)
	now.ms.Add(1)
	s.refresh()
	require.Equal(t, []string{"shards/a", "shards/c"}, names(s))
	require.Empty(t, s.current.Load().entries[0].gone)

	list, _ := fetched(t.Context(), t, old, view.Selection{Matchers: matchersOf(t, "foo")})
	require.Len(t, list, 2)
	require.Equal(t, `{__name__="foo", shard="b"}`, list[1].String())

	// It comes back before it is forgotten.
	setTargets(s, shardOf(a, "a"))
	c2 := s.current.Load().groups()[1]
	setTargets(s, shardOf(a, "a"), shardOf(c, "c"))
	require.Same(t, c2, s.current.Load().groups()[1])
	require.Empty(t, findingsOf(s, "shards/c"))
}

// TestGroupBy_NoGroupIsNotNoData: before discovery has told any target, and when it tells
// none, answers do not look whole.
func TestGroupBy_NoGroupIsNotNoData(t *testing.T) {
	cfg := byShard(make(fixedSD))
	cfg.ForgetAfter = 0
	s := newTestSet(t, config.PartialWarn, groupOf("other", backend(t, "load 15s\n foo 1x3")))
	e, err := newEntry(cfg, s.registry, s.auditor)
	require.NoError(t, err)
	e.begin(nil)
	gen := s.current.Load()
	s.current.Store(&generation{entries: append([]*entry{e}, gen.entries...), partial: config.PartialWarn})
	for _, step := range []struct {
		tgs  []*targetgroup.Group
		want []string
		warn string
	}{
		{nil, []string{"shards", "other"}, `server group "shards" has no targets`},
		{[]*targetgroup.Group{shardOf(backend(t, ""), "a")}, []string{"shards/a", "other"}, ""},
		{nil, []string{"shards", "other"}, `server group "shards" has no targets`},
	} {
		setTargets(s, step.tgs...)
		require.Equal(t, step.want, names(s))
		_, ws, err := selectText(t, s, `foo`, 0, 0)
		require.NoError(t, err)
		require.Contains(t, strings.Join(strs(ws), "\n"), step.warn)
		require.Equal(t, step.warn == "", len(ws) == 0)
	}
}

func TestGroupBy_Limit(t *testing.T) {
	srv := backend(t, "load 15s\n foo 1x3")
	sd := make(fixedSD, 1)
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
	setTargets(s, at("a", "b", "c", "d")...)
	require.Equal(t, []string{"shards/b", "shards/c", "shards"}, names(s), "those that were there stay")
	require.Equal(t, 1, log.count("more groups than the 2 that `group_limit` allows"))
	require.Contains(t, findingsOf(s, "shards/b")[0], "group_limit")
	setTargets(s, at("a", "b")...)
	require.Equal(t, []string{"shards/a", "shards/b"}, names(s))
	require.Empty(t, findingsOf(s, "shards/a"))
}

// TestGroupBy_GroupsAreDisjoint: what is provable of groups that the configuration names
// is so of those that are made, and matchers decide which of them are asked.
func TestGroupBy_GroupsAreDisjoint(t *testing.T) {
	cfg := config.DefaultGroup
	cfg.Name, cfg.GroupBy = "shards", []string{"shard"}
	cfg.Labels = map[string]string{"site": "x"}
	cfg.ServiceDiscoveryConfigs = discovery.Configs{discovery.StaticConfig{targetsAt("a:1", "shard", "1"), targetsAt("b:1", "shard", "2"), targetsAt("c:1", "shard", "1")}}
	s := newTestSet(t, config.PartialWarn, cfg)
	for name, v := range map[string]*view.View{"live": s.View(t.Context()), "offline": Offline([]config.Group{cfg}, config.PartialWarn, time.UnixMilli(0))} {
		ps := partition.Of(v, []view.Selection{{Matchers: matchersOf(t, "foo"), MaxT: 1}})
		require.Len(t, ps, 2, name)
		require.Equal(t, []partition.Member{{Name: "shards/1", Replicas: 2}}, ps[0].Members())
		require.Equal(t, map[string]string{"shard": "1", "site": "x"}, ps[0].Labels())
		ps = partition.Of(v, []view.Selection{{Matchers: matchersOf(t, `foo{shard="2"}`), MaxT: 1}})
		require.Len(t, ps, 1)
		require.Equal(t, "shards/2", ps[0].Name())
	}
}

// TestGroupBy_ReloadKeepsGroups: an entry that did not change keeps the groups it made.
func TestGroupBy_ReloadKeepsGroups(t *testing.T) {
	sd := make(fixedSD, 1)
	sd <- []*targetgroup.Group{shardOf(backend(t, ""), "a")}
	load := func() config.Group {
		cfg := byShard(sd)
		cfg.RelabelConfigs = []*relabel.Config{{SourceLabels: model.LabelNames{"shard"}, Separator: ";", Regex: relabel.MustNewRegexp("(.+)"), TargetLabel: "shard", Action: relabel.Replace, Replacement: "$1"}}
		require.NoError(t, cfg.Validate())
		require.NoError(t, targets.Validate(&cfg))
		return cfg
	}
	s := newTestSet(t, config.PartialWarn, load())
	before := s.current.Load().groups()[0]
	require.NoError(t, s.Apply(t.Context(), []config.Group{load()}, config.PartialWarn))
	require.Same(t, before, s.current.Load().groups()[0])
	changed := load()
	changed.Region = "elsewhere"
	sd <- []*targetgroup.Group{shardOf(backend(t, ""), "b")}
	require.NoError(t, s.Apply(t.Context(), []config.Group{changed}, config.PartialWarn))
	require.Equal(t, "elsewhere", s.Status()[0].Region)
}
