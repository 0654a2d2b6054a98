package proxy

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/rules"

	"github.com/oneprom/oneprom/promqlx"
	"github.com/oneprom/oneprom/proxy/ruler"
	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/guard"
	"github.com/oneprom/oneprom/servergroup/request"
)

// newRuler makes what evaluates rules. It has none before the first configuration.
func (s *Server) newRuler(storage *promqlx.Storage) (*ruler.Ruler, error) {
	return ruler.New(ruler.Options{
		Flags: s.opts.Ruler, Logger: s.logger, Registerer: s.registry, Features: s.featureRegistry, Parser: s.parser,
		Query: s.queryOfRule, Storage: storage, ExternalURL: s.externalURL, TypeAndUnitLabels: s.features.typeAndUnitLabels,
	})
}

// queryOfRule evaluates an expression of a rule. It is listed and logged as the queries of
// requests are, but there is no request that would need to be let in.
func (s *Server) queryOfRule(ctx context.Context, from ruler.Origin, expr string, at time.Time) (v promql.Vector, err error) {
	q := &runningQuery{came: time.Now(), path: "/rule", from: origin{client: "rule " + from.Rule}}
	q.asked = &promqlx.Question{Query: clipped(expr, maxQueryText), Start: at, End: at}
	complete := &completeness.Record{}
	ctx, q.cancel = context.WithCancel(request.With(promqlx.WithRecord(ctx, &q.record), func(r *request.Request) { r.Record = complete }))
	defer q.cancel()
	s.queries.add(q)
	defer s.queries.remove(q)
	defer func() {
		gaps := complete.Gaps()
		o := outcome{status: http.StatusOK, completeness: "whole", missing: namesOf(gaps)}
		switch {
		case err != nil:
			o.status, o.failure, o.completeness = classify(err).code, err.Error(), ""
		case len(gaps) > 0:
			o.completeness = "partial"
		}
		s.logQuery(ctx, q, o, slog.Group("ruleGroup", "file", from.File, "name", from.Group)) //nolint:sloglint // as in the query log of Prometheus
	}()
	defer func() {
		// Nobody else recovers in the goroutines of rules: it would end the process.
		if p := recover(); p != nil {
			s.metrics.panics.Inc()
			s.logger.Error("the evaluation of a rule panicked", "rule", from.Rule, "group", from.Group, "panic", p, "stack", guard.StackOf(p))
			err = fmt.Errorf("the evaluation panicked: %v", p)
		}
	}()
	return rules.EngineQueryFunc(s.engine, nil)(ctx, expr, at)
}
