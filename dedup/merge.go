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

// MarginOf is the margin (ms) for any number of replicas: replica n+1 is merged
// with what became of the n before it.
func MarginOf(replicas int) int64 { return Margin * int64(max(0, replicas-1)) }

// Merge returns the one series that runs are replicas of: what a single
// Prometheus would have that saw all that any of them saw. runs are in order of
// preference, each by strictly increasing timestamp; empty ones are skipped. The
// result is one of runs, not a copy, where that is all there is to it, else dst,
// which is overwritten and must be none of runs. Memory of runs is only read.
//
// Runs are taken in order: what has been merged so far, A, is completed from the
// next run, B.
//
// # A stays
//
// No value of A is ever changed or left out, and none is rewritten. B fills in
// where A has nothing. At equal timestamps A wins, unless A has a stale marker
// there and B a value.
//
// # Decisions are local
//
// All of it is decided sample by sample, from what lies nearby in time, with
// statistics over absolute slices of time: never from where the data starts or
// ends. The merge of data of [mint-Margin, maxt+Margin] is the same within [mint,
// maxt] as the merge of more, for two replicas (MarginOf for more) that scrape
// once a minute or more often. Where data is sparser, of a longer interval or
// with most samples lost, such a cut may change which samples of B fill a gap of
// A that is within the margin of the cut; whole runs stay as they are.
//
// # The interval
//
// The scrape interval I around a moment is the low median of A's deltas in the
// neighbourhood, its own hole at that moment aside. With less than two of them, B's
// are added; with none at all, two of the deltas next to it may agree on a longer
// one, of up to Prometheus' lookback; at last, it is one minute.
//
// # Shared clocks
//
// Copies made by remote write and results of rules have equal timestamps in all
// replicas, and so do no two scrapers. Where more samples of B coincide with one
// of A than contradict (lie within I/4 of one), A and B share a clock: each
// timestamp then is a scrape of its own, and A and B are united, markers too.
// Where neither is so, as of series of two or three samples, or where all of B is an
// interval or more from A, equal milliseconds within the second decide.
//
// # Different clocks
//
// A sample of B between two of A is taken only if a scrape of A is missing there:
// a hole longer than 1.5 I, as far as B was alive in it. B's samples count as
// alive in one stretch while they are no more than 1.5 I apart and no marker is
// between. A stretch is measured together with the sample of A next to it, if one
// is within 1.5 I, so that B's last scrape just after A's last is no gap, nor its
// first just before A's when the target comes back. Where A is further away on both
// sides, A was away and B is taken as it is. All samples taken keep I/2, less some
// jitter, from A's values, so that clocks that differ by less do not make a counter
// fall.
//
// # Holders of a part of time
//
// What lies outside the bounds of A (Bounded) is no gap of A: A was not asked. B is
// taken as it is there, markers too, but for values too close to A's. Nor does B
// tell of A's markers outside the bounds of B.
//
// # Stale markers
//
// A's marker is dropped if B was alive across it: if B's next sample is a value
// within 1.5 I (with a shared clock: at the very same time), and B's last sample is
// no marker. There is then a hole from A's last value to A's next one. Other
// markers of A stay, and are samples of A as to holes.
// B's marker is taken where it ends what was taken from B, and A does not go on
// within 1.5 I; or where it ends anything, with a shared clock. No marker is taken
// for a series that is stale already, nor one long after the last sample, unless it
// is the first that B has of its part of time: who holds the time before may have
// the sample that it ends.
//
// # Native histograms and start timestamps
//
// Start timestamps travel with their samples. After a switch from one replica to
// the other, and after a dropped marker, a histogram's counter reset hint speaks
// of a sample that is not the one before it any more: it is made unknown, on a
// copy. Gauge histograms stay gauges.
func Merge(dst *Samples, runs []*Samples) *Samples {
	var out, spare *Samples
	var seen *bounds // of those that out is made of
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
	raw   *Samples // what is completed
	a     *Samples // the same without the markers that are dropped
	b     *Samples
	seen  *bounds // of raw
	clock clock
	quiet quiet
	out   writer
	done  int // samples of a that are written
	last  int // sample of b that was written last, or -1
}

// newFiller returns what completes a, whose bounds are seen, from b, into dst.
func newFiller(dst, a, b *Samples, seen *bounds) filler {
	return filler{raw: a, a: a, b: b, seen: seen, last: -1, clock: clock{a: a.T, b: b.T}, out: writer{dst: dst}}
}

// mergeTwo returns a completed from b: a itself, or dst. seen are the bounds of a.
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

// dropMarkers takes the markers out of a over which b goes on.
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

// goesOn reports whether b is alive across marker i of a; j is the first sample of
// b that is not before it.
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
		return false // b has lost its sample here and does not know
	}
	interval := cmp.Or(estimate, defaultInterval)
	if exceeds(b.T[j]-t, interval) {
		return false
	}
	return j == 0 || !b.Stale(j-1) || longAgo(t-b.T[j-1], interval)
}

// fill writes all samples of b that are taken, and the samples of a before them.
func (f *filler) fill() {
	bt, at := f.b.T, f.a.T
	i, k := 0, 0 // the first samples of a and raw that are not before b's
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

// takes decides on sample j of b; i and k are the first samples of a and raw that
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

// takesMarker decides on marker j of b.
func (f *filler) takesMarker(i, j int, shared bool, interval int64) bool {
	t := f.b.T[j]
	end, n := f.a, i-1 // what the marker would end
	if f.last >= 0 && (i == 0 || f.b.T[f.last] > f.a.T[i-1]) {
		end, n = f.b, f.last
	}
	switch before := f.b.bounds; {
	case n < 0 && j == 0 && before != nil && !longAgo(t-before.from, interval):
		// What it ends may lie before the time of b, where another holder has it.
	case end == f.a && !shared && f.seen.cover(t):
		return false
	case n < 0 || end.Stale(n) || longAgo(t-end.T[n], interval):
		return false
	}
	return shared || !f.seen.cover(t) || i == f.a.Len() || f.a.Stale(i) || exceeds(f.a.T[i]-t, interval)
}

// longAgo reports whether a distance is too long for a marker to have to do with
// what is so far before it.
func longAgo(distance, interval int64) bool {
	return distance > sliceLen && exceeds(distance, interval)
}

// inGap reports whether a value of b lies where a misses a scrape.
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
		lo = f.aliveSince(j, interval) // a has not missed what was not alive
	}
	if hi == t {
		hi = f.aliveUntil(j, interval)
	}
	return exceeds(hi-lo, interval)
}

// missed reports whether a marker of a close to t was dropped: a itself says that
// it has missed a scrape.
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

// aliveSince walks back from sample j of b as long as b was alive, but no further
// than matters.
func (f *filler) aliveSince(j int, interval int64) int64 {
	b, t := f.b, f.b.T[j]
	for j > 0 && !b.Stale(j-1) && !exceeds(b.T[j]-b.T[j-1], interval) && !exceeds(t-b.T[j], interval) {
		j--
	}
	return b.T[j]
}

// aliveUntil walks ahead likewise.
func (f *filler) aliveUntil(j int, interval int64) int64 {
	b, t := f.b, f.b.T[j]
	for j+1 < b.Len() && !b.Stale(j+1) && !exceeds(b.T[j+1]-b.T[j], interval) && !exceeds(b.T[j]-t, interval) {
		j++
	}
	return b.T[j]
}

// writer puts samples of several sources one after the other.
type writer struct {
	dst      *Samples
	src      *Samples // where the last sample came from
	switched bool     // whether the next histogram's reset hint is void
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
