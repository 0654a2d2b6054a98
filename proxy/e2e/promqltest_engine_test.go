package e2e

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	v1 "github.com/prometheus/prometheus/web/api/v1"
)

// evaluation is one question: at one time, or over a range if step is not 0.
type evaluation struct {
	file       string
	query      string
	start, end time.Time
	step       time.Duration
}

// checkedEngine evaluates on the whole storage, asks oneprom the same over HTTP, and notes in tally how
// the answers differ. Its own answers are the truth, so promqltest checks that one.
type checkedEngine struct {
	truth  promql.QueryEngine
	tally  *tally
	client *http.Client
	base   string // of oneprom, without a trailing slash
	kept   bool   // oneprom keeps answers: questions over a range are asked until an answer is a kept one
	cached string // what the cache had of the last answer
	hits   int    // answers that were kept
	file   string // that promqltest is at
}

func newCheckedEngine(t *testing.T, truth promql.QueryEngine, base string) *checkedEngine {
	// Compression would cost more than the evaluations.
	client := &http.Client{Transport: &http.Transport{DisableCompression: true}, Timeout: time.Minute}
	t.Cleanup(client.CloseIdleConnections)
	return &checkedEngine{truth: truth, tally: newTally(), client: client, base: base}
}

// NewInstantQuery implements promql.QueryEngine.
func (e *checkedEngine) NewInstantQuery(ctx context.Context, q storage.Queryable, o promql.QueryOpts, query string, at time.Time) (promql.Query, error) {
	ev := evaluation{file: e.file, query: query, start: at, end: at}
	truth, err := e.truth.NewInstantQuery(ctx, q, o, query, at)
	return e.checked(ctx, ev, truth, err)
}

// NewRangeQuery implements promql.QueryEngine.
func (e *checkedEngine) NewRangeQuery(ctx context.Context, q storage.Queryable, o promql.QueryOpts, query string, start, end time.Time, step time.Duration) (promql.Query, error) {
	ev := evaluation{file: e.file, query: query, start: start, end: end, step: step}
	truth, err := e.truth.NewRangeQuery(ctx, q, o, query, start, end, step)
	return e.checked(ctx, ev, truth, err)
}

// checked returns a query that compares when it is executed. A query that is refused before is compared
// here: err is the reason.
func (e *checkedEngine) checked(ctx context.Context, ev evaluation, truth promql.Query, err error) (promql.Query, error) {
	if err != nil {
		e.compare(ctx, ev, refusal(err))
		return nil, err
	}
	return &checkedQuery{Query: truth, engine: e, ev: ev}, nil
}

// refusal is what the HTTP API makes of a query that cannot be executed.
func refusal(err error) *v1.Response {
	return &v1.Response{Status: "error", ErrorType: "bad_data", Error: `invalid parameter "query": ` + err.Error()}
}

type checkedQuery struct {
	promql.Query
	engine *checkedEngine
	ev     evaluation
}

// Exec compares before it returns, as the points of a result live only until the query is closed.
func (q *checkedQuery) Exec(ctx context.Context) *promql.Result {
	result := q.Query.Exec(ctx)
	q.engine.compare(ctx, q.ev, responseOf(q.ev.query, result))
	return result
}

// responseOf is what the HTTP API makes of a result, but with all annotations instead of the first ten.
func responseOf(query string, r *promql.Result) *v1.Response {
	if r.Err != nil {
		return &v1.Response{Status: "error", ErrorType: errorTypeOf(r.Err), Error: r.Err.Error()}
	}
	warnings, infos := r.Warnings.AsStrings(query, 0, 0)
	return &v1.Response{
		Status: "success", Data: &v1.QueryData{ResultType: r.Value.Type(), Result: r.Value},
		Warnings: warnings, Infos: infos,
	}
}

func errorTypeOf(err error) string {
	var (
		canceled promql.ErrQueryCanceled
		timeout  promql.ErrQueryTimeout
		failed   promql.ErrStorage
	)
	switch {
	case errors.As(err, &canceled):
		return "canceled"
	case errors.As(err, &timeout):
		return "timeout"
	case errors.As(err, &failed):
		return "internal"
	}
	return "execution"
}

// compare asks oneprom and notes how its answer differs from want.
func (e *checkedEngine) compare(ctx context.Context, ev evaluation, want *v1.Response) {
	wantJSON := encoded(want)
	again := e.kept && ev.step != 0
	if again {
		if err := e.flush(ctx); err != nil {
			gotJSON, v := []byte(err.Error()), verdict{values: classOutcome}
			e.tally.add(ev, v, wantJSON, gotJSON)
			return
		}
	}
	code, gotJSON := e.ask(ctx, ev, "")
	v := judge(ev, wantJSON, code, gotJSON)
	const most = 3 // the first answer with annotations says only that there are some, and the second one is kept
	for asked := 1; again && asked < most && (e.cached == "miss" || e.cached == "partial"); asked++ {
		code, nextJSON := e.ask(ctx, ev, "")
		if next := judge(ev, wantJSON, code, nextJSON); next.values.wrong() || next.notes {
			v, gotJSON = next, nextJSON
		}
	}
	e.tally.add(ev, v, wantJSON, gotJSON)
}

// flush has oneprom forget all answers.
func (e *checkedEngine) flush(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.base+"/api/v1/admin/cache/flush", http.NoBody)
	if err != nil {
		return err
	}
	resp, err := e.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		return errors.New("flush: " + resp.Status)
	}
	return nil
}

func encoded(truth *v1.Response) []byte {
	out, err := v1.JSONCodec{}.Encode(truth)
	if err != nil {
		panic("BUG: the truth cannot be encoded: " + err.Error())
	}
	return out
}

// ask returns oneprom's answer, or code 0 and the reason why there is none. pushdown is the header that
// overrides what is configured, unless it is empty.
func (e *checkedEngine) ask(ctx context.Context, ev evaluation, pushdown string) (code int, body []byte) {
	path, form := "/api/v1/query", url.Values{"query": {ev.query}}
	if ev.step == 0 {
		form.Set("time", apiSeconds(ev.start))
	} else {
		path = "/api/v1/query_range"
		form.Set("start", apiSeconds(ev.start))
		form.Set("end", apiSeconds(ev.end))
		form.Set("step", strconv.FormatFloat(ev.step.Seconds(), 'f', -1, 64))
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.base+path, strings.NewReader(form.Encode()))
	if err != nil {
		return 0, []byte(err.Error())
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("X-Oneprom-Pushdown", pushdown)
	resp, err := e.client.Do(req)
	if err != nil {
		return 0, []byte(err.Error())
	}
	defer resp.Body.Close()
	if e.cached = resp.Header.Get("X-Oneprom-Cache"); e.cached == "hit" {
		e.hits++
	}
	body, err = io.ReadAll(resp.Body)
	if err != nil {
		return 0, []byte(err.Error())
	}
	return resp.StatusCode, body
}

// apiSeconds prints a time as the API takes it, exact to the millisecond.
func apiSeconds(t time.Time) string {
	return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', -1, 64)
}
