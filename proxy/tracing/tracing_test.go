package tracing

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

type failingExporter struct {
	sdktrace.SpanExporter
	err error
}

func (e *failingExporter) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error { return e.err }

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
