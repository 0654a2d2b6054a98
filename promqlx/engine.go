package promqlx

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"

	"github.com/oneprom/oneprom/promqlx/plan"
	"github.com/oneprom/oneprom/servergroup"
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
	return e.newQuery(ctx, qs, func(ctx context.Context, from storage.Queryable) (promql.Query, error) {
		return e.engine.NewInstantQuery(ctx, from, opts, qs, ts)
	})
}

func (e *Engine) rangeQuery(ctx context.Context, opts promql.QueryOpts, qs string, start, end time.Time, interval time.Duration) (*query, error) {
	return e.newQuery(ctx, qs, func(ctx context.Context, from storage.Queryable) (promql.Query, error) {
		return e.engine.NewRangeQuery(ctx, from, opts, qs, start, end, interval)
	})
}
