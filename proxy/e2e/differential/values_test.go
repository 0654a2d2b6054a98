package differential

import (
	"maps"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
)

var staleNaN = math.Float64frombits(value.StaleNaN)

// marker is the stale marker that ends a series after p, of the same kind.
func (p *sample) marker(t int64) sample {
	switch {
	case p.h != nil:
		return sample{t: t, h: &histogram.Histogram{Sum: staleNaN}}
	case p.fh != nil:
		return sample{t: t, fh: &histogram.FloatHistogram{Sum: staleNaN}}
	}
	return sample{t: t, f: staleNaN}
}

// gauge walks at random. Zero is never negative: remote read as samples does not
// carry the sign.
func gauge(r *rand.Rand, w *world) func(int64) sample {
	v := math.Round(r.Float64()*1000) / 10
	whole, odd := r.IntN(2) == 0, !w.sparse && r.IntN(6) == 0
	return func(int64) sample {
		switch {
		case odd && r.IntN(40) == 0:
			return sample{f: []float64{math.NaN(), math.Inf(1), math.Inf(-1), 0, 1e300, 5e-324}[r.IntN(6)]}
		case whole:
			v += float64(r.IntN(7) - 3)
		default:
			v += r.NormFloat64()
		}
		return sample{f: v + 0} // -0 + 0 is 0
	}
}

// counts is when a process counts, and since when.
type counts struct {
	r     *rand.Rand
	reset float64 // probability of a restart at each scrape
	since int64   // ms
	last  int64
}

func newCounts(r *rand.Rand, w *world) *counts {
	return &counts{r: r, reset: []float64{0, 0.02, 0.1, 0.4}[r.IntN(4)], since: w.start - r.Int64N(10*minute), last: w.start}
}

// restarted reports whether the process has restarted since the last scrape.
func (c *counts) restarted(t int64) bool {
	restarted := c.r.Float64() < c.reset
	if restarted {
		c.since = c.last + 1 + c.r.Int64N(max(1, t-c.last-1))
	}
	c.last = t
	return restarted
}

func counter(r *rand.Rand, w *world) func(int64) sample {
	c, v := newCounts(r, w), float64(r.IntN(1000))
	whole := r.IntN(2) == 0
	return func(t int64) sample {
		if c.restarted(t) {
			v = 0
		}
		if whole {
			v += float64(r.IntN(20))
		} else {
			v += r.ExpFloat64()
		}
		return sample{st: c.since, f: v}
	}
}

// classic is a histogram with a series for each bucket.
type classic struct {
	r       *rand.Rand
	counter *counts
	at      int64
	buckets [4]float64
	total   float64
}

func (c *classic) advance(t int64) {
	if c.at == t {
		return
	}
	c.at = t
	if c.counter.restarted(t) {
		c.buckets, c.total = [4]float64{}, 0
	}
	for range c.r.IntN(12) {
		first := c.r.IntN(4)
		for i := first; i < 4; i++ {
			c.buckets[i]++
		}
		c.total += float64(first) + c.r.Float64()
	}
}

func (c *classic) bucket(i int) func(int64) sample {
	return func(t int64) sample {
		c.advance(t)
		return sample{st: c.counter.since, f: c.buckets[i]}
	}
}

func (c *classic) sum(t int64) sample {
	c.advance(t)
	return sample{st: c.counter.since, f: c.total}
}

// nativeKind is a kind of native histogram.
type nativeKind int

const (
	intHistogram nativeKind = iota
	floatHistogram
	gaugeHistogram
	customHistogram
)

// native counts observations in buckets, from 1 on: the query API knows no
// schema of a histogram without buckets. The zero bucket is never empty, for the
// query API does not carry its width then.
func native(r *rand.Rand, w *world, k nativeKind) func(int64) sample {
	c := newCounts(r, w)
	schema := int32(r.IntN(3))
	buckets := map[int]int64{}
	zero, sum := int64(0), 0.0
	return func(t int64) sample {
		restarted := c.restarted(t)
		if restarted || k == gaugeHistogram && r.IntN(3) == 0 {
			clear(buckets)
			zero, sum = 0, 0
		}
		if restarted && r.IntN(4) == 0 {
			schema = int32(r.IntN(3))
		}
		if len(buckets) == 0 {
			zero, buckets[r.IntN(6)] = 1, 1
			for i := 0; i < 6 && !w.sparse; i++ {
				buckets[i] = 1
			}
		}
		for range r.IntN(10) {
			buckets[r.IntN(6)] += 1 + r.Int64N(3)
			sum += math.Round(r.Float64()*1000) / 8
		}
		zero += r.Int64N(2)
		if k == customHistogram {
			return sample{st: c.since, h: custom(buckets, sum)}
		}
		h := &histogram.Histogram{Schema: schema, ZeroThreshold: 0.001, ZeroCount: uint64(zero), Count: uint64(zero), Sum: sum}
		h.PositiveSpans, h.PositiveBuckets = layout(buckets)
		for _, n := range buckets {
			h.Count += uint64(n)
		}
		switch k {
		case floatHistogram:
			return sample{st: c.since, fh: h.ToFloat(nil)}
		case gaugeHistogram:
			fh := h.ToFloat(nil)
			fh.CounterResetHint = histogram.GaugeType
			return sample{fh: fh}
		}
		return sample{st: c.since, h: h}
	}
}

// custom is a classic histogram that is stored as a native one.
func custom(buckets map[int]int64, sum float64) *histogram.Histogram {
	h := &histogram.Histogram{Schema: histogram.CustomBucketsSchema, CustomValues: []float64{0.1, 0.5, 1, 2.5, 5, 10}, Sum: sum}
	h.PositiveSpans, h.PositiveBuckets = layout(buckets)
	for _, n := range buckets {
		h.Count += uint64(n)
	}
	return h
}

// layout is the spans and deltas of buckets by index.
func layout(buckets map[int]int64) (spans []histogram.Span, deltas []int64) {
	next, last := 0, int64(0)
	for _, i := range slices.Sorted(maps.Keys(buckets)) {
		if len(spans) == 0 || i != next {
			spans = append(spans, histogram.Span{Offset: int32(i - next)})
		}
		spans[len(spans)-1].Length++
		deltas = append(deltas, buckets[i]-last)
		next, last = i+1, buckets[i]
	}
	return spans, deltas
}

// mixed is a series that turns from floats to histograms and back.
func mixed(r *rand.Rand, w *world) func(int64) sample {
	floats, histograms := counter(r, w), native(r, w, intHistogram)
	now := r.IntN(2) == 0
	return func(t int64) sample {
		if r.IntN(25) == 0 {
			now = !now
		}
		if now {
			return histograms(t)
		}
		return floats(t)
	}
}
