package labelmap

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"
)

func TestApart(t *testing.T) {
	f := func(want bool, a, b string) {
		t.Helper()
		require.Equal(t, want, Apart(parsed(t, a), parsed(t, b)), "%s and %s", a, b)
		require.Equal(t, want, Apart(parsed(t, b), parsed(t, a)), "%s and %s", b, a)
	}
	f(true, `{s="a"}`, `{s="b"}`)
	f(true, `{s="a"}`, `{s!="a",x="y"}`)
	f(true, `{s="a"}`, `{s=~"b|c"}`)
	f(true, `{s=~"a.*"}`, `{s!~"a.*",x="y"}`)
	f(true, `{s="a"}`, `{s="",x="y"}`)
	f(true, `{s!="",x="y"}`, `{s="",x="y"}`)
	f(true, `{s=~".+"}`, `{s!~".+",x="y"}`)
	f(true, `m`, `{__name__=~".*:.*"}`)
	f(true, `{s="a",x="1"}`, `{s="a",x="2"}`)
	f(true, `{s="a",s="b"}`, `{s="a"}`)
	f(false, `{s="a"}`, `{x="b"}`)
	f(false, `{s="a"}`, `{s!="b",x="y"}`)
	f(false, `{s="a"}`, `{s=~"a|b"}`)
	f(false, `{s=~"a.*"}`, `{s=~".*b"}`)
	f(false, `{s=~"a.*"}`, `{s=~"b.*"}`) // it is not proved
	f(false, `{s=~"a|",x="y"}`, `{s="",x="y"}`)
	f(false, `m`, `m`)
}

func TestWithin(t *testing.T) {
	f := func(want bool, ms, of string) {
		t.Helper()
		require.Equal(t, want, Within(parsed(t, ms), parsed(t, of)), "%s in %s", ms, of)
	}
	f(true, `{s="a"}`, `{s="a"}`)
	f(true, `{s="a",x="y"}`, `{s="a"}`)
	f(true, `{s="a"}`, `{s=~"a|b"}`)
	f(true, `{s=~"a|b"}`, `{s=~"a|b|c"}`)
	f(true, `{s=~"a|b",s!="b"}`, `{s="a"}`)
	f(true, `{s=~"a.*"}`, `{s=~"a.*"}`)
	f(true, `{s="a"}`, `{s!="b",s!=""}`)
	f(true, `{s=~"a.*"}`, `{s=~".+"}`)
	f(true, `{s="a"}`, `{s=~"a.*",x=~".*",s!~"b|c"}`)
	f(true, `{s="a",__name__="job:m"}`, `{s="a",__name__=~"ALERTS.*|.+:.+"}`)
	f(false, `{s=~"a|"}`, `{s="a"}`)
	f(false, `{s=~"a|b"}`, `{s="a"}`)
	f(false, `{s=~"a.*"}`, `{s="a"}`)
	f(false, `{x="y"}`, `{s="a"}`)
	f(false, `{x="y"}`, `{s=~".+"}`)
	f(false, `{s="a"}`, `{s="a",x="y"}`)
	f(false, `{s!="b",x="y"}`, `{s="a"}`)
	f(false, `{s=~"(?i:a)"}`, `{s="a"}`)
}

// TestApartAndWithin_ProveOnlyWhatIsTrue compares random selectors by the series that they match.
func TestApartAndWithin_ProveOnlyWhatIsTrue(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	values := []string{"", "a", "b", "ab", "B", "a\n"}
	patterns := []string{"", "a", "b", "a|b", "a|", ".+", ".*", "a.*", "[ab]", "(?i:b)", "a?", "b|ab", "^a$", "(a|b)b?", "a\n"}
	pick := func(list []string) string { return list[rnd.IntN(len(list))] }
	selector := func() (ms []*labels.Matcher) {
		for range 1 + rnd.IntN(3) {
			if typ := labels.MatchType(rnd.IntN(4)); typ == labels.MatchEqual || typ == labels.MatchNotEqual {
				ms = append(ms, labels.MustNewMatcher(typ, pick([]string{"x", "y"}), pick(values)))
			} else {
				ms = append(ms, labels.MustNewMatcher(typ, pick([]string{"x", "y"}), pick(patterns)))
			}
		}
		return ms
	}
	var series []labels.Labels
	for _, x := range values {
		for _, y := range values {
			series = append(series, labels.NewBuilder(labels.EmptyLabels()).Set("x", x).Set("y", y).Labels())
		}
	}
	apart, within := 0, 0
	for range 20_000 {
		a, b := selector(), selector()
		if Apart(a, b) {
			apart++
			require.False(t, slices.ContainsFunc(series, func(ls labels.Labels) bool { return MatchesAll(ls, a) && MatchesAll(ls, b) }), "%v %v", a, b)
		}
		if Within(a, b) {
			within++
			require.False(t, slices.ContainsFunc(series, func(ls labels.Labels) bool { return MatchesAll(ls, a) && !MatchesAll(ls, b) }), "%v %v", a, b)
		}
	}
	require.Greater(t, apart, 500)
	require.Greater(t, within, 500)
}
