package differential

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/util/annotations"
)

type storageKey struct{}

// over is a handler that answers from a storage.
func over(h http.Handler, s storage.SampleAndChunkQueryable) http.Handler {
	db, inMemory := s.(interface{ Head() *tsdb.Head })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if inMemory && r.URL.Path == "/api/v1/status/tsdb" {
			w.Header().Set("Content-Type", "application/json")
			_, _ = fmt.Fprintf(w, `{"status":"success","data":{"headStats":{"numSeries":%d,"minTime":%d}}}`, db.Head().NumSeries(), db.Head().MinTime())
			return
		}
		h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), storageKey{}, s)))
	})
}

func storageOf(ctx context.Context) storage.SampleAndChunkQueryable {
	return ctx.Value(storageKey{}).(storage.SampleAndChunkQueryable)
}

// requestStorage is the storage of the request at hand.
type requestStorage struct{}

func (requestStorage) Querier(mint, maxt int64) (storage.Querier, error) {
	return &requestQuerier{requestLabels{mint: mint, maxt: maxt}}, nil
}

func (requestStorage) ChunkQuerier(mint, maxt int64) (storage.ChunkQuerier, error) {
	return &requestChunkQuerier{requestLabels{mint: mint, maxt: maxt}}, nil
}

// requestLabels opens a querier for each call.
type requestLabels struct {
	mint, maxt int64
	open       []interface{ Close() error }
}

func (q *requestLabels) querier(ctx context.Context) (storage.Querier, error) {
	inner, err := storageOf(ctx).Querier(q.mint, q.maxt)
	if err == nil {
		q.open = append(q.open, inner)
	}
	return inner, err
}

func (q *requestLabels) LabelValues(ctx context.Context, name string, hints *storage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	inner, err := q.querier(ctx)
	if err != nil {
		return nil, nil, err
	}
	return inner.LabelValues(ctx, name, hints, ms...)
}

func (q *requestLabels) LabelNames(ctx context.Context, hints *storage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	inner, err := q.querier(ctx)
	if err != nil {
		return nil, nil, err
	}
	return inner.LabelNames(ctx, hints, ms...)
}

func (q *requestLabels) Close() error {
	var errs []error
	for _, inner := range q.open {
		errs = append(errs, inner.Close())
	}
	return errors.Join(errs...)
}

type requestQuerier struct{ requestLabels }

func (q *requestQuerier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	inner, err := q.querier(ctx)
	if err != nil {
		return storage.ErrSeriesSet(err)
	}
	return inner.Select(ctx, sorted, hints, ms...)
}

type requestChunkQuerier struct{ requestLabels }

func (q *requestChunkQuerier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.ChunkSeriesSet {
	inner, err := storageOf(ctx).ChunkQuerier(q.mint, q.maxt)
	if err != nil {
		return storage.ErrChunkSeriesSet(err)
	}
	q.open = append(q.open, inner)
	return inner.Select(ctx, sorted, hints, ms...)
}
