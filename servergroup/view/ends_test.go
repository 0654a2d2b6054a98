package view

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/transport"
)

func TestEndsInSight(t *testing.T) {
	f := func(want bool, start, end, step int64, ts ...int64) {
		t.Helper()
		for i := range ts {
			ts[i] *= 1000
		}
		require.Equal(t, want, endsInSight(ts, transport.Steps{Start: start * 1000, End: end * 1000, Step: step * 1000, Lookback: 300_000}, func(int64) bool { return false }))
	}
	// Every 10 s: a scrape is missing after 15 s, and nothing is seen any more after 300.
	f(false, 0, 100, 1, 80, 90, 100)
	f(false, 0, 114, 1, 80, 90, 100)
	f(true, 0, 115, 1, 80, 90, 100)
	f(true, 115, 115, 1, 80, 90, 100)
	f(false, 114, 114, 1, 80, 90, 100)
	f(true, 399, 1000, 1, 80, 90, 100)
	f(false, 400, 1000, 1, 80, 90, 100)
	// Between two steps nobody looks.
	f(false, 0, 10_000, 1000, 80, 90, 100)
	f(true, 0, 10_000, 390, 80, 90, 100)
	f(false, 0, 10_000, 400, 80, 90, 100)
	// A gap that a step falls into. A scrape that is late is none.
	f(true, 0, 140, 20, 80, 90, 100, 130, 140)
	f(false, 0, 140, 70, 80, 90, 100, 130, 140)
	f(false, 0, 124, 1, 80, 90, 100, 115, 125)
	f(true, 0, 124, 1, 80, 90, 100, 116, 126)
	// One sample: of an interval of a minute.
	f(false, 0, 189, 1, 100)
	f(true, 0, 190, 1, 100)
	f(false, 0, 1000, 1)
	f(true, -500, -300, 7, -520, -510, -500)
	f(false, 200, 300, 1, 500, 510, 520)
}
