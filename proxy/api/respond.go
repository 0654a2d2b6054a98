package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/util/annotations"
	v1 "github.com/prometheus/prometheus/web/api/v1"

	"github.com/oneprom/oneprom/servergroup/completeness"
)

// StatusClientClosed is nginx' code for a client that did not wait.
const StatusClientClosed = 499

// maxAnnotations bounds the warnings, and the infos, of one answer.
const maxAnnotations = 10

// Result is what one of our own API handlers has found.
type Result struct {
	Data     any // nil is 204 without a body
	Warnings annotations.Annotations
	Query    string // what positions in warnings refer to
}

// Handler answers an API request. Errors are *Error, or whatever the
// server groups failed with.
type Handler func(*http.Request) (Result, error)

// Error is an error with its place in the API's table of errors.
type Error struct {
	Code int    // of HTTP
	Type string // the errorType of the envelope
	Err  error
}

// NewError returns an error with an HTTP status and a type of the API.
func NewError(code int, typ string, err error) *Error { return &Error{Code: code, Type: typ, Err: err} }

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// BadData is the error of a request that is wrong.
func BadData(err error) error { return NewError(http.StatusBadRequest, "bad_data", err) }

// BadParameter is the error of a parameter that is wrong.
func BadParameter(name string, err error) error {
	return BadData(fmt.Errorf("invalid parameter %q: %w", name, err))
}

// Classify finds the place of an error in the API's table. What the server
// groups cause is 422 or 503, whose bodies Grafana reads, and never 500.
func Classify(err error) *Error {
	var (
		known    *Error
		canceled promql.ErrQueryCanceled
		late     promql.ErrQueryTimeout
		missing  *completeness.UnavailableError
	)
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &canceled), errors.Is(err, context.Canceled):
		return NewError(StatusClientClosed, "canceled", err)
	case errors.As(err, &late), errors.Is(err, context.DeadlineExceeded):
		return NewError(http.StatusServiceUnavailable, "timeout", err)
	case errors.As(err, &missing):
		return NewError(http.StatusServiceUnavailable, "execution", err)
	default:
		return NewError(http.StatusUnprocessableEntity, "execution", err)
	}
}

// OverrideErrorCode makes upstream's handlers answer as ours do when groups did
// not, or time was up, whatever they take the error for. It is generic because the
// type of its first parameter has no name outside of upstream's package.
func OverrideErrorCode[T any](_ T, err error) (code int, override bool) {
	code = Classify(err).Code
	return code, code != http.StatusUnprocessableEntity
}

// Serve makes an HTTP handler of an API handler.
func Serve(h Handler, logger *slog.Logger) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		a, err := h(r)
		switch {
		case err != nil:
			RespondError(w, Classify(err), logger)
		case a.Data == nil:
			w.WriteHeader(http.StatusNoContent)
		default:
			Respond(w, a, logger)
		}
	}
}

// Respond answers with the envelope of a success, 200.
func Respond(w http.ResponseWriter, a Result, logger *slog.Logger) {
	warnings, infos := a.Warnings.AsStrings(a.Query, maxAnnotations, maxAnnotations)
	body, err := v1.JSONCodec{}.Encode(&v1.Response{Status: "success", Data: a.Data, Warnings: warnings, Infos: infos})
	if err != nil {
		RespondError(w, NewError(http.StatusInternalServerError, "internal", err), logger)
		return
	}
	writeJSON(w, http.StatusOK, body, logger)
}

// RespondError answers with the envelope of a failure.
func RespondError(w http.ResponseWriter, e *Error, logger *slog.Logger) {
	body, err := json.Marshal(struct {
		Status    string `json:"status"`
		ErrorType string `json:"errorType"`
		Error     string `json:"error"`
	}{"error", e.Type, e.Error()})
	if err != nil { // impossible: three strings
		panic(fmt.Sprintf("BUG: marshalling an error: %v", err))
	}
	writeJSON(w, e.Code, body, logger)
}

func writeJSON(w http.ResponseWriter, code int, body []byte, logger *slog.Logger) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if _, err := w.Write(body); err != nil {
		logger.Debug("writing a response failed", "err", err)
	}
}
