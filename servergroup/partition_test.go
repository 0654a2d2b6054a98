package servergroup

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// labelled are groups named a, b, c … with injected labels.
func labelled(lsets ...map[string]string) []groupView {
	var out []groupView
	for i, lset := range lsets {
		out = append(out, groupView{rank: i, cfg: &Config{Name: string(rune('a' + i)), Labels: lset}})
	}
	return out
}

type lset = map[string]string

// setNames are the names of sets of groups, sorted: their order is of no matter.
func setNames(sets [][]groupView) [][]string {
	var out [][]string
	for _, set := range sets {
		var names []string
		for _, g := range set {
			names = append(names, g.cfg.Name)
		}
		slices.Sort(names)
		out = append(out, names)
	}
	slices.SortFunc(out, slices.Compare)
	return out
}

func TestApart(t *testing.T) {
	f := func(want [][]string, lsets ...lset) {
		t.Helper()
		require.Equal(t, want, setNames(apart(labelled(lsets...))))
	}
	f(nil)
	f([][]string{{"a"}}, nil)
	f([][]string{{"a"}, {"b"}}, lset{"r": "1"}, lset{"r": "2"})
	f([][]string{{"a", "b"}}, lset{"r": "1"}, lset{"r": "1"})
	f([][]string{{"a", "b"}}, lset{"r": "1"}, nil)
	f([][]string{{"a", "b"}}, lset{"r": "1"}, lset{"z": "2"})
	f([][]string{{"a"}, {"b"}}, lset{"r": "1", "z": "1"}, lset{"z": "2"})
	// A third may share series with two that do not with each other: it is a chain.
	f([][]string{{"a", "b", "c"}}, lset{"r": "1"}, lset{"r": "2"}, nil)
	f([][]string{{"a", "c"}, {"b"}}, lset{"r": "1"}, lset{"r": "2"}, lset{"r": "1", "z": "1"})
	f([][]string{{"a", "b", "c", "d"}, {"e"}},
		lset{"r": "1", "z": "1"}, lset{"r": "2", "z": "2"}, lset{"r": "1"}, lset{"z": "2"}, lset{"r": "3", "z": "3"})
}

