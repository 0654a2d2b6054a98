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
	// A label of the data with the name of an injected one shows as exported.
	f(`{exported_region="x"}`, `{region="x",region!="eu"}`, `{exported_region="x"}`, ``)
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
	f(`{__name__="m", a="1", region="eu"}`, "r1\xff", external, "__name__", "m", "dc", "d1", "region", "eu", "replica", "r1")
	// The series' own label of an external label's name stays.
	f(`{__name__="m", a="1", dc="own", region="eu"}`, "", external, "__name__", "m", "dc", "own", "region", "eu")
	f(`{__name__="m", a="1", exported_region="us", region="eu"}`, "", nil, "__name__", "m", "region", "us")
	f(`{__name__="m", a="1", region="eu"}`, "", nil, "__name__", "m", "region", "eu")
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
