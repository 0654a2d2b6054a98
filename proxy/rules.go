package proxy

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/rules"

	"github.com/oneprom/oneprom/promqlx"
	"github.com/oneprom/oneprom/proxy/queries"
	"github.com/oneprom/oneprom/proxy/ruler"
	"github.com/oneprom/oneprom/servergroup"
	"github.com/oneprom/oneprom/servergroup/guard"
)

// newRuler makes what evaluates rules. It has none before the first configuration.
func (s *Server) newRuler(storage *promqlx.Storage) (*ruler.Ruler, error) {
	q := ruleQueries{engine: s.engine, queries: s.queries, panics: s.httpMetrics.Panics, logger: s.logger}
	return ruler.New(ruler.Options{
		Flags: s.opts.Ruler, Logger: s.logger, Registerer: s.registry, Features: s.featureRegistry, Parser: s.parser,
		Query: q.evaluate, Storage: storage, ExternalURL: s.externalURL, TypeAndUnitLabels: s.features.typeAndUnitLabels,
	})
}

// groupStatus describes all groups, with what they hide of what rules write.
func (s *Server) groupStatus() []servergroup.GroupStatus {
	list := s.set.Status()
	for _, h := range s.ruler.Hidden() {
		for i := range list {
			if slices.Contains(h.Groups, list[i].Name) {
				list[i].Findings = append(list[i].Findings, h.String())
			}
		}
	}
	return list
}

// ruleQueries evaluates the expressions of rules.
type ruleQueries struct {
	engine  promql.QueryEngine
	queries *queries.Queries
	panics  prometheus.Counter
	logger  *slog.Logger
}

func (q ruleQueries) evaluate(ctx context.Context, from ruler.Origin, expr string, at time.Time) (promql.Vector, error) {
	evaluate := func(ctx context.Context) (v promql.Vector, err error) {
		defer func() {
			// Nobody else recovers in the goroutines of rules: it would end the process.
			if p := recover(); p != nil {
				q.panics.Inc()
				q.logger.Error("the evaluation of a rule panicked", "rule", from.Rule, "group", from.Group, "panic", p, "stack", guard.StackOf(p))
				err = fmt.Errorf("the evaluation panicked: %v", p)
			}
		}()
		return rules.EngineQueryFunc(q.engine, nil)(ctx, expr, at)
	}
	return q.queries.EvaluateRule(ctx, from.Rule, expr, at, evaluate, slog.Group("ruleGroup", "file", from.File, "name", from.Group)) //nolint:sloglint // as in the query log of Prometheus
}
