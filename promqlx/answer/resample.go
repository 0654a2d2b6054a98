package answer

import (
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// AddResampled adds the series of a set, resampled at steps as the engine evaluates a vector
// selector. They stay compressed until they are read. onRead is called whenever a series is
// read, with the number of its resampled samples.
func (a *Answer) AddResampled(set storage.SeriesSet, steps transport.Steps, onRead func(samples int)) error {
	for set.Next() {
		s := set.At()
		a.series = append(a.series, segment{labels: s.Labels(), resampled: &resampled{raw: s, steps: steps, onRead: onRead}})
	}
	if err := set.Err(); err != nil {
		return err
	}
	a.Warnings.Merge(set.Warnings())
	return nil
}

// resampled is a series whose value at a step is its latest sample within the lookback,
// unless that is a stale marker.
type resampled struct {
	raw    storage.Series
	steps  transport.Steps
	onRead func(samples int)
}

// resampledSeries is a series of a part's answer of which some segments are resampled.
type resampledSeries struct {
	segments []segment // sorted by time
	steps    transport.Steps
}

// Labels implements storage.Series.
func (s *resampledSeries) Labels() labels.Labels { return s.segments[0].labels }

// Iterator implements storage.Series.
func (s *resampledSeries) Iterator(it chunkenc.Iterator) chunkenc.Iterator {
	v, ok := it.(*resampleIterator)
	if !ok {
		v = &resampleIterator{}
	}
	v.out.Reset()
	v.err = nil
	for _, part := range s.segments {
		if v.err != nil {
			break
		}
		if part.resampled != nil {
			v.resample(part.resampled, s.steps)
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

// resampleIterator iterates over resampled samples. Re-using it re-uses its memory.
type resampleIterator struct {
	chunkenc.Iterator
	out dedup.Samples
	raw chunkenc.Iterator
	err error
}

// Err returns the error of the series that was resampled.
func (v *resampleIterator) Err() error { return v.err }

// resample appends the samples of a resampled series. all are the steps of the part.
func (v *resampleIterator) resample(w *resampled, all transport.Steps) {
	v.raw = w.raw.Iterator(v.raw)
	st, seen := w.steps, 0
	var last latest
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
	w.onRead(seen)
}

// latest is the latest sample that was read of a series.
type latest struct {
	typ   chunkenc.ValueType // ValNone: none
	t     int64              // ms
	f     float64
	fh    *histogram.FloatHistogram
	given bool // whether fh was appended to samples, so that it must not be written any more
}

func (g *latest) take(it chunkenc.Iterator, typ chunkenc.ValueType) {
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

func (g *latest) stale() bool {
	if g.typ == chunkenc.ValFloat {
		return value.IsStaleNaN(g.f)
	}
	return value.IsStaleNaN(g.fh.Sum)
}

// appendTo appends the sample as the value at t (ms).
func (g *latest) appendTo(s *dedup.Samples, t int64) {
	if g.typ == chunkenc.ValFloat {
		s.Append(0, t, g.f)
		return
	}
	s.AppendFloatHistogram(0, t, g.fh)
	g.given = true
}
