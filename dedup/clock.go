package dedup

import (
	"math"
	"slices"
)

const (
	// sliceLen is the length (ms) of the absolute slices of time that decisions depend on:
	// slice k is [k*sliceLen, (k+1)*sliceLen). The statistics of a decision are of data that
	// is at most two slices away; see Margin.
	sliceLen = 90 * 1000
	// defaultInterval (ms) is the interval if the data does not show any: Prometheus'
	// default scrape interval.
	defaultInterval = 60 * 1000
	// jitter (ms) is by how much a scrape may be late or early and still be on time:
	// Prometheus aligns timestamps that are off by up to 2 ms.
	jitter = 10
	// longestInterval (ms) is the longest scrape interval there is: Prometheus'
	// lookback, and some jitter.
	longestInterval = 330 * 1000
)

// clock estimates the scrape interval around a moment, and whether two replicas share their
// clock there. It knows the timestamps (ms) of both, and looks only at the neighbourhood of the
// moment: the slice that it lies in, the one before and the one after. Moments must come in
// time order.
type clock struct {
	a, b []int64

	slice          int64 // that the fields below describe, if known
	known          bool
	lo, hi         int64 // the neighbourhood is [lo, hi)
	a0, a1, b0, b1 int   // and holds a[a0:a1], b[b0:b1]

	own  []int64 // sorted deltas of a
	both []int64 // sorted deltas of a and b; empty until needed

	same int // samples of b that coincide with one of a
	near int // evidence against a shared clock; see compare
	// met reports whether a sample of b is less than an interval from one of a, so that they
	// could have coincided.
	met bool
}

// moveTo makes c describe the neighbourhood of t.
func (c *clock) moveTo(t int64) {
	s := sliceOf(t)
	if c.known && s == c.slice {
		return
	}
	c.slice, c.known = s, true
	c.lo, c.hi = (s-1)*sliceLen, (s+2)*sliceLen
	c.a0, c.a1 = advance(c.a, c.a0, c.lo), advance(c.a, max(c.a0, c.a1), c.hi)
	c.b0, c.b1 = advance(c.b, c.b0, c.lo), advance(c.b, max(c.b0, c.b1), c.hi)
	c.own = appendDeltas(c.own[:0], c.a[c.a0:c.a1])
	slices.Sort(c.own)
	c.both = c.both[:0]
	c.compare(c.a[c.a0:c.a1], c.b[c.b0:c.b1], c.median(0))
}

// compare counts the samples of b that coincide with one of a, and those that contradict a
// shared clock: they are nearer than a quarter of an interval, but not the same. It is a
// quarter because lost samples make the interval look longer than it is. A difference of a few
// milliseconds is the jitter of two clocks that happen to run in step: then coincidences prove
// nothing.
func (c *clock) compare(a, b []int64, interval int64) {
	c.same, c.near, c.met = 0, 0, false
	i := 0
	for _, t := range b {
		i = advance(a, i, t)
		if i < len(a) && a[i] == t {
			c.same++
			continue
		}
		d := int64(math.MaxInt64)
		if i < len(a) {
			d = a[i] - t
		}
		if i > 0 {
			d = min(d, t-a[i-1])
		}
		c.met = c.met || d < interval-jitter
		switch {
		case d >= interval/4:
		case d <= jitter:
			c.near += len(b)
		default:
			c.near++
		}
	}
}

// estimate is the interval (ms) around a moment t to which c was moved, 0 if it is unknown. k
// and j are the first samples of a and b that are not before t. The delta of a across t is left
// out: it is what is being judged.
func (c *clock) estimate(t int64, k, j int) int64 {
	var hole int64
	if k > c.a0 && k < c.a1 && c.a[k] > t {
		hole = c.a[k] - c.a[k-1]
	}
	if i := c.median(hole); i > 0 {
		return i
	}
	// Two similar ones among the deltas nearest to t are an interval that is too long for the
	// neighbourhood.
	d := [...]int64{
		deltaAt(c.a, k-1), deltaAt(c.a, k), deltaAt(c.a, k+1),
		deltaAt(c.b, j-1), deltaAt(c.b, j), deltaAt(c.b, j+1),
	}
	slices.Sort(d[:])
	for i, shorter := range d[:len(d)-1] {
		if shorter > sliceLen && d[i+1] <= longestInterval && !exceeds(d[i+1], shorter) {
			return shorter
		}
	}
	return 0
}

// median is the low median of the deltas of a without the one given, if there are at least two,
// else of those of a and b; 0 if there is none.
func (c *clock) median(but int64) int64 {
	n := len(c.own)
	if but > 0 {
		n--
	}
	if n >= 2 {
		i, _ := lowMedian(c.own, but)
		return i
	}
	if len(c.both) == 0 {
		c.both = appendDeltas(append(c.both, c.own...), c.b[c.b0:c.b1])
		slices.Sort(c.both)
	}
	i, _ := lowMedian(c.both, but)
	return i
}

