package dedup

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"
)

// worlds is how many random targets each property is tried on.
const worlds = 240

var intervals = []int64{1000, 5000, 10_000, 15_000, 30_000, 60_000}

// eachWorld runs f with targets of all scrape intervals.
func eachWorld(t *testing.T, flaps bool, f func(t *testing.T, w *world)) {
	t.Helper()
	for seed := range uint64(worlds) {
		interval := intervals[seed%uint64(len(intervals))]
		w := newWorld(seed, interval, flaps && seed%2 == 0)
		if ok := t.Run(fmt.Sprintf("%d/%dms", seed, interval), func(t *testing.T) { f(t, w) }); !ok {
			return
		}
	}
}

// replicas makes the runs of n replicas that are ill in all ways at once.
func (w *world) replicas(n int) []*Samples {
	var out []*Samples
	for range n {
		out = append(out, w.scrape(scraper{
			shift:  w.rnd.Int64N(w.interval),
			jitter: w.rnd.Int64N(4),
			away:   w.outages(w.rnd.IntN(4)),
			misses: []float64{0, 0, 0.01, 0.2}[w.rnd.IntN(4)],
		}))
	}
	return out
}

// requireSame asserts equality to the bit, with reset hints only if asked for: at
// the first sample of a window nobody can read one.
func requireSame(t testing.TB, want, got *Samples, msg ...any) {
	t.Helper()
	requireTimes(t, want.T, got.T, msg...)
	for i := range want.T {
		if !equalSample(want, i, got, i) || i > 0 && hintOf(want, i) != hintOf(got, i) {
			require.Failf(t, "samples differ", "at %d ms: %v", want.T[i], msg)
		}
	}
}

// requireTimes is require.Equal with a message that can be read.
func requireTimes(t testing.TB, want, got []int64, msg ...any) {
	t.Helper()
	if slices.Equal(want, got) {
		return
	}
	i := 0
	for i < min(len(want), len(got)) && want[i] == got[i] {
		i++
	}
	around := func(ts []int64) []int64 { return ts[max(0, i-3):min(len(ts), i+4)] }
	require.Failf(t, "timestamps differ", "%d and %d, from number %d: want %v, got %v; %v",
		len(want), len(got), i, around(want), around(got), msg)
}

func equalSample(a *Samples, i int, b *Samples, j int) bool {
	st := func(s *Samples, i int) int64 {
		if s.ST == nil {
			return 0
		}
		return s.ST[i]
	}
	if a.T[i] != b.T[j] || st(a, i) != st(b, j) || a.Type(i) != b.Type(j) {
		return false
	}
	switch a.Type(i) {
	case chunkenc.ValHistogram:
		return a.H[i].Equals(b.H[j])
	case chunkenc.ValFloatHistogram:
		return a.FH[i].Equals(b.FH[j])
	}
	return math.Float64bits(a.F[i]) == math.Float64bits(b.F[j])
}

func hintOf(s *Samples, i int) histogram.CounterResetHint {
	switch s.Type(i) {
	case chunkenc.ValHistogram:
		return s.H[i].CounterResetHint
	case chunkenc.ValFloatHistogram:
		return s.FH[i].CounterResetHint
	}
	return 0
}

// requireSound asserts what holds for any input: order, nothing invented, no
// value of the first run lost.
func requireSound(t testing.TB, out *Samples, runs []*Samples) {
	t.Helper()
	require.NoError(t, out.Check())
	require.Len(t, out.F, len(out.T))
	for i := range out.T {
		found := false
		for _, r := range runs {
			if j, ok := slices.BinarySearch(r.T, out.T[i]); ok {
				found = found || equalSample(out, i, r, j)
			}
		}
		require.True(t, found, "sample at %d ms is in no run", out.T[i])
	}
	for _, r := range runs {
		if r.Len() == 0 {
			continue
		}
		for j := range r.T {
			i, ok := slices.BinarySearch(out.T, r.T[j])
			require.True(t, r.Stale(j) || ok && equalSample(out, i, r, j), "value at %d ms is lost", r.T[j])
		}
		break
	}
}

