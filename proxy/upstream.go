package proxy

import (
	"context"
	"net/http"
	"regexp"
	"sync"
	"time"

	grafanaregexp "github.com/grafana/regexp"
	"github.com/prometheus/client_golang/prometheus"
	promconfig "github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	upstreamfeatures "github.com/prometheus/prometheus/util/features"
	v1 "github.com/prometheus/prometheus/web/api/v1"

	"github.com/oneprom/oneprom/promqlx"
	"github.com/oneprom/oneprom/promqlx/bounds"
	"github.com/oneprom/oneprom/promqlx/metricsql"
	"github.com/oneprom/oneprom/proxy/api"
	"github.com/oneprom/oneprom/proxy/config"
	"github.com/oneprom/oneprom/proxy/routes"
	"github.com/oneprom/oneprom/proxy/views"
)

// engineOptions are the options of the PromQL engine, set as Prometheus does, but for where
// it logs and registers what it has. cfg returns the configuration in use.
func engineOptions(o Options, f features, cfg func() *config.Config) promql.EngineOpts {
	return promql.EngineOpts{
		MaxSamples:               o.MaxSamples,
		Timeout:                  time.Duration(o.QueryTimeout),
		LookbackDelta:            time.Duration(o.LookbackDelta),
		NoStepSubqueryIntervalFn: func(int64) int64 { return time.Duration(cfg().Global.EvaluationInterval).Milliseconds() },
		EnableAtModifier:         true,
		EnableNegativeOffset:     true,
		EnablePerStepStats:       f.perStepStats,
		EnableDelayedNameRemoval: f.delayedNameRemoval,
		EnableTypeAndUnitLabels:  f.typeAndUnitLabels,
		UseStartTimestamps:       f.startTimestamps,
		Parser:                   bounds.Parser(metricsql.Parser(parser.NewParser(f.parser))),
	}
}

// upstreamAPI is Prometheus' own API over the server groups. It lets everybody in: the table
// of routes says who reaches it. Of what needs scraping or an exemplar storage, it answers
// with what is oneprom's own (views.SelfAPI).
func (s *Server) upstreamAPI(storage *promqlx.Storage, st routes.Status) *v1.API {
	addr := s.listeners[0].Addr().String()
	s.registerFeatures()
	upstream := v1.NewAPI(
		s.engine, storage,
		nil, nil, // no appenders
		nil, // no exemplar storage
		func(context.Context) v1.ScrapePoolsRetriever { return views.Noop },
		func(context.Context) v1.TargetRetriever { return views.Noop },
		func(context.Context) v1.AlertmanagerRetriever { return s.ruler.Notifier() },
		func() promconfig.Config { return promconfig.Config{} }, // without external labels, which /read would add
		s.opts.Flags,
		v1.GlobalURLOptions{ListenAddress: addr, Host: s.externalURL.Host, Scheme: s.externalURL.Scheme},
		s.readiness.Gate,
		views.Noop, "", // no TSDB
		false, s.features.search, s.opts.SearchMaxLimit, // no admin API
		s.logger.With("component", "api"),
		func(context.Context) v1.RulesRetriever { return s.ruler.Rules() },
		s.opts.ReadSampleLimit, s.opts.MaxConcurrency, s.opts.ReadMaxBytesInFrame, // the gate lets no more in
		false, // no agent
		s.corsOrigin,
		st.RuntimeInfo,
		api.BuildInfo(),
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
		v1.OpenAPIOptions{IncludePaths: []string{"none"}}, // the whole document: openAPI
		bounds.Parser(metricsql.Parser(parser.NewParser(allSyntax))),
	)
	upstream.ClearCodecs()
	upstream.InstallCodec(api.Codec{})
	return upstream
}

// openAPI serves the document that describes the API. It is rendered when somebody asks for it: that
// takes most of the time of a start.
func (s *Server) openAPI() http.HandlerFunc {
	document := sync.OnceValue(func() *v1.OpenAPIBuilder {
		o := v1.OpenAPIOptions{ExternalURL: s.externalURL.String(), Version: api.Version, MaxSearchLimit: s.opts.SearchMaxLimit}
		return v1.NewOpenAPIBuilder(o, s.logger.With("component", "api"))
	})
	return func(w http.ResponseWriter, r *http.Request) { document().ServeOpenAPI(w, r) }
}

// registerFeatures registers for /api/v1/features what the HTTP API can do. The engine
// registers the rest.
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
