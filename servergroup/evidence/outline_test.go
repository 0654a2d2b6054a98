package evidence

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/dedup"
)

// chunked returns samples as a Prometheus sends them, up to 120 in a chunk.
func chunked(t *testing.T, s *dedup.Samples) dedup.Chunks {
	var out dedup.Chunks
	for i := 0; i < s.Len(); i += 120 {
		out = append(out, xorRun(t, s.Between(s.T[i], s.T[min(i+120, s.Len())-1])).(dedup.Chunks)...)
	}
	return out
}

// TestOutline compares with what an instant selector sees: the last sample within the lookback, unless it is
// a stale marker. Only what is away for less than the lookback may not be seen to be.
func TestOutline(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	skipped := 0
	for range 300 {
		what := countedSelector{step: fineStep}
		if rnd.IntN(2) == 0 {
			what.step = coarseStep
		}
		interval := []int64{5000, 15_000, 60_000}[rnd.IntN(3)]
		from := 100 * what.step
		n := 1 + rnd.Int64N(130)
		to := from + n*what.step
		ups, samples := &dedup.Samples{}, &dedup.Samples{}
		for at, away := from-rnd.Int64N(3_600_000), 0; at < to+rnd.Int64N(3_600_000); at += interval {
			ups.Append(0, at, 1)
			switch {
			case away > 0:
				away--
			case rnd.IntN(50) == 0: // it goes for a while, with a marker or without one
				if away = rnd.IntN(60); rnd.IntN(2) == 0 {
					samples.Append(0, at, dedup.StaleNaN)
				}
			default:
				samples.Append(0, at, 1)
			}
		}
		target := newTargetScrapes(chunked(t, ups))
		if ups.Len() >= 3 {
			require.Equal(t, interval, target.interval)
		}
		exact, err := outlineOf(samples, nil, to, what.lookback(), &dedup.Samples{})
		require.NoError(t, err)
		rough, err := outlineOf(chunked(t, samples), target, to, what.lookback(), &dedup.Samples{})
		require.NoError(t, err)
		want, got := exact.bits(from, to, what.step), rough.bits(from, to, what.step)
		for i := range n {
			at, there := from+i*what.step, false
			for j, sampled := range samples.T {
				if sampled <= at {
					there = sampled > at-what.lookback() && !samples.Stale(j)
				}
			}
			require.Equal(t, there, has(want, int(i)), "at %d", at)
			if has(got, int(i)) != there {
				require.False(t, there, "at %d", at)
				skipped++
			}
		}
		for i, s := range exact.shown[1:] {
			hole := Span{exact.shown[i].To + 1, s.From - 1}
			require.False(t, hole.To-hole.From >= what.lookback() && meetsAny(rough.shown, hole), "a hole of %d ms", hole.To-hole.From)
		}
		require.Zero(t, got[len(got)-1]>>((n-1)%64)>>1, "times after the last one")
		for _, o := range []outline{exact, rough} {
			stamps, err := o.stampsOf(target)
			require.NoError(t, err)
			require.Equal(t, stampsOfScrapes, stamps)
		}
	}
	require.Positive(t, skipped)
}

// TestOutline_Stamps: samples have stamps of their own if one that is looked at is not of the time of a scrape.
func TestOutline_Stamps(t *testing.T) {
	every := func(from, to, step int64) *dedup.Samples {
		s := &dedup.Samples{}
		for at := from; at <= to; at += step {
			s.Append(0, at, 1)
		}
		return s
	}
	target := newTargetScrapes(chunked(t, every(1000, 3_601_000, 15_000)))
	f := func(want stamps, target *targetScrapes, samples *dedup.Samples) {
		t.Helper()
		for _, run := range []dedup.Run{samples, chunked(t, samples)} {
			o, err := outlineOf(run, target, 3_600_000, fineLookback, &dedup.Samples{})
			require.NoError(t, err)
			got, err := o.stampsOf(target)
			require.NoError(t, err)
			require.Equal(t, want, got)
		}
	}
	f(stampsOfScrapes, target, every(1000, 3_601_000, 15_000))
	f(stampsOfScrapes, target, every(16_000, 3_601_000, 60_000)) // not each scrape brought one
	f(stampsOwn, target, every(0, 3_600_000, 15_000))
	f(stampsOwn, target, every(0, 3_600_000, 60_000))
	f(stampsOfScrapes, nil, every(0, 3_600_000, 15_000)) // of no target
	f(stampsOfScrapes, target, &dedup.Samples{})
	f(stampsOwn, &targetScrapes{several: true}, every(1000, 3_601_000, 15_000))

	require.Equal(t, stampsOwn, stampsUnknown.and(stampsOwn))
	require.Equal(t, stampsUnknown, stampsUnknown.and(stampsOfScrapes))
	require.Equal(t, stampsOfScrapes, stampsOfScrapes.and(stampsOfScrapes))
}
