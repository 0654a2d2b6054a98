package proxy

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/rules"

	"github.com/oneprom/oneprom/promqlx"
	"github.com/oneprom/oneprom/proxy/ruler"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// newRuler makes what evaluates rules. It has none before the first configuration.
func (s *Server) newRuler(storage *promqlx.Storage) (*ruler.Ruler, error) {
	return ruler.New(ruler.Options{
		Flags: s.opts.Ruler, Logger: s.logger, Registerer: s.registry, Features: s.featureRegistry, Parser: s.parser,
		Query: s.queryOfRule, Storage: storage, ExternalURL: s.externalURL, TypeAndUnitLabels: s.features.typeAndUnitLabels,
	})
}

// queryOfRule evaluates an expression of a rule.
func (s *Server) queryOfRule(ctx context.Context, from ruler.Origin, expr string, at time.Time) (promql.Vector, error) {
	evaluate := func(ctx context.Context) (v promql.Vector, err error) {
		defer func() {
			// Nobody else recovers in the goroutines of rules: it would end the process.
			if p := recover(); p != nil {
				s.metrics.panics.Inc()
				s.logger.Error("the evaluation of a rule panicked", "rule", from.Rule, "group", from.Group, "panic", p, "stack", transport.StackOf(p))
				err = fmt.Errorf("the evaluation panicked: %v", p)
			}
		}()
		return rules.EngineQueryFunc(s.engine, nil)(ctx, expr, at)
	}
	return s.queries.EvaluateRule(ctx, from.Rule, expr, at, evaluate, slog.Group("ruleGroup", "file", from.File, "name", from.Group))
}
