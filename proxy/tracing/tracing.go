// Package tracing makes a trace of each request and exports it as the configuration says,
// which is that of Prometheus.
//
// A Tracer serves one configuration of traces; Tracing is what requests go through, whichever
// tracer is in use. Prometheus' own manager is not used: it would name the service
// prometheus, as the servers behind oneprom do, and it stops the traces when a new
// configuration of them is wrong.
package tracing

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	commoncfg "github.com/prometheus/common/config"
	"github.com/prometheus/common/version"
	"github.com/prometheus/prometheus/config"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/grpc/credentials"

	"github.com/oneprom/oneprom/proxy/api"
	"github.com/oneprom/oneprom/servergroup/redact"
)

// flushWait is how long the end of a tracer may take.
const flushWait = 5 * time.Second

// Tracer makes and exports spans as one configuration says.
type Tracer struct {
	cfg      *config.TracingConfig
	provider *sdktrace.TracerProvider
	logger   *slog.Logger
}

// New returns a tracer, which must be closed; nil if cfg is. It does not connect
// yet, and touches nothing that is in use.
func New(cfg *config.TracingConfig, logger *slog.Logger) (*Tracer, error) {
	if cfg == nil {
		return nil, nil
	}
	collector, err := client(cfg)
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	ctx := context.Background() // nothing is waited for
	exporter, err := otlptrace.New(ctx, collector)
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	about, err := resource.New(ctx,
		resource.WithAttributes(attribute.String("service.name", "oneprom"), attribute.String("service.version", version.Version)),
		resource.WithProcessRuntimeDescription(), resource.WithTelemetrySDK())
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	return &Tracer{cfg: cfg, logger: logger, provider: sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(&loggingExporter{SpanExporter: exporter, logger: logger}),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(cfg.SamplingFraction))),
		sdktrace.WithResource(about),
	)}, nil
}

// client is the client of the collector.
func client(cfg *config.TracingConfig) (otlptrace.Client, error) {
	tls, err := commoncfg.NewTLSConfig(&cfg.TLSConfig)
	if err != nil {
		return nil, err
	}
	if cfg.ClientType == config.TracingClientHTTP {
		o := []otlptracehttp.Option{otlptracehttp.WithEndpoint(cfg.Endpoint), otlptracehttp.WithHeaders(cfg.Headers)}
		if cfg.Insecure {
			o = append(o, otlptracehttp.WithInsecure())
		} else {
			o = append(o, otlptracehttp.WithTLSClientConfig(tls))
		}
		if cfg.Compression == config.GzipCompression {
			o = append(o, otlptracehttp.WithCompression(otlptracehttp.GzipCompression))
		}
		if cfg.Timeout > 0 {
			o = append(o, otlptracehttp.WithTimeout(time.Duration(cfg.Timeout)))
		}
		return otlptracehttp.NewClient(o...), nil
	}
	o := []otlptracegrpc.Option{otlptracegrpc.WithEndpoint(cfg.Endpoint), otlptracegrpc.WithHeaders(cfg.Headers)}
	if cfg.Insecure {
		o = append(o, otlptracegrpc.WithInsecure())
	} else {
		o = append(o, otlptracegrpc.WithTLSCredentials(credentials.NewTLS(tls)))
	}
	if cfg.Compression != "" {
		o = append(o, otlptracegrpc.WithCompressor(cfg.Compression))
	}
	if cfg.Timeout > 0 {
		o = append(o, otlptracegrpc.WithTimeout(time.Duration(cfg.Timeout)))
	}
	return otlptracegrpc.NewClient(o...), nil
}

// Serves reports whether the tracer does what a configuration says. Files of TLS may have
// changed.
func (t *Tracer) Serves(cfg *config.TracingConfig) bool {
	if t == nil || cfg == nil {
		return t == nil && cfg == nil
	}
	return reflect.DeepEqual(t.cfg, cfg) && cfg.TLSConfig == commoncfg.TLSConfig{}
}

// Tracing has requests traced by the tracer in use. The zero value has none.
type Tracing struct {
	current atomic.Pointer[Tracer]
}

