package dedup

import (
	"errors"
	"math"
	"sync"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// Series is one series of which one or more replicas hold runs. Runs are merged
// when the series is iterated, or a little before by MergeAhead, so that a query
// holds its data compressed but for the series at hand.
type Series struct {
	labels     labels.Labels
	mint, maxt int64
	runs       []Run
	broken     func(error)

	mtx     sync.Mutex // guards the fields below, and is held while they come about
	ahead   *ahead     // who merged it before it was iterated; nil if nobody did
	ready   *merged    // what was merged, until the last iterator takes it
	readers int        // iterators that are still to be made of what is merged
}

var _ storage.Series = (*Series)(nil)

// NewSeries returns the series with the given labels whose samples with
// mint <= T <= maxt (ms) are those of Merge over runs, which are in the order of
// preference. Runs should hold the samples of MarginOf their number before and
// after that window too: the merge looks at them.
//
// A run that turns out to be broken is an error of the iterator if it is the only
// one. Otherwise it is left out and broken is told, once for each iterator.
func NewSeries(lset labels.Labels, runs []Run, mint, maxt int64, broken func(error)) *Series {
	return &Series{labels: lset, runs: runs, mint: mint, maxt: maxt, broken: broken, readers: 1}
}

// ReadBy tells how many iterators there will be, so that what MergeAhead has merged
// is kept until the last of them is made. It is called before both.
func (s *Series) ReadBy(readers int) { s.readers = readers }

// Leave tells that one of the iterators will not be made.
func (s *Series) Leave() {
	if ready := s.take(); ready != nil {
		s.ahead.giveBack(ready)
	}
}

// take returns what was merged, nil if nothing was, for one of the iterators.
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

// merger merges the runs of a series. It owns the columns in which that happens.
type merger struct {
	parts  []*Samples
	spare  []*Samples // columns that no part uses now
	target *Samples   // where Merge puts what is not one of parts
	out    *Samples   // what came out
}

// merge puts the samples of s into m.out.
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

// release hands over what was merged last, which the merger will not use again.
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

// mergeIterator walks the merge of the runs of a series. Re-use of the iterator
// re-uses the columns.
type mergeIterator struct {
	columnIterator
	own      merger
	borrowed *merged // of from, to be given back; nil if own.out is walked
	from     *ahead
	err      error
}

func (m *mergeIterator) walk(out *Samples, s *Series) {
	i, j := out.within(s.mint, s.maxt)
	m.columnIterator.reset(out, i, j)
}

func (m *mergeIterator) giveBack() {
	if m.borrowed != nil {
		m.from.giveBack(m.borrowed)
	}
	m.borrowed = nil
}

func (m *mergeIterator) Err() error { return m.err }
