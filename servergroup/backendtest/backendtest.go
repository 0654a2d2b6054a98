// Package backendtest is a small Prometheus in this process: upstream's HTTP API over any storage.
// The fast tests put it behind httptest.Server, and oneprom's demo serves it as its backends.
package backendtest

import (
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/common/route"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/features"
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
// goroutines and owns nothing that must be closed. It panics if there is no Queryable. With an Engine, a
// Parser or Features it takes some 0.05 s, as upstream renders its OpenAPI document.
func NewHandler(o Options) http.Handler {
	if o.Queryable == nil {
		panic("backendtest: Options.Queryable is nil")
	}
	prefix := strings.TrimSuffix(o.Prefix, "/")
	apiRouter := route.New().WithPrefix(prefix + "/api/v1")
	h := newHandler(o)
	h.api.Register(apiRouter)

	mux := &h.mux
	mux.Handle(prefix+"/api/v1/", apiRouter)
	mux.Handle("GET "+prefix+"/api/v1/metadata", metadataHandler(o.Metadata))
	if o.RemoteRead != Streamed {
		mux.Handle("POST "+prefix+"/api/v1/read", o.RemoteRead.restrict(apiRouter))
	}
	mux.Handle("GET "+prefix+"/-/healthy", text("Prometheus Server is Healthy.\n"))
	mux.Handle("GET "+prefix+"/-/ready", text("Prometheus Server is Ready.\n"))
	return h
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

// CountsSeries reports whether a request is one by which evidence counts the series of a selector, or
// reads their samples to look at them.
func CountsSeries(r *http.Request) bool {
	if readFunc(r) != "" {
		return true
	}
	text, lookback := r.FormValue("query"), r.FormValue("lookback_delta")
	if r.URL.Path != "/api/v1/query_range" || !strings.HasPrefix(lookback, "180") && !strings.HasPrefix(lookback, "300") {
		return false
	}
	return strings.HasPrefix(text, "count({") && strings.HasSuffix(text, "})") || strings.HasPrefix(text, "count(timestamp({")
}

// TellsSeries reports whether a request is one by which evidence reads samples to see which series of a
// selector there are. The body of the request can be read again.
func TellsSeries(r *http.Request) bool { return readFunc(r) == "present_over_time" }

// readFunc returns the function that a remote read is for, as its hints say; "" if there is none.
func readFunc(r *http.Request) string {
	queries := ReadQueries(r)
	if len(queries) == 0 {
		return ""
	}
	return queries[0].Hints.GetFunc() // oneprom asks one at a time
}

// text answers 200 with a fixed body.
func text(body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte(body)) // a client that went away is not our concern
	})
}
