package promqlx

import (
	"context"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/oneprom/oneprom/promqlx/explain"
	"github.com/oneprom/oneprom/promqlx/plan"
	"github.com/oneprom/oneprom/servergroup/view"
)

// Question is a query that is to be explained.
type Question struct {
	Query string
	// Start and End bound a range query. For an instant query both are its time, and
	// Interval is 0.
	Start, End time.Time
	Interval   time.Duration
	// Lookback is the lookback delta; 0 is the default of the engine.
	Lookback time.Duration
}

// makeQuery makes the query that a question is about.
func (e *Engine) makeQuery(ctx context.Context, q Question) (*query, error) {
	opts := promql.NewPrometheusQueryOpts(false, q.Lookback)
	if q.Interval == 0 {
		return e.instantQuery(ctx, opts, q.Query, q.Start)
	}
	return e.rangeQuery(ctx, opts, q.Query, q.Start, q.End, q.Interval)
}

// Explain describes what would become of a query over some groups. It sends no
// requests. The error is a *QuestionError if the query cannot be made, as where it does not
// parse, or that of the end of its time.
func (e *Engine) Explain(ctx context.Context, groups *view.View, q Question) (*explain.Explanation, error) {
	asked, err := e.makeQuery(ctx, q)
	if err != nil {
		return nil, &QuestionError{err}
	}
	defer asked.Close()
	kept := asked.explainKept(ctx, groups)
	planned, err := plan.Route(ctx, asked.Statement().(*parser.EvalStmt), e.subqueryStep, groups, e.options())
	if err != nil {
		return nil, contextError(ctx, "query planning")
	}
	out := explain.New(q.Query, planned, nil)
	out.Cache = kept
	return out, nil
}

// Analyze executes a query and describes what became of it, with the annotations of the
// result. The error is a *QuestionError if the query cannot be made, or that of the
// execution.
func (e *Engine) Analyze(ctx context.Context, q Question) (*explain.Explanation, annotations.Annotations, error) {
	asked, err := e.makeQuery(ctx, q)
	if err != nil {
		return nil, nil, &QuestionError{err}
	}
	defer func() { asked.Close() }() // not yet evaluated: the query may be renewed
	asked.traced = true
	kept := asked.explainKept(ctx, e.groups.View(ctx))
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
	out.Analysis, out.Cache = a, kept
	return out, res.Warnings, nil
}

// QuestionError is the error of a query that cannot be made, as where it does not parse.
type QuestionError struct{ err error }

func (e *QuestionError) Error() string { return e.err.Error() }
func (e *QuestionError) Unwrap() error { return e.err }
