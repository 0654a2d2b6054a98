package evidence

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestLackedBy_AsCounts: what holds for counts holds for the counts of each series.
func TestLackedBy_AsCounts(t *testing.T) {
	const n = 200
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		there, counts := make([]present, 3), make([][]float64, 3)
		for r := range there {
			if r == 2 && rnd.IntN(2) == 0 {
				continue // it has failed
			}
			there[r], counts[r] = present{}, make([]float64, n)
			bits := make([]uint64, (n+63)/64)
			on := false
			for i := range n {
				if rnd.IntN(6) == 0 {
					on = !on
				}
				if on {
					bits[i/64] |= 1 << (i % 64)
					counts[r][i] = 1
				}
			}
			if rnd.IntN(5) > 0 {
				there[r][7] = presentSeries{at: bits}
			} else {
				clear(counts[r])
			}
		}
		want := make([]lows, len(there))
		appendLow(want, counts, 0, 1)
		got := make([]lows, len(there))
		lackedBy(there, n, 4, func(l lacked) { got[l.replica].counts = append(got[l.replica].counts, l.at-1) })
		for r := range got {
			slices.Sort(got[r].counts)
			got[r].counts = slices.Compact(got[r].counts)
		}
		require.Equal(t, want, got)
	}
}

// TestLingers: a series has ended for a replica, and the lookback of a twin goes on showing it. The times
// at which each has it are marked.
func TestLingers(t *testing.T) {
	for _, tc := range []struct {
		name, own, twin string
		want            bool
	}{
		{"the twin missed the marker", "xxxx........", "xxxxxxx.....", true},
		{"its clock is another", "xxxx........", "xxxxxxxx....", true},
		{"it was there for less than a step", "............", "..xxx.......", true},
		{"the twin goes on", "xxxx........", "xxxxxxxxx...", false},
		{"the twin has it for long", "............", "..xxxxxx....", false},
		{"what comes then is not known", "xxxxxx......", "xxxxxxxxxxxx", false},
		{"it was there before", "............", "xxxxxx......", false},
	} {
		bitsOf := func(text string) []uint64 {
			list := []uint64{0}
			for i, c := range text {
				if c == 'x' {
					list[0] |= 1 << i
				}
			}
			return list
		}
		found := false
		there := []present{{7: {at: bitsOf(tc.own)}}, {7: {at: bitsOf(tc.twin)}}}
		lackedBy(there, len(tc.own), 4, func(l lacked) {
			found = true
			require.Equal(t, tc.want, l.lingers, "%s, at %d", tc.name, l.at)
		})
		require.True(t, found, tc.name)
	}
}
