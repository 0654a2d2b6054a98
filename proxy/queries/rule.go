package queries

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/prometheus/promql"

	"github.com/oneprom/oneprom/promqlx"
	"github.com/oneprom/oneprom/proxy/api"
	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/request"
)

// EvaluateRule has the expression of a rule evaluated. It is listed and logged as the queries
// of requests are, but there is no request that would need to be let in. more is what else
// its line in the log has.
func (qs *Queries) EvaluateRule(ctx context.Context, rule, expr string, at time.Time, evaluate func(context.Context) (promql.Vector, error), more ...slog.Attr) (v promql.Vector, err error) {
	q := &query{came: time.Now(), path: "/rule", from: caller{client: "rule " + rule}}
	q.asked = &promqlx.Question{Query: api.Clip(expr, maxQueryText), Start: at, End: at}
	asked, complete := request.From(ctx), &completeness.Record{}
	ctx, q.cancel = context.WithCancel(request.With(promqlx.WithRecord(ctx, &q.record), func(r *request.Request) { r.Record = complete }))
	defer q.cancel()
	qs.add(q)
	defer qs.remove(q)
	defer func() {
		gaps := complete.Gaps()
		asked.Record.Report(gaps)
		o := outcome{status: http.StatusOK, completeness: "whole", missing: api.MissingNames(gaps)}
		switch {
		case err != nil:
			o.status, o.failure, o.completeness = api.Classify(err).Code, err.Error(), ""
		case len(gaps) > 0:
			o.completeness = "partial"
		}
		qs.log(ctx, q, o, more...)
	}()
	return evaluate(ctx)
}
