// Package promqlx evaluates PromQL over server groups with upstream's engine.
//
// A query is planned when it is executed (package plan). The engine evaluates the planned
// expression and asks the querier of the query for series. For a selector the querier
// fetches samples from the server groups. For a part it has each partition answer
// (execution), piece by piece (evaluation), remotely or locally, and joins the answers
// (package answer). What shows only during the execution may ask for another plan: the
// query is then planned and executed anew. Equal queries at the same time share one
// execution. Answers to range queries are kept, and only the steps that none has are evaluated
// (package cache). Package explain describes a plan and what became of it.
package promqlx

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/common/version"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"

	"github.com/oneprom/oneprom/promqlx/cache"
	"github.com/oneprom/oneprom/promqlx/plan"
	"github.com/oneprom/oneprom/servergroup"
	"github.com/oneprom/oneprom/servergroup/view"
)

// Engine evaluates queries over server groups with upstream's engine. It is a
// promql.QueryEngine that ignores its queryable arguments: series come from the groups, as
// the plan of the query says. It is safe for concurrent use.
type Engine struct {
	engine *promql.Engine
	// parts evaluates parts locally. It is an engine of its own, without metrics and
	// slots: parts are not to be counted as queries, and a part must not wait for a slot
	// that its own query holds.
	parts        *promql.Engine
	groups       *servergroup.Set
	notDisjoint  *view.Unusable // see plan.Options
	parser       parser.Parser
	subqueryStep func(rangeMS int64) int64
	runs         *sharedRuns
	cache        *cache.Cache  // nil: answers are not kept
	maxSamples   int           // of a query
	semantics    string        // the options that change answers
	timeout      time.Duration // of a query
	logger       *slog.Logger
	// delayedNames is set if names of metrics are removed at the end of a query. There are
	// no parts then: the evaluation of a part would remove them earlier.
	delayedNames bool
}

var _ promql.QueryEngine = (*Engine)(nil)

// NewEngine returns an engine over groups.
func NewEngine(o promql.EngineOpts, groups *servergroup.Set) *Engine {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	e := &Engine{
		logger: o.Logger,
		engine: promql.NewEngine(o), groups: groups, notDisjoint: view.NewUnusable(), parser: o.Parser, subqueryStep: o.NoStepSubqueryIntervalFn,
		runs: newSharedRuns(o.Reg, o.Logger), timeout: o.Timeout, delayedNames: o.EnableDelayedNameRemoval, maxSamples: o.MaxSamples,
		semantics: fmt.Sprint(version.Version, o.EnableDelayedNameRemoval, o.EnableTypeAndUnitLabels, o.UseStartTimestamps),
	}
	o.Reg, o.ActiveQueryTracker, o.FeatureRegistry = nil, nil, nil
	e.parts = promql.NewEngine(o)
	return e
}

// options returns the options for the first plan of a query.
func (e *Engine) options() plan.Options {
	if e.delayedNames {
		return plan.Options{NoParts: "promql-delayed-name-removal: names are removed at the end of a query, and a part would have removed them before"}
	}
	return plan.Options{NotDisjoint: e.notDisjoint}
}

// Close releases the resources of the engine. Queries have ended.
func (e *Engine) Close() error {
	e.runs.keeping.Wait()
	return errors.Join(e.engine.Close(), e.parts.Close())
}

// NewInstantQuery implements promql.QueryEngine. The query is parsed, and planned when it is
// executed.
func (e *Engine) NewInstantQuery(ctx context.Context, _ storage.Queryable, opts promql.QueryOpts, qs string, ts time.Time) (promql.Query, error) {
	q, err := e.instantQuery(ctx, opts, qs, ts)
	if err != nil {
		return nil, err
	}
	return e.shareable(q, opts), nil
}

// NewRangeQuery implements promql.QueryEngine, as NewInstantQuery does.
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
	q, err := e.newQuery(ctx, qs, func(ctx context.Context, from storage.Queryable) (promql.Query, error) {
		return e.engine.NewRangeQuery(ctx, from, opts, qs, start, end, interval)
	})
	if err == nil {
		q.at = func(ctx context.Context, start, end time.Time) (*query, error) {
			return e.rangeQuery(ctx, opts, qs, start, end, interval)
		}
	}
	return q, err
}
