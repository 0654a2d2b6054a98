package demo

import (
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
)

func vector(pairs ...any) model.Vector {
	var v model.Vector
	for i := 0; i < len(pairs); i += 2 {
		m := model.Metric{}
		if region := pairs[i].(string); region != "" {
			m["region"] = model.LabelValue(region)
		}
		v = append(v, &model.Sample{Metric: m, Value: model.SampleValue(pairs[i+1].(float64))})
	}
	return v
}

func TestMark(t *testing.T) {
	f := func(want, got model.Vector, expected string) {
		t.Helper()
		require.Equal(t, expected, mark(want, got))
	}
	f(vector("", 3.0), vector("", 3.0), "=")
	f(vector("", 3.0), vector("", 3.0*(1+1e-10)), "=")
	f(vector("", 3.0), vector("", 3.03), "+1 %")
	f(vector("eu", 3.0, "us", 4.0), vector("eu", 3.03, "us", 3.8), "-5 %")
	f(vector("", 0.0), vector("", 0.0), "=")
	f(vector("", 0.0), vector("", 1.0), "differs")
	f(vector("", 1.0), vector("", math.NaN()), "differs")
	f(vector("eu", 1.0), vector("us", 1.0), "differs")
	f(vector("eu", 1.0), nil, "differs")
}

func TestShow(t *testing.T) {
	f := func(v model.Vector, expected string) {
		t.Helper()
		require.Equal(t, expected, show(v))
	}
	f(nil, "nothing")
	f(vector("", 12.0), "12")
	f(vector("", 1234567890.0), "1234567890")
	f(vector("", 1234567.25), "1234567")
	f(vector("", 123.456789), "123.457")
	f(vector("", 0.0123456789), "0.0123457")
	f(vector("", 1.25e-7), "1.25e-07")
	f(vector("", math.NaN()), "NaN")
	f(vector("", math.Inf(1)), "+Inf")
	f(vector("eu", 1.5, "us", -2.0), "eu 1.50000, us -2")
	f(model.Vector{{Metric: model.Metric{"job": "api"}, Value: 1}}, `{job="api"} 1`)
}

func TestWriteTable_SaysWarningsOnceAndWhyValuesDiffer(t *testing.T) {
	r := row{question: question{query: "up"}}
	r.truth.vector, r.oneprom.vector = vector("", 4.0), vector("", 4.0)
	var b strings.Builder
	require.NoError(t, writeTable(&b, []row{r}, testEnd))
	require.NotContains(t, b.String(), "percentage")

	r.oneprom = answer{vector("", 5.0), []string{"no us"}}
	b.Reset()
	require.NoError(t, writeTable(&b, []row{r, r}, testEnd))
	require.Contains(t, b.String(), "+25 %")
	require.Contains(t, b.String(), "7.5s later")
	require.Equal(t, 1, strings.Count(b.String(), "oneprom warns: no us\n"))
}

func TestAsk_Errors(t *testing.T) {
	f := func(body, expected string) {
		t.Helper()
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusTeapot)
			_, _ = w.Write([]byte(body))
		}))
		defer s.Close()
		client := s.Client()
		defer client.CloseIdleConnections()
		_, err := ask(t.Context(), client, s.URL, "up", testEnd)
		require.ErrorContains(t, err, expected)
		require.ErrorContains(t, err, "418")
	}
	f(`<html>`, "invalid character")
	f(`{"status":"error","error":"too much"}`, "too much")
}
