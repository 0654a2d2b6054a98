package proxy

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/promqlx"
	"github.com/oneprom/oneprom/proxy/admission"
	"github.com/oneprom/oneprom/proxy/explain"
	"github.com/oneprom/oneprom/proxy/federate"
	"github.com/oneprom/oneprom/proxy/gate"
	"github.com/oneprom/oneprom/proxy/routes"
	"github.com/oneprom/oneprom/proxy/views"
	"github.com/oneprom/oneprom/servergroup/redact"
	"github.com/oneprom/oneprom/servergroup/survey"
)

// gateOptions are those of the gate that requests to the server groups pass.
func (s *Server) gateOptions() gate.Options {
	o := s.opts
	return gate.Options{
		Queue: admission.NewQueue(admission.Options{
			Slots: o.MaxConcurrency, SlotsPerClient: o.MaxConcurrencyPerClient,
			MaxQueued: o.MaxQueued, MaxWait: time.Duration(o.QueueTimeout), Registerer: s.registry,
		}),
		ConcurrentRead: o.ReadConcurrentLimit,
		Rules:          s.rules.Load, Parser: s.parser, Timeout: time.Duration(o.QueryTimeout), ClientHeader: o.ClientHeader,
		CORSOrigin: s.corsOrigin, Asked: s.queries.Asked, Now: o.Now, Logger: s.logger,
	}
}

// logged returns whether queries are logged, and how long one must take for that.
func (s *Server) logged() (on bool, atLeast time.Duration) {
	global := &s.config.Load().Global
	return global.QueryLogFile != "", time.Duration(global.QueryLogMinDuration)
}

// newRouter makes what answers requests, of what New has made before.
func (s *Server) newRouter(storage *promqlx.Storage) (*routes.Router, error) {
	o, view := s.opts, s.set.View
	status := routes.Status{
		Born: s.born, Config: s.config.Load, Groups: s.groupStatus,
		LastReload: func() (bool, time.Time) { last := s.lastReload.Load(); return last.ok, last.success },
	}
	return routes.New(routes.Options{
		Prefix: s.routePrefix, ExternalPath: s.externalURL.Path, AdminAPI: o.EnableAdminAPI, CORSOrigin: s.corsOrigin,
		Config: s.config.Load, Life: s.life, Logger: s.logger,
		Metrics: s.httpMetrics, Identities: s.identities, Tracing: &s.tracing, Guard: s.guard, Gate: s.gate, Readiness: &s.readiness,
		Upstream: s.upstreamAPI(storage, status),
		OpenAPI:  s.openAPI(),
		Lookups:  views.Lookups{Parser: s.parser, Groups: func(ctx context.Context) views.Groups { return survey.Of(view(ctx)) }},
		Merged:   views.Merged{Groups: view, Parser: s.parser},
		Explain:  &explain.Handler{Engine: s.engine, Groups: view, Now: o.Now, Logger: s.logger},
		Federate: &federate.Handler{
			Storage: storage, Parser: s.parser, Lookback: time.Duration(o.LookbackDelta), Now: o.Now,
			ExternalLabels: func() labels.Labels { return s.config.Load().Global.ExternalLabels },
			Logger:         s.logger.With("component", "federation"),
		},
		Queries:   s.queries,
		Status:    status,
		Breakers:  routes.Breakers{Force: s.set.ForceBreaker, Logger: s.logger},
		Flushes:   routes.Flushes{Flush: s.kept.flush(), Groups: s.groupStatus, Now: o.Now, Logger: s.logger},
		Lifecycle: routes.Lifecycle{Enabled: o.EnableLifecycle, Reload: func() error { return s.Reload(s.life) }, Quit: s.requestQuit},
		Gathered:  promhttp.HandlerFor(redact.Gatherer(s.registry), promhttp.HandlerOpts{Registry: s.registry}),
	})
}
