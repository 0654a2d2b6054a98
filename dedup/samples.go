// Package dedup merges the series that the replicas of a server group hold into one. It knows
// samples and nothing else: it compares no labels, makes no requests and understands no PromQL.
//
// Samples are columns of times and values, a Run is what one replica has of a series, and a Series
// is several runs of which the merge is made when it is read, or ahead of that.
//
// The rules, and the reasons for them, are at Merge.
package dedup

import (
	"fmt"
	"math"
	"sort"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// StaleNaN is the value of a stale marker, which ends a series
// (https://prometheus.io/docs/prometheus/latest/querying/basics/#staleness).
var StaleNaN = math.Float64frombits(value.StaleNaN)

// Samples are consecutive samples of one series in columns, by strictly
// increasing timestamp. Column i of every slice belongs to T[i]. The zero value
// is an empty series.
type Samples struct {
	// T are timestamps in ms since the epoch.
	T []int64
	// F are the values of float samples; 0 where the sample is a histogram.
	F []float64
	// ST are start timestamps in ms, 0 where unknown. Nil if no sample has one.
	ST []int64
	// H and FH hold integer and float histograms, nil where the sample is of
	// another type. Each slice is nil if no sample is of its type. Histograms are
	// shared between Samples and never written to once they are in a column.
	H  []*histogram.Histogram
	FH []*histogram.FloatHistogram

	spareST []int64 // memory of ST while it is nil
	bounds  *bounds // of the run; nil: all time
}

// bounds are the part of time that a run covers (ms, inclusive).
type bounds struct{ from, to int64 }

// Bounded is a Run that covers only [From, To] (ms): a missing sample outside says nothing.
type Bounded struct {
	Run
	From, To int64
}

// Unbounded returns a run without its bounds.
func Unbounded(r Run) Run {
	if b, ok := r.(Bounded); ok {
		return b.Run
	}
	return r
}

// cover reports whether the run could have a sample at t.
func (b *bounds) cover(t int64) bool { return b == nil || b.from <= t && t <= b.to }

// union returns the bounds of the samples of both runs.
func (b *bounds) union(o *bounds) *bounds {
	if b == nil || o == nil {
		return nil
	}
	return &bounds{min(b.from, o.from), max(b.to, o.to)}
}

// Len returns the number of samples.
func (s *Samples) Len() int { return len(s.T) }

// Between returns the samples from mint to maxt (ms, inclusive). They share memory with s, but
// appending to them does not change s.
func (s *Samples) Between(mint, maxt int64) *Samples {
	i, j := s.within(mint, maxt)
	out := &Samples{T: s.T[i:j:j], F: s.F[i:j:j]}
	if s.ST != nil {
		out.ST = s.ST[i:j:j]
	}
	if s.H != nil {
		out.H = s.H[i:j:j]
	}
	if s.FH != nil {
		out.FH = s.FH[i:j:j]
	}
	return out
}

// Reset empties s and keeps its memory, except for the histograms.
func (s *Samples) Reset() {
	s.T, s.F, s.bounds = s.T[:0], s.F[:0], nil
	if s.ST != nil {
		s.spareST = s.ST[:0]
	}
	s.ST, s.H, s.FH = nil, nil, nil
}

// Type returns the type of the value of sample i.
func (s *Samples) Type(i int) chunkenc.ValueType {
	switch {
	case s.H != nil && s.H[i] != nil:
		return chunkenc.ValHistogram
	case s.FH != nil && s.FH[i] != nil:
		return chunkenc.ValFloatHistogram
	default:
		return chunkenc.ValFloat
	}
}

// Stale reports whether sample i is a stale marker of any type.
func (s *Samples) Stale(i int) bool {
	switch s.Type(i) {
	case chunkenc.ValHistogram:
		return value.IsStaleNaN(s.H[i].Sum)
	case chunkenc.ValFloatHistogram:
		return value.IsStaleNaN(s.FH[i].Sum)
	default:
		return value.IsStaleNaN(s.F[i])
	}
}

// Append adds a float sample. st is its start timestamp in ms, 0 if unknown.
func (s *Samples) Append(st, t int64, f float64) {
	s.T = append(s.T, t)
	s.F = append(s.F, f)
	if st != 0 || s.ST != nil {
		s.appendST(st)
	}
	if s.H != nil {
		s.H = append(s.H, nil)
	}
	if s.FH != nil {
		s.FH = append(s.FH, nil)
	}
}

// AppendHistogram adds a sample of an integer histogram.
func (s *Samples) AppendHistogram(st, t int64, h *histogram.Histogram) {
	if s.H == nil {
		s.H = make([]*histogram.Histogram, len(s.T), cap(s.T)+1)
	}
	s.Append(st, t, 0)
	s.H[len(s.H)-1] = h
}

// AppendFloatHistogram adds a sample of a float histogram.
func (s *Samples) AppendFloatHistogram(st, t int64, h *histogram.FloatHistogram) {
	if s.FH == nil {
		s.FH = make([]*histogram.FloatHistogram, len(s.T), cap(s.T)+1)
	}
	s.Append(st, t, 0)
	s.FH[len(s.FH)-1] = h
}

// AppendFrom adds sample i of o.
func (s *Samples) AppendFrom(o *Samples, i int) {
	var st int64
	if o.ST != nil {
		st = o.ST[i]
	}
	switch o.Type(i) {
	case chunkenc.ValHistogram:
		s.AppendHistogram(st, o.T[i], o.H[i])
	case chunkenc.ValFloatHistogram:
		s.AppendFloatHistogram(st, o.T[i], o.FH[i])
	default:
		s.Append(st, o.T[i], o.F[i])
	}
}

func (s *Samples) appendST(st int64) {
	if s.ST == nil {
		s.ST, s.spareST = s.spareST, nil
	}
	for len(s.ST) < len(s.T)-1 {
		s.ST = append(s.ST, 0)
	}
	s.ST = append(s.ST, st)
}

// within returns the index range [i, j) of the samples with mint <= T <= maxt.
func (s *Samples) within(mint, maxt int64) (i, j int) {
	i = sort.Search(len(s.T), func(i int) bool { return s.T[i] >= mint })
	j = i + sort.Search(len(s.T)-i, func(j int) bool { return s.T[i+j] > maxt })
	return i, j
}

// AppendTo implements Run.
func (s *Samples) AppendTo(dst *Samples, mint, maxt int64) error {
	i, j := s.within(mint, maxt)
	dst.appendRange(s, i, j)
	return nil
}

// appendRange adds the samples [i, j) of o.
func (s *Samples) appendRange(o *Samples, i, j int) {
	if o.H == nil && o.FH == nil && o.ST == nil && s.H == nil && s.FH == nil && s.ST == nil {
		s.T = append(s.T, o.T[i:j]...)
		s.F = append(s.F, o.F[i:j]...)
		return
	}
	for ; i < j; i++ {
		s.AppendFrom(o, i)
	}
}

// Iterator implements Run.
func (s *Samples) Iterator(it chunkenc.Iterator, mint, maxt int64) chunkenc.Iterator {
	c, ok := it.(*columnIterator)
	if !ok {
		c = &columnIterator{}
	}
	i, j := s.within(mint, maxt)
	c.reset(s, i, j)
	return c
}

// Run is what one replica has of one series, in the form in which it arrived: columns or
// compressed chunks. AppendTo and Iterator see only the samples with mint <= T <= maxt (ms).
type Run interface {
	// Len is the number of samples, as the sender gave it: it decodes none.
	Len() int
	// AppendTo appends the samples to dst.
	AppendTo(dst *Samples, mint, maxt int64) error
	// Iterator walks the samples. The iterator passed is for re-use, as in
	// chunkenc.Iterable.
	Iterator(it chunkenc.Iterator, mint, maxt int64) chunkenc.Iterator
}

// columnIterator walks the samples [i+1, end) of s.
type columnIterator struct {
	s       *Samples
	i, end  int
	started bool // whether Next or Seek was called
}

func (it *columnIterator) reset(s *Samples, i, end int) {
	*it = columnIterator{s: s, i: i - 1, end: end}
}

func (it *columnIterator) Next() chunkenc.ValueType {
	if it.i+1 >= it.end {
		it.i, it.started = it.end, true
		return chunkenc.ValNone
	}
	it.i++
	it.started = true
	return it.s.Type(it.i)
}

func (it *columnIterator) Seek(t int64) chunkenc.ValueType {
	if !it.started {
		it.started = true
		it.i++
	}
	if it.i >= it.end {
		return chunkenc.ValNone
	}
	if ts := it.s.T; ts[it.i] < t {
		// Most seeks are short: gallop, then search the last stride.
		lo, stride := it.i, 1
		for lo+stride < it.end && ts[lo+stride] < t {
			lo += stride
			stride *= 2
		}
		hi := min(lo+stride, it.end)
		for lo+1 < hi {
			if mid := (lo + hi) / 2; ts[mid] < t {
				lo = mid
			} else {
				hi = mid
			}
		}
		if it.i = hi; hi == it.end {
			return chunkenc.ValNone
		}
	}
	return it.s.Type(it.i)
}

func (it *columnIterator) At() (int64, float64) { return it.s.T[it.i], it.s.F[it.i] }

func (it *columnIterator) AtHistogram(h *histogram.Histogram) (int64, *histogram.Histogram) {
	src := it.s.H[it.i]
	if h == nil {
		return it.s.T[it.i], src.Copy()
	}
	src.CopyTo(h)
	return it.s.T[it.i], h
}

func (it *columnIterator) AtFloatHistogram(fh *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	t := it.s.T[it.i]
	if it.s.Type(it.i) == chunkenc.ValHistogram {
		return t, it.s.H[it.i].ToFloat(fh)
	}
	src := it.s.FH[it.i]
	if fh == nil {
		return t, src.Copy()
	}
	src.CopyTo(fh)
	return t, fh
}

func (it *columnIterator) AtT() int64 { return it.s.T[it.i] }

func (it *columnIterator) AtST() int64 {
	if it.s.ST == nil {
		return 0
	}
	return it.s.ST[it.i]
}

func (it *columnIterator) Err() error { return nil }

// Check returns an error if timestamps do not strictly increase.
func (s *Samples) Check() error {
	for i := 1; i < len(s.T); i++ {
		if s.T[i] <= s.T[i-1] {
			return fmt.Errorf("samples out of order: one at %d ms after one at %d ms", s.T[i], s.T[i-1])
		}
	}
	return nil
}
