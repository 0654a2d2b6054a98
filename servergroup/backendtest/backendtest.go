// Package backendtest is a small Prometheus in this process: upstream's HTTP API over any storage.
// The fast tests put it behind httptest.Server, and oneprom's demo serves it as its backends.
package backendtest

import (
	"context"
	"net/http"
	"runtime"
	"strings"
	"time"

	"github.com/grafana/regexp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/common/route"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/features"
	"github.com/prometheus/prometheus/util/notifications"
	v1 "github.com/prometheus/prometheus/web/api/v1"
)

// Version is what /api/v1/status/buildinfo answers: the release that the pinned module belongs to.
const Version = "3.15.0"

// What a server allows by default; storage.remote.* flags upstream.
const (
	defaultBytesInFrame = 1 << 20
	readSampleLimit     = 50_000_000
	readConcurrency     = 10
)

// Options say what a backend holds and how it differs from a stock Prometheus. Only Queryable is required.
type Options struct {
	// Queryable answers queries, label and series lookups and remote read.
	Queryable storage.SampleAndChunkQueryable
	// Exemplars answers /api/v1/query_exemplars; nil: there are none.
	Exemplars storage.ExemplarQueryable
	// Engine evaluates; nil: one made of EngineOpts(Parser). It stays the caller's to close.
	Engine promql.QueryEngine
	// EarlyNames has the engine that is made drop metric names where a function does, as a stock server
	// does, and not at the end of a query.
	EarlyNames bool
	// Parser reads format_query, parse_query and match[]; nil: one that knows every experimental feature.
	Parser parser.Parser
	// Features is what /api/v1/features shows; nil: what Parser can read. An Engine that was given the
	// same registry in its EngineOpts adds its own.
	Features features.Collector
	// ExternalLabels are added to every series by /api/v1/read, and only there, and are shown in
	// global.external_labels of /api/v1/status/config.
	ExternalLabels labels.Labels
	// RemoteRead says how /api/v1/read answers.
	RemoteRead RemoteRead
	// MaxBytesInFrame bounds a frame of streamed remote read; 0: 1 MiB, as a server has it.
	MaxBytesInFrame int
	// Metadata is what /api/v1/metadata answers, by metric name.
	Metadata map[string][]metadata.Metadata
	// Plain is a server that was built without the flags of a release, and tells no version.
	Plain bool
	// Prefix is put before every path, as --web.route-prefix does: "/prom", or empty.
	Prefix string
}

// NewHandler returns a handler that answers as a Prometheus with these options would. It starts no
// goroutines and owns nothing that must be closed. It panics if there is no Queryable. It takes some
// 0.05 s, as upstream renders its OpenAPI document: where the data changes, keep the handler and change
// what is behind the Queryable.
func NewHandler(o Options) http.Handler {
	flags := o.flags()
	o = o.withDefaults()
	prefix := strings.TrimSuffix(o.Prefix, "/")
	apiRouter := route.New().WithPrefix(prefix + "/api/v1")
	newAPI(o, flags).Register(apiRouter)

	mux := http.NewServeMux()
	mux.Handle(prefix+"/api/v1/", apiRouter)
	mux.Handle("GET "+prefix+"/api/v1/metadata", metadataHandler(o.Metadata))
	if o.RemoteRead != Streamed {
		mux.Handle("POST "+prefix+"/api/v1/read", o.RemoteRead.restrict(apiRouter))
	}
	mux.Handle("GET "+prefix+"/-/healthy", text("Prometheus Server is Healthy.\n"))
	mux.Handle("GET "+prefix+"/-/ready", text("Prometheus Server is Ready.\n"))
	return mux
}

// EngineOpts are the engine settings of a stock server, except that its promql-* feature flags are on.
func EngineOpts(p parser.Parser) promql.EngineOpts {
	return promql.EngineOpts{
		MaxSamples:               50_000_000,
		Timeout:                  2 * time.Minute,
		LookbackDelta:            5 * time.Minute,
		NoStepSubqueryIntervalFn: func(int64) int64 { return time.Minute.Milliseconds() },
		EnableAtModifier:         true,
		EnableNegativeOffset:     true,
		EnablePerStepStats:       true,
		EnableDelayedNameRemoval: true,
		UseStartTimestamps:       true,
		Parser:                   p,
	}
}

