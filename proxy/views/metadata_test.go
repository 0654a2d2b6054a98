package views

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/proxy/api"
	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/survey"
)

// fakeView answers with what it holds and remembers what it was asked.
type fakeView struct {
	exemplars []exemplar.QueryResult
	metadata  map[string][]survey.Metadata
	warnings  annotations.Annotations
	err       error

	mint, maxt int64
	selectors  int
	metric     string
}

func (v *fakeView) Exemplars(_ context.Context, mint, maxt int64, selectors [][]*labels.Matcher) ([]exemplar.QueryResult, annotations.Annotations, error) {
	v.mint, v.maxt, v.selectors = mint, maxt, len(selectors)
	return v.exemplars, v.warnings, v.err
}

func (v *fakeView) Metadata(_ context.Context, metric string) (map[string][]survey.Metadata, annotations.Annotations, error) {
	v.metric = metric
	return v.metadata, v.warnings, v.err
}

func (v *fakeView) lookups() Lookups {
	return Lookups{Parser: parser.NewParser(parser.Options{}), Groups: func(context.Context) Groups { return v }}
}

func noted(texts ...string) annotations.Annotations {
	var a annotations.Annotations
	for _, text := range texts {
		a.Add(errors.New(text))
	}
	return a
}

func get(h http.Handler, target string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, target, nil))
	return w
}

func apiFailure(typ, text string) string {
	return `{"status":"error","errorType":"` + typ + `","error":"` + text + `"}`
}

func expect(t *testing.T, h api.Handler, target string, code int, body string) {
	t.Helper()
	w := get(api.Serve(h, slog.New(slog.DiscardHandler)), target)
	require.Equal(t, body, w.Body.String())
	require.Equal(t, code, w.Code)
	if body != "" {
		require.Equal(t, "application/json", w.Header().Get("Content-Type"))
	}
}

func TestExemplars(t *testing.T) {
	v := &fakeView{
		exemplars: []exemplar.QueryResult{{
			SeriesLabels: labels.FromStrings("__name__", "m"),
			Exemplars:    []exemplar.Exemplar{{Labels: labels.FromStrings("trace_id", "x"), Value: 0.5, Ts: 1500}},
		}},
		warnings: noted("partial answer: a"),
	}
	expect(t, v.lookups().Exemplars, "/?query=m%2Bn&start=1&end=2.0005", http.StatusOK,
		`{"status":"success","data":[{"seriesLabels":{"__name__":"m"},"exemplars":[{"labels":{"trace_id":"x"},"value":"0.5","timestamp":1.500}]}],"warnings":["partial answer: a"]}`)
	require.Equal(t, int64(1000), v.mint)
	require.Equal(t, int64(2001), v.maxt)
	require.Equal(t, 2, v.selectors)

	// Grafana sends milliseconds, which are the year 55,000.
	expect(t, (&fakeView{}).lookups().Exemplars, "/?query=test&start=1795341561502&end=1795341571502", http.StatusOK, `{"status":"success","data":[]}`)
	expect(t, v.lookups().Exemplars, "/?query=1%2B1", http.StatusNoContent, "")
}

func TestExemplars_Refused(t *testing.T) {
	f := func(query, message string) {
		t.Helper()
		expect(t, (&fakeView{}).lookups().Exemplars, "/?"+query, http.StatusBadRequest, apiFailure("bad_data", message))
	}
	f("query=m&start=60&end=0", `end timestamp must not be before start timestamp`)
	f("query="+url.QueryEscape("sum("), `1:5: parse error: unclosed left parenthesis`)
	f("query=m&start=abc", `invalid parameter \"start\": invalid time value for 'start': cannot parse \"abc\" to a valid timestamp`)
	f("query=m&end=abc", `invalid parameter \"end\": invalid time value for 'end': cannot parse \"abc\" to a valid timestamp`)
}

func TestLookups_Failures(t *testing.T) {
	f := func(err error, code int, typ, message string) {
		t.Helper()
		l := (&fakeView{err: err}).lookups()
		expect(t, l.Exemplars, "/?query=m", code, apiFailure(typ, message))
		expect(t, l.Metadata, "/", code, apiFailure(typ, message))
	}
	f(&completeness.UnavailableError{Lacks: []completeness.Lack{{Reason: "a"}, {Reason: "b"}}}, http.StatusServiceUnavailable, "execution", "a; b")
	f(errors.New("broken"), http.StatusUnprocessableEntity, "execution", "broken")
	f(context.Canceled, api.StatusClientClosed, "canceled", "context canceled")
	f(context.DeadlineExceeded, http.StatusServiceUnavailable, "timeout", "context deadline exceeded")
}

func TestMetadata(t *testing.T) {
	one := survey.Metadata{Type: "counter", Help: "One.", Unit: "seconds"}
	two := survey.Metadata{Type: "gauge", Help: "Two."}
	v := &fakeView{metadata: map[string][]survey.Metadata{"b": {one, two}, "a": {two}, "none": {}}}
	const a, b1, b2 = `"a":[{"type":"gauge","help":"Two.","unit":""}]`, `{"type":"counter","help":"One.","unit":"seconds"}`, `,{"type":"gauge","help":"Two.","unit":""}`
	f := func(query, data string) {
		t.Helper()
		expect(t, v.lookups().Metadata, "/?"+query, http.StatusOK, `{"status":"success","data":{`+data+`}}`)
	}
	f("", a+`,"b":[`+b1+b2+`]`)
	f("limit=1", a)
	f("limit=0", "")
	f("limit=-1&limit_per_metric=0", a+`,"b":[`+b1+b2+`]`)
	f("limit_per_metric=1", a+`,"b":[`+b1+`]`)
	f("metric=x&limit=40000", a+`,"b":[`+b1+b2+`]`)
	require.Equal(t, "x", v.metric)

	expect(t, v.lookups().Metadata, "/?limit=x", http.StatusBadRequest, apiFailure("bad_data", "limit must be a number"))
	expect(t, v.lookups().Metadata, "/?limit_per_metric=x", http.StatusBadRequest, apiFailure("bad_data", "limit_per_metric must be a number"))
}

func TestAnnotations_TenOfEach(t *testing.T) {
	v := &fakeView{warnings: noted("a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l")}
	require.Contains(t, get(api.Serve(v.lookups().Metadata, slog.New(slog.DiscardHandler)), "/").Body.String(), "2 more warning annotations omitted")
}
