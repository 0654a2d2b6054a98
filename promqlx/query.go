package promqlx

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/oneprom/oneprom/promqlx/answer"
	"github.com/oneprom/oneprom/promqlx/explain"
	"github.com/oneprom/oneprom/promqlx/plan"
	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/partition"
	"github.com/oneprom/oneprom/servergroup/request"
	"github.com/oneprom/oneprom/servergroup/view"
)

// query is a query of upstream's engine that is planned when it is executed, for the groups
// of that moment. Its result has the annotations that show only while series are merged.
type query struct {
	promql.Query
	engine *Engine
	text   string
	source *source // what Query reads from
	// parse makes Query anew: an earlier plan has replaced the expression of its statement.
	parse func(context.Context, storage.Queryable) (promql.Query, error)
	// at makes the same range query for other times; nil for an instant query.
	at func(ctx context.Context, start, end time.Time) (*query, error)

	traced   bool               // whether the execution is traced
	gaps     []completeness.Gap // what the result lacks
	progress *progress
}

// newQuery makes a query with parse, which parses its text.
func (e *Engine) newQuery(ctx context.Context, text string, parse func(context.Context, storage.Queryable) (promql.Query, error)) (*query, error) {
	q := &query{engine: e, text: text, parse: parse, progress: &progress{}}
	if err := q.renew(ctx); err != nil {
		return nil, err
	}
	return q, nil
}

// renew parses the query, so that it can be planned, and closes the one that was executed
// before.
func (q *query) renew(ctx context.Context) error {
	from := &source{progress: q.progress}
	made, err := q.parse(ctx, from)
	if err != nil {
		return err
	}
	if q.Query != nil {
		q.Close()
	}
	q.Query, q.source = made, from
	return nil
}

// Exec implements promql.Query. Queries that may wait for an equal one come by waiter.Exec
// instead, which shares the result of one run.
func (q *query) Exec(ctx context.Context) *promql.Result {
	record := recordOf(ctx)
	record.follow(q.progress)
	res := q.run(ctx, q.engine.groups.View(ctx))
	record.setResult(res)
	return res
}

// run executes the query over some groups. What shows only during an execution
// may ask for another plan: the query is then planned anew for the groups of that moment,
// and nothing of the earlier execution is kept.
func (q *query) run(ctx context.Context, groups *view.View) *promql.Result {
	o := q.engine.options()
	var missing completeness.Missing
	for {
		res := q.runPlan(ctx, groups, o)
		var (
			inconsistent *inconsistentError
			copies       *partition.CopiesError
		)
		switch {
		case errors.Is(res.Err, answer.ErrDoubtful):
			o.NoParts = answer.ErrDoubtful.Error()
		case errors.Is(res.Err, errDivisible):
			o.Divided = true
		case errors.Is(res.Err, errOverlap):
			o.NoneDisjoint = true
		case errors.As(res.Err, &copies):
			o.Copies.Ask(copies)
		case errors.As(res.Err, &inconsistent):
			missing = inconsistent.missing // not to be asked again
		default:
			rethrow(res.Err)
			return res
		}
		if err := q.renew(ctx); err != nil {
			return &promql.Result{Err: err}
		}
		groups = q.engine.groups.View(ctx)
		groups.Ledger.Without = missing
	}
}

