package proxy

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

// statusClientClosed is nginx' code for a client that did not wait.
const statusClientClosed = 499

// maxAnnotations bounds the warnings, and the infos, of one answer.
const maxAnnotations = 10

// answer is what one of our own API handlers has found.
type answer struct {
	data     any // nil is 204 without a body
	warnings annotations.Annotations
	query    string // what positions in warnings refer to
}

// apiHandler answers an API request. Errors are *apiError, or whatever the
// server groups failed with.
type apiHandler func(*http.Request) (answer, error)

// apiError is an error with its place in the API's table of errors.
type apiError struct {
	code int
	typ  string
	err  error
}

func (e *apiError) Error() string { return e.err.Error() }
func (e *apiError) Unwrap() error { return e.err }

func badData(err error) error { return &apiError{http.StatusBadRequest, "bad_data", err} }

func badParameter(name string, err error) error {
	return badData(fmt.Errorf("invalid parameter %q: %w", name, err))
}

// classify finds the place of an error in the API's table. What the server
// groups cause is 422 or 503, whose bodies Grafana reads, and never 500.
func classify(err error) *apiError {
	var (
		known    *apiError
		canceled promql.ErrQueryCanceled
		late     promql.ErrQueryTimeout
		missing  *completeness.UnavailableError
	)
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &canceled), errors.Is(err, context.Canceled):
		return &apiError{statusClientClosed, "canceled", err}
	case errors.As(err, &late), errors.Is(err, context.DeadlineExceeded):
		return &apiError{http.StatusServiceUnavailable, "timeout", err}
	case errors.As(err, &missing):
		return &apiError{http.StatusServiceUnavailable, "execution", err}
	default:
		return &apiError{http.StatusUnprocessableEntity, "execution", err}
	}
}

// overrideErrorCode makes upstream's handlers answer as ours do when groups did
// not, or time was up, whatever they take the error for. It is generic because the
// type of its first parameter has no name outside of upstream's package.
func overrideErrorCode[T any](_ T, err error) (code int, override bool) {
	code = classify(err).code
	return code, code != http.StatusUnprocessableEntity
}

// serveAPI makes an HTTP handler of an API handler.
func serveAPI(h apiHandler, logger *slog.Logger) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		a, err := h(r)
		switch {
		case err != nil:
			respondError(w, classify(err), logger)
		case a.data == nil:
			w.WriteHeader(http.StatusNoContent)
		default:
			respond(w, a, logger)
		}
	}
}

func respond(w http.ResponseWriter, a answer, logger *slog.Logger) {
	warnings, infos := a.warnings.AsStrings(a.query, maxAnnotations, maxAnnotations)
	body, err := v1.JSONCodec{}.Encode(&v1.Response{Status: "success", Data: a.data, Warnings: warnings, Infos: infos})
	if err != nil {
		respondError(w, &apiError{http.StatusInternalServerError, "internal", err}, logger)
		return
	}
	writeJSON(w, http.StatusOK, body, logger)
}

func respondError(w http.ResponseWriter, e *apiError, logger *slog.Logger) {
	body, err := json.Marshal(struct {
		Status    string `json:"status"`
		ErrorType string `json:"errorType"`
		Error     string `json:"error"`
	}{"error", e.typ, e.Error()})
	if err != nil { // impossible: three strings
		panic(fmt.Sprintf("BUG: marshalling an error: %v", err))
	}
	writeJSON(w, e.code, body, logger)
}

func writeJSON(w http.ResponseWriter, code int, body []byte, logger *slog.Logger) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if _, err := w.Write(body); err != nil {
		logger.Debug("writing a response failed", "err", err)
	}
}
