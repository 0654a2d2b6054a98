package dialect

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
)

// Querier implements storage.Queryable.
func (t *Thanos) Querier(mint, maxt int64) (storage.Querier, error) {
	return thanosQuerier{t: t, mint: mint, maxt: maxt}, nil
}

// ChunkQuerier implements storage.ChunkQueryable, by which limits are counted.
func (t *Thanos) ChunkQuerier(mint, maxt int64) (storage.ChunkQuerier, error) {
	return thanosChunks{thanosQuerier{t: t, mint: mint, maxt: maxt}}, nil
}

type thanosQuerier struct {
	t          *Thanos
	mint, maxt int64
}

func (thanosQuerier) Close() error { return nil }

// thanosChunks is thanosQuerier as a storage.ChunkQuerier.
type thanosChunks struct{ thanosQuerier }

func (q thanosChunks) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.ChunkSeriesSet {
	return storage.NewSeriesSetToChunkSet(q.thanosQuerier.Select(ctx, sorted, hints, ms...))
}

func paramsOf(ctx context.Context) thanosParams {
	if p, ok := ctx.Value(thanosKey{}).(thanosParams); ok {
		return p
	}
	return thanosParams{dedup: true, partial: true}
}

// open calls f with each reachable store whose external labels match, and with the matchers that are
// left for the store's own data.
func (q thanosQuerier) open(ctx context.Context, ms []*labels.Matcher, f func(Store, storage.Querier, []*labels.Matcher) error) (annotations.Annotations, error) {
	var ws annotations.Annotations
	for _, s := range q.t.opts.Stores {
		own, ok := s.matchersFor(ms)
		if !ok {
			continue
		}
		if q.t.isDown(s.Name) {
			err := fmt.Errorf("fetch series for %s Addr: %s: rpc error: code = Unavailable desc = connection error: "+
				`desc = "transport: Error while dialing: dial tcp %s: connect: connection refused"`, s.Labels, s.Name, s.Name)
			if !paramsOf(ctx).partial {
				return ws, fmt.Errorf("proxy Series(): rpc error: code = Aborted desc = %w", err)
			}
			ws.Add(err)
			continue
		}
		data, err := s.Data.Querier(q.mint, q.maxt)
		if err != nil {
			return ws, err
		}
		if err := errors.Join(f(s, data, own), data.Close()); err != nil {
			return ws, err
		}
	}
	return ws, nil
}

// matchersFor takes the matchers on external labels away; ok is false if one does not match.
func (s Store) matchersFor(ms []*labels.Matcher) (own []*labels.Matcher, ok bool) {
	for _, m := range ms {
		switch {
		case !s.Labels.Has(m.Name):
			own = append(own, m)
		case !m.Matches(s.Labels.Get(m.Name)):
			return nil, false
		}
	}
	if len(own) == 0 {
		own = append(own, labels.MustNewMatcher(labels.MatchNotEqual, labels.MetricName, ""))
	}
	return own, true
}

// Select implements storage.Querier.
func (q thanosQuerier) Select(ctx context.Context, _ bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	p := paramsOf(ctx)
	runs := map[string][][]chunks.Sample{} // of one series, by store
	labelsOf := map[string]labels.Labels{}
	ws, err := q.open(ctx, ms, func(s Store, data storage.Querier, own []*labels.Matcher) error {
		set := data.Select(ctx, false, hints, own...)
		for set.Next() {
			b := labels.NewBuilder(set.At().Labels())
			s.Labels.Range(func(l labels.Label) { b.Set(l.Name, l.Value) })
			if p.dedup {
				b.Del(q.t.opts.ReplicaLabels...)
			}
			samples, err := expanded(set.At().Iterator(nil))
			if err != nil {
				return err
			}
			key := b.Labels().String()
			labelsOf[key] = b.Labels()
			runs[key] = append(runs[key], downsampled(samples, p.resolution))
		}
		return set.Err()
	})
	if err != nil {
		return storage.ErrSeriesSet(err)
	}
	var list []storage.Series
	for key, l := range labelsOf {
		list = append(list, storage.NewListSeries(l, deduplicated(runs[key])))
	}
	slices.SortFunc(list, func(a, b storage.Series) int { return labels.Compare(a.Labels(), b.Labels()) })
	return &listSet{list: list, at: -1, warnings: ws}
}

// sample is one of a series, of one of three kinds.
type sample struct {
	t  int64 // ms
	f  float64
	h  *histogram.Histogram
	fh *histogram.FloatHistogram
}

