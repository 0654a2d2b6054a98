package transport

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/oneprom/oneprom/servergroup/transport/envelope"
)

// Class is whose fault a failed request is. Retries, circuit breakers and the status that the
// client gets depend on it.
type Class string

// The classes of failures.
const (
	// ClassUser is a query that the backend refuses: 400 or 422.
	ClassUser Class = "user"
	// ClassLoad is a backend that is overloaded: 429.
	ClassLoad Class = "load"
	// ClassEvaluation is a query that took too long in the backend: 503 with
	// errorType timeout.
	ClassEvaluation Class = "evaluation"
	// ClassTransport is a connection that could not be made or broke, or a deadline of
	// oneprom's that passed.
	ClassTransport Class = "transport"
	// ClassServer is any other status that is not 2xx.
	ClassServer Class = "server"
	// ClassContent is a 2xx response that is not what was asked for.
	ClassContent Class = "content"
	// ClassCanceled is a request that oneprom or its client gave up.
	ClassCanceled Class = "canceled"
)

// Error is a failed request to one replica.
type Error struct {
	Class Class
	// URL is the replica's, without credentials.
	URL string
	// Status is the HTTP status, 0 if there was none or if the body is at fault.
	Status int
	// ErrorType is errorType of the envelope, if there was one.
	ErrorType string
	Err       error

	header http.Header // of the response, nil if there was none
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %s", e.URL, e.Err) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// RetryAfter is how long the replica asks to be left alone, at most an hour if it gives
// seconds; 0 if it does not say.
func (e *Error) RetryAfter() time.Duration {
	text := e.header.Get("Retry-After")
	if seconds, err := strconv.Atoi(text); err == nil && seconds > 0 {
		return time.Duration(min(seconds, 3600)) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, time.Until(at))
	}
	return 0
}

// Unsupported reports whether the replica has no such endpoint.
func (e *Error) Unsupported() bool {
	switch e.Status {
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusUnsupportedMediaType, http.StatusNotImplemented, http.StatusGone:
		return true
	}
	return false
}

// Refused reports whether the replica says that it does not do what it was asked for, and
// will not do it soon. Any other failure may pass.
func Refused(err error) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	return e.Unsupported() || losesBody(err) || e.Class == ClassUser || e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden
}

// CannotCut reports whether remote read failed at a chunk that lies only partly in the
// window: Prometheus 2.42 cannot cut chunks of gauge histograms.
func CannotCut(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Class == ClassServer && strings.Contains(e.Err.Error(), "while re-encoding")
}

// ClassOf returns the class of err, "" if it has none.
func ClassOf(err error) Class {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Class
	}
	return ""
}

func (c *Client) contentError(err error) error {
	return &Error{Class: ClassContent, URL: c.URL(), Err: err}
}

// bodyError is the error of a body that broke off, or that of a budget which it exceeded.
func (c *Client) bodyError(ctx context.Context, err error) error {
	var own interface{ BudgetExceeded() }
	if errors.As(err, &own) {
		return err
	}
	return c.transportError(ctx, fmt.Errorf("answer broke off: %w", err))
}

// decodeError is the error of a JSON body that broke off or is not what it should be.
func (c *Client) decodeError(ctx context.Context, err error) error {
	var own interface{ BudgetExceeded() }
	var broken *brokenBody
	switch {
	case errors.As(err, &broken):
		return c.bodyError(ctx, broken.err)
	case errors.As(err, &own) || ctx.Err() != nil || errors.Is(err, io.ErrUnexpectedEOF):
		return c.bodyError(ctx, err)
	}
	return c.contentError(err)
}

// watchedBody is a body whose errors, but for its end, are known as those of its connection:
// what a decoder makes of them looks as if the body were not what it should be.
type watchedBody struct{ io.Reader }

func (b watchedBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err != nil && err != io.EOF {
		err = &brokenBody{err}
	}
	return n, err
}

// brokenBody is the error of a body that broke off.
type brokenBody struct{ err error }

func (e *brokenBody) Error() string { return e.err.Error() }
func (e *brokenBody) Unwrap() error { return e.err }

func (c *Client) transportError(ctx context.Context, err error) error {
	class := ClassTransport
	// The cause distinguishes a deadline for this replica from the end of the query.
	if cause := context.Cause(ctx); cause != nil {
		if errors.Is(cause, context.Canceled) {
			class = ClassCanceled
		}
		err = cause
	}
	advice := tlsAdvice(err)
	// *url.Error repeats the URL, and parameters in it may be secret.
	for u := (*url.Error)(nil); errors.As(err, &u); {
		err = u.Err
	}
	if lost, ok := errors.AsType[*lostBodyError](err); ok {
		return &Error{Class: ClassServer, URL: c.URL(), Status: lost.status, Err: &lostBodyError{lost.status, clip(lost.text)}}
	}
	if text := err.Error(); clip(text) != text {
		err = errors.New(clip(text)) // an authentication server may have written it
	}
	if advice != "" {
		err = fmt.Errorf("%w: %s", err, advice)
	}
	return &Error{Class: class, URL: c.URL(), Err: err}
}

// statusError is the error of a status that is not 2xx. Its text is that of the envelope, or
// the first line of a body that is none.
func statusError(url string, resp *http.Response, body []byte) error {
	e := &Error{URL: url, Status: resp.StatusCode, Class: ClassServer, header: resp.Header}
	var env envelope.Response
	text := ""
	if json.Unmarshal(body, &env) == nil {
		e.ErrorType, text = env.ErrorType, clip(env.Error)
	}
	if to := notFollowed(resp); to != "" {
		text = to
	}
	if text == "" {
		text = firstLine(body)
	}
	switch {
	case resp.StatusCode == http.StatusBadRequest && expectsTLS(body):
		text = "the server expects TLS: set `scheme: https`"
	case resp.StatusCode == http.StatusBadRequest || resp.StatusCode == http.StatusUnprocessableEntity:
		e.Class = ClassUser
	case resp.StatusCode == http.StatusTooManyRequests:
		e.Class = ClassLoad
	case resp.StatusCode == http.StatusServiceUnavailable && e.ErrorType == "timeout":
		e.Class = ClassEvaluation
	}
	status := fmt.Sprintf("status %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	if text == "" {
		e.Err = errors.New(status)
	} else {
		e.Err = fmt.Errorf("%s: %s", status, text)
	}
	return e
}
