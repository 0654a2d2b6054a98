package promqlx

import (
	"context"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/oneprom/oneprom/promqlx/explain"
	"github.com/oneprom/oneprom/promqlx/plan"
	"github.com/oneprom/oneprom/servergroup"
)

// Question is a query to be explained.
type Question struct {
	Query string
	// Start and End are the same for an instant query, whose Interval is 0.
	Start, End time.Time
	Interval   time.Duration
	// Lookback is 0 for the default.
	Lookback time.Duration
}

func (e *Engine) ask(ctx context.Context, q Question) (*query, error) {
	opts := promql.NewPrometheusQueryOpts(false, q.Lookback)
	if q.Interval == 0 {
		return e.instantQuery(ctx, opts, q.Query, q.Start)
	}
	return e.rangeQuery(ctx, opts, q.Query, q.Start, q.End, q.Interval)
}

// Explain says what would become of a query over the groups of a view, which is all
// that is looked at: nobody is asked. Errors are those of making a query.
func (e *Engine) Explain(ctx context.Context, view *servergroup.View, q Question) (*explain.Explanation, error) {
	asked, err := e.ask(ctx, q)
	if err != nil {
		return nil, err
	}
	defer asked.Close()
	stmt := asked.Statement().(*parser.EvalStmt)
	return explain.New(q.Query, plan.Route(stmt, e.subqueryStep, view, e.options()), nil), nil
}

// Analyze executes a query and says what became of it. The error is a *QuestionError
// if there is no such query, or what the execution failed with.
func (e *Engine) Analyze(ctx context.Context, q Question) (*explain.Explanation, annotations.Annotations, error) {
	asked, err := e.ask(ctx, q)
	if err != nil {
		return nil, nil, &QuestionError{err}
	}
	defer func() { asked.Close() }() // of which there may be another by then
	asked.traced = true
	began := time.Now()
	res := asked.Exec(ctx)
	if res.Err != nil {
		return nil, res.Warnings, res.Err
	}
	took := time.Since(began)
	a := &explain.Analysis{Milliseconds: float64(took.Microseconds()) / 1000, ResultType: string(res.Value.Type())}
	a.Series, a.Samples = sizeOf(res.Value)
	a.Warnings, a.Infos = res.Warnings.AsStrings(q.Query, 0, 0)
	done := asked.source.execution
	a.Bytes = done.plan.View.FetchedBytes()
	out := explain.New(q.Query, done.plan, done.trace)
	a.Completeness = out.Shares(asked.gaps)
	out.Analysis = a
	return out, res.Warnings, nil
}

// QuestionError is a query that cannot be made: it does not parse, say.
type QuestionError struct{ err error }

func (e *QuestionError) Error() string { return e.err.Error() }
func (e *QuestionError) Unwrap() error { return e.err }
