package proxy

import (
	"context"
	"net/http"
	"regexp"
	"time"

	grafanaregexp "github.com/grafana/regexp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/route"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	upstreamfeatures "github.com/prometheus/prometheus/util/features"
	v1 "github.com/prometheus/prometheus/web/api/v1"

	"github.com/oneprom/oneprom/promqlx"
	"github.com/oneprom/oneprom/proxy/api"
	"github.com/oneprom/oneprom/proxy/views"
)

// searchLimit is Prometheus' default for the highest limit of the search API.
const searchLimit = 10000

// engineOptions are the options of the PromQL engine, set as Prometheus does.
func (s *Server) engineOptions() promql.EngineOpts {
	f := s.features
	return promql.EngineOpts{
		Logger:                   s.logger.With("component", "query engine"),
		Reg:                      s.registry,
		MaxSamples:               s.opts.MaxSamples,
		Timeout:                  time.Duration(s.opts.QueryTimeout),
		LookbackDelta:            time.Duration(s.opts.LookbackDelta),
		NoStepSubqueryIntervalFn: func(int64) int64 { return time.Duration(s.config.Load().Global.EvaluationInterval).Milliseconds() },
		EnableAtModifier:         true,
		EnableNegativeOffset:     true,
		EnablePerStepStats:       f.perStepStats,
		EnableDelayedNameRemoval: f.delayedNameRemoval,
		EnableTypeAndUnitLabels:  f.typeAndUnitLabels,
		UseStartTimestamps:       f.startTimestamps,
		FeatureRegistry:          s.featureRegistry,
		Parser:                   s.parser,
	}
}

// upstreamAPI is Prometheus' own API over the server groups. Its routes lack the
// prefix /api/v1. Routes that need scraping or exemplar storage are never
// reached: ours come before them. The second result is the same without admission,
// which answers them with what is oneprom's own.
func (s *Server) upstreamAPI(engine promql.QueryEngine, storage *promqlx.Storage) (*route.Router, views.SelfAPI) {
	addr := s.listeners[0].Addr().String()
	s.registerFeatures()
	upstream := v1.NewAPI(
		engine, storage,
		nil, nil, // no appenders
		nil, // no exemplar storage
		func(context.Context) v1.ScrapePoolsRetriever { return views.Noop{} },
		func(context.Context) v1.TargetRetriever { return views.Noop{} },
		func(context.Context) v1.AlertmanagerRetriever { return s.selfAlertmanagers },
		func() config.Config { return config.Config{} }, // without external labels, which /read would add
		s.opts.Flags,
		v1.GlobalURLOptions{ListenAddress: addr, Host: s.externalURL.Host, Scheme: s.externalURL.Scheme},
		s.readiness.gate,
		views.Noop{}, "", // no TSDB
		false, s.features.search, searchLimit, // no admin API
		s.logger.With("component", "api"),
		func(context.Context) v1.RulesRetriever { return s.selfRules },
		s.opts.ReadSampleLimit, s.opts.MaxConcurrency, s.opts.ReadMaxBytesInFrame, // the gate lets no more in
		false, // no agent
		s.corsOrigin,
		s.runtimeInfo,
		buildInfo(),
		s.notifications.Get, s.notifications.Sub,
		prometheus.Gatherers{s.registry, views.NoChunks()},
		s.registry,
		nil,                                    // the default renderer of statistics
		false, nil, false, false, false, false, // no receivers
		time.Duration(s.opts.LookbackDelta),
		s.features.typeAndUnitLabels,
		false, // no metadata appended
		api.OverrideErrorCode,
		s.featureRegistry,
		v1.OpenAPIOptions{ExternalURL: s.externalURL.String(), Version: Version, MaxSearchLimit: searchLimit},
		parser.NewParser(allSyntax),
	)
	upstream.ClearCodecs()
	upstream.InstallCodec(api.Codec{})
	instrument := s.metrics.instrumentBelow("/api/v1")
	r := route.New().WithInstrumentation(func(route string, h http.HandlerFunc) http.HandlerFunc {
		return instrument(route, s.permit("/api/v1"+route, s.gate.Admit(errands[route], h)))
	})
	upstream.Register(r)
	self := route.New()
	upstream.Register(self)
	return r, views.SelfAPI{Handler: self}
}

// registerFeatures tells /api/v1/features what the HTTP API can do; the engine
// tells the rest.
func (s *Server) registerFeatures() {
	r := s.featureRegistry
	r.Set(upstreamfeatures.API, "lifecycle", s.opts.EnableLifecycle)
	r.Set(upstreamfeatures.API, "admin", s.opts.EnableAdminAPI)
	r.Set(upstreamfeatures.API, "search", s.features.search)
	for _, off := range []string{"remote_write_receiver", "otlp_write_receiver"} {
		r.Disable(upstreamfeatures.API, off)
	}
	for _, on := range []string{
		"label_values_match", "query_warnings", "query_stats", "time_range_series", "time_range_labels",
		"exclude_alerts", "openapi_3.1", "openapi_3.2",
	} {
		r.Enable(upstreamfeatures.API, on)
	}
}

// compileOrigin compiles --web.cors.origin, anchored.
func compileOrigin(expr string) (*grafanaregexp.Regexp, error) {
	if _, err := regexp.Compile(expr); err != nil { // before anchoring could hide what is wrong
		return nil, err
	}
	return grafanaregexp.Compile("^(?:" + expr + ")$")
}
