package promqlx

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"

	"github.com/oneprom/oneprom/servergroup"
)

// Engine evaluates queries over server groups with upstream's engine. It is a
// promql.QueryEngine whose queryable arguments are not used: a query is planned
// first, and its series come from the groups as the plan says.
type Engine struct {
	engine       *promql.Engine
	groups       *servergroup.Set
	subqueryStep func(rangeMS int64) int64
}

var _ promql.QueryEngine = (*Engine)(nil)

// NewEngine returns an engine over groups.
func NewEngine(o promql.EngineOpts, groups *servergroup.Set) *Engine {
	return &Engine{engine: promql.NewEngine(o), groups: groups, subqueryStep: o.NoStepSubqueryIntervalFn}
}

// Close releases what the engine holds.
func (e *Engine) Close() error { return e.engine.Close() }

// NewInstantQuery implements promql.QueryEngine.
func (e *Engine) NewInstantQuery(ctx context.Context, _ storage.Queryable, opts promql.QueryOpts, qs string, ts time.Time) (promql.Query, error) {
	planned := &planned{groups: e.groups}
	q, err := e.engine.NewInstantQuery(ctx, planned, opts, qs, ts)
	return e.plan(planned, q, err)
}

// NewRangeQuery implements promql.QueryEngine.
func (e *Engine) NewRangeQuery(ctx context.Context, _ storage.Queryable, opts promql.QueryOpts, qs string, start, end time.Time, interval time.Duration) (promql.Query, error) {
	planned := &planned{groups: e.groups}
	q, err := e.engine.NewRangeQuery(ctx, planned, opts, qs, start, end, interval)
	return e.plan(planned, q, err)
}

func (e *Engine) plan(p *planned, q promql.Query, err error) (promql.Query, error) {
	if err != nil {
		return nil, err
	}
	stmt, ok := q.Statement().(*parser.EvalStmt)
	if !ok {
		return nil, fmt.Errorf("BUG: statement of type %T", q.Statement())
	}
	p.plan = NewPlan(stmt, e.subqueryStep)
	return &query{Query: q, planned: p}, nil
}

// query adds to upstream's query what shows only while series are merged.
type query struct {
	promql.Query
	planned *planned
}

func (q *query) Exec(ctx context.Context) *promql.Result {
	q.planned.view = q.planned.groups.View(ctx)
	res := q.Query.Exec(ctx)
	res.Warnings.Merge(q.planned.view.LateWarnings())
	return res
}

// planned is the queryable of one planned query.
type planned struct {
	groups *servergroup.Set
	plan   *Plan
	view   *servergroup.View // of the moment at which it is executed
}

func (p *planned) Querier(mint, maxt int64) (storage.Querier, error) {
	return &planQuerier{plan: p.plan, view: p.view}, nil
}

// planQuerier serves the selects of one evaluation. The engine makes those of
// the expression first and in order, then those of info().
type planQuerier struct {
	storage.LabelQuerier // nil: the engine asks for no labels
	plan                 *Plan
	view                 *servergroup.View

	mtx     sync.Mutex // guards the fields below
	next    int
	cancels []context.CancelFunc
	running sync.WaitGroup
}

// Select implements storage.Querier. The fetch begins at once, so that those of
// all selectors are under way together.
func (q *planQuerier) Select(ctx context.Context, _ bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	q.mtx.Lock()
	defer q.mtx.Unlock()
	var sel servergroup.Selection
	if q.next < len(q.plan.Selectors) {
		s := q.plan.Selectors[q.next]
		q.next++
		if s.Unused {
			return storage.EmptySeriesSet()
		}
		sel = s.Selection
	} else {
		sel = q.plan.late(hints.Start, hints.End, hints.Step, ms)
	}
	ctx, cancel := context.WithCancel(ctx)
	q.cancels = append(q.cancels, cancel)
	return queryErrors{q.view.Select(ctx, sel, &q.running)}
}

// Close ends the fetches that are still under way and waits for them.
func (q *planQuerier) Close() error {
	q.mtx.Lock()
	defer q.mtx.Unlock()
	for _, cancel := range q.cancels {
		cancel()
	}
	q.running.Wait()
	return nil
}

// queryErrors says the end of a query's time in the engine's words.
type queryErrors struct{ storage.SeriesSet }

func (s queryErrors) Err() error { return queryError(s.SeriesSet.Err()) }

func queryError(err error) error {
	var unavailable *servergroup.UnavailableError
	switch {
	case errors.As(err, &unavailable) && unavailable.Late:
		return promql.ErrQueryTimeout("fetching series: " + err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return promql.ErrQueryTimeout("fetching series")
	case errors.Is(err, context.Canceled):
		return promql.ErrQueryCanceled("fetching series")
	}
	return err
}