// TestApart_SetsShareNothing: what two sets hold is disjoint, and no set could be
// divided.
func TestApart_SetsShareNothing(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	several := 0
	for range 2000 {
		var lsets []lset
		for range 1 + rnd.IntN(7) {
			own := lset{}
			for _, name := range []string{"r", "z"} {
				if v := rnd.IntN(4); v > 0 {
					own[name] = strconv.Itoa(v)
				}
			}
			lsets = append(lsets, own)
		}
		groups := labelled(lsets...)
		sets := apart(groups)
		count := 0
		for i, set := range sets {
			count += len(set)
			for _, other := range sets[:i] {
				for _, g := range set {
					require.False(t, slices.ContainsFunc(other, func(o groupView) bool { return !disjoint(o.cfg, g.cfg) }))
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
func reached(set []groupView) []groupView {
	out, rest := set[:1:1], slices.Clone(set[1:])
	for i := 0; i < len(out); i++ {
		rest = slices.DeleteFunc(rest, func(g groupView) bool {
			if disjoint(out[i].cfg, g.cfg) {
				return false
			}
			out = append(out, g)
			return true
		})
	}
	return out
}

func TestTellApart(t *testing.T) {
	f := func(want bool, lsets ...lset) {
		t.Helper()
		require.Equal(t, want, tellApart(labelled(lsets...)))
	}
	f(true, lset{"r": "1"}, lset{"r": "2"})
	f(true, lset{"r": "1", "z": "1"}, lset{"r": "1", "z": "2"})
	f(true, lset{"r": "x", "z": "yz"}, lset{"r": "xy", "z": "z"})
	f(false, lset{"r": "1"}, lset{"r": "1"})
	f(false, lset{"r": "1"}, lset{"z": "2"})
	f(false, lset{"r": "1"}, lset{"r": "2", "z": "2"})
	f(false, lset{"r": "1"}, nil)
	f(false, nil, nil)
}

func TestCommonLabels(t *testing.T) {
	f := func(want lset, lsets ...lset) {
		t.Helper()
		groups := labelled(lsets...)
		require.Equal(t, want, commonLabels(groups))
		require.Equal(t, lsets[0], groups[0].cfg.Labels, "the configuration is not touched")
	}
	f(lset{"r": "1"}, lset{"r": "1"})
	f(lset{"r": "1"}, lset{"r": "1", "z": "1"}, lset{"r": "1", "z": "2"}, lset{"r": "1"})
	f(lset{}, lset{"r": "1"}, lset{"r": "1"}, nil)
	f(nil, nil, lset{"r": "1"})
}

// selectionOf is a selection of an hour.
func selectionOf(t *testing.T, selector string) Selection {
	t.Helper()
	return Selection{Matchers: matchersOf(t, selector), MinT: 0, MaxT: hour}
}

func TestPartitions(t *testing.T) {
	withLabels := func(name string, lset map[string]string) Config {
		cfg := groupOf(name)
		cfg.Labels = lset
		return cfg
	}
	s, _ := setAt(t, withLabels("eu", lset{"region": "eu"}), withLabels("us", lset{"region": "us", "env": "x"}), withLabels("us2", lset{"region": "us", "env": "y"}),
		withLabels("us3", lset{"region": "us"}))
	f := func(want []string, selectors ...string) {
		t.Helper()
		var sels []Selection
		for _, selector := range selectors {
			sels = append(sels, selectionOf(t, selector))
		}
		var got []string
		for _, p := range s.View(t.Context()).Partitions(sels) {
			got = append(got, fmt.Sprintf("%s %v %v", p.Name(), p.Labels(), p.Single()))
		}
		require.Equal(t, want, got)
	}
	f([]string{"eu map[region:eu] true"}, `foo{region="eu"}`)
	f([]string{"us+us3 map[region:us] false"}, `foo{env="x",region="us"}`, `foo{region="ap"}`) // us3 may have an env of its own
	f([]string{"eu map[region:eu] true", "us2+us3 map[region:us] false"}, `foo{region="eu"}`, `foo{env="y",region!="eu"}`)
	f(nil, `foo{region="ap"}`)
	f(nil)
	// us3 may hold what us and us2 hold.
	list := s.View(t.Context()).Partitions([]Selection{selectionOf(t, "foo")})
	require.Len(t, list, 2)
	require.Equal(t, lset{"region": "us"}, list[1].Labels())
	require.Len(t, list[1].members, 3)
	require.False(t, list[1].Single())
	require.True(t, list[0].Concerns(selectionOf(t, `foo{region=~"e."}`)))
	require.False(t, list[1].Concerns(selectionOf(t, `foo{region=~"e."}`)))
	require.True(t, list[1].Concerns(selectionOf(t, `foo{env="y"}`)))
}

// thousand are groups with a label each that no two share.
func thousand() *View {
	v := &View{}
	for i := range 1000 {
		v.groups = append(v.groups, groupView{rank: i, cfg: &Config{Name: strconv.Itoa(i), Labels: lset{"cluster": strconv.Itoa(i), "env": "prod"}}})
	}
	return v
}

// TestTellApart_ManyGroups: they are told apart without comparing each with each.
func TestTellApart_ManyGroups(t *testing.T) {
	v := thousand()
	require.True(t, tellApart(v.groups))
	sets := apart(v.groups)
	require.Len(t, sets, 1000)
	require.Equal(t, "999", sets[999][0].cfg.Name)
}

func BenchmarkPartitions_1000(b *testing.B) {
	v, sel := thousand(), []Selection{{Matchers: anySeries, MinT: 0, MaxT: hour}}
	for b.Loop() {
		if n := len(v.Partitions(sel)); n != 1000 {
			b.Fatal(n)
		}
	}
}

// BenchmarkApart_1000Alike is the groups that must be compared with each other.
func BenchmarkApart_1000Alike(b *testing.B) {
	v := thousand()
	v.groups[0].cfg.Labels = lset{"cluster": "0"}
	for b.Loop() {
		if n := len(apart(v.groups)); n != 1000 {
			b.Fatal(n)
		}
	}
}

// BenchmarkPieceTargets_1000 is what each of a thousand pieces that are evaluated here
// costs before anything is fetched.
func BenchmarkPieceTargets_1000(b *testing.B) {
	v, sel := thousand(), Selection{Matchers: anySeries, MinT: 0, MaxT: hour}
	p := &Piece{partition: v.Partitions([]Selection{sel})[500]}
	for b.Loop() {
		if n := len(p.routedGroups(sel)); n != 1 {
			b.Fatal(n)
		}
	}
}

func TestPartitions_AreInTheOrderOfTheConfiguration(t *testing.T) {
	for _, c := range []struct {
		lsets []lset
		want  []string
	}{
		{[]lset{{"r": "1"}, {"r": "2"}, nil}, []string{"a+b+c"}},
		{[]lset{{"r": "1"}, {"r": "2"}, {"r": "1"}}, []string{"a+c", "b"}},
	} {
		v := &View{groups: labelled(c.lsets...)}
		var got []string
		for _, p := range v.Partitions([]Selection{selectionOf(t, "foo")}) {
			got = append(got, p.Name())
		}
		require.Equal(t, c.want, got)
	}
}
