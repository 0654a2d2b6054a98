package routing

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/config"
)

type injected = map[string]string

// with are groups named a, b, c … with injected labels.
func with(lsets ...injected) []*config.Group {
	var out []*config.Group
	for i, lset := range lsets {
		out = append(out, &config.Group{Name: string(rune('a' + i)), Labels: lset})
	}
	return out
}

// setsOf are the groups of DisjointSets.
func setsOf(groups []*config.Group) [][]*config.Group {
	var out [][]*config.Group
	for _, places := range DisjointSets(groups) {
		var set []*config.Group
		for _, at := range places {
			set = append(set, groups[at])
		}
		out = append(out, set)
	}
	return out
}

func TestDisjoint_NeedsALabelThatTellsApart(t *testing.T) {
	f := func(want bool, a, b map[string]string) {
		t.Helper()
		require.Equal(t, want, Disjoint(&config.Group{Labels: a}, &config.Group{Labels: b}))
	}
	f(true, map[string]string{"r": "eu"}, map[string]string{"r": "us"})
	f(false, map[string]string{"r": "eu"}, map[string]string{"r": "eu"})
	f(false, map[string]string{"r": "eu"}, map[string]string{"s": "x"})
	f(false, nil, nil)
}

// setNames are the names of sets of groups, sorted: their order is of no matter.
func setNames(sets [][]*config.Group) [][]string {
	var out [][]string
	for _, set := range sets {
		var names []string
		for _, g := range set {
			names = append(names, g.Name)
		}
		slices.Sort(names)
		out = append(out, names)
	}
	slices.SortFunc(out, slices.Compare)
	return out
}

func TestDisjointSets(t *testing.T) {
	f := func(want [][]string, lsets ...injected) {
		t.Helper()
		require.Equal(t, want, setNames(setsOf(with(lsets...))))
	}
	f(nil)
	f([][]string{{"a"}}, nil)
	f([][]string{{"a"}, {"b"}}, injected{"r": "1"}, injected{"r": "2"})
	f([][]string{{"a", "b"}}, injected{"r": "1"}, injected{"r": "1"})
	f([][]string{{"a", "b"}}, injected{"r": "1"}, nil)
	f([][]string{{"a", "b"}}, injected{"r": "1"}, injected{"z": "2"})
	f([][]string{{"a"}, {"b"}}, injected{"r": "1", "z": "1"}, injected{"z": "2"})
	// A third may share series with two that do not with each other: it is a chain.
	f([][]string{{"a", "b", "c"}}, injected{"r": "1"}, injected{"r": "2"}, nil)
	f([][]string{{"a", "c"}, {"b"}}, injected{"r": "1"}, injected{"r": "2"}, injected{"r": "1", "z": "1"})
	f([][]string{{"a", "b", "c", "d"}, {"e"}},
		injected{"r": "1", "z": "1"}, injected{"r": "2", "z": "2"}, injected{"r": "1"}, injected{"z": "2"}, injected{"r": "3", "z": "3"})
}

// TestDisjointSets_SetsShareNothing: what two sets hold is disjoint, and no set could be
// divided.
func TestDisjointSets_SetsShareNothing(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	several := 0
	for range 2000 {
		var lsets []injected
		for range 1 + rnd.IntN(7) {
			own := injected{}
			for _, name := range []string{"r", "z"} {
				if v := rnd.IntN(4); v > 0 {
					own[name] = strconv.Itoa(v)
				}
			}
			lsets = append(lsets, own)
		}
		groups := with(lsets...)
		sets := setsOf(groups)
		count := 0
		for i, set := range sets {
			count += len(set)
			for _, other := range sets[:i] {
				for _, g := range set {
					require.False(t, slices.ContainsFunc(other, func(o *config.Group) bool { return !Disjoint(o, g) }))
				}
			}
			require.Len(t, reached(set), len(set))
		}
		require.Equal(t, len(groups), count)
		if len(sets) > 1 && len(sets) < len(groups) {
			several++
		}
	}
	require.Greater(t, several, 100)
}

// reached are the groups of a set that the first may share series with, by way of
// others, too.
func reached(set []*config.Group) []*config.Group {
	out, rest := set[:1:1], slices.Clone(set[1:])
	for i := 0; i < len(out); i++ {
		rest = slices.DeleteFunc(rest, func(g *config.Group) bool {
			if Disjoint(out[i], g) {
				return false
			}
			out = append(out, g)
			return true
		})
	}
	return out
}

func allDisjointOf(groups []*config.Group) bool {
	var all []int
	for i := range groups {
		all = append(all, i)
	}
	return allDisjoint(groups, all)
}

