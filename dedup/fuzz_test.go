package dedup

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// runsOf makes up to four runs of any bytes: two for each sample, its time after
// the sample before and, in the high bits of the second, its run and its kind.
func runsOf(data []byte) []*Samples {
	runs := []*Samples{{}, {}, {}, {}}
	var at [4]int64
	for ; len(data) >= 2; data = data[2:] {
		r, kind := data[1]>>6, data[1]>>4&3
		unit := []int64{1, 100, 1000, 15_000}[data[1]>>2&3]
		at[r] += 1 + int64(data[0])*unit
		if kind == 3 {
			runs[r].Append(0, at[r], StaleNaN)
		} else {
			runs[r].Append(int64(kind), at[r], float64(data[0]))
		}
	}
	return runs[:1+len(runs[3].T)%4]
}

func FuzzMerge(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{15, 0x08, 15, 0x08, 15, 0x08, 15, 0x38, 7, 0x48, 15, 0x48, 15, 0x48, 15, 0x48, 15, 0x48, 15, 0x78, 1, 0xc8})
	f.Add([]byte{1, 0x0c, 1, 0x0c, 40, 0x0c, 1, 0x0c, 1, 0x4c, 20, 0x4c, 1, 0x4c, 1, 0x8c, 1, 0x8c, 1, 0xc8, 1, 0xc8})
	f.Fuzz(func(t *testing.T, data []byte) {
		runs := runsOf(data)
		out := merge(runs...)
		requireSound(t, out, runs)
		again := merge(runs...)
		requireSame(t, out, again, "the same twice")
		for _, r := range runs {
			if r.Len() > 0 {
				require.Same(t, r, merge(r, r), "a run with itself")
			}
		}
	})
}
