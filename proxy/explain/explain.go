// Package explain says what becomes of a query: to clients of a running server (Handler), and
// on the command line, where a configuration file is all that there is (Offline).
package explain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/prometheus/util/annotations"

	"github.com/oneprom/oneprom/promqlx"
	"github.com/oneprom/oneprom/promqlx/explain"
	"github.com/oneprom/oneprom/proxy/api"
	"github.com/oneprom/oneprom/proxy/tenant"
	"github.com/oneprom/oneprom/servergroup/view"
)

// Handler is /explain: what becomes of a query, in the API's envelope or as text.
type Handler struct {
	Engine *promqlx.Engine
	Groups func(context.Context) *view.View // as one request sees them
	Now    func() time.Time                 // what queries without a time mean
	Logger *slog.Logger
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e, warnings, err := h.explain(r)
	switch {
	case err != nil:
		api.RespondError(w, api.Classify(err), h.Logger)
	case r.FormValue("format") == "text":
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if _, err := io.WriteString(w, e.Text()); err != nil {
			h.Logger.Debug("writing a response failed", "err", err)
		}
	default:
		api.Respond(w, api.Result{Data: e, Warnings: warnings, Query: e.Query}, h.Logger)
	}
}

// explain reads the parameters of a request and explains its query.
func (h *Handler) explain(r *http.Request) (*explain.Explanation, annotations.Annotations, error) {
	if format := r.FormValue("format"); format != "" && format != "json" && format != "text" {
		return nil, nil, api.BadParameter("format", fmt.Errorf("%q is neither json nor text", format))
	}
	q, err := api.Question(r, h.Now())
	if err != nil {
		return nil, nil, err
	}
	analyze, err := api.BoolParam(r, "analyze")
	if err != nil {
		return nil, nil, err
	}
	if analyze && tenant.Of(r.Context()).Restricted() {
		return nil, nil, api.NewError(http.StatusForbidden, "forbidden", errors.New("analyze is for administrators: it tells of what replicas have scraped, whosever that is"))
	}
	ctx, cancel, err := withTimeoutParam(r)
	if err != nil {
		return nil, nil, err
	}
	defer cancel()
	if !analyze {
		e, err := h.Engine.Explain(ctx, h.Groups(ctx), q)
		return e, nil, questionError(err)
	}
	e, warnings, err := h.Engine.Analyze(ctx, q)
	return e, warnings, questionError(err)
}

// questionError returns the error of a request for that of the engine.
func questionError(err error) error {
	if bad, ok := errors.AsType[*promqlx.QuestionError](err); ok {
		return api.BadParameter("query", bad.Unwrap())
	}
	return err
}

// withTimeoutParam returns the context of a request that ends with its own timeout,
// if it has one.
func withTimeoutParam(r *http.Request) (context.Context, context.CancelFunc, error) {
	text := r.FormValue("timeout")
	if text == "" {
		return r.Context(), func() {}, nil
	}
	timeout, err := api.ParseDuration(text)
	if err != nil {
		return nil, nil, api.BadParameter("timeout", err)
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	return ctx, cancel, nil
}
