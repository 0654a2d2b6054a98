package api

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/oneprom/oneprom/promqlx"
)

// mostSteps is the most steps that upstream's query_range takes, and this with it.
const mostSteps = 11000

// AsksQuery reports whether a request below /api/v1 may ask a query.
func AsksQuery(r *http.Request) bool {
	switch r.URL.Path {
	case "/query", "/query_range", "/explain":
		return r.Method == http.MethodGet || r.Method == http.MethodPost
	}
	return false
}

// Question reads what a request asks whose path below /api/v1 is /query, /query_range or
// /explain: the parameters that upstream's handler of the path looks at. After an error,
// the question is what could be read. Errors are the API's, in upstream's words.
func Question(r *http.Request, now time.Time) (q promqlx.Question, err error) {
	q.Query = r.FormValue("query")
	switch r.URL.Path {
	case "/query":
		err = instantParams(r, now, &q)
	case "/query_range":
		err = rangeParams(r, &q)
	default:
		err = explainParams(r, now, &q)
	}
	return q, err
}

func instantParams(r *http.Request, now time.Time, q *promqlx.Question) (err error) {
	q.Start, err = TimeParam(r, "time", now)
	q.End = q.Start
	return err
}

// explainParams reads the parameters of query_range if one of those that only it has is
// there, and else those of query.
func explainParams(r *http.Request, now time.Time, q *promqlx.Question) (err error) {
	if r.FormValue("start") != "" || r.FormValue("end") != "" || r.FormValue("step") != "" {
		err = rangeParams(r, q)
	} else {
		err = instantParams(r, now, q)
	}
	if text := r.FormValue("lookback_delta"); text != "" && err == nil {
		if q.Lookback, err = ParseDuration(text); err != nil {
			err = BadData(fmt.Errorf("error parsing lookback delta duration: %w", err))
		}
	}
	return err
}

func rangeParams(r *http.Request, q *promqlx.Question) (err error) {
	if q.Start, err = parseTime(r.FormValue("start")); err != nil {
		return BadParameter("start", err)
	}
	if q.End, err = parseTime(r.FormValue("end")); err != nil {
		return BadParameter("end", err)
	}
	if q.End.Before(q.Start) {
		return BadParameter("end", errors.New("end timestamp must not be before start time"))
	}
	if q.Interval, err = ParseDuration(r.FormValue("step")); err != nil {
		return BadParameter("step", err)
	}
	if q.Interval <= 0 {
		return BadParameter("step", errors.New("zero or negative query resolution step widths are not accepted. Try a positive integer"))
	}
	if q.End.Sub(q.Start)/q.Interval > mostSteps {
		return BadData(errors.New("exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)"))
	}
	return nil
}