// shared reports whether a and b share a clock around t, to which c was moved and around which
// the interval is estimated. Coincidences to the millisecond speak for it, contradictions
// against it. If there are as many of either and a has too few samples, the milliseconds within
// the second decide: those of t and of its neighbours in other, of which i is the first that is
// not before t. These may be as far away as the longest interval, because samples that are
// five minutes apart are not in the neighbourhood of each other.
func (c *clock) shared(t int64, other []int64, i int, estimate int64) bool {
	if c.same != c.near {
		return c.same > c.near
	}
	if len(c.own) >= 2 {
		return !c.met && onBeat(t, other, i, estimate)
	}
	alike := false
	if i > 0 && t-other[i-1] <= longestInterval {
		d := t - other[i-1]
		if alike = d%1000 == 0 && 2*d >= estimate; !alike {
			return false
		}
	}
	if i < len(other) && other[i]-t <= longestInterval {
		d := other[i] - t
		alike = d%1000 == 0 && 2*d >= estimate
	}
	return alike
}

// onBeat reports whether t is a multiple of the interval away from the nearest of other, of
// which i is the first that is not before it, and at the same millisecond of the second.
func onBeat(t int64, other []int64, i int, interval int64) bool {
	d := int64(longestInterval)
	if i > 0 {
		d = min(d, t-other[i-1])
	}
	if i < len(other) {
		d = min(d, other[i]-t)
	}
	return interval > 0 && d > 0 && d%1000 == 0 && (d+jitter)%interval <= 2*jitter
}

// quiet is a window [from, to) in which a is so regular and complete, and so clearly of another
// clock, that Merge takes no sample of b: it saves deciding that for each sample.
type quiet struct {
	from, to int64
	seen     int // samples of a that were looked at
}

// look looks for a quiet window that begins with sample i of a. j is the first sample of b that
// is not before it.
func (q *quiet) look(a, b []int64, i, j int) {
	end := i + 1 // of the samples that are regular and have no timestamp in common with b
	shortest, longest := int64(math.MaxInt64), int64(0)
	for ; end < len(a); end++ {
		d := a[end] - a[end-1]
		shortest, longest = min(shortest, d), max(longest, d)
		// Four samples in each neighbourhood leave two deltas beside the judged one, and
		// any median of deltas then makes all of them shorter than 1.5 intervals.
		if exceeds(longest, shortest) || 4*longest > 3*sliceLen {
			break
		}
		if j = advance(b, j, a[end]); j < len(b) && b[j] == a[end] {
			break
		}
	}
	q.from, q.to, q.seen = 0, 0, end
	if end-i < 4 {
		return
	}
	// Neighbourhoods may extend beyond the ends of a, but not beyond other ends.
	q.from, q.to = (sliceOf(a[i])+2)*sliceLen, (sliceOf(a[end-1])-1)*sliceLen
	if i == 0 {
		q.from = max(a[0], (sliceOf(a[3])-1)*sliceLen)
	}
	if end == len(a) {
		q.to = min(a[end-1], (sliceOf(a[end-4])+2)*sliceLen)
	}
}

// exceeds reports whether a distance is longer than 1.5 intervals, so that a scrape is missing
// in it.
func exceeds(distance, interval int64) bool { return 2*distance > 3*interval }

// sliceOf returns the slice that t (ms) lies in.
func sliceOf(t int64) int64 {
	s := t / sliceLen
	if t%sliceLen < 0 {
		s--
	}
	return s
}

// advance returns the first index from i on whose timestamp is not before t.
func advance(ts []int64, i int, t int64) int {
	for i < len(ts) && ts[i] < t {
		i++
	}
	return i
}

// deltaAt returns the time from sample i-1 to sample i, 0 if one is missing.
func deltaAt(ts []int64, i int) int64 {
	if i < 1 || i >= len(ts) {
		return 0
	}
	return ts[i] - ts[i-1]
}

func appendDeltas(dst, ts []int64) []int64 {
	for i := 1; i < len(ts); i++ {
		dst = append(dst, ts[i]-ts[i-1])
	}
	return dst
}

// Interval is the low median of the distances (ms) between timestamps, a minute if there are
// fewer than two timestamps.
func Interval(ts []int64) int64 {
	d := appendDeltas(nil, ts)
	slices.Sort(d)
	if i, ok := lowMedian(d, 0); ok {
		return i
	}
	return defaultInterval
}

// lowMedian returns the low median of sorted. One element of value but is left out, unless but
// is 0. The second result is false if nothing is left.
func lowMedian(sorted []int64, but int64) (int64, bool) {
	n := len(sorted)
	if but > 0 {
		n--
	}
	if n < 1 {
		return 0, false
	}
	k := (n - 1) / 2
	if but > 0 && but <= sorted[k] {
		k++ // it is one of those before
	}
	return sorted[k], true
}
