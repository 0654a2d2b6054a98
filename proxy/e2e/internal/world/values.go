package world

import (
	"math"

	"github.com/prometheus/prometheus/model/histogram"
)

// sample is what a series shows at one moment: a float unless h or fh is set.
type sample struct {
	f  float64
	h  *histogram.Histogram
	fh *histogram.FloatHistogram
}

// valueFunc is the true process behind a series, readable at any moment t in unix ms. It reports false while the series is not exposed.
type valueFunc func(t int64) (sample, bool)

// noise is a fixed pseudo-random number in [0,1) for a seed and a moment.
func noise(seed uint64, t int64) float64 {
	x := seed ^ (uint64(t) * 0x9e3779b97f4a7c15)
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	x ^= x >> 31
	return float64(x>>11) / (1 << 53)
}

// wave is a rate per second that swings around its mean; swing must stay below 1, so that its integral never falls.
type wave struct {
	rate, swing, period, phase float64 // period in seconds, phase in radians
}

// newWave draws a wave with the given mean rate from a seed.
func newWave(seed uint64, rate float64) wave {
	return wave{
		rate:   rate * (0.7 + 0.6*noise(seed, 1)),
		swing:  0.05 + 0.25*noise(seed, 2),
		period: 1200 + 2400*noise(seed, 3),
		phase:  2 * math.Pi * noise(seed, 4),
	}
}

// total is the integral of the wave from a day before the beginning of the worlds until t.
func (w wave) total(t int64) float64 {
	s := float64(t-Begin+24*hour) / 1000
	return w.rate*s + w.rate*w.swing*w.period/(2*math.Pi)*(math.Cos(w.phase)-math.Cos(2*math.Pi*s/w.period+w.phase))
}

// since is what the wave added between the start of the process and t; both in unix ms.
func (w wave) since(start, t int64) float64 { return w.total(t) - w.total(start) }

// level is the wave itself at t, for gauges.
func (w wave) level(t int64) float64 {
	s := float64(t-Begin+24*hour) / 1000
	return w.rate * (1 + w.swing*math.Sin(2*math.Pi*s/w.period+w.phase))
}

// decimal rounds a float to three decimals, and a large one to an integer: what VictoriaMetrics stores without a loss.
func decimal(f float64) float64 {
	if math.Abs(f) >= 1e9 {
		return math.Round(f)
	}
	return math.Round(f*1000) / 1000
}

// deltas makes the delta-encoded buckets of an integer histogram.
func deltas(counts []uint64) []int64 {
	out := make([]int64, len(counts))
	var last int64
	for i, c := range counts {
		out[i] = int64(c) - last
		last = int64(c)
	}
	return out
}

func sum(counts []uint64) uint64 {
	var n uint64
	for _, c := range counts {
		n += c
	}
	return n
}

// exponential makes an integer native histogram with positive and a few negative buckets.
func exponential(schema, offset int32, positive, negative []uint64, zero uint64, total float64) *histogram.Histogram {
	h := &histogram.Histogram{
		Schema:          schema,
		ZeroThreshold:   0x1p-128,
		ZeroCount:       zero,
		Count:           zero + sum(positive) + sum(negative),
		Sum:             total,
		PositiveSpans:   []histogram.Span{{Offset: offset, Length: uint32(len(positive))}},
		PositiveBuckets: deltas(positive),
	}
	if len(negative) > 0 {
		h.NegativeSpans = []histogram.Span{{Offset: offset, Length: uint32(len(negative))}}
		h.NegativeBuckets = deltas(negative)
	}
	return h.Compact(0)
}

// custom makes an integer native histogram with custom bucket bounds; counts has one more entry than bounds.
func custom(bounds []float64, counts []uint64, total float64) *histogram.Histogram {
	h := &histogram.Histogram{
		Schema:          histogram.CustomBucketsSchema,
		Count:           sum(counts),
		Sum:             total,
		PositiveSpans:   []histogram.Span{{Length: uint32(len(counts))}},
		PositiveBuckets: deltas(counts),
		CustomValues:    bounds,
	}
	return h.Compact(0)
}