func TestAnyReplicas(t *testing.T) {
	eachWorld(t, true, func(t *testing.T, w *world) {
		runs := w.replicas(2 + w.rnd.IntN(2))
		requireSound(t, merge(runs...), runs)
		for _, r := range runs {
			require.Same(t, r, merge(r, r), "with itself")
			require.Same(t, r, merge(r, r, r), "with itself")
		}
	})
}

func TestCompleteFirstReplicaStays(t *testing.T) {
	eachWorld(t, true, func(t *testing.T, w *world) {
		shift := w.rnd.Int64N(w.interval)
		whole := w.scrape(scraper{shift: shift, jitter: 2})
		runs := append([]*Samples{whole}, w.replicas(2)...)
		if w.rnd.IntN(3) == 0 { // a clock that goes alike by chance
			runs[1] = w.scrape(scraper{shift: shift + w.rnd.Int64N(4), jitter: 2, misses: 0.01})
		}
		out := merge(runs...)
		// Others may have seen the target for a scrape longer, at the ends of the data.
		requireSame(t, whole, clip(out, whole.T[0], whole.T[len(whole.T)-1]))
		require.Less(t, out.Len()-whole.Len(), 2)
	})
}

func TestHalvesEqualTheWhole(t *testing.T) {
	eachWorld(t, true, func(t *testing.T, w *world) {
		n := 2 + w.rnd.IntN(2)
		runs := w.replicas(n)
		if w.rnd.IntN(3) == 0 { // one clock
			truth := w.scrape(scraper{})
			for i := range runs {
				runs[i] = drop(w.rnd, truth, 0.3)
			}
		}
		var whole *Samples
		margin := MarginOf(n)
		part := func(mint, maxt int64) *Samples {
			var cut []*Samples
			for _, r := range runs {
				cut = append(cut, clip(r, mint-margin, maxt+margin))
			}
			return clip(merge(cut...), mint, maxt)
		}
		for i := range runs { // scraping may have been slower for a while
			if w.interval <= 30_000 && w.rnd.IntN(2) == 0 {
				runs[i] = w.thin(runs[i])
			}
		}
		whole = merge(runs...)
		for range 5 {
			cut := w.at()
			requireSame(t, clip(whole, w.from, cut), part(w.from, cut), "before", cut)
			requireSame(t, clip(whole, cut+1, w.to), part(cut+1, w.to), "after", cut)
			end := min(w.to, cut+w.rnd.Int64N(600_000))
			requireSame(t, clip(whole, cut, end), part(cut, end), "within", cut, end)
		}
	})
}

func TestNoFalseReset(t *testing.T) {
	eachWorld(t, true, func(t *testing.T, w *world) {
		runs := w.replicas(2)
		skew := w.interval/2 - 10
		runs = append(runs, w.scrape(scraper{shift: w.rnd.Int64N(w.interval), away: w.outages(2)}))
		skewed := []*Samples{
			w.scrape(scraper{shift: w.rnd.Int64N(w.interval), away: w.outages(3)}),
			w.scrape(scraper{shift: w.rnd.Int64N(w.interval), skew: []int64{-skew, skew}[w.rnd.IntN(2)]}),
		}
		check := func(out *Samples, slack int64) {
			last := -1
			for i := range out.T {
				if out.Stale(i) {
					continue
				}
				if last >= 0 && counterAt(out, i) < counterAt(out, last) {
					require.Greater(t, w.lastReset(out.T[i]+slack), out.T[last]-slack, "false reset at %d ms", out.T[i])
				}
				last = i
			}
		}
		check(merge(runs...), 0)
		check(merge(skewed...), skew)
	})
}