func (s sample) ST() int64                     { return 0 }
func (s sample) T() int64                      { return s.t }
func (s sample) F() float64                    { return s.f }
func (s sample) H() *histogram.Histogram       { return s.h }
func (s sample) FH() *histogram.FloatHistogram { return s.fh }
func (s sample) Copy() chunks.Sample           { return s }

func (s sample) Type() chunkenc.ValueType {
	switch {
	case s.h != nil:
		return chunkenc.ValHistogram
	case s.fh != nil:
		return chunkenc.ValFloatHistogram
	default:
		return chunkenc.ValFloat
	}
}

// expanded reads a series. Upstream's storage.ExpandSamples does not keep stale markers.
func expanded(it chunkenc.Iterator) ([]chunks.Sample, error) {
	var out []chunks.Sample
	for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
		var s sample
		switch kind {
		case chunkenc.ValHistogram:
			s.t, s.h = it.AtHistogram(nil)
		case chunkenc.ValFloatHistogram:
			s.t, s.fh = it.AtFloatHistogram(nil)
		default:
			s.t, s.f = it.At()
		}
		out = append(out, s)
	}
	return out, it.Err()
}

// downsampled keeps the last sample of every five minutes, if data of that resolution is good enough.
func downsampled(in []chunks.Sample, resolution int64) []chunks.Sample {
	const window = 5 * 60 * 1000
	if resolution < window {
		return in
	}
	var out []chunks.Sample
	for i, s := range in {
		if i+1 == len(in) || in[i+1].T()/window != s.T()/window {
			out = append(out, s)
		}
	}
	return out
}

// deduplicated follows one run until its next sample is late, and then another, whose first two
// intervals are lost: in the manner of Thanos' penalties.
func deduplicated(runs [][]chunks.Sample) []chunks.Sample {
	out, on := []chunks.Sample{}, 0
	last, interval := int64(-1<<62), int64(15_000)
	after := func(run int, t int64) []chunks.Sample {
		i, _ := slices.BinarySearchFunc(runs[run], t, func(s chunks.Sample, t int64) int {
			if s.T() < t {
				return -1
			}
			return 1
		})
		return runs[run][i:]
	}
	for {
		rest := after(on, last+1)
		if len(rest) == 0 || len(out) > 0 && rest[0].T()-last > 2*interval {
			for i := range runs {
				if other := after(i, last+2*interval); len(other) > 0 && (len(rest) == 0 || other[0].T() < rest[0].T()) {
					rest, on = other, i
				}
			}
		}
		if len(rest) == 0 {
			return out
		}
		if d := rest[0].T() - last; len(out) > 0 && d <= 2*interval {
			interval = d
		}
		last = rest[0].T()
		out = append(out, rest[0])
	}
}

// LabelValues implements storage.LabelQuerier.
func (q thanosQuerier) LabelValues(ctx context.Context, name string, hints *storage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return q.collect(ctx, ms, func(s Store, data storage.Querier, own []*labels.Matcher) ([]string, annotations.Annotations, error) {
		if v := s.Labels.Get(name); v != "" {
			return []string{v}, nil, nil
		}
		return data.LabelValues(ctx, name, hints, own...)
	})
}

// LabelNames implements storage.LabelQuerier.
func (q thanosQuerier) LabelNames(ctx context.Context, hints *storage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return q.collect(ctx, ms, func(s Store, data storage.Querier, own []*labels.Matcher) ([]string, annotations.Annotations, error) {
		names, ws, err := data.LabelNames(ctx, hints, own...)
		for name := range s.Labels.Map() {
			names = append(names, name)
		}
		return names, ws, err
	})
}

func (q thanosQuerier) collect(ctx context.Context, ms []*labels.Matcher, f func(Store, storage.Querier, []*labels.Matcher) ([]string, annotations.Annotations, error)) ([]string, annotations.Annotations, error) {
	all := map[string]bool{}
	var said annotations.Annotations
	ws, err := q.open(ctx, ms, func(s Store, data storage.Querier, own []*labels.Matcher) error {
		list, ws, err := f(s, data, own)
		said.Merge(ws)
		for _, v := range list {
			all[v] = true
		}
		return err
	})
	return slices.Sorted(maps.Keys(all)), said.Merge(ws), err
}

// listSet is a list of series with warnings.
type listSet struct {
	list     []storage.Series
	at       int
	warnings annotations.Annotations
}

func (s *listSet) Next() bool                        { s.at++; return s.at < len(s.list) }
func (s *listSet) At() storage.Series                { return s.list[s.at] }
func (s *listSet) Err() error                        { return nil }
func (s *listSet) Warnings() annotations.Annotations { return s.warnings }
