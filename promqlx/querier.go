package promqlx

import (
	"context"
	"sync"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/oneprom/oneprom/promqlx/plan"
	"github.com/oneprom/oneprom/servergroup"
)

// source is the queryable of upstream's query, which is made before it is planned.
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

// querier serves the selects of one evaluation. The engine makes those of the expression
// first and in order, then those of info().
type querier struct {
	storage.LabelQuerier // nil: the engine asks for no labels
	execution            *execution
	leaves               []plan.Leaf        // of what is evaluated
	piece                *servergroup.Piece // over which a part is evaluated; nil: it is the query

	mtx  sync.Mutex // guards next
	next int
}

// Select implements storage.Querier. The fetch begins at once, so that those of
// all selectors are under way together.
func (q *querier) Select(ctx context.Context, _ bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
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
	case leaf.Part != nil:
		return queryErrors{fetches.later(func(ctx context.Context) ([]storage.Series, annotations.Annotations, error) {
			return q.execution.answerPart(ctx, leaf.Part)
		})}
	case leaf.Selector.Unused:
		return storage.EmptySeriesSet()
	}
	return fetches.series(leaf.Selector.Selection, q.piece)
}

// Close ends the fetches that are still under way and waits for them, if it is that
// of the query.
func (q *querier) Close() error {
	if q.piece == nil {
		q.execution.fetches.end()
	}
	return nil
}