// No hole where one replica has data: each value of each replica has a value in
// the result that is no more than 1.5 intervals away.
func TestAllIsCovered(t *testing.T) {
	eachWorld(t, true, func(t *testing.T, w *world) {
		runs := w.replicas(2)
		for i := range runs { // the odd lost scrape is tested elsewhere
			runs[i] = w.scrape(scraper{shift: w.rnd.Int64N(w.interval), jitter: 2, away: w.outages(w.rnd.IntN(5))})
		}
		out := merge(runs...)
		var values []int64
		for i := range out.T {
			if !out.Stale(i) {
				values = append(values, out.T[i])
			}
		}
		for _, r := range runs {
			for j, at := range r.T {
				if r.Stale(j) {
					continue
				}
				i, _ := slices.BinarySearch(values, at)
				near := int64(math.MaxInt64)
				for _, n := range values[max(0, i-1):min(len(values), i+1)] {
					near = min(near, max(n-at, at-n))
				}
				require.LessOrEqual(t, 2*near, 3*(w.interval+10), "value at %d ms", at)
			}
		}
	})
}

// Copies of one series that lost samples at random are put together again.
func TestSharedClockRestoresTheTruth(t *testing.T) {
	eachWorld(t, true, func(t *testing.T, w *world) {
		if w.interval > 15_000 {
			w.interval = 15_000 // enough samples in a neighbourhood to be evidence
		}
		truth := w.scrape(scraper{shift: w.rnd.Int64N(w.interval), jitter: 3})
		if w.rnd.IntN(2) == 0 { // results of a rule that are written at odd times
			truth = drop(w.rnd, w.scrape(scraper{jitter: w.interval / 4}), 0.2)
		}
		share := 0.25 * w.rnd.Float64()
		runs := []*Samples{drop(w.rnd, truth, share), drop(w.rnd, truth, share), drop(w.rnd, truth, share)}
		out := merge(runs...)
		requireSound(t, out, runs)
		want := &Samples{}
		for i, at := range truth.T {
			held := false
			for _, r := range runs {
				_, ok := slices.BinarySearch(r.T, at)
				held = held || ok
			}
			if held {
				want.AppendFrom(truth, i)
			}
		}
		requireTimes(t, want.T, out.T)
	})
}

func TestTinyOnOneClock(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 2000 {
		interval := 1000 * (1 + rnd.Int64N(120))
		a, b := &Samples{}, &Samples{}
		for i := range 1 + rnd.Int64N(3) {
			at := 1_000_000_017 + i*interval
			if rnd.IntN(2) == 0 {
				a.Append(0, at, float64(i))
			} else {
				b.Append(0, at, float64(i))
			}
		}
		require.Equal(t, a.Len()+b.Len(), merge(a, b).Len(), "%v and %v", a.T, b.T)
	}
}

// The quiet stretch is a short cut and nothing else.
func TestQuietDecidesAsTheSlowWay(t *testing.T) {
	skipped := 0
	eachWorld(t, true, func(t *testing.T, w *world) {
		sc := scraper{shift: w.rnd.Int64N(w.interval), jitter: w.interval / 12, away: w.outages(w.rnd.IntN(3))}
		a := w.scrape(sc)
		if w.rnd.IntN(2) == 0 {
			a = w.thin(a)
		}
		sc.shift, sc.away = w.rnd.Int64N(w.interval), nil
		sc.jitter = w.rnd.Int64N(1 + w.interval/3)
		b := drop(w.rnd, w.scrape(sc), 0.5*w.rnd.Float64())
		if w.rnd.IntN(4) == 0 { // some timestamps in common
			b.T[b.Len()/2] = a.T[a.Len()/2]
			for b.Check() != nil {
				b = clip(b, b.T[0], b.T[b.Len()/2-1])
			}
		}
		a = clip(a, a.T[0], a.T[0]+w.rnd.Int64N(200*w.interval))
		slow := &Samples{}
		f := newFiller(slow, a, b, nil)
		f.quiet.seen = math.MaxInt // never look
		f.dropMarkers()
		f.fill()
		f.out.add(f.a, f.done, f.a.Len())
		requireSame(t, slow, merge(a, b))
		var q quiet
		if q.look(a.T, b.T, 0, 0); q.to > q.from {
			skipped++
		}
	})
	require.Greater(t, skipped, worlds/4)
}