func TestAllDisjoint(t *testing.T) {
	f := func(want bool, lsets ...injected) {
		t.Helper()
		require.Equal(t, want, allDisjointOf(with(lsets...)))
	}
	f(true, injected{"r": "1"}, injected{"r": "2"})
	f(true, injected{"r": "1", "z": "1"}, injected{"r": "1", "z": "2"})
	f(true, injected{"r": "x", "z": "yz"}, injected{"r": "xy", "z": "z"})
	f(false, injected{"r": "1"}, injected{"r": "1"})
	f(false, injected{"r": "1"}, injected{"z": "2"})
	f(false, injected{"r": "1"}, injected{"r": "2", "z": "2"})
	f(false, injected{"r": "1"}, nil)
	f(false, nil, nil)
	f(true, nil)
}

func TestCommonLabels(t *testing.T) {
	f := func(want injected, lsets ...injected) {
		t.Helper()
		groups := with(lsets...)
		require.Equal(t, want, CommonLabels(groups))
		require.Equal(t, lsets[0], groups[0].Labels, "the configuration is not touched")
	}
	f(injected{"r": "1"}, injected{"r": "1"})
	f(injected{"r": "1"}, injected{"r": "1", "z": "1"}, injected{"r": "1", "z": "2"}, injected{"r": "1"})
	f(injected{}, injected{"r": "1"}, injected{"r": "1"}, nil)
	f(nil, nil, injected{"r": "1"})
}

// thousandClusters are groups with a label each that no two share.
func thousandClusters() []*config.Group {
	var out []*config.Group
	for i := range 1000 {
		out = append(out, &config.Group{Name: strconv.Itoa(i), Labels: injected{"cluster": strconv.Itoa(i), "env": "prod"}})
	}
	return out
}

// TestAllDisjoint_ManyGroups: they are told apart without comparing each with each.
func TestAllDisjoint_ManyGroups(t *testing.T) {
	groups := thousandClusters()
	require.True(t, allDisjointOf(groups))
	sets := setsOf(groups)
	require.Len(t, sets, 1000)
	require.Equal(t, "999", sets[999][0].Name)
}

// BenchmarkDisjointSets_1000Alike is the groups that must be compared with each other.
func BenchmarkDisjointSets_1000Alike(b *testing.B) {
	groups := thousandClusters()
	groups[0].Labels = injected{"cluster": "0"}
	for b.Loop() {
		if n := len(DisjointSets(groups)); n != 1000 {
			b.Fatal(n)
		}
	}
}

// portionsOf are the portions of groups with `holds` and a time_range.
func portionsOf(groups ...*config.Group) (out []*config.Group) {
	for _, g := range groups {
		if len(g.Holds) > 0 {
			g.TimeRange.MinAge = model.Duration(time.Hour)
		}
		out = append(out, g.Portions(false)...)
	}
	return out
}

// setTexts are the sets of portions, each by its name and what it holds.
func setTexts(groups []*config.Group) [][]string {
	var out [][]string
	for _, set := range setsOf(groups) {
		var names []string
		for _, g := range set {
			switch {
			case g.Portion == nil:
				names = append(names, g.Name)
			case g.Portion.Held:
				names = append(names, fmt.Sprint(g.Name, g.Only()))
			default:
				names = append(names, g.Name+" rest")
			}
		}
		out = append(out, names)
	}
	return out
}

func TestDisjointSets_Holds(t *testing.T) {
	f := func(want [][]string, holds ...[]string) {
		t.Helper()
		groups := with(injected{"r": "1"}, injected{"r": "2"}, nil, nil)
		for i, selectors := range holds {
			groups[2+i].Holds = selectors
		}
		require.Equal(t, want, setTexts(portionsOf(groups[:2+len(holds)]...)))
	}
	f([][]string{{"a", "b", "c rest"}, {`c[s="x"]`}}, []string{`{s="x"}`})
	f([][]string{{"a", "b", "c rest"}, {`c[s="x"]`}, {`c[s="y"]`}}, []string{`{s="x"}`, `{s="y"}`})
	f([][]string{{"a", "b", "c rest"}, {`c[s="x"]`, `c[n="y"]`}}, []string{`{s="x"}`, `{n="y"}`})
	f([][]string{{"a", "b", `c[s="x" n="y"]`, "c rest"}}, []string{`{s="x",n="y"}`})
	f([][]string{{"a", "b", "c rest", "d rest"}, {`c[s="x"]`}, {`d[s="y"]`}}, []string{`{s="x"}`}, []string{`{s="y"}`})
	f([][]string{{"a", "b", "c rest", "d rest"}, {`c[s="x"]`, `d[s=~"x|y"]`}}, []string{`{s="x"}`}, []string{`{s=~"x|y"}`})
}

// BenchmarkDisjointSets_1000AndHeld is a thousand groups, and an archive that holds some series alone.
func BenchmarkDisjointSets_1000AndHeld(b *testing.B) {
	groups := append(thousandClusters(), portionsOf(&config.Group{Name: "archive", Holds: []string{`{source="oneprom"}`}})[0])
	for b.Loop() {
		if n := len(DisjointSets(groups)); n != 1001 {
			b.Fatal(n)
		}
	}
}
