package dedup

import (
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
}

var _ storage.Series = (*Series)(nil)

// NewSeries returns the series with the given labels whose samples with
// mint <= T <= maxt (ms) are those of Merge over runs, which are in the order of
// preference. Runs should hold the samples of MarginOf their number before and
// after that window too: the merge looks at them.
func NewSeries(lset labels.Labels, runs []Run, mint, maxt int64) *Series {
	return &Series{labels: lset, runs: runs, mint: mint, maxt: maxt}
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
	m.err = nil
	for len(m.parts) < len(s.runs) {
		m.parts = append(m.parts, Samples{})
	}
	parts := make([]*Samples, len(s.runs))
	margin := MarginOf(len(s.runs))
	mint := max(s.mint, math.MinInt64+margin) - margin // without overflow
	maxt := min(s.maxt, math.MaxInt64-margin) + margin
	for i, r := range s.runs {
		p := &m.parts[i]
		p.Reset()
		if err := r.AppendTo(p, mint, maxt); err != nil && m.err == nil {
			m.err = err
		}
		parts[i] = p
	}
	out := &m.merged
	if m.err != nil {
		out.Reset() // a broken run is an error of the series, not a shorter series
	} else {
		out = Merge(out, parts)
	}
	i, j := out.within(s.mint, s.maxt)
	m.columnIterator.reset(out, i, j)
}

func (m *mergeIterator) Err() error { return m.err }
