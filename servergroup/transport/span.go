package transport

import (
	"errors"
	"io"
	"net/http"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// What the spans of requests to replicas say.
const (
	groupKey   = attribute.Key("oneprom.group")
	replicaKey = attribute.Key("oneprom.replica")
	// outcomeKey is the Class of what went wrong, or outcomeOK. What is found in an
	// answer only when it is decoded is not seen here.
	outcomeKey = attribute.Key("oneprom.outcome")
	statusKey  = attribute.Key("http.response.status_code")

	outcomeOK = "ok"
)

// call is the span of one request, which ends with its answer. Nil is that of a
// request that belongs to no trace, as probes do not.
type call struct {
	trace.Span
	client *Client
	req    *http.Request
}

// traced returns the request with a span of its own, of which the replica is told.
func (c *Client) traced(req *http.Request) (*http.Request, *call) {
	parent := trace.SpanFromContext(req.Context())
	if !parent.SpanContext().IsValid() {
		return req, nil
	}
	ctx, span := parent.TracerProvider().Tracer("transport").Start(req.Context(),
		req.Method+" "+strings.TrimPrefix(req.URL.Path, strings.TrimSuffix(c.Base.Path, "/")),
		trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(groupKey.String(c.Group), replicaKey.String(c.URL())))
	req = req.WithContext(ctx)
	propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(req.Header))
	return req, &call{span, c, req}
}

// answered takes in what became of the request. A body is still to be read.
func (s *call) answered(resp *http.Response, err error) {
	switch {
	case s == nil:
	case err != nil:
		s.failed(err)
		s.End()
	default:
		s.SetAttributes(statusKey.Int(resp.StatusCode))
		resp.Body = &tracedBody{ReadCloser: resp.Body, call: s}
	}
}

func (s *call) failed(err error) {
	s.SetAttributes(outcomeKey.String(string(ClassOf(err))))
	s.SetStatus(codes.Error, err.Error())
	var e *Error
	if errors.As(err, &e) && e.Status != 0 {
		s.SetAttributes(statusKey.Int(e.Status))
	}
}

// tracedBody ends the span of its request when it is closed.
type tracedBody struct {
	io.ReadCloser
	call   *call
	broken bool
}

func (b *tracedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF && !b.broken {
		b.broken = true
		b.call.failed(b.call.client.bodyError(b.call.req.Context(), err))
	}
	return n, err
}

func (b *tracedBody) Close() error {
	if !b.broken {
		b.call.SetAttributes(outcomeKey.String(outcomeOK))
	}
	b.call.End()
	return b.ReadCloser.Close()
}
