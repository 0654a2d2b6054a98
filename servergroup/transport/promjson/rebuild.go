package promjson

import (
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
)

// rebuild returns the histogram that has the given buckets in JSON. The caller sets its Count
// and Sum. If no histogram has these buckets, reason says why. Printed again, the histogram is
// the text that Prometheus printed. (Schemas are found by logarithms, which fail for bounds
// below the smallest normal float64: no histogram is found for those.)
//
// Counts are exact. The histogram may differ from the one that was printed, because JSON loses
//   - that counts were integers, and the counter reset hint, which is Unknown;
//   - empty buckets: of the zero bucket its width, unless a bucket beside it
//     shows it, so that it is 0; of custom buckets their bounds, unless a bucket
//     beside them shows them;
//   - a zero bucket with a negative count, which is not printed at all;
//   - the schema if no bucket shows it: without buckets it is the finest, so that
//     sums with other histograms have the schema of those;
//   - whether buckets are custom if their bounds are consecutive powers of two
//     (or of four, …): they are taken for exponential ones;
//   - whether buckets are exponential, of schema 0 or coarser, if there are no
//     observations that are negative or in the zero bucket, but some in the
//     positive bucket that the zero bucket cuts into: they are taken for custom.
func rebuild(buckets []bucket) (h *histogram.FloatHistogram, reason string) {
	h = &histogram.FloatHistogram{}
	var b layout
	if reason := b.sort(buckets); reason != "" {
		return nil, reason
	}
	for n := histogram.ExponentialSchemaMax; !b.custom && n >= histogram.ExponentialSchemaMin; n-- {
		if threshold, ok := b.fits(n); ok {
			h.Schema, h.ZeroThreshold, h.ZeroCount = n, threshold, b.zeroCount
			reason = exponential(h, n, b.negative, b.positive)
			return h, reason
		}
	}
	if b.zero || len(b.negative) > 0 {
		return nil, "bounds that are of no exponential schema"
	}
	return h, custom(h, b.positive)
}

// layout is the buckets of a histogram by their kind.
type layout struct {
	negative, positive []bucket
	zero               bool
	threshold          float64 // of the zero bucket, if there is one
	zeroCount          float64
	custom             bool // the first bucket is of a form that only custom buckets have
}

// sort divides buckets, which are in the order negative, zero, positive, by their kind.
func (b *layout) sort(buckets []bucket) (reason string) {
	i := 0
	for i < len(buckets) && (buckets[i].code == lowerClosed || buckets[i].code == open && buckets[i].hi <= 0 && buckets[i].lo < 0) {
		i++
	}
	b.negative, buckets = buckets[:i], buckets[i:]
	if len(buckets) > 0 && buckets[0].code == closed {
		first := buckets[0]
		switch {
		case math.IsInf(first.lo, -1) && i == 0:
			b.custom = true
		case first.lo == -first.hi && first.hi >= 0 && !math.IsInf(first.hi, 1):
			b.zero, b.threshold, b.zeroCount = true, first.hi, first.count
			buckets = buckets[1:]
		default:
			return "a zero bucket that is not around 0"
		}
	}
	b.positive = buckets
	for i, c := range buckets {
		if c.code == lowerClosed || c.code == closed && (i != 0 || !b.custom) {
			return "buckets in disorder"
		}
	}
	return ""
}

// fits reports whether all buckets are of schema n. threshold is the width of the zero bucket,
// even if only the bucket beside it shows it.
//
// The upper bound of a bucket (away from 0) is always its own. The lower one may be that of the
// zero bucket, which cuts into it. If nothing else shows that buckets are exponential, it is
// more likely a custom bound.
func (b *layout) fits(n int32) (threshold float64, ok bool) {
	threshold = b.threshold
	uncut, cut := 0, 0
	for side, buckets := range [][]bucket{b.positive, b.negative} {
		for _, c := range buckets {
			lo, hi := c.lo, c.hi
			if side == 1 {
				lo, hi = -hi, -lo
			}
			idx, ok := index(hi, n)
			if !ok || !(lo >= 0) {
				return 0, false
			}
			if isBound(lo, idx-1, n) {
				uncut++
				continue
			}
			if !b.zero && cut == 0 {
				threshold = lo
			}
			if lo != threshold || log2(lo, n) < float64(idx-1) {
				return 0, false
			}
			cut++
		}
	}
	proven := b.zero || len(b.negative) > 0 || n > 0 && uncut > 0
	return threshold, cut == 0 || proven
}

