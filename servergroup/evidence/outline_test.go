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
// a stale marker. Only that of a series which is back at the next scrape may not be seen. It also compares with where
// samples were lost: the target was scraped on, and there is neither a sample nor a marker.
func TestOutline(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	lost := 0
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
			if ups.Len() > 3 && rnd.IntN(200) == 0 {
				at += interval * rnd.Int64N(60) // the server was away
			}
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
		back := func(j int) bool { return j+1 < samples.Len() && samples.T[j+1] == samples.T[j]+interval }
		for i := range n {
			at, there, moment := from+i*what.step, false, false
			for j, sampled := range samples.T {
				if sampled <= at {
					there = sampled > at-what.lookback() && !samples.Stale(j)
					moment = samples.Stale(j) && back(j)
				}
			}
			require.Equal(t, there, has(want, int(i)), "at %d", at)
			require.Equal(t, there, has(got, int(i)) && !moment, "at %d", at)
		}
		require.Zero(t, got[len(got)-1]>>((n-1)%64)>>1, "times after the last one")
		for _, o := range []outline{exact, rough} {
			stamps, err := o.stampsOf(target)
			require.NoError(t, err)
			require.Equal(t, stampsOfScrapes, stamps)
		}
		if target.interval > 0 {
			wantLost := lostOf(ups, samples, to, interval)
			require.Equal(t, wantLost, rough.lost)
			lost += len(wantLost)
		}
	}
	require.Positive(t, lost)
}

// lostOf returns where samples were lost until some time (ms).
func lostOf(ups, samples *dedup.Samples, to, interval int64) (list []Span) {
	for j, t := range samples.T {
		before := to + 1
		if j+1 < samples.Len() {
			before = min(before, samples.T[j+1])
		}
		last := t
		for _, up := range ups.T {
			if up == last+interval && up < before {
				last = up
			}
		}
		if last > t && !samples.Stale(j) {
			list = append(list, Span{t + 1, last})
		}
	}
	return list
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
