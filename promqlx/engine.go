// Package promqlx is PromQL over server groups: it plans a query (see plan), has upstream's
// engine evaluate its parts over what the groups return, and puts their answers together.
package promqlx

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/oneprom/oneprom/promqlx/plan"
	"github.com/oneprom/oneprom/servergroup"
	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// Engine evaluates queries over server groups with upstream's engine. It is a
// promql.QueryEngine whose queryable arguments are not used: a query is planned
// first, and its series come from the groups as the plan says.
type Engine struct {
	engine *promql.Engine
	// parts evaluates parts here. It is an engine of its own, whose metrics would count
	// parts as queries, and whose slots the queries that need them would hold.
	parts        *promql.Engine
	groups       *servergroup.Set
	parser       parser.Parser
	subqueryStep func(rangeMS int64) int64
	flights      *flights
	timeout      time.Duration // of a query
	// delayedNames is set where no part may be evaluated before the rest: names are
	// removed at the end of a query.
	delayedNames bool
}

var _ promql.QueryEngine = (*Engine)(nil)

// NewEngine returns an engine over groups.
func NewEngine(o promql.EngineOpts, groups *servergroup.Set) *Engine {
	e := &Engine{
		engine: promql.NewEngine(o), groups: groups, parser: o.Parser, subqueryStep: o.NoStepSubqueryIntervalFn,
		flights: newFlights(o.Reg, o.Logger), timeout: o.Timeout, delayedNames: o.EnableDelayedNameRemoval,
	}
	o.Reg, o.ActiveQueryTracker, o.FeatureRegistry = nil, nil, nil
	e.parts = promql.NewEngine(o)
	return e
}

// options are those of the first plan of a query.
func (e *Engine) options() plan.Options {
	if e.delayedNames {
		return plan.Options{NoParts: "promql-delayed-name-removal: names are removed at the end of a query, and a part would have removed them before"}
	}
	return plan.Options{}
}

// Close releases what the engine holds.
func (e *Engine) Close() error { return errors.Join(e.engine.Close(), e.parts.Close()) }

// NewInstantQuery implements promql.QueryEngine.
func (e *Engine) NewInstantQuery(ctx context.Context, _ storage.Queryable, opts promql.QueryOpts, qs string, ts time.Time) (promql.Query, error) {
	q, err := e.instantQuery(ctx, opts, qs, ts)
	if err != nil {
		return nil, err
	}
	return e.shareable(q, opts), nil
}

// NewRangeQuery implements promql.QueryEngine.
func (e *Engine) NewRangeQuery(ctx context.Context, _ storage.Queryable, opts promql.QueryOpts, qs string, start, end time.Time, interval time.Duration) (promql.Query, error) {
	q, err := e.rangeQuery(ctx, opts, qs, start, end, interval)
	if err != nil {
		return nil, err
	}
	return e.shareable(q, opts), nil
}

func (e *Engine) instantQuery(ctx context.Context, opts promql.QueryOpts, qs string, ts time.Time) (*query, error) {
	return e.query(ctx, qs, func(ctx context.Context, from storage.Queryable) (promql.Query, error) {
		return e.engine.NewInstantQuery(ctx, from, opts, qs, ts)
	})
}

func (e *Engine) rangeQuery(ctx context.Context, opts promql.QueryOpts, qs string, start, end time.Time, interval time.Duration) (*query, error) {
	return e.query(ctx, qs, func(ctx context.Context, from storage.Queryable) (promql.Query, error) {
		return e.engine.NewRangeQuery(ctx, from, opts, qs, start, end, interval)
	})
}

// query makes a query of upstream's.
func (e *Engine) query(ctx context.Context, text string, parse func(context.Context, storage.Queryable) (promql.Query, error)) (*query, error) {
	progress := &progress{}
	q := &query{engine: e, text: text, progress: progress, parse: func(ctx context.Context) (promql.Query, *planned, error) {
		from := &planned{progress: progress}
		q, err := parse(ctx, from)
		return q, from, err
	}}
	var err error
	q.Query, q.planned, err = q.parse(ctx)
	if err != nil {
		return nil, err
	}
	return q, nil
}

