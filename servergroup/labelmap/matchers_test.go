package labelmap

import (
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/transport"
)

func parsed(t *testing.T, selector string) []*labels.Matcher {
	t.Helper()
	ms, err := parser.NewParser(parser.Options{}).ParseMetricSelector(selector)
	require.NoError(t, err)
	return ms
}

func TestResolve_MatchersOnPartitionLabelsAreNotSent(t *testing.T) {
	cfg := &config.Group{Labels: map[string]string{"region": "eu"}, ReplicaLabels: []string{"replica"}, IntrinsicLabels: []string{"zone"}}
	f := func(selector, send, check, none string) {
		t.Helper()
		r := Resolve(cfg, parsed(t, selector))
		require.Equal(t, none, r.Excluded)
		require.Equal(t, none != "", Excludes(cfg, parsed(t, selector)))
		if none == "" {
			require.Equal(t, send, transport.Selector(r.Send))
			require.Equal(t, check, transport.Selector(r.Check))
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

func TestSelectable_BackendsAcceptTheSelector(t *testing.T) {
	f := func(selector, want string) {
		t.Helper()
		require.Equal(t, want, transport.Selector(Selectable(parsed(t, selector)[1:])))
	}
	f(`{x="y"}`, `{__name__!=""}`)
	f(`{x="y",a="b",job=~".*"}`, `{a="b",job=~".*"}`)
	f(`{x="y",job=~".*",a!="b",c=""}`, `{job=~".*",a!="b",c="",__name__!=""}`)

	ms := append(make([]*labels.Matcher, 0, 2), parsed(t, `{x="y",job=~".*"}`)[1:]...)
	Selectable(ms)
	require.Nil(t, ms[:2][1], "the query's own matchers are not touched")
}

func TestForRead_EqualityWithExternalLabelIsNotIgnored(t *testing.T) {
	ms := parsed(t, `{__name__="m",replica="a.b",x!="y",dc="",z="\xff"}`)
	got := ForRead(ms)
	require.Equal(t, `{__name__="m",replica=~"a\\.b",x!="y",dc="",z="\xff"}`, transport.Selector(got))
	require.Equal(t, `{__name__="m",replica="a.b",x!="y",dc="",z="\xff"}`, transport.Selector(ms), "the query's own matchers are not touched")
}

func TestAnyOf(t *testing.T) {
	odd := []string{"a.b:9090", "a+b", "(", "x|y", "[::1]:80", `back\slash`, "new\nline", "ü", "^$", "a*"}
	for i, value := range odd {
		m := labels.MustNewMatcher(labels.MatchRegexp, TargetLabel, AnyOf([]string{"other", value}))
		require.True(t, m.Matches("other"))
		for j, o := range odd {
			require.Equal(t, i == j, m.Matches(o), "%s %s", value, o)
		}
	}
	for value, unlike := range map[string]string{"a.b:9090": "axb:9090", "x|y": "x", "a*": "aa", "ü": "u"} {
		require.False(t, labels.MustNewMatcher(labels.MatchRegexp, TargetLabel, AnyOf([]string{value})).Matches(unlike))
	}
}
