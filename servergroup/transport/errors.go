package transport

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Class says whose fault a failed request is; it decides about retries, breakers
// and what the client is told.
type Class string

// The classes of failures.
const (
	// ClassUser is a query that the backend refuses: 400 or 422.
	ClassUser Class = "user"
	// ClassLoad is a backend that has too much to do: 429.
	ClassLoad Class = "load"
	// ClassEvaluation is a query that took too long in the backend: 503 with
	// errorType timeout.
	ClassEvaluation Class = "evaluation"
	// ClassTransport is a connection that could not be made or broke, or a
	// deadline of ours that passed.
	ClassTransport Class = "transport"
	// ClassServer is any other status that is not 2xx.
	ClassServer Class = "server"
	// ClassContent is a 2xx answer that is not what was asked for.
	ClassContent Class = "content"
	// ClassCanceled is a request that was given up by us or our client.
	ClassCanceled Class = "canceled"
)

// Error is a failed request to one replica.
type Error struct {
	Class Class
	// URL is the replica's, without credentials.
	URL string
	// Status is the HTTP status, 0 if there was none or the body was at fault.
	Status int
	// ErrorType is what the envelope said, if there was one.
	ErrorType string
	Err       error

	header http.Header // of the answer, nil if there was none
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %s", e.URL, e.Err) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// RetryAfter is how long the replica wants to be left alone, 0 if it does not say.
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

// Unsupported tells that the replica has no such endpoint.
func (e *Error) Unsupported() bool {
	switch e.Status {
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusUnsupportedMediaType, http.StatusNotImplemented, http.StatusGone:
		return true
	}
	return false
}

// Refused tells an answer that says that the replica does not do what it was
// asked for, and will not do it soon, from a failure that may pass.
func Refused(err error) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	return e.Unsupported() || e.Class == ClassUser || e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden
}

// CannotCut tells that remote read failed over a chunk that only lies partly in the
// window: Prometheus 2.42 cannot cut those of gauge histograms.
func CannotCut(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Class == ClassServer && strings.Contains(e.Err.Error(), "while re-encoding")
}

// ClassOf returns the class of err, "" if it has none.
func ClassOf(err error) Class {
	var e *Error
	if errors.As(err, &e) {
		return e.Class
	}
	return ""
}

func (c *Client) contentError(err error) error {
	return &Error{Class: ClassContent, URL: c.URL(), Err: err}
}

// bodyError is a body that broke off or a budget that ran out while it was read.
func (c *Client) bodyError(ctx context.Context, err error) error {
	var own interface{ BudgetExceeded() }
	if errors.As(err, &own) {
		return err
	}
	return c.transportError(ctx, fmt.Errorf("answer broke off: %w", err))
}

// decodeError is a JSON body that broke off or is not what it should be.
func (c *Client) decodeError(ctx context.Context, err error) error {
	var own interface{ BudgetExceeded() }
	var netErr net.Error
	if errors.As(err, &own) || ctx.Err() != nil || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &netErr) {
		return c.bodyError(ctx, err)
	}
	return c.contentError(err)
}

func (c *Client) transportError(ctx context.Context, err error) error {
	class := ClassTransport
	// The cause tells a deadline of ours for this replica from the query's end.
	if cause := context.Cause(ctx); cause != nil {
		if errors.Is(cause, context.Canceled) {
			class = ClassCanceled
		}
		err = cause
	}
	// *url.Error repeats the URL, and parameters in it may be secret.
	for u := (*url.Error)(nil); errors.As(err, &u); {
		err = u.Err
	}
	if text := err.Error(); clip(text) != text {
		err = errors.New(clip(text)) // an authentication server may have written it
	}
	return &Error{Class: class, URL: c.URL(), Err: err}
}

// statusError reads what a backend says about a failure: Prometheus' envelope if
// it is one, else its first line.
func statusError(url string, resp *http.Response, body []byte) error {
	e := &Error{URL: url, Status: resp.StatusCode, Class: ClassServer, header: resp.Header}
	var env envelope
	text := ""
	if json.Unmarshal(body, &env) == nil {
		e.ErrorType, text = env.ErrorType, clip(env.Error)
	}
	if text == "" {
		text = firstLine(body)
	}
	switch {
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