// query plans upstream's query when it is executed, for the groups of that moment,
// and adds what shows only while series are merged.
type query struct {
	promql.Query
	engine  *Engine
	text    string
	planned *planned
	parse   func(context.Context) (promql.Query, *planned, error)
	traced  bool                 // what becomes of it is wanted
	gaps    []completeness.Gap   // of the answer
	missing completeness.Missing // groups that have failed before, which are not asked again

	progress *progress
}

// Exec implements promql.Query.
func (q *query) Exec(ctx context.Context) *promql.Result {
	record := recordOf(ctx)
	record.follows(q.progress)
	res := q.run(ctx)
	record.ended(res)
	return res
}

// run executes the query. What shows only while a plan is executed may ask for another
// one.
func (q *query) run(ctx context.Context) *promql.Result {
	o := q.engine.options()
	for {
		res := q.exec(ctx, o)
		switch {
		case errors.Is(res.Err, errDoubtful):
			o.NoParts = errDoubtful.Error()
		case errors.Is(res.Err, errDivisible):
			o.Divided = true
		case errors.Is(res.Err, errTorn):
		default:
			rethrow(res.Err)
			return res
		}
		again, from, err := q.parse(ctx)
		if err != nil {
			return &promql.Result{Err: err}
		}
		q.Close()
		q.Query, q.planned = again, from
	}
}

// rethrow panics if an error is a bug: what somebody else has recovered, upstream's
// engine for one, is no failure of the query.
func rethrow(err error) {
	var bug *transport.PanicError
	var upstreams runtime.Error
	switch {
	case errors.As(err, &bug):
		panic(bug)
	case errors.As(err, &upstreams):
		panic(err)
	}
}

func (q *query) exec(ctx context.Context, o plan.Options) *promql.Result {
	stmt, ok := q.Statement().(*parser.EvalStmt)
	if !ok {
		return &promql.Result{Err: fmt.Errorf("BUG: statement of type %T", q.Statement())}
	}
	view := q.engine.groups.View(ctx)
	view.Ledger.Without = q.missing
	q.plan(ctx, stmt, view, o)
	needed := plan.NeedEveryGroup(stmt.Expr, q.planned.plan.Layout())
	stmt.Expr = q.planned.plan.Expr
	res := q.evaluate(ctx)
	for _, w := range res.Warnings {
		if q.planned.plan.DoubtfulNote(w.Error()) {
			return &promql.Result{Err: errDoubtful}
		}
	}
	if torn := view.Ledger.Inconsistent(); res.Err == nil && len(torn) > 0 {
		q.missing = torn
		return &promql.Result{Err: errTorn}
	}
	for _, ms := range needed {
		if err := view.Require(ms); err != nil && res.Err == nil {
			return &promql.Result{Err: err}
		}
	}
	var unavailable *completeness.UnavailableError
	switch {
	case res.Err == nil:
		q.gaps = view.Ledger.Gaps()
		view.Report()
	case errors.As(res.Err, &unavailable):
		q.gaps = view.Ledger.Gaps()
		servergroup.RequestOf(ctx).Record.Report(q.gaps)
	}
	res.Warnings.Merge(view.Ledger.LateWarnings())
	view.Ledger.Fold(res.Warnings)
	res.Warnings.AsStrings(q.text, 0, 0) // which tells them the query, so that they know their positions
	return res
}

// plan makes the plan.
func (q *query) plan(ctx context.Context, stmt *parser.EvalStmt, view *servergroup.View, o plan.Options) {
	_, span := startSpan(ctx, "plan")
	defer span.End()
	q.planned.execution = q.engine.execution(stmt, q.text, view, o)
	if q.traced {
		q.planned.trace = newTrace()
	}
	if recordOf(ctx) != nil {
		q.progress.planned(q.planned.execution)
	}
}

