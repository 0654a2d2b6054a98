package dedup

import (
	"errors"
	"math"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// Series is one series of which one or more replicas hold runs. Runs are merged
// when the series is iterated, not before, so that a query holds its data
// compressed but for the series at hand.
type Series struct {
	labels     labels.Labels
	mint, maxt int64
	runs       []Run
	broken     func(error)
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
	return &Series{labels: lset, runs: runs, mint: mint, maxt: maxt, broken: broken}
}

// Labels implements storage.Series.
func (s *Series) Labels() labels.Labels { return s.labels }

// Iterator implements storage.Series.
func (s *Series) Iterator(it chunkenc.Iterator) chunkenc.Iterator {
	if len(s.runs) == 1 {
		return s.runs[0].Iterator(it, s.mint, s.maxt)
	}
	m, ok := it.(*mergeIterator)
	if !ok {
		m = &mergeIterator{}
	}
	m.reset(s)
	return m
}

// mergeIterator walks the merge of the runs of a series. It owns the columns in
// which the merge happens, so that re-use of the iterator re-uses them.
type mergeIterator struct {
	columnIterator
	parts  []Samples
	merged Samples
	err    error
}

func (m *mergeIterator) reset(s *Series) {
	for len(m.parts) < len(s.runs) {
		m.parts = append(m.parts, Samples{})
	}
	parts := make([]*Samples, 0, len(s.runs))
	var errs []error
	margin := MarginOf(len(s.runs))
	mint := max(s.mint, math.MinInt64+margin) - margin // without overflow
	maxt := min(s.maxt, math.MaxInt64-margin) + margin
	for i, r := range s.runs {
		p := &m.parts[i]
		p.Reset()
		if err := r.AppendTo(p, mint, maxt); err != nil {
			errs = append(errs, err)
			continue
		}
		parts = append(parts, p)
	}
	if m.err = nil; len(parts) == 0 {
		m.err = errors.Join(errs...)
	} else if len(errs) > 0 {
		s.broken(errors.Join(errs...))
	}
	out := Merge(&m.merged, parts)
	i, j := out.within(s.mint, s.maxt)
	m.columnIterator.reset(out, i, j)
}

func (m *mergeIterator) Err() error { return m.err }