// Current is the tracer in use; nil is none.
func (ts *Tracing) Current() *Tracer { return ts.current.Load() }

// Use puts a tracer to use; nil is none. It returns the one that is not in use any more,
// which is to be closed. Upstream's API and engine know a provider of the whole process
// only: where several servers are in one, their spans are those of the last that was set.
func (ts *Tracing) Use(t *Tracer) (before *Tracer) {
	before = ts.current.Swap(t)
	switch {
	case before == t:
		return nil
	case t != nil:
		otel.SetTracerProvider(t.provider)
	default:
		otel.SetTracerProvider(noop.NewTracerProvider())
	}
	return before
}

// Close exports what is left, and ends.
func (t *Tracer) Close() {
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), flushWait)
	defer cancel()
	if err := t.provider.Shutdown(ctx); err != nil {
		t.logger.Warn("the last traces may be lost", "err", err)
	}
}

// loggingExporter says in the log when spans begin to be lost, and not for each.
type loggingExporter struct {
	sdktrace.SpanExporter
	logger  *slog.Logger
	failing atomic.Bool
}

// ExportSpans implements sdktrace.SpanExporter. Its errors would end up with a handler
// of the whole process.
func (e *loggingExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	shown := make([]sdktrace.ReadOnlySpan, len(spans))
	for i, s := range spans {
		shown[i] = shownSpan{s}
	}
	err := e.SpanExporter.ExportSpans(ctx, shown)
	if e.failing.Swap(err != nil) != (err != nil) {
		if err != nil {
			e.logger.Error("exporting traces failed; they are lost until it succeeds", "err", err)
		} else {
			e.logger.Info("traces are exported again")
		}
	}
	return nil
}

// shownSpan is a span without what may be secret in URLs, which those of remote write have.
type shownSpan struct{ sdktrace.ReadOnlySpan }

// Attributes implements sdktrace.ReadOnlySpan.
func (s shownSpan) Attributes() []attribute.KeyValue { return shown(s.ReadOnlySpan.Attributes()) }

// Events implements sdktrace.ReadOnlySpan.
func (s shownSpan) Events() []sdktrace.Event {
	events := slices.Clone(s.ReadOnlySpan.Events())
	for i := range events {
		events[i].Attributes = shown(events[i].Attributes)
	}
	return events
}

// Status implements sdktrace.ReadOnlySpan.
func (s shownSpan) Status() sdktrace.Status {
	status := s.ReadOnlySpan.Status()
	status.Description = redact.URLs(status.Description)
	return status
}

func shown(list []attribute.KeyValue) []attribute.KeyValue {
	list = slices.Clone(list)
	for i, kv := range list {
		if kv.Value.Type() == attribute.STRING {
			list[i].Value = attribute.StringValue(redact.URLs(kv.Value.AsString()))
		}
	}
	return list
}

// Trace makes a span of each request, if there is a tracer. A client that has begun a
// trace has it continued.
func (ts *Tracing) Trace(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t := ts.current.Load()
		if t == nil {
			h.ServeHTTP(w, r)
			return
		}
		ctx := propagation.TraceContext{}.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
		ctx, span := t.provider.Tracer("proxy").Start(ctx, r.Method, trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
			attribute.String("http.request.method", r.Method),
			attribute.String("url.path", api.Clip(r.URL.Path, api.MaxHeaderText)),
			attribute.String("client.address", api.RemoteAddress(r)),
			attribute.String("user_agent.original", api.Clip(r.UserAgent(), api.MaxHeaderText)),
		))
		defer span.End()
		rec, w := api.RecorderOf(w)
		h.ServeHTTP(w, r.WithContext(ctx))
		span.SetAttributes(attribute.Int("http.response.status_code", rec.Status()))
		if rec.Status() >= http.StatusInternalServerError {
			span.SetStatus(codes.Error, http.StatusText(rec.Status()))
		}
	})
}

// NameSpan names the span of a request after its route, if there is one.
func NameSpan(route string, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if span := trace.SpanFromContext(r.Context()); span.IsRecording() {
			span.SetName(r.Method + " " + route)
		}
		h(w, r)
	}
}
