package exam

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/oneprom/oneprom/proxy/verify"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// answerOf decodes a body as a server would send it.
func answerOf(t *testing.T, body string) *verify.Answer {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) }))
	defer server.Close()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	a, err := verify.Ask(t.Context(), client, server.URL, "/", url.Values{})
	require.NoError(t, err)
	return a
}

func vector(elements, rest string) string {
	return `{"status":"success","data":{"resultType":"vector","result":[` + elements + `]}` + rest + `}`
}

func matrix(elements string) string {
	return `{"status":"success","data":{"resultType":"matrix","result":[` + elements + `]}}`
}

const (
	a1 = `{"metric":{"i":"a"},"value":[10,"1"]}`
	b2 = `{"metric":{"i":"b"},"value":[10,"2"]}`
	ma = `{"metric":{"i":"a"},"values":[[10,"1"],[20,"1.5"]]}`
	mb = `{"metric":{"i":"b"},"values":[[10,"2"]]}`
	h1 = `{"metric":{},"histogram":[10,{"count":"3","sum":"4","buckets":[[0,"1","2","3"]]}]}`
	h2 = `{"metric":{},"histogram":[10,{"count":"3","sum":"4","buckets":[[0,"1","4","3"]]}]}`
)

func TestDifferences(t *testing.T) {
	f := func(query, want, got, first string) {
		t.Helper()
		d := Differences(Query{Text: query}, answerOf(t, want), answerOf(t, got))
		if first == "" {
			require.Empty(t, d)
			return
		}
		require.NotEmpty(t, d)
		require.Contains(t, d[0], first)
	}
	f("up", vector(a1+","+b2, ""), vector(a1+","+b2, ""), "")
	f("up", vector(a1+","+b2, ""), vector(b2+","+a1, ""), "") // a vector has no order
	f("sort(up)", vector(a1+","+b2, ""), vector(b2+","+a1, ""), "order")
	f("topk(2, up)", vector(a1+","+b2, ""), vector(b2+","+a1, ""), "order")
	f("up", matrix(ma+","+mb), matrix(mb+","+ma), "order")
	f("up", vector(a1+","+b2, ""), vector(a1, ""), `series missing: {"i"="b"}`)
	f("up", vector(a1, ""), vector(a1+","+b2, ""), `series too many: {"i"="b"}`)
	f("up", vector(a1, ""), vector(a1+","+a1, ""), "series twice")
	f("up", vector(a1, ""), vector(`{"metric":{"i":"a"},"value":[10,"1.0000000000000018"]}`, ""), "(8 ulp")
	f("up", vector(a1, ""), vector(`{"metric":{"i":"a"},"value":[10,"1.0000000000000002"]}`, ""), "") // added up in another order
	f("topk(1, up)", vector(a1, ""), vector(`{"metric":{"i":"b"},"value":[10,"1"]}`, ""), "")         // of equal values, any
	f("up", vector(a1, ""), vector(`{"metric":{"i":"b"},"value":[10,"1"]}`, ""), "series missing")
	f("up", vector(a1, ""), vector(`{"metric":{"i":"a"},"value":[11,"1"]}`, ""), "got nothing")
	f("up", matrix(ma), matrix(`{"metric":{"i":"a"},"values":[[10,"1"]]}`), "2 points wanted, 1 of them wrong")
	f("up", matrix(mb), matrix(`{"metric":{"i":"b"},"values":[[10,"2"],[20,"2"]]}`), "1 points wanted, 0 of them wrong or missing, 2 points got")
	f("up", vector(h1, ""), vector(h2, ""), "values")
	f("up", vector(a1, `,"warnings":["w"]`), vector(a1, ""), "warnings")
	f("up", vector(a1, `,"infos":["x","y"]`), vector(a1, `,"infos":["y","x"]`), "")
	f("up", `{"status":"error","errorType":"execution","error":"x"}`, `{"status":"error","errorType":"execution","error":"y"}`, "status")
	f("up", vector(a1, ""), matrix(ma), "result type")
	f("1", `{"status":"success","data":{"resultType":"scalar","result":[10,"1"]}}`, `{"status":"success","data":{"resultType":"scalar","result":[10,"2"]}}`, "value")
}

func TestDeviation(t *testing.T) {
	d := &Deviation{Name: "x"}
	want := matrix(`{"metric":{},"values":[[10,"100"],[20,"100"],[30,"100"],[40,"0"]]},{"metric":{"i":"a"},"values":[[10,"1"]]}`)
	got := matrix(`{"metric":{},"values":[[10,"100"],[20,"101"],[30,"250"],[50,"7"]]},{"metric":{"i":"b"},"values":[[10,"1"]]}`)
	require.NoError(t, d.Add(answerOf(t, want), answerOf(t, got), 2))
	require.Equal(t, []int{3, 1, 2, 2, 1}, []int{d.Points, d.Equal, d.Missing, d.Extra, d.Above})
	require.InDelta(t, 0.01, d.Quantile(0.5), 1e-12)
	require.InDelta(t, 1.5, d.Quantile(0.99), 1e-12)
	require.Error(t, d.Add(answerOf(t, want), answerOf(t, `{"status":"error","errorType":"execution","error":"x"}`), 2))
}

func TestQueries(t *testing.T) {
	path := filepath.Join(t.TempDir(), "queries.txt")
	require.NoError(t, os.WriteFile(path, []byte("# comment\n\n## one\nup\n?limit=5&lookback_delta=1m sum(up)\n## two\n1\n"), 0o644))
	q, err := Queries(path)
	require.NoError(t, err)
	require.Equal(t, []Query{
		{Class: "one", Text: "up"},
		{Class: "one", Text: "sum(up)", Params: url.Values{"limit": {"5"}, "lookback_delta": {"1m"}}},
		{Class: "two", Text: "1"},
	}, q)
	e := Range("x", 1500, 61500, 500*time.Millisecond)
	require.Equal(t, "/api/v1/query_range", e.Path())
	require.Equal(t, "end=61.500&limit=5&lookback_delta=1m&query=sum%28up%29&start=1.500&step=0.500", e.Form(q[1]).Encode())
	require.Equal(t, "query=up&time=1.500", Instant("x", 1500).Form(q[0]).Encode())
}

func TestReport_CountsPerClassAndQuotesTheFirstCases(t *testing.T) {
	v := []Verdict{
		{Query: Query{Class: "one", Text: "up"}, At: Instant("x", 1000)},
		{Query: Query{Class: "one", Text: "up"}, At: Instant("y", 2000), Differences: []string{"series missing: {}"}},
	}
	require.Equal(t, Score{Right: 1, All: 2}, Total(v))
	text := Report(v, 1)
	require.Contains(t, text, "all: 1 of 2 right")
	require.Contains(t, text, "instant y: /api/v1/query query=up&time=2.000\n    series missing: {}")
}