// runPlan plans the query and executes the plan.
func (q *query) runPlan(ctx context.Context, groups *view.View, o plan.Options) *promql.Result {
	stmt, ok := q.Statement().(*parser.EvalStmt)
	if !ok {
		return &promql.Result{Err: fmt.Errorf("BUG: statement of type %T", q.Statement())}
	}
	planned, err := q.plan(ctx, stmt, groups, o)
	if err != nil {
		return &promql.Result{Err: contextError(ctx, "query planning")}
	}
	expr := stmt.Expr
	needed := planned.NeedEveryGroup(expr)
	if request.From(ctx).WholeSeries {
		needed = nil // requireWholeSeries is stricter
	}
	stmt.Expr = planned.Expr
	res := q.evaluate(ctx)
	for _, w := range res.Warnings {
		if planned.DoubtfulAnnotation(w.Error()) {
			return &promql.Result{Err: answer.ErrDoubtful}
		}
	}
	if missing := groups.Ledger.Inconsistent(); res.Err == nil && len(missing) > 0 {
		return &promql.Result{Err: &inconsistentError{missing}}
	}
	if request.From(ctx).WholeSeries && res.Err == nil {
		if err := requireWholeSeries(ctx, expr, planned); err != nil {
			return &promql.Result{Err: err}
		}
	}
	for _, ms := range needed {
		if err := groups.Require(ms); err != nil && res.Err == nil {
			return &promql.Result{Err: err}
		}
	}
	var unavailable *completeness.UnavailableError
	switch {
	case res.Err == nil:
		q.gaps = groups.Ledger.Gaps()
		groups.Report()
	case errors.As(res.Err, &unavailable):
		q.gaps = groups.Ledger.Gaps()
		request.From(ctx).Record.Report(q.gaps)
	}
	res.Warnings.Merge(groups.Ledger.LateWarnings())
	groups.Ledger.Fold(res.Warnings)
	res.Warnings.AsStrings(q.text, 0, 0) // for its side effect: annotations find their positions in the query
	return res
}

// plan makes the plan and prepares its execution. The error is that of the context.
func (q *query) plan(ctx context.Context, stmt *parser.EvalStmt, groups *view.View, o plan.Options) (*plan.Routed, error) {
	_, span := startSpan(ctx, "plan")
	defer span.End()
	planned, err := plan.Route(ctx, stmt, q.engine.subqueryStep, groups, o)
	if err != nil {
		return nil, err
	}
	q.logPlan(ctx, planned)
	planned.CountLost(q.engine.delayedNames)
	var tr *explain.Trace
	if q.traced {
		tr = explain.NewTrace()
	}
	q.source.execution = &execution{engine: q.engine, text: q.text, plan: planned, divided: o.Divided, trace: tr, fetches: newFetches(planned, tr)}
	if recordOf(ctx) != nil {
		q.progress.setPlan(planned)
	}
	return planned, ctx.Err()
}

const (
	// maxLogged bounds the texts that logPlan logs, in bytes.
	maxLogged = 1 << 10
	// maxSelectorsLogged bounds the selectors that it logs.
	maxSelectorsLogged = 20
)

// logPlan logs what is asked of whom, for those who look for it.
func (q *query) logPlan(ctx context.Context, planned *plan.Routed) {
	if !q.engine.logger.Enabled(ctx, slog.LevelDebug) {
		return
	}
	clip := func(s string) string { return strings.ToValidUTF8(s[:min(len(s), maxLogged)], "") }
	logger := q.engine.logger.With("query", clip(q.text))
	var selectors []plan.Selector
	for _, one := range planned.Each() {
		logger.Debug("query planned", "plan", clip(one.String()), "without_parts", one.NoParts)
		selectors = append(selectors, one.Selectors()...)
	}
	for _, s := range selectors[:min(len(selectors), maxSelectorsLogged)] {
		var asked, skipped []string
		for _, r := range planned.View.Routes(s.Selection) {
			if r.Skipped == "" {
				asked = append(asked, r.Group)
			} else {
				skipped = append(skipped, r.Group+": "+r.Skipped)
			}
		}
		logger.Debug("selector routed", "selector", clip(s.String()), "asked", clip(strings.Join(asked, ", ")), "not_asked", clip(strings.Join(skipped, "; ")))
	}
}

// evaluate has upstream's engine evaluate the plan. The engine asks q.source for series.
func (q *query) evaluate(ctx context.Context) *promql.Result {
	ctx, span := startSpan(ctx, "evaluate")
	defer span.End()
	res := q.Query.Exec(ctx)
	if res.Err != nil {
		span.SetStatus(codes.Error, res.Err.Error())
	}
	return res
}

// startSpan begins a span of the trace that the context belongs to, if to any.
func startSpan(ctx context.Context, name string) (context.Context, trace.Span) {
	return trace.SpanFromContext(ctx).TracerProvider().Tracer("promqlx").Start(ctx, name)
}
