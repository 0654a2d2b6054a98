package transport

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

func TestSend_SpanSaysWhoWasAskedAndWhatCameOfIt(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	defer func() { require.NoError(t, provider.Shutdown(context.Background())) }()

	f := func(outcome string, status int, answer http.HandlerFunc) {
		t.Helper()
		spans.Reset()
		told := make(chan string, 1)
		backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			told <- r.Header.Get("Traceparent")
			answer(w, r)
		}))
		defer backend.Close()
		base, err := url.Parse(strings.Replace(backend.URL, "://", "://user:hunter2@", 1) + "/prom/")
		require.NoError(t, err)
		c := &Client{HTTP: backend.Client(), Base: base, Group: "eu"}
		ctx, parent := provider.Tracer("test").Start(t.Context(), "query")
		resp, err := c.get(ctx, "/api/v1/labels", nil)
		if err == nil {
			_, _ = c.text(resp, nil, new([]string))
		}
		parent.End()
		require.Len(t, spans.GetSpans(), 2)
		span := spans.GetSpans()[0]
		require.Equal(t, parent.SpanContext().SpanID(), span.Parent.SpanID())
		require.Equal(t, "GET /api/v1/labels", span.Name)
		require.Equal(t, "00-"+parent.SpanContext().TraceID().String()+"-"+span.SpanContext.SpanID().String()+"-01", <-told)
		want := []attribute.KeyValue{groupKey.String("eu"), replicaKey.String(c.URL()), outcomeKey.String(outcome)}
		if status != 0 {
			want = append(want, statusKey.Int(status))
		}
		require.ElementsMatch(t, want, span.Attributes)
		require.NotContains(t, replicaKey.String(c.URL()).Value.AsString(), "hunter2")
		require.Equal(t, outcome == outcomeOK, span.Status.Code == codes.Unset)
	}
	json := func(w http.ResponseWriter) { w.Header().Set("Content-Type", "application/json") }
	f("ok", 200, func(w http.ResponseWriter, _ *http.Request) {
		json(w)
		_, _ = w.Write([]byte(`{"status":"success","data":[]}`))
	})
	f("server", 502, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	f("content", 0, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) })
	f("transport", 0, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	f("transport", 200, func(w http.ResponseWriter, _ *http.Request) {
		json(w)
		_, _ = w.Write([]byte(`{"status":"succ`))
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
}

func TestSend_NoTraceNoHeader(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		require.NotContains(t, r.Header, "Traceparent")
		w.Header().Set("Content-Type", "application/json")
	}))
	defer backend.Close()
	base, err := url.Parse(backend.URL)
	require.NoError(t, err)
	resp, err := (&Client{HTTP: backend.Client(), Base: base}).get(t.Context(), "/", nil)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.NotContains(t, resp.Request.Header, "Traceparent")
}
