package tracing

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

type failingExporter struct {
	sdktrace.SpanExporter
	err error
}

func (e *failingExporter) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error { return e.err }

// recordingExporter keeps what it is given.
type recordingExporter struct {
	sdktrace.SpanExporter
	spans []sdktrace.ReadOnlySpan
}

func (e *recordingExporter) ExportSpans(_ context.Context, spans []sdktrace.ReadOnlySpan) error {
	e.spans = append(e.spans, spans...)
	return nil
}

// Upstream's remote write puts its URL into spans.
func TestTracing_SpansHaveNoSecretsOfURLs(t *testing.T) {
	const secret = "http://u:hunter2@a/?key=hunter2"
	inner := &recordingExporter{}
	e := &loggingExporter{SpanExporter: inner, logger: slog.New(slog.DiscardHandler)}
	require.NoError(t, e.ExportSpans(t.Context(), tracetest.SpanStubs{{
		Name: "write", Attributes: []attribute.KeyValue{attribute.String("remote_url", secret), attribute.Int("n", 1)},
		Events: []sdktrace.Event{{Name: "e", Attributes: []attribute.KeyValue{attribute.String("exception.message", "Post "+secret)}}},
		Status: sdktrace.Status{Code: codes.Error, Description: secret},
	}}.Snapshots()))
	s := inner.spans[0]
	told := fmt.Sprint(s.Attributes(), s.Events(), s.Status())
	require.NotContains(t, told, "hunter2")
	require.Equal(t, 3, strings.Count(told, "http://u:xxxxx@a/?<secret>"))
	require.Equal(t, "write", s.Name())
}

func TestTracing_FailingExportsAreSaidOnce(t *testing.T) {
	var logged bytes.Buffer
	inner := &failingExporter{}
	e := &loggingExporter{SpanExporter: inner, logger: slog.New(slog.NewTextHandler(&logged, nil))}
	for _, err := range []error{nil, errors.New("x"), errors.New("x"), nil, nil, errors.New("x")} {
		inner.err = err
		require.NoError(t, e.ExportSpans(t.Context(), nil))
	}
	require.Equal(t, 2, strings.Count(logged.String(), "exporting traces failed"))
	require.Equal(t, 1, strings.Count(logged.String(), "traces are exported again"))
}
