package ruler

import (
	"context"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/rules"

	"github.com/oneprom/oneprom/servergroup/completeness"
	groupconfig "github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/health"
	"github.com/oneprom/oneprom/servergroup/request"
)

// Origin is the rule that a query is of.
type Origin struct{ File, Group, Rule string }

// QueryFunc evaluates an expression of a rule, or of a template in one.
type QueryFunc func(ctx context.Context, from Origin, expr string, at time.Time) (promql.Vector, error)

// originOf reads what upstream's rule manager puts into the context of queries.
func originOf(ctx context.Context) Origin {
	o := Origin{Rule: rules.FromOriginContext(ctx).Name}
	if data, ok := ctx.Value(promql.QueryOrigin{}).(map[string]any); ok {
		if group, ok := data["ruleGroup"].(map[string]string); ok {
			o.File, o.Group = group["file"], group["name"]
		}
	}
	return o
}

// query evaluates an expression when one of the slots is free. It implements
// rules.QueryFunc.
func (r *Ruler) query(ctx context.Context, expr string, at time.Time) (promql.Vector, error) {
	from := originOf(ctx)
	if from.File == builtIn {
		return r.builtInVector(from.Rule, at), nil
	}
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-ctx.Done():
		return nil, promql.ErrQueryCanceled("the queue of rules")
	}
	var record *completeness.Record
	var whole bool
	ctx = request.With(ctx, func(q *request.Request) {
		q.Partial = r.config.Load().Rules.PartialResponseOf(from.Group)
		if q.Partial == groupconfig.PartialError {
			q.Partial, q.WholeSeries = groupconfig.PartialWarn, true
		}
		q.Asker = &health.Asker{Client: "rules"}
		q.Record = &completeness.Record{}
		whole, record = q.WholeSeries, q.Record
	})
	v, err := r.opts.Query(ctx, from, expr, at)
	if g, d := groupOf(ctx), rules.FromOriginContext(ctx); err == nil && whole && g != nil && d.Query == expr { // else it is of a template
		v = r.evaluations.complete(g, d, at, v, record.Gaps())
	}
	return v, err
}
