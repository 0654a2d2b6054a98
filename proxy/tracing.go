package proxy

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
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
)

// This file makes traces. The configuration is that of Prometheus. Its manager is not
// used: it would name the service prometheus, as the servers behind oneprom do, and it
// stops the traces when a new configuration of them is wrong.

// traceFlushWait is how long the end of a tracer may take.
const traceFlushWait = 5 * time.Second

// tracer makes and exports spans as one configuration says.
type tracer struct {
	cfg      *config.TracingConfig
	provider *sdktrace.TracerProvider
	logger   *slog.Logger
}

// newTracer returns a tracer, which must be closed; nil if cfg is. It does not connect
// yet, and touches nothing that is in use.
func newTracer(cfg *config.TracingConfig, logger *slog.Logger) (*tracer, error) {
	if cfg == nil {
		return nil, nil
	}
	client, err := traceClient(cfg)
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	ctx := context.Background() // nothing is waited for
	exporter, err := otlptrace.New(ctx, client)
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	about, err := resource.New(ctx,
		resource.WithAttributes(attribute.String("service.name", "oneprom"), attribute.String("service.version", version.Version)),
		resource.WithProcessRuntimeDescription(), resource.WithTelemetrySDK())
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	return &tracer{cfg: cfg, logger: logger, provider: sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(&toldExporter{SpanExporter: exporter, logger: logger}),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(cfg.SamplingFraction))),
		sdktrace.WithResource(about),
	)}, nil
}

// traceClient is the client of the collector.
func traceClient(cfg *config.TracingConfig) (otlptrace.Client, error) {
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

// serves reports whether the tracer does what a configuration says. Files of TLS may have
// changed.
func (t *tracer) serves(cfg *config.TracingConfig) bool {
	if t == nil || cfg == nil {
		return t == nil && cfg == nil
	}
	return reflect.DeepEqual(t.cfg, cfg) && cfg.TLSConfig == commoncfg.TLSConfig{}
}

// setTracer puts a tracer to use; nil is none. It returns the one that is not in use any
// more, which is to be closed. Upstream's API and engine know a provider of the whole process
// only: where several servers are in one, their spans are those of the last that was set.
func (s *Server) setTracer(t *tracer) (before *tracer) {
	before = s.tracer.Swap(t)
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

// close exports what is left, and ends.
func (t *tracer) close() {
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), traceFlushWait)
	defer cancel()
	if err := t.provider.Shutdown(ctx); err != nil {
		t.logger.Warn("the last traces may be lost", "err", err)
	}
}

// toldExporter says in the log when spans begin to be lost, and not for each.
type toldExporter struct {
	sdktrace.SpanExporter
	logger  *slog.Logger
	failing atomic.Bool
}

// ExportSpans implements sdktrace.SpanExporter. Its errors would end up with a handler
// of the whole process.
func (e *toldExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := e.SpanExporter.ExportSpans(ctx, spans)
	if e.failing.Swap(err != nil) != (err != nil) {
		if err != nil {
			e.logger.Error("exporting traces failed; they are lost until it succeeds", "err", err)
		} else {
			e.logger.Info("traces are exported again")
		}
	}
	return nil
}

// traced makes a span of each request, if there is a tracer. A client that has begun a
// trace has it continued.
func (s *Server) traced(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		t := s.tracer.Load()
		if t == nil {
			h.ServeHTTP(w, r)
			return
		}
		ctx := propagation.TraceContext{}.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
		ctx, span := t.provider.Tracer("proxy").Start(ctx, r.Method, trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
			attribute.String("http.request.method", r.Method),
			attribute.String("url.path", clipped(r.URL.Path, maxHeaderText)),
			attribute.String("client.address", remoteAddress(r)),
			attribute.String("user_agent.original", clipped(r.UserAgent(), maxHeaderText)),
		))
		defer span.End()
		answered := &answerWriter{watchedWriter: watchedWriter{ResponseWriter: w}}
		h.ServeHTTP(answered, r.WithContext(ctx))
		span.SetAttributes(attribute.Int("http.response.status_code", answered.status()))
		if answered.status() >= http.StatusInternalServerError {
			span.SetStatus(codes.Error, http.StatusText(answered.status()))
		}
	})
}

// nameSpan names the span of a request after its route, if there is one.
func nameSpan(route string, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if span := trace.SpanFromContext(r.Context()); span.IsRecording() {
			span.SetName(r.Method + " " + route)
		}
		h(w, r)
	}
}
