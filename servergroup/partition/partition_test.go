package partition

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/labelmap"
	"github.com/oneprom/oneprom/servergroup/request"
	"github.com/oneprom/oneprom/servergroup/view"
)

// labelled are groups named a, b, c … with injected labels.
func labelled(lsets ...map[string]string) []view.Group {
	var out []view.Group
	for i, lset := range lsets {
		out = append(out, view.Group{Config: &config.Group{Name: string(rune('a' + i)), Labels: lset}})
	}
	return out
}

type lset = map[string]string

// selectionOf is a selection of an hour.
func selectionOf(t *testing.T, selector string) view.Selection {
	t.Helper()
	return view.Selection{Matchers: matchersOf(t, selector), MaxT: hour}
}

// thousand are groups with a label each that no two share.
func thousand() *view.View {
	var groups []view.Group
	for i := range 1000 {
		groups = append(groups, view.Group{Config: &config.Group{Name: strconv.Itoa(i), Labels: lset{"cluster": strconv.Itoa(i), "env": "prod"}}})
	}
	return view.New(&request.Request{}, time.Time{}, "", groups, nil, nil)
}

func BenchmarkPartitions_1000(b *testing.B) {
	v, sel := thousand(), []view.Selection{{Matchers: labelmap.AnySeries, MinT: 0, MaxT: hour}}
	for b.Loop() {
		if n := len(Of(v, sel)); n != 1000 {
			b.Fatal(n)
		}
	}
}

// BenchmarkPieceTargets_1000 is what each of a thousand pieces that are evaluated here
// costs before anything is fetched.
func BenchmarkPieceTargets_1000(b *testing.B) {
	v, sel := thousand(), view.Selection{Matchers: labelmap.AnySeries, MinT: 0, MaxT: hour}
	p := &Piece{partition: Of(v, []view.Selection{sel})[500]}
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
		v := view.New(&request.Request{}, time.Time{}, "", labelled(c.lsets...), nil, nil)
		var got []string
		for _, p := range Of(v, []view.Selection{selectionOf(t, "foo")}) {
			got = append(got, p.Name())
		}
		require.Equal(t, c.want, got)
	}
}
