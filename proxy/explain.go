package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/oneprom/oneprom/promqlx"
)

// mostSteps is the most steps that upstream's query_range takes, and this with it.
const mostSteps = 11000

// serveExplain is /explain: what becomes of a query, in the API's envelope or as text.
func (s *Server) serveExplain(w http.ResponseWriter, r *http.Request) {
	e, warnings, err := s.explain(r)
	switch {
	case err != nil:
		respondError(w, classify(err), s.logger)
	case r.FormValue("format") == "text":
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if _, err := io.WriteString(w, e.Text()); err != nil {
			s.logger.Debug("writing a response failed", "err", err)
		}
	default:
		respond(w, answer{data: e, warnings: warnings, query: e.Query}, s.logger)
	}
}

// explain reads the parameters of a request and explains its query.
func (s *Server) explain(r *http.Request) (*promqlx.Explanation, annotations.Annotations, error) {
	if format := r.FormValue("format"); format != "" && format != "json" && format != "text" {
		return nil, nil, badParameter("format", fmt.Errorf("%q is neither json nor text", format))
	}
	q, err := question(r, s.opts.Now())
	if err != nil {
		return nil, nil, err
	}
	analyze, err := boolParam(r, "analyze")
	if err != nil {
		return nil, nil, err
	}
	if analyze && tenantOf(r.Context()).restricted() {
		return nil, nil, &apiError{http.StatusForbidden, "forbidden", errors.New("analyze is for administrators: it tells of what replicas have scraped, whosever that is")}
	}
	ctx, cancel, err := withTimeoutParam(r)
	if err != nil {
		return nil, nil, err
	}
	defer cancel()
	if !analyze {
		e, err := s.engine.Explain(ctx, s.set.View(ctx), q)
		if err != nil {
			return nil, nil, badParameter("query", err)
		}
		return e, nil, nil
	}
	e, warnings, err := s.engine.Analyze(ctx, q)
	if bad, ok := errors.AsType[*promqlx.QuestionError](err); ok {
		err = badParameter("query", bad.Unwrap())
	}
	return e, warnings, err
}

// question reads the parameters of query_range if one of those that only it has is
// there, and else those of query. Errors are the API's, in upstream's words.
func question(r *http.Request, now time.Time) (q promqlx.Question, err error) {
	q.Query = r.FormValue("query")
	if r.FormValue("start") != "" || r.FormValue("end") != "" || r.FormValue("step") != "" {
		err = rangeParams(r, &q)
	} else {
		q.Start, err = timeParam(r, "time", now)
		q.End = q.Start
	}
	if text := r.FormValue("lookback_delta"); text != "" && err == nil {
		if q.Lookback, err = parseDuration(text); err != nil {
			err = badData(fmt.Errorf("error parsing lookback delta duration: %w", err))
		}
	}
	return q, err
}

func rangeParams(r *http.Request, q *promqlx.Question) (err error) {
	if q.Start, err = parseTime(r.FormValue("start")); err != nil {
		return badParameter("start", err)
	}
	if q.End, err = parseTime(r.FormValue("end")); err != nil {
		return badParameter("end", err)
	}
	if q.End.Before(q.Start) {
		return badParameter("end", errors.New("end timestamp must not be before start time"))
	}
	if q.Interval, err = parseDuration(r.FormValue("step")); err != nil {
		return badParameter("step", err)
	}
	if q.Interval <= 0 {
		return badParameter("step", errors.New("zero or negative query resolution step widths are not accepted. Try a positive integer"))
	}
	if q.End.Sub(q.Start)/q.Interval > mostSteps {
		return badData(errors.New("exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)"))
	}
	return nil
}

// boolParam reads true or false; missing is false.
func boolParam(r *http.Request, name string) (bool, error) {
	switch text := r.FormValue(name); text {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	default:
		return false, badParameter(name, fmt.Errorf("%q is neither true nor false", text))
	}
}

// withTimeoutParam returns the context of a request that ends with its own timeout,
// if it has one.
func withTimeoutParam(r *http.Request) (context.Context, context.CancelFunc, error) {
	text := r.FormValue("timeout")
	if text == "" {
		return r.Context(), func() {}, nil
	}
	timeout, err := parseDuration(text)
	if err != nil {
		return nil, nil, badParameter("timeout", err)
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	return ctx, cancel, nil
}

// parseDuration reads seconds, or a duration with units as in PromQL.
func parseDuration(text string) (time.Duration, error) {
	if seconds, err := strconv.ParseFloat(text, 64); err == nil {
		ns := seconds * float64(time.Second)
		if !(ns < math.MaxInt64 && ns > math.MinInt64) {
			return 0, fmt.Errorf("cannot parse %q to a valid duration. It overflows int64", text)
		}
		return time.Duration(ns), nil
	}
	if d, err := model.ParseDuration(text); err == nil {
		return time.Duration(d), nil
	}
	return 0, fmt.Errorf("cannot parse %q to a valid duration", text)
}
