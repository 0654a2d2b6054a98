package evidence

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestLackedBy_AsCounts: what holds for counts holds for the counts of each series, if none lingers.
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
		lackedBy(there, n, 0, func(l lacked) { got[l.replica].counts = append(got[l.replica].counts, l.at-1) })
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
		name, own, twin string // x: it is there; e: it is not, as a stale marker has come
		lacks           string // the times at which the replica lacks it
		unended         string // those at which the twin lacks its end
	}{
		{"the twin has no marker", "xxxxe.......", "xxxxxxx.....", "", "....xxx....."},
		{"for a moment", "xxxxe.......", "xxxxxx......", "", "....xx......"},
		{"its clock is another", "xxxxe.......", "xxxxx.......", "", ""},
		{"both", "xxxxe.......", "xxxxxxxx....", "", "....xxxx...."},
		{"the replica was away", "xxxx........", "xxxxxxx.....", "", ""},
		{"either may be right", "...e........", "..xxx.......", "...x........", "..xxx......."},
		{"the replica lacks it", "............", "..xxx.......", "...x........", ""},
		{"it is scraped every five minutes", "xxx..xxx..xx", "x.xxx..xxx..", "", ""},
		{"the replica has it again", "xxxxe...xx..", "xxxxxx......", "", ""},
		{"whether it ends is not known", "xxxxe....", "xxxxxx...", "", ""},
		{"the twin goes on", "xxxxe.......", "xxxxxxxxx...", ".....xxx....", ""},
		{"the twin has it for long", "............", "..xxxxxx....", "...xxxx.....", ""},
		{"what comes then is not known, and it has ended", "xxxxxxxxe...", "xxxxxxxxxxxx", "", ""},
		{"it had ended before", "xxxxxe......", "xxxxxxxxxxxx", "......xxxxx.", ""},
		{"what comes then is not known", "xxxxxx......", "xxxxxxxxxxxx", ".......xxxx.", ""},
		{"it was there before", "............", "xxxxxx......", ".xxxx.......", ""},
	} {
		of := func(text string) present {
			s := presentSeries{at: []uint64{0}, ends: []uint64{0}}
			for i, c := range text {
				switch c {
				case 'x':
					s.at[0] |= 1 << i
				case 'e':
					s.ends[0] |= 1 << i
				}
			}
			return present{7: s}
		}
		textOf := func(times map[int64]bool) string {
			text := []byte(strings.Repeat(".", len(tc.own)))
			for at := range times {
				text[at] = 'x'
			}
			return string(text)
		}
		got := []map[int64]bool{{}, {}}
		there := []present{of(tc.own), of(tc.twin)}
		lackedBy(there, len(tc.own), 4, func(l lacked) { got[l.replica][l.at] = true })
		require.Equal(t, cmp.Or(tc.lacks, strings.Repeat(".", len(tc.own))), textOf(got[0]), tc.name)
		require.Equal(t, cmp.Or(tc.unended, strings.Repeat(".", len(tc.own))), textOf(got[1]), tc.name)
	}
}