// NewParser returns a parser that knows every experimental feature.
func NewParser() parser.Parser {
	return parser.NewParser(parser.Options{
		EnableExperimentalFunctions:  true,
		ExperimentalDurationExpr:     true,
		EnableExtendedRangeSelectors: true,
		EnableBinopFillModifiers:     true,
	})
}

func (o Options) withDefaults() Options {
	if o.Queryable == nil {
		panic("backendtest: Options.Queryable is nil")
	}
	if o.Parser == nil {
		o.Parser = NewParser()
	}
	if o.Features == nil {
		o.Features = features.NewRegistry()
		o.Parser.RegisterFeatures(o.Features)
	}
	if o.Engine == nil {
		opts := EngineOpts(o.Parser)
		opts.FeatureRegistry = o.Features
		opts.EnableDelayedNameRemoval = !o.EarlyNames
		o.Engine = promql.NewEngine(opts)
	}
	if o.Exemplars == nil {
		o.Exemplars = noExemplars{}
	}
	if o.MaxBytesInFrame == 0 {
		o.MaxBytesInFrame = defaultBytesInFrame
	}
	return o
}

// flags are what /api/v1/status/flags answers: where the data is, which only a Prometheus has,
// and the features of the engine that is made.
func (o Options) flags() map[string]string {
	flags := map[string]string{"storage.tsdb.path": "data/", "enable-feature": "promql-delayed-name-removal,use-start-timestamps"}
	switch {
	case o.Engine != nil:
		flags["enable-feature"] = ""
	case o.EarlyNames:
		flags["enable-feature"] = "use-start-timestamps"
	}
	return flags
}

func newAPI(o Options, flags map[string]string) *v1.API {
	cfg := config.DefaultConfig
	cfg.GlobalConfig.ExternalLabels = o.ExternalLabels
	started := time.Now()
	version := Version
	if o.Plain {
		version = ""
	}
	return v1.NewAPI(
		o.Engine, o.Queryable, nil, nil, o.Exemplars,
		func(context.Context) v1.ScrapePoolsRetriever { return nothing{} },
		func(context.Context) v1.TargetRetriever { return nothing{} },
		func(context.Context) v1.AlertmanagerRetriever { return nothing{} },
		func() config.Config { return cfg },
		flags,
		v1.GlobalURLOptions{},
		func(f http.HandlerFunc) http.HandlerFunc { return f },
		stats{o.Queryable}, "",
		false, false, 0, // admin API, search API, its limit
		promslog.NewNopLogger(),
		func(context.Context) v1.RulesRetriever { return nothing{} },
		readSampleLimit, readConcurrency, o.MaxBytesInFrame,
		false, // agent
		regexp.MustCompile(".*"),
		func() (v1.RuntimeInfo, error) {
			return v1.RuntimeInfo{
				StartTime: started, ServerTime: time.Now().UTC(), LastConfigTime: started, ReloadConfigSuccess: true,
				GoroutineCount: runtime.NumGoroutine(), GOMAXPROCS: runtime.GOMAXPROCS(0),
			}, nil
		},
		&v1.PrometheusVersion{Version: version, Branch: "HEAD", GoVersion: runtime.Version()},
		func() []notifications.Notification { return nil },
		func() (<-chan notifications.Notification, func(), bool) { return nil, nil, false },
		prometheus.NewRegistry(), nil, nil,
		false, nil, // remote write
		false, false, false, // OTLP
		false, 5*time.Minute, false, false, // zero injection, lookback and labels of OTLP, metadata
		nil, o.Features,
		v1.OpenAPIOptions{IncludePaths: []string{"none"}}, // rendering them all was most of what tests did
		o.Parser,
	)
}

// CountsSeries reports whether a request is one by which evidence counts the series of a selector.
func CountsSeries(r *http.Request) bool {
	text, lookback := r.FormValue("query"), r.FormValue("lookback_delta")
	return r.URL.Path == "/api/v1/query_range" && strings.HasPrefix(text, "count({") && strings.HasSuffix(text, "})") &&
		(strings.HasPrefix(lookback, "180") || lookback == r.FormValue("step"))
}

// text answers 200 with a fixed body.
func text(body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte(body)) // a client that went away is not our concern
	})
}
