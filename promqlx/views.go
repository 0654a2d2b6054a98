package promqlx

import (
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/promqlx/plan"
	"github.com/oneprom/oneprom/servergroup"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// This file looks at series at steps, as the engine does for a vector selector. A part
// that is one needs no engine of its own, and its series stay compressed until the
// query reads them.

// looks answers a part that is a selector at its own steps with views of the piece's series.
func (x *execution) looks(p *plan.Part, piece *servergroup.Piece) (answer, error) {
	st := piece.Steps
	ms := func(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
	selectors := plan.Selectors(&parser.EvalStmt{
		Expr: p.Expr, Start: time.UnixMilli(st.Start), End: time.UnixMilli(st.End), Interval: ms(st.Step), LookbackDelta: ms(st.Lookback),
	}, x.engine.subqueryStep)
	sets := make([]storage.SeriesSet, len(piece.Turns))
	for i := range sets { // all of them before the first is read: the series are merged once
		sets[i] = x.selection(selectors[0].Selection, piece)
	}
	seen := x.trace.of(piece)
	var out answer
	for i, set := range sets {
		for set.Next() {
			s := set.At()
			out.series = append(out.series, stretch{labels: s.Labels(), view: &view{raw: s, steps: piece.Turns[i], seen: seen}})
		}
		if err := set.Err(); err != nil {
			return answer{}, err
		}
		out.warnings.Merge(set.Warnings())
	}
	return out, nil
}

// view is a series that is looked at at steps: at each, its latest sample within the
// lookback is seen, unless that is a stale marker.
type view struct {
	raw   storage.Series
	steps transport.Steps
	seen  *pieceTrace
}

// viewed is a series of a part's answer of which some stretches are views.
type viewed struct {
	stretches []stretch // one after the other
	steps     transport.Steps
}

// Labels implements storage.Series.
func (s *viewed) Labels() labels.Labels { return s.stretches[0].labels }

// Iterator implements storage.Series.
func (s *viewed) Iterator(it chunkenc.Iterator) chunkenc.Iterator {
	v, ok := it.(*viewedIterator)
	if !ok {
		v = &viewedIterator{}
	}
	v.out.Reset()
	v.err = nil
	for _, part := range s.stretches {
		if v.err != nil {
			break
		}
		if part.view != nil {
			v.look(part.view, s.steps)
			continue
		}
		for i, t := range part.samples.T {
			endRun(&v.out, s.steps, t)
			v.out.AppendFrom(part.samples, i)
		}
	}
	endRun(&v.out, s.steps, s.steps.End+1)
	v.Iterator = v.out.Iterator(v.Iterator, s.steps.Start, s.steps.End)
	return v
}

// viewedIterator walks what is seen. Re-use of the iterator re-uses its memory.
type viewedIterator struct {
	chunkenc.Iterator
	out dedup.Samples
	raw chunkenc.Iterator
	err error
}

// Err is that of what was looked at.
func (v *viewedIterator) Err() error { return v.err }

// look appends what is seen of a view. all are the steps of the part.
func (v *viewedIterator) look(w *view, all transport.Steps) {
	v.raw = w.raw.Iterator(v.raw)
	st, seen := w.steps, 0
	var last glimpse
	next := v.raw.Next()
	for t := st.Start; t <= st.End; t += st.Step {
		if next != chunkenc.ValNone && v.raw.AtT() <= t-st.Lookback {
			next = v.raw.Seek(t - st.Lookback + 1)
		}
		for ; next != chunkenc.ValNone && v.raw.AtT() <= t; next = v.raw.Next() {
			last.take(v.raw, next)
		}
		if last.typ == chunkenc.ValNone || last.t <= t-st.Lookback || last.stale() {
			continue
		}
		endRun(&v.out, all, t)
		last.appendTo(&v.out, t)
		seen++
	}
	v.err = v.raw.Err()
	w.seen.read(seen)
}

// glimpse is the last sample that was arrived at.
type glimpse struct {
	typ   chunkenc.ValueType // ValNone: none
	t     int64              // ms
	f     float64
	fh    *histogram.FloatHistogram
	given bool // fh is in use elsewhere
}

func (g *glimpse) take(it chunkenc.Iterator, typ chunkenc.ValueType) {
	g.typ = typ
	if typ == chunkenc.ValFloat {
		g.t, g.f = it.At()
		return
	}
	if g.given {
		g.fh, g.given = nil, false
	}
	g.t, g.fh = it.AtFloatHistogram(g.fh)
}

func (g *glimpse) stale() bool {
	if g.typ == chunkenc.ValFloat {
		return value.IsStaleNaN(g.f)
	}
	return value.IsStaleNaN(g.fh.Sum)
}

// appendTo appends what was seen at t (ms).
func (g *glimpse) appendTo(s *dedup.Samples, t int64) {
	if g.typ == chunkenc.ValFloat {
		s.Append(0, t, g.f)
		return
	}
	s.AppendFloatHistogram(0, t, g.fh)
	g.given = true
}
