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
		lackedBy(there, func(l lacked) { got[l.replica].counts = append(got[l.replica].counts, l.at-1) })
		for r := range got {
			slices.Sort(got[r].counts)
			got[r].counts = slices.Compact(got[r].counts)
		}
		require.Equal(t, want, got)
	}
}
