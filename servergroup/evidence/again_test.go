package evidence

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// TestCompareScrapes_Again: a slice that is fetched again and again shows what it would show if all were
// decoded, and targets without new samples are not decoded.
func TestCompareScrapes_Again(t *testing.T) {
	const targets, begin = 20, 2 * scrapeSlice
	for seed := range uint64(30) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		replicas := 2 + rnd.IntN(2)
		all := make([][]*dedup.Samples, replicas)
		for r := range all {
			for range targets {
				all[r] = append(all[r], randomUps(rnd, []int64{15_000, 60_000}[rnd.IntN(2)], 4*scrapeSlice))
			}
		}
		table, again := newTargetTable(), 0
		before := map[comparedKey]*comparedTarget{}
		until := begin + rnd.Int64N(scrapeSlice)
		for range 40 {
			until += 1 + rnd.Int64N(10_000)
			lists := make([][]transport.Series, replicas)
			for r := range lists {
				if rnd.IntN(20) == 0 {
					continue // it does not answer
				}
				lists[r] = []transport.Series{}
				for i, run := range all[r] {
					part := &dedup.Samples{}
					require.NoError(t, run.AppendTo(part, begin-dedup.MarginOf(replicas)-dedup.Margin, until))
					if part.Len() > 0 && rnd.IntN(500) > 0 {
						ls := labels.FromStrings("__name__", "up", "instance", fmt.Sprintf("i%02d", i), "job", "j")
						lists[r] = append(lists[r], transport.Series{Labels: ls, Run: xorRun(t, part)})
					}
				}
			}
			fresh, kept := &sliceScrapes{begin: begin, table: table}, &sliceScrapes{begin: begin, table: table}
			_, err := compareScrapes([]*sliceScrapes{fresh}, lists, nil)
			require.NoError(t, err)
			_, err = compareScrapes([]*sliceScrapes{kept}, lists, before)
			require.NoError(t, err)
			for key, known := range kept.compared {
				if before[key] == known {
					again++
				}
			}
			before, kept.compared = kept.compared, nil
			require.Equal(t, fresh, kept, "seed %d until %d", seed, until)
		}
		require.Positive(t, again)
	}
}
