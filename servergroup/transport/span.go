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

// The attributes of spans of requests to replicas.
const (
	groupKey   = attribute.Key("oneprom.group")
	replicaKey = attribute.Key("oneprom.replica")
	// outcomeKey is the Class of the failure, or outcomeOK. A fault that is only found when
	// the body is decoded is not known here.
	outcomeKey = attribute.Key("oneprom.outcome")
	statusKey  = attribute.Key("http.response.status_code")

	outcomeOK = "ok"
)

// call is the span of one request, which ends with the body of its response. It is nil for a
// request that belongs to no trace, such as a probe.
type call struct {
	trace.Span
	client *Client
	req    *http.Request
}

// traced returns the request with a span, which it propagates to the replica
// (https://www.w3.org/TR/trace-context/).
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

// responded records the outcome of the request. The span goes on until the body is closed.
func (s *call) responded(resp *http.Response, err error) {
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
