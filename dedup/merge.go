package dedup

import (
	"cmp"
	"math"
	"sort"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// Margin is how far (ms) before and after a window Merge looks at samples of two
// replicas to decide on the samples in it. See MarginOf.
const Margin = 6 * 60 * 1000

// MarginOf is the margin (ms) for any number of replicas: replica n+1 is merged with the merge
// of the n before it.
func MarginOf(replicas int) int64 { return Margin * int64(max(0, replicas-1)) }

// Merge returns the one series that runs are replicas of: the series of a single Prometheus
// that had seen everything that any of them saw. runs are in order of preference, each by
// strictly increasing timestamp; empty ones are skipped. The result is one of runs, not a copy,
// if nothing is added to it or dropped. Otherwise it is dst, which is overwritten and must not
// be one of runs. Memory of runs is only read.
//
// Runs are merged in order: A, the merge of the runs so far, is completed from B, the next run.
//
// # A stays
//
// No value of A is ever changed or left out. B fills in where A has nothing. At equal
// timestamps A wins, unless A has a stale marker there and B a value.
//
// # Decisions are local
//
// Each sample is decided on by the samples near it in time, with statistics over absolute
// slices of time, and never by where the data starts or ends. Within [mint, maxt], the merge of
// the data of [mint-Margin, maxt+Margin] is the same as the merge of more data, for two
// replicas (MarginOf for more) that scrape once a minute or more often. If data is sparser,
// because of a longer interval or because most samples are lost, such a cut may change which
// samples of B fill a gap of A within the margin of the cut. Runs without gaps do not change.
//
// # The interval
//
// The scrape interval I around a moment is the low median of A's deltas in the neighbourhood,
// without the delta across that moment. If there are fewer than two of them, B's are added. If
// there are none at all, two of the deltas next to the moment may agree on a longer interval,
// of up to Prometheus' lookback. Otherwise it is one minute.
//
// # Shared clocks
//
// Copies made by remote write and results of rules have equal timestamps in all replicas;
// samples of two scrapers do not. If more samples of B coincide with one of A than contradict
// (lie within I/4 of one), A and B share a clock: each timestamp is a scrape of its own, and
// the result is the union of A and B, markers included. If there are as many of either, as in
// series of two or three samples, or if all of B is an interval or more away from A, equal
// milliseconds within the second decide.
//
// # Different clocks
//
// A sample of B between two of A is taken only if a scrape of A is missing there: if A has a
// hole longer than 1.5 I, as far as B was alive in it. B was alive as long as its samples are
// at most 1.5 I apart without a marker between them. That time is measured together with the
// sample of A next to it, if one is within 1.5 I, so that B's last scrape just after A's last
// one is not a gap, nor its first one just before A's when the target comes back. If A is
// further away on both sides, A was away and B is taken as it is. All samples taken are at
// least I/2, minus some jitter, away from A's values, so that clocks that differ by less do not
// make a counter decrease.
//
// # Holders of a part of time
//
// Time outside the bounds of A (Bounded) is not a gap of A: A was not asked. There B is taken
// as it is, markers included, except for values too close to A's. Likewise, B says nothing
// about A's markers outside the bounds of B.
//
// # Stale markers
//
// A's marker is dropped if B was alive across it: if B's next sample is a value within 1.5 I
// (with a shared clock: at the same time), and B's previous sample is not a marker. Then there
// is a hole from A's previous value to A's next one. Other markers of A stay, and count as
// samples of A in the search for holes.
// B's marker is taken if it ends samples taken from B and A does not continue within 1.5 I;
// with a shared clock, if it ends any samples. No marker is taken if the series is stale
// already, nor one long after the last sample, unless it is B's first one within its bounds:
// the holder of the time before may have the sample that it ends.
//
// # Native histograms and start timestamps
//
// Start timestamps stay with their samples. After a switch from one replica to the other, and
// after a dropped marker, the counter reset hint of a histogram is about a sample that no
// longer precedes it: it is made unknown, on a copy
// (https://prometheus.io/docs/specs/native_histograms/). Gauge
// histograms stay gauges.
func Merge(dst *Samples, runs []*Samples) *Samples {
	var out, spare *Samples
	var seen *bounds // of the runs that out is made of
	for _, r := range runs {
		switch {
		case r.Len() == 0:
		case out == nil:
			out, seen = r, r.bounds
		default:
			if out == dst {
				if spare == nil {
					spare = &Samples{}
				}
				*spare, *dst = *dst, *spare
				out = spare
			}
			out = mergeTwo(dst, out, r, seen)
			seen = seen.union(r.bounds)
		}
	}
	switch out {
	case nil:
		dst.Reset()
		return dst
	case spare:
		*dst = *spare
		return dst
	}
	return out
}

// filler completes a from b.
type filler struct {
	raw   *Samples // the samples to complete
	a     *Samples // the same without the markers that are dropped
	b     *Samples
	seen  *bounds // of raw
	clock clock
	quiet quiet
	out   writer
	done  int // samples of a that are written
	last  int // sample of b that was written last, or -1
}

// newFiller returns a filler that completes a, whose bounds are seen, from b, into dst.
func newFiller(dst, a, b *Samples, seen *bounds) filler {
	return filler{raw: a, a: a, b: b, seen: seen, last: -1, clock: clock{a: a.T, b: b.T}, out: writer{dst: dst}}
}

// mergeTwo completes a from b and returns a or dst. seen are the bounds of a.
func mergeTwo(dst, a, b *Samples, seen *bounds) *Samples {
	f := newFiller(dst, a, b, seen)
	f.dropMarkers()
	f.fill()
	if f.last < 0 {
		if f.a == a {
			return a
		}
		dst.Reset()
	}
	f.out.add(f.a, f.done, f.a.Len())
	return dst
}

// dropMarkers removes the markers of a across which b was alive.
func (f *filler) dropMarkers() {
	var out writer
	from, j := 0, 0
	for i := f.raw.nextStale(0); i < f.raw.Len(); i = f.raw.nextStale(i + 1) {
		j = advance(f.b.T, j, f.raw.T[i])
		if !f.goesOn(i, j) {
			continue
		}
		if out.dst == nil {
			out.dst = &Samples{}
		}
		out.add(f.raw, from, i)
		out.switched = true
		from = i + 1
	}
	if out.dst != nil {
		out.add(f.raw, from, f.raw.Len())
		f.a = out.dst
	}
	f.clock = clock{a: f.raw.T, b: f.b.T, own: f.clock.own, both: f.clock.both}
}

// goesOn reports whether b was alive across marker i of a. j is the first sample of b that is
// not before it.
func (f *filler) goesOn(i, j int) bool {
	b, t := f.b, f.raw.T[i]
	if j == b.Len() || b.Stale(j) || !b.bounds.cover(t) {
		return false
	}
	if b.T[j] == t {
		return true
	}
	f.clock.moveTo(t)
	estimate := f.clock.estimate(t, i, j)
	if f.clock.shared(t, b.T, j, estimate) {
		return false // b has lost its sample at t and says nothing about it
	}
	interval := cmp.Or(estimate, defaultInterval)
	if exceeds(b.T[j]-t, interval) {
		return false
	}
	return j == 0 || !b.Stale(j-1) || longAgo(t-b.T[j-1], interval)
}

// fill writes the samples of b that are taken, and the samples of a before each of them.
func (f *filler) fill() {
	bt, at := f.b.T, f.a.T
	i, k := 0, 0 // the first samples of a and raw that are not before that of b
	for j := 0; j < len(bt); j++ {
		t := bt[j]
		i = advance(at, i, t)
		if i < len(at) && at[i] == t {
			continue
		}
		if i >= f.quiet.seen && f.a == f.raw {
			f.quiet.look(at, bt, i, j)
		}
		if t >= f.quiet.from && t < f.quiet.to {
			j += sort.Search(len(bt)-j, func(n int) bool { return bt[j+n] >= f.quiet.to }) - 1
			continue
		}
		if k = i; f.a != f.raw {
			k = advance(f.raw.T, i, t)
		}
		if !f.takes(i, j, k) {
			continue
		}
		if f.last < 0 {
			f.out.dst.Reset()
		}
		f.out.add(f.a, f.done, i)
		f.out.add(f.b, j, j+1)
		f.done, f.last = i, j
	}
}

// takes reports whether sample j of b is taken. i and k are the first samples of a and raw that
// are not before it, and a has none at its time.
func (f *filler) takes(i, j, k int) bool {
	t := f.b.T[j]
	if k < f.raw.Len() && f.raw.T[k] == t {
		return true // a marker of a was dropped for it
	}
	f.clock.moveTo(t)
	estimate := f.clock.estimate(t, k, j)
	shared := f.clock.shared(t, f.raw.T, k, estimate)
	interval := cmp.Or(estimate, defaultInterval)
	if f.b.Stale(j) {
		return f.takesMarker(i, j, shared, interval)
	}
	return shared || f.inGap(i, j, k, interval)
}

// takesMarker reports whether marker j of b is taken.
func (f *filler) takesMarker(i, j int, shared bool, interval int64) bool {
	t := f.b.T[j]
	end, n := f.a, i-1 // the sample that the marker would end
	if f.last >= 0 && (i == 0 || f.b.T[f.last] > f.a.T[i-1]) {
		end, n = f.b, f.last
	}
	switch before := f.b.bounds; {
	case n < 0 && j == 0 && before != nil && !longAgo(t-before.from, interval):
		// The sample that it ends may lie before the bounds of b, in another run.
	case end == f.a && !shared && f.seen.cover(t):
		return false
	case n < 0 || end.Stale(n) || longAgo(t-end.T[n], interval):
		return false
	}
	return shared || !f.seen.cover(t) || i == f.a.Len() || f.a.Stale(i) || exceeds(f.a.T[i]-t, interval)
}

// longAgo reports whether a marker is too far from a sample to be about it.
func longAgo(distance, interval int64) bool {
	return distance > sliceLen && exceeds(distance, interval)
}

// inGap reports whether value j of b is in a gap of a, where a has missed a scrape.
func (f *filler) inGap(i, j, k int, interval int64) bool {
	a, t := f.a, f.b.T[j]
	lo, hi := t, t
	ended := false // whether lo is a marker
	if i > 0 {
		d := t - a.T[i-1]
		if 2*(d+jitter) < interval && !a.Stale(i-1) {
			return false
		}
		if !exceeds(d, interval) {
			lo, ended = a.T[i-1], a.Stale(i-1)
		}
	}
	if i < a.Len() {
		d := a.T[i] - t
		if 2*(d+jitter) < interval && !a.Stale(i) {
			return false
		}
		if !exceeds(d, interval) {
			hi = a.T[i]
		}
	}
	if lo == t && hi == t || !f.seen.cover(t) || f.missed(i, k, t, interval) {
		return true
	}
	if lo == t || ended && hi > t {
		lo = f.aliveSince(j, interval) // a has not missed a scrape before
	}
	if hi == t {
		hi = f.aliveUntil(j, interval)
	}
	return exceeds(hi-lo, interval)
}

// missed reports whether a marker of a near t was dropped: it shows that a has missed a scrape.
func (f *filler) missed(i, k int, t, interval int64) bool {
	if f.a == f.raw {
		return false
	}
	at, raw := f.a.T, f.raw.T
	if k > 0 && (i == 0 || raw[k-1] != at[i-1]) && !exceeds(t-raw[k-1], interval) {
		return true
	}
	return k < len(raw) && (i == len(at) || raw[k] != at[i]) && !exceeds(raw[k]-t, interval)
}

// aliveSince returns since when b has been alive at its sample j, or a time that is far enough
// back to decide.
func (f *filler) aliveSince(j int, interval int64) int64 {
	b, t := f.b, f.b.T[j]
	for j > 0 && !b.Stale(j-1) && !exceeds(b.T[j]-b.T[j-1], interval) && !exceeds(t-b.T[j], interval) {
		j--
	}
	return b.T[j]
}

// aliveUntil returns until when b was alive from its sample j on, or a time that is far enough
// ahead to decide.
func (f *filler) aliveUntil(j int, interval int64) int64 {
	b, t := f.b, f.b.T[j]
	for j+1 < b.Len() && !b.Stale(j+1) && !exceeds(b.T[j+1]-b.T[j], interval) && !exceeds(b.T[j]-t, interval) {
		j++
	}
	return b.T[j]
}

// writer appends samples of several sources to dst.
type writer struct {
	dst      *Samples
	src      *Samples // of the last sample
	switched bool     // whether the counter reset hint of the next histogram is invalid
}

// add appends the samples [i, j) of src.
func (w *writer) add(src *Samples, i, j int) {
	if i >= j {
		return
	}
	if w.src != nil && w.src != src {
		w.switched = true
	}
	w.src = src
	for ; w.switched && i < j && (src.H != nil || src.FH != nil); i++ {
		w.dst.AppendFrom(src, i)
		if src.Type(i) != chunkenc.ValFloat && !src.Stale(i) {
			w.dst.forgetReset(w.dst.Len() - 1)
			w.switched = false
		}
	}
	w.dst.appendRange(src, i, j)
}

// forgetReset makes the counter reset hint of histogram i unknown, on a copy.
func (s *Samples) forgetReset(i int) {
	known := func(h histogram.CounterResetHint) bool {
		return h != histogram.UnknownCounterReset && h != histogram.GaugeType
	}
	switch s.Type(i) {
	case chunkenc.ValHistogram:
		if known(s.H[i].CounterResetHint) {
			s.H[i] = s.H[i].Copy()
			s.H[i].CounterResetHint = histogram.UnknownCounterReset
		}
	case chunkenc.ValFloatHistogram:
		if known(s.FH[i].CounterResetHint) {
			s.FH[i] = s.FH[i].Copy()
			s.FH[i].CounterResetHint = histogram.UnknownCounterReset
		}
	}
}

// nextStale returns the first stale marker from i on, s.Len() if there is none.
func (s *Samples) nextStale(i int) int {
	if s.H == nil && s.FH == nil {
		for i < len(s.F) && math.Float64bits(s.F[i]) != value.StaleNaN {
			i++
		}
		return i
	}
	for i < len(s.T) && !s.Stale(i) {
		i++
	}
	return i
}
