package dedup

import (
	"errors"
	"math"
	"sync"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// Series is one series of which one or more replicas have runs. Runs are merged when the series
// is iterated, or shortly before by MergeAhead, so that a query holds its data compressed
// except for the current series.
type Series struct {
	labels     labels.Labels
	mint, maxt int64
	runs       []Run
	broken     func(error)

	mtx     sync.Mutex // guards the fields below, and is held during a merge ahead
	ahead   *ahead     // that merged the series before it was iterated; nil if none did
	ready   *merged    // the merge, until the last iterator takes it
	readers int        // iterators of the merge that are still to be made
}

var _ storage.Series = (*Series)(nil)

// NewSeries returns the series with the given labels and the samples with mint <= T <= maxt
// (ms) of the Merge of runs, which are in order of preference. Runs should also have the
// samples of MarginOf before and after that window, because the merge looks at them.
//
// A run that turns out to be broken is an error of the iterator if it is the only one.
// Otherwise it is left out and broken is called with the error, once for each iterator.
func NewSeries(lset labels.Labels, runs []Run, mint, maxt int64, broken func(error)) *Series {
	return &Series{labels: lset, runs: runs, mint: mint, maxt: maxt, broken: broken, readers: 1}
}

// ReadBy sets how many iterators will be made, so that a merge of MergeAhead is kept until the
// last of them is made. It must be called before MergeAhead and before Iterator.
func (s *Series) ReadBy(readers int) { s.readers = readers }

// Leave gives up one of the iterators that were to be made.
func (s *Series) Leave() {
	if ready := s.take(); ready != nil {
		s.ahead.giveBack(ready)
	}
}

// take returns the merge of MergeAhead, nil if there is none, for one of the iterators.
func (s *Series) take() *merged {
	s.mtx.Lock()
	ready := s.ready
	s.readers--
	last := s.readers <= 0
	if last {
		s.ready = nil
	}
	s.mtx.Unlock()
	if ready != nil && last {
		s.ahead.iterated(ready)
	}
	return ready
}

// Labels implements storage.Series.
func (s *Series) Labels() labels.Labels { return s.labels }

// Iterator implements storage.Series.
func (s *Series) Iterator(it chunkenc.Iterator) chunkenc.Iterator {
	ready := s.take()
	if ready == nil && len(s.runs) == 1 {
		if m, ok := it.(*mergeIterator); ok {
			m.giveBack()
			it = nil
		}
		return s.runs[0].Iterator(it, s.mint, s.maxt)
	}
	m, ok := it.(*mergeIterator)
	if !ok {
		m = &mergeIterator{}
	}
	m.giveBack()
	if ready == nil {
		m.err = m.own.merge(s)
		m.walk(m.own.out, s)
		return m
	}
	m.err, m.borrowed, m.from = ready.err, ready, s.ahead
	m.walk(ready.samples, s)
	return m
}

// merger merges the runs of a series in columns of its own.
type merger struct {
	parts  []*Samples
	spare  []*Samples // columns that are not in use
	target *Samples   // dst of Merge
	out    *Samples   // the result of Merge
}

// merge sets m.out to the merged samples of s.
func (m *merger) merge(s *Series) error {
	m.spare = append(m.spare, m.parts...)
	m.parts = m.parts[:0]
	if m.target == nil {
		m.target = &Samples{}
	}
	margin := MarginOf(len(s.runs))
	mint := max(s.mint, math.MinInt64+margin) - margin // without overflow
	maxt := min(s.maxt, math.MaxInt64-margin) + margin
	var errs []error
	for _, r := range s.runs {
		p := m.column()
		if err := r.AppendTo(p, mint, maxt); err != nil {
			errs = append(errs, err)
			m.spare = append(m.spare, p)
			continue
		}
		if b, ok := r.(Bounded); ok {
			p.bounds = &bounds{b.From, b.To}
		}
		m.parts = append(m.parts, p)
	}
	m.out = Merge(m.target, m.parts)
	if len(errs) > 0 && len(m.parts) > 0 {
		s.broken(errors.Join(errs...))
		return nil
	}
	return errors.Join(errs...)
}

func (m *merger) column() *Samples {
	if n := len(m.spare); n > 0 {
		p := m.spare[n-1]
		m.spare = m.spare[:n-1]
		p.Reset()
		return p
	}
	return &Samples{}
}

// release returns the last result, which the merger no longer uses.
func (m *merger) release() *Samples {
	out := m.out
	if out == m.target {
		m.target = m.column()
		return out
	}
	for i, p := range m.parts {
		if p == out {
			m.parts[i] = m.column()
		}
	}
	return out
}

// mergeIterator walks the merge of the runs of a series. Re-using the iterator re-uses the
// columns.
type mergeIterator struct {
	columnIterator
	own      merger
	borrowed *merged // of from, to be given back; nil if it walks own.out
	from     *ahead
	err      error
}

func (m *mergeIterator) walk(out *Samples, s *Series) {
	i, j := out.within(s.mint, s.maxt)
	m.reset(out, i, j)
}

func (m *mergeIterator) giveBack() {
	if m.borrowed != nil {
		m.from.giveBack(m.borrowed)
	}
	m.borrowed = nil
}

func (m *mergeIterator) Err() error { return m.err }
