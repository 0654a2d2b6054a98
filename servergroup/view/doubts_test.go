package view

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/dedup"
)

func TestOverlap_Runs(t *testing.T) {
	cols := func(ts ...int64) dedup.Run {
		s := &dedup.Samples{}
		for _, at := range ts {
			s.Append(0, at, 1)
		}
		return s
	}
	chunk := func(windows ...int64) dedup.Run {
		var c dedup.Chunks
		for i := 0; i < len(windows); i += 2 {
			c = append(c, dedup.Chunk{MinT: windows[i], MaxT: windows[i+1]})
		}
		return c
	}
	f := func(want bool, a, b dedup.Run) {
		t.Helper()
		require.Equal(t, want, overlap(a, b))
		require.Equal(t, want, overlap(b, a))
		require.Equal(t, want, overlap(dedup.Bounded{Run: a}, b))
	}
	f(true, cols(1, 5), cols(5, 9))
	f(false, cols(1, 4), cols(5, 9))
	f(true, cols(1, 9), cols(5))
	f(true, chunk(1, 2, 8, 9), cols(9))
	f(false, chunk(1, 2, 8, 9), chunk(10, 11))
	f(false, cols(), cols(1))
	f(false, chunk(), cols(1))
}
