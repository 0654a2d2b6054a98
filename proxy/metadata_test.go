package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"testing"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup"
	"github.com/oneprom/oneprom/servergroup/completeness"
)

// fakeView answers with what it holds and remembers what it was asked.
type fakeView struct {
	exemplars []exemplar.QueryResult
	metadata  map[string][]servergroup.Metadata
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

func (v *fakeView) Metadata(_ context.Context, metric string) (map[string][]servergroup.Metadata, annotations.Annotations, error) {
	v.metric = metric
	return v.metadata, v.warnings, v.err
}

func (v *fakeView) lookups() lookups {
	return lookups{parser: parser.NewParser(parser.Options{}), view: func(context.Context) groupView { return v }}
}

func noted(texts ...string) annotations.Annotations {
	var a annotations.Annotations
	for _, text := range texts {
		a.Add(errors.New(text))
	}
	return a
}

func expect(t *testing.T, h apiHandler, target string, code int, body string) {
	t.Helper()
	w := get(serveAPI(h, slog.New(slog.DiscardHandler)), target)
	require.Equal(t, body, w.Body.String())
	require.Equal(t, code, w.Code)
	if body != "" {
		require.Equal(t, "application/json", w.Header().Get("Content-Type"))
	}
}

func apiFailure(typ, text string) string {
	return `{"status":"error","errorType":"` + typ + `","error":"` + text + `"}`
}

func TestExemplars(t *testing.T) {
	v := &fakeView{
		exemplars: []exemplar.QueryResult{{
			SeriesLabels: labels.FromStrings("__name__", "m"),
			Exemplars:    []exemplar.Exemplar{{Labels: labels.FromStrings("trace_id", "x"), Value: 0.5, Ts: 1500}},
		}},
		warnings: noted("partial answer: a"),
	}
	expect(t, v.lookups().exemplars, "/?query=m%2Bn&start=1&end=2.0005", http.StatusOK,
		`{"status":"success","data":[{"seriesLabels":{"__name__":"m"},"exemplars":[{"labels":{"trace_id":"x"},"value":"0.5","timestamp":1.500}]}],"warnings":["partial answer: a"]}`)
	require.Equal(t, int64(1000), v.mint)
	require.Equal(t, int64(2001), v.maxt)
	require.Equal(t, 2, v.selectors)

	// Grafana sends milliseconds, which are the year 55,000.
	expect(t, (&fakeView{}).lookups().exemplars, "/?query=test&start=1795341561502&end=1795341571502", http.StatusOK, `{"status":"success","data":[]}`)
	expect(t, v.lookups().exemplars, "/?query=1%2B1", http.StatusNoContent, "")
}

func TestExemplars_Refused(t *testing.T) {
	f := func(query, message string) {
		t.Helper()
		expect(t, (&fakeView{}).lookups().exemplars, "/?"+query, http.StatusBadRequest, apiFailure("bad_data", message))
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
		expect(t, l.exemplars, "/?query=m", code, apiFailure(typ, message))
		expect(t, l.metadata, "/", code, apiFailure(typ, message))
	}
	f(&completeness.UnavailableError{Lacks: []completeness.Lack{{Reason: "a"}, {Reason: "b"}}}, http.StatusServiceUnavailable, "execution", "a; b")
	f(errors.New("broken"), http.StatusUnprocessableEntity, "execution", "broken")
	f(context.Canceled, statusClientClosed, "canceled", "context canceled")
	f(context.DeadlineExceeded, http.StatusServiceUnavailable, "timeout", "context deadline exceeded")
}

func TestMetadata(t *testing.T) {
	one := servergroup.Metadata{Type: "counter", Help: "One.", Unit: "seconds"}
	two := servergroup.Metadata{Type: "gauge", Help: "Two."}
	v := &fakeView{metadata: map[string][]servergroup.Metadata{"b": {one, two}, "a": {two}, "none": {}}}
	const a, b1, b2 = `"a":[{"type":"gauge","help":"Two.","unit":""}]`, `{"type":"counter","help":"One.","unit":"seconds"}`, `,{"type":"gauge","help":"Two.","unit":""}`
	f := func(query, data string) {
		t.Helper()
		expect(t, v.lookups().metadata, "/?"+query, http.StatusOK, `{"status":"success","data":{`+data+`}}`)
	}
	f("", a+`,"b":[`+b1+b2+`]`)
	f("limit=1", a)
	f("limit=0", "")
	f("limit=-1&limit_per_metric=0", a+`,"b":[`+b1+b2+`]`)
	f("limit_per_metric=1", a+`,"b":[`+b1+`]`)
	f("metric=x&limit=40000", a+`,"b":[`+b1+b2+`]`)
	require.Equal(t, "x", v.metric)

	expect(t, v.lookups().metadata, "/?limit=x", http.StatusBadRequest, apiFailure("bad_data", "limit must be a number"))
	expect(t, v.lookups().metadata, "/?limit_per_metric=x", http.StatusBadRequest, apiFailure("bad_data", "limit_per_metric must be a number"))
}

func TestAnnotations_TenOfEach(t *testing.T) {
	v := &fakeView{warnings: noted("a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l")}
	require.Contains(t, get(serveAPI(v.lookups().metadata, slog.New(slog.DiscardHandler)), "/").Body.String(), "2 more warning annotations omitted")
}

func TestParseTime(t *testing.T) {
	f := func(text string, ms int64) {
		t.Helper()
		got, err := parseTime(text)
		require.NoError(t, err)
		require.Equal(t, ms, got.Unix()*1000+int64(got.Nanosecond())/1_000_000)
	}
	f("1435781451.781", 1435781451781)
	f("1435781451.7814", 1435781451781)
	f("-59.2", -59200)
	f("1e3", 1_000_000)
	f("2015-07-01T20:10:51.781Z", 1435781451781)
	f("-292273086-05-16T16:47:06Z", -9223309901257974000) // v1.MinTime, as it is printed: no year of four digits
	_, err := parseTime("")
	require.EqualError(t, err, `cannot parse "" to a valid timestamp`)
}