// evaluate has upstream's engine evaluate the plan, which fetches what that needs.
func (q *query) evaluate(ctx context.Context) *promql.Result {
	ctx, span := startSpan(ctx, "evaluate")
	defer span.End()
	res := q.Query.Exec(ctx)
	if res.Err != nil {
		span.SetStatus(codes.Error, res.Err.Error())
	}
	return res
}

// startSpan begins a span of the trace that the context belongs to, if it does.
func startSpan(ctx context.Context, name string) (context.Context, trace.Span) {
	return trace.SpanFromContext(ctx).TracerProvider().Tracer("promqlx").Start(ctx, name)
}

// execution plans a statement for the groups of a view.
func (e *Engine) execution(stmt *parser.EvalStmt, text string, view *servergroup.View, o plan.Options) *execution {
	return &execution{engine: e, text: text, plan: plan.Route(stmt, e.subqueryStep, view, o), divided: o.Divided, fetches: newFetches(view)}
}

// planned is the queryable of one planned query.
type planned struct {
	*execution
	progress *progress
}

// Querier implements storage.Queryable. The engine asks for it when it begins to
// evaluate.
func (p *planned) Querier(_, _ int64) (storage.Querier, error) {
	p.progress.begin()
	return &planQuerier{execution: p.execution, leaves: p.plan.Leaves}, nil
}

// pieceQueryable is the queryable of a part that is evaluated here.
type pieceQueryable struct {
	*execution
	selectors []plan.Selector
	piece     *servergroup.Piece
}

func (p *pieceQueryable) Querier(_, _ int64) (storage.Querier, error) {
	leaves := make([]plan.Leaf, len(p.selectors))
	for i := range leaves {
		leaves[i].Selector = &p.selectors[i]
	}
	return &planQuerier{execution: p.execution, leaves: leaves, piece: p.piece}, nil
}

// planQuerier serves the selects of one evaluation. The engine makes those of
// the expression first and in order, then those of info().
type planQuerier struct {
	storage.LabelQuerier // nil: the engine asks for no labels
	*execution
	leaves []plan.Leaf        // of what is evaluated
	piece  *servergroup.Piece // which is evaluated; nil: the whole query

	mtx  sync.Mutex // guards next
	next int
}

// Select implements storage.Querier. The fetch begins at once, so that those of
// all selectors are under way together.
func (q *planQuerier) Select(ctx context.Context, _ bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	q.mtx.Lock()
	defer q.mtx.Unlock()
	if q.piece == nil {
		q.fetches.begin(ctx)
	}
	if q.next == len(q.leaves) {
		return q.selection(q.plan.InfoSelection(hints.Start, hints.End, hints.Step, ms), q.piece)
	}
	leaf := q.leaves[q.next]
	q.next++
	switch {
	case leaf.Part != nil:
		return queryErrors{q.fetches.later(func(ctx context.Context) ([]storage.Series, annotations.Annotations, error) {
			return q.part(ctx, leaf.Part)
		})}
	case leaf.Selector.Unused:
		return storage.EmptySeriesSet()
	}
	return q.selection(leaf.Selector.Selection, q.piece)
}

// selection are the series of a selection, for a piece unless that is nil.
func (x *execution) selection(sel servergroup.Selection, piece *servergroup.Piece) storage.SeriesSet {
	fetch := x.trace.fetch(piece, sel)
	all := container(x.together(piece), sel)
	set := x.fetches.of(all, piece)
	if len(all.Matchers) < len(sel.Matchers) {
		set = &among{set, sel.Matchers}
	}
	return queryErrors{fetch.of(set, &x.fetches.running)}
}

// Close ends the fetches that are still under way and waits for them, if it is that
// of the whole query.
func (q *planQuerier) Close() error {
	if q.piece == nil {
		q.fetches.end()
	}
	return nil
}

// queryErrors says the end of a query's time in the engine's words.
type queryErrors struct{ storage.SeriesSet }

func (s queryErrors) Err() error { return queryError(s.SeriesSet.Err()) }

func queryError(err error) error {
	var unavailable *completeness.UnavailableError
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
