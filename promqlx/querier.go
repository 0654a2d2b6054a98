package promqlx

import (
	"context"
	"sync"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/oneprom/oneprom/promqlx/plan"
	"github.com/oneprom/oneprom/servergroup/partition"
)

// source is the queryable of upstream's query. It is made before the query is planned, and
// gets its execution when that is done.
type source struct {
	execution *execution
	progress  *progress
}

// Querier implements storage.Queryable. The engine asks for it when it begins to
// evaluate.
func (s *source) Querier(int64, int64) (storage.Querier, error) {
	s.progress.begin()
	return &querier{execution: s.execution, leaves: s.execution.plan.Leaves}, nil
}

// querier serves the selects of one evaluation. The engine first selects for the selectors
// of the expression, in their order, then for the info series of info().
type querier struct {
	storage.LabelQuerier // nil: the engine asks for no labels
	execution            *execution
	leaves               []plan.Leaf      // what the selectors of the expression stand for
	piece                *partition.Piece // the piece over which a part is evaluated; nil for the query itself

	mtx  sync.Mutex // guards next
	next int
}

// Select implements storage.Querier. The fetch begins at once, so that all selectors of an
// expression are fetched at the same time.
func (q *querier) Select(ctx context.Context, _ bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	if ctx.Err() != nil { // whoever was asked now would be said not to have answered in time
		return storage.ErrSeriesSet(contextError(ctx, "query planning"))
	}
	q.mtx.Lock()
	defer q.mtx.Unlock()
	fetches := q.execution.fetches
	if q.piece == nil {
		fetches.begin(ctx)
	}
	if q.next == len(q.leaves) {
		return fetches.series(q.execution.plan.InfoSelection(hints.Start, hints.End, hints.Step, ms), q.piece)
	}
	leaf := q.leaves[q.next]
	q.next++
	switch {
	case leaf.Stretches:
		return queryErrors{fetches.later(q.execution.answerStretches)}
	case leaf.Part != nil:
		return queryErrors{fetches.later(func(ctx context.Context) ([]storage.Series, annotations.Annotations, error) {
			return q.execution.answerPart(ctx, leaf.Part)
		})}
	case leaf.Selector.Unused:
		return storage.EmptySeriesSet()
	}
	return fetches.series(leaf.Selector.Selection, q.piece)
}

// Close implements storage.Querier. The querier of the query itself ends the fetches that are
// still under way and waits for them.
func (q *querier) Close() error {
	if q.piece == nil {
		q.execution.fetches.end()
	}
	return nil
}
