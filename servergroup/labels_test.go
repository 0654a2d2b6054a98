package servergroup

import (
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/transport"
)

func matchersOf(t *testing.T, selector string) []*labels.Matcher {
	t.Helper()
	ms, err := parser.NewParser(parser.Options{}).ParseMetricSelector(selector)
	require.NoError(t, err)
	return ms
}

func TestResolve_MatchersOnPartitionLabelsAreNotSent(t *testing.T) {
	cfg := &Config{Labels: map[string]string{"region": "eu"}, ReplicaLabels: []string{"replica"}, IntrinsicLabels: []string{"zone"}}
	f := func(selector, send, check, none string) {
		t.Helper()
		r := cfg.resolve(matchersOf(t, selector))
		require.Equal(t, none, r.none)
		require.Equal(t, none != "", cfg.excludes(matchersOf(t, selector)))
		if none == "" {
			require.Equal(t, send, transport.Selector(r.send))
			require.Equal(t, check, transport.Selector(r.check))
		}
	}
	f(`{a="b"}`, `{a="b"}`, `{}`, ``)
	f(`{region="eu",a="b"}`, `{a="b"}`, `{}`, ``)
	f(`{region=~"e.|us",a="b"}`, `{a="b"}`, `{}`, ``)
	f(`{region!="us",a="b"}`, `{a="b"}`, `{}`, ``)
	f(`{region="us",a="b"}`, ``, ``, `the group's label region="eu" does not match region="us"`)
	f(`{region="",a="b"}`, ``, ``, `the group's label region="eu" does not match region=""`)
	f(`{replica="",a="b"}`, `{a="b"}`, `{}`, ``)
	f(`{replica="a"}`, ``, ``, `no series shows the replica label that replica="a" asks for`)
	f(`{zone="z"}`, `{zone="z"}`, `{}`, ``)
	// An exported label is one of the data, or a renamed one: the backend cannot
	// tell which.
	f(`{a="b",exported_region="x"}`, `{a="b"}`, `{exported_region="x"}`, ``)
	f(`{exported_exported_region="x"}`, `{}`, `{exported_exported_region="x"}`, ``)
	f(`{a="b",exported_region!="x"}`, `{a="b"}`, `{exported_region!="x"}`, ``)
	f(`{a="b",exported_other="x"}`, `{a="b",exported_other="x"}`, `{}`, ``)
}

func TestApply_LabelsDoNotDependOnTheTransport(t *testing.T) {
	cfg := &Config{Labels: map[string]string{"region": "eu", "a": "1"}, ReplicaLabels: []string{"replica"}}
	f := func(want, replica string, external map[string]string, raw ...string) {
		t.Helper()
		got, name := newLabelRules(cfg, external).apply(pairs(raw))
		require.Equal(t, want, got.String())
		require.Equal(t, replica, name)
	}
	f(`{__name__="m", a="1", region="eu", z="z"}`, "", nil, "__name__", "m", "z", "z")
	external := map[string]string{"region": "eu", "replica": "r1", "dc": "d1"}
	f(`{__name__="m", a="1", region="eu"}`, "replica\xfer1\xff", external, "__name__", "m", "dc", "d1", "region", "eu", "replica", "r1")
	// The series' own label of an external label's name stays.
	f(`{__name__="m", a="1", dc="own", region="eu"}`, "", external, "__name__", "m", "dc", "own", "region", "eu")
	f(`{__name__="m", a="1", exported_region="us", region="eu"}`, "", nil, "__name__", "m", "region", "us")
	// What is dropped tells series apart that then are the same.
	f(`{__name__="m", a="1", region="eu"}`, "region\xfeeu\xff", nil, "__name__", "m", "region", "eu")
	f(`{__name__="m", a="1", region="eu"}`, "a\xfe1\xff", nil, "__name__", "m", "a", "1")
}

func TestApply_NoLabelIsThereTwice(t *testing.T) {
	f := func(want string, cfg Config, external map[string]string, raw ...string) {
		t.Helper()
		got, _ := newLabelRules(&cfg, external).apply(pairs(raw))
		require.Equal(t, want, got.String())
	}
	cfg := Config{Labels: map[string]string{"c": "eu"}}
	f(`{c="eu", exported_c="es1"}`, cfg, nil, "c", "eu", "exported_c", "es1")
	f(`{c="eu", exported_c="es1", exported_exported_c="us"}`, cfg, nil, "exported_c", "es1", "c", "us")
	f(`{c="eu", exported_c="us"}`, cfg, map[string]string{"exported_c": "x"}, "c", "us", "exported_c", "x")
	cfg.Labels["exported_c"] = "1"
	f(`{c="eu", exported_c="1", exported_exported_c="us", exported_exported_exported_c="2"}`, cfg, nil, "exported_c", "2", "c", "us")
	cfg = Config{Labels: map[string]string{"c": "eu"}, ReplicaLabels: []string{"exported_c"}}
	f(`{c="eu", exported_exported_c="us"}`, cfg, nil, "c", "us", "exported_c", "r")
}

func TestSelectable_BackendsAcceptTheSelector(t *testing.T) {
	f := func(selector, want string) {
		t.Helper()
		require.Equal(t, want, transport.Selector(selectable(matchersOf(t, selector)[1:])))
	}
	f(`{x="y"}`, `{__name__!=""}`)
	f(`{x="y",a="b",job=~".*"}`, `{a="b",job=~".*"}`)
	f(`{x="y",job=~".*",a!="b",c=""}`, `{job=~".*",a!="b",c="",__name__!=""}`)

	ms := append(make([]*labels.Matcher, 0, 2), matchersOf(t, `{x="y",job=~".*"}`)[1:]...)
	selectable(ms)
	require.Nil(t, ms[:2][1], "the query's own matchers are not touched")
}

func pairs(raw []string) []labels.Label {
	var out []labels.Label
	for i := 0; i < len(raw); i += 2 {
		out = append(out, labels.Label{Name: raw[i], Value: raw[i+1]})
	}
	return out
}

func TestForRead_EqualityWithExternalLabelIsNotIgnored(t *testing.T) {
	ms := matchersOf(t, `{replica="a.b",x="y",dc="other"}`)
	got := forRead(ms, map[string]string{"replica": "a.b", "dc": "d1"})
	require.Equal(t, `{replica=~"a\\.b",x="y",dc="other"}`, transport.Selector(got))
	require.Equal(t, `{replica="a.b",x="y",dc="other"}`, transport.Selector(ms), "the query's own matchers are not touched")
}
