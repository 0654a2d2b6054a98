package servergroup

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/labelmap"
)

// labelled are groups named a, b, c … with injected labels.
func labelled(lsets ...map[string]string) []groupView {
	var out []groupView
	for i, lset := range lsets {
		out = append(out, groupView{rank: i, cfg: &config.Group{Name: string(rune('a' + i)), Labels: lset}})
	}
	return out
}

type lset = map[string]string

// selectionOf is a selection of an hour.
func selectionOf(t *testing.T, selector string) Selection {
	t.Helper()
	return Selection{Matchers: matchersOf(t, selector), MinT: 0, MaxT: hour}
}

func TestPartitions(t *testing.T) {
	withLabels := func(name string, lset map[string]string) config.Group {
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
		v.groups = append(v.groups, groupView{rank: i, cfg: &config.Group{Name: strconv.Itoa(i), Labels: lset{"cluster": strconv.Itoa(i), "env": "prod"}}})
	}
	return v
}

func BenchmarkPartitions_1000(b *testing.B) {
	v, sel := thousand(), []Selection{{Matchers: labelmap.AnySeries, MinT: 0, MaxT: hour}}
	for b.Loop() {
		if n := len(v.Partitions(sel)); n != 1000 {
			b.Fatal(n)
		}
	}
}

// BenchmarkPieceTargets_1000 is what each of a thousand pieces that are evaluated here
// costs before anything is fetched.
func BenchmarkPieceTargets_1000(b *testing.B) {
	v, sel := thousand(), Selection{Matchers: labelmap.AnySeries, MinT: 0, MaxT: hour}
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
