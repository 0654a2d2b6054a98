package dedup

import (
	"math/rand/v2"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
)

// span is a stretch of time [from, to) in ms.
type span struct{ from, to int64 }

func inAny(spans []span, t int64) bool {
	for _, s := range spans {
		if t >= s.from && t < s.to {
			return true
		}
	}
	return false
}

// world is the truth about one target: a counter that is defined at any time.
type world struct {
	rnd        *rand.Rand
	from, to   int64
	interval   int64 // of scrapes
	resets     []int64
	down       []span // the target does not answer: all replicas see that
	histograms bool
}

// newWorld makes 200 scrapes and more of a target that restarts and, if it flaps, is
// down now and then for long enough that every replica notices.
func newWorld(seed uint64, interval int64, flaps bool) *world {
	w := &world{rnd: rand.New(rand.NewPCG(seed, 1)), interval: interval, histograms: seed%5 == 0}
	w.from = 1_700_000_000_000 + w.rnd.Int64N(1_000_000)
	w.to = w.from + max(900_000, 200*interval+w.rnd.Int64N(200*interval))
	for range w.rnd.IntN(4) {
		w.resets = append(w.resets, w.at())
	}
	slices.Sort(w.resets)
	for t := w.at(); flaps && t < w.to; t += 20*interval + w.rnd.Int64N(60*interval) {
		d := span{t, t + 2*interval + w.rnd.Int64N(20*interval)}
		w.down = append(w.down, d)
		t = d.to
	}
	return w
}

func (w *world) at() int64 { return w.from + w.rnd.Int64N(w.to-w.from) }

// lastReset returns when the counter at t was last at zero.
func (w *world) lastReset(t int64) int64 {
	last := w.from - 1_000_000
	for _, r := range w.resets {
		if r <= t {
			last = r
		}
	}
	return last
}

// scraper is how one replica looks at the target.
type scraper struct {
	shift  int64 // of its scrapes, ms within the interval
	jitter int64 // ms at most, to either side
	skew   int64 // ms that its clock goes ahead
	away   []span
	misses float64 // share of scrapes that fail for this replica only
}

// outages makes a replica miss n stretches of up to an hour's third.
func (w *world) outages(n int) []span {
	var out []span
	for range n {
		t := w.at()
		out = append(out, span{t, t + w.interval/2 + w.rnd.Int64N(40*w.interval)})
	}
	return out
}

// scrape returns what a replica holds. A failed scrape writes a stale marker if
// there was a value before; a replica that is away writes nothing.
func (w *world) scrape(sc scraper) *Samples {
	s := &Samples{}
	alive := false
	for due := w.from + sc.shift; due < w.to; due += w.interval {
		t := due
		if sc.jitter > 0 {
			t += w.rnd.Int64N(2*sc.jitter+1) - sc.jitter
		}
		failed := inAny(w.down, t) || w.rnd.Float64() < sc.misses
		switch {
		case inAny(sc.away, t):
			alive = false
		case !failed:
			w.append(s, t+sc.skew, t)
			alive = true
		case alive:
			s.Append(0, t+sc.skew, StaleNaN)
			alive = false
		}
	}
	return s
}

// append adds the counter's value at the true time t, with the timestamp ts.
func (w *world) append(s *Samples, ts, t int64) {
	start := w.lastReset(t)
	if !w.histograms {
		s.Append(start, ts, float64(t-start))
		return
	}
	h := tsdbutil.GenerateTestHistogram((t - start) / 1000)
	h.CounterResetHint = histogram.NotCounterReset
	if last := len(s.T) - 1; last < 0 || s.Stale(last) || s.ST[last] != start {
		h.CounterResetHint = histogram.UnknownCounterReset
	}
	h.Count = uint64(t - start)
	s.AppendHistogram(start, ts, h)
}

// thin returns s with every second sample missing in some stretches, as if the
// interval were twice as long there.
func (w *world) thin(s *Samples) *Samples {
	out, away := &Samples{}, w.outages(3)
	for i := range s.T {
		if i%2 == 0 || !inAny(away, s.T[i]) {
			out.AppendFrom(s, i)
		}
	}
	return out
}

// counterAt is the counter's value in sample i.
func counterAt(s *Samples, i int) float64 {
	if s.H != nil && s.H[i] != nil {
		return float64(s.H[i].Count)
	}
	return s.F[i]
}

// drop returns s without a random share of its samples.
func drop(rnd *rand.Rand, s *Samples, share float64) *Samples {
	out := &Samples{}
	for i := range s.T {
		if rnd.Float64() >= share {
			out.AppendFrom(s, i)
		}
	}
	return out
}