// near is how far a bound may be from that of its index, in indices: the error of a logarithm
// is much smaller, and other bounds are hardly ever that near.
const near = 1e-7

// log2 returns the logarithm of a bound as a fractional index of schema n
// (https://prometheus.io/docs/specs/native_histograms/#schema). The greatest float64 stands for
// the bound 2^1024, which is not a float64.
func log2(bound float64, n int32) float64 {
	if bound == math.MaxFloat64 {
		return math.Ldexp(1024, int(n))
	}
	return math.Ldexp(math.Log2(bound), int(n))
}

// index returns the index of the bucket of schema n whose upper bound is hi. The bucket of
// infinite observations comes after the last one of finite ones.
func index(hi float64, n int32) (idx int32, ok bool) {
	if math.IsInf(hi, 1) {
		return int32(math.Ldexp(1024, int(n))) + 1, true
	}
	i := math.Round(log2(hi, n))
	return int32(i), hi > 0 && math.Abs(log2(hi, n)-i) < near
}

// isBound reports whether bound is the upper bound of bucket idx of schema n.
func isBound(bound float64, idx, n int32) bool {
	return math.Abs(log2(bound, n)-float64(idx)) < near
}

// exponential sets the buckets of h, which are of schema n.
func exponential(h *histogram.FloatHistogram, n int32, negative, positive []bucket) (reason string) {
	var spans spans
	for _, c := range positive {
		idx, _ := index(c.hi, n)
		if !spans.add(idx, c.count) {
			return "buckets in disorder"
		}
	}
	h.PositiveSpans, h.PositiveBuckets = spans.spans, spans.counts
	spans.reset()
	for _, n0 := range slices.Backward(negative) {
		idx, _ := index(-n0.lo, n)
		if !spans.add(idx, n0.count) {
			return "buckets in disorder"
		}
	}
	h.NegativeSpans, h.NegativeBuckets = spans.spans, spans.counts
	return ""
}

// custom sets the buckets of h, which are custom. Their bounds are all bounds that occur.
func custom(h *histogram.FloatHistogram, buckets []bucket) (reason string) {
	h.Schema = histogram.CustomBucketsSchema
	last := math.Inf(-1)
	var spans spans
	for _, c := range buckets {
		if !(c.lo >= last) || !(c.hi > c.lo) {
			return "buckets in disorder"
		}
		if c.code == open || c.code == upperClosed && math.IsInf(c.lo, -1) {
			return "a custom bucket with wrong bounds"
		}
		if c.lo > last {
			h.CustomValues = append(h.CustomValues, c.lo)
		}
		spans.add(int32(len(h.CustomValues)), c.count)
		if last = c.hi; !math.IsInf(last, 1) {
			h.CustomValues = append(h.CustomValues, last)
		}
	}
	h.PositiveSpans, h.PositiveBuckets = spans.spans, spans.counts
	return ""
}

// spans gathers buckets by their indices.
type spans struct {
	spans  []histogram.Span
	counts []float64
	next   int32 // the index after the last bucket
}

func (s *spans) reset() { *s = spans{} }

// add appends a bucket and reports whether its index is after the previous one; if not, it
// does nothing.
func (s *spans) add(idx int32, count float64) bool {
	switch {
	case len(s.spans) == 0 || idx > s.next:
		s.spans = append(s.spans, histogram.Span{Offset: idx - s.next, Length: 1})
	case idx == s.next:
		s.spans[len(s.spans)-1].Length++
	default:
		return false
	}
	s.counts = append(s.counts, count)
	s.next = idx + 1
	return true
}
