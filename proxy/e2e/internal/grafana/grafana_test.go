package grafana

import (
	"compress/zlib"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// recorder answers every request with one body and notes what was asked.
type recorder struct {
	mu     sync.Mutex
	asked  []string
	status int
	body   string
	header http.Header
}

func (r *recorder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	_ = req.ParseForm()
	r.mu.Lock()
	line := req.Method + " " + req.URL.RequestURI()
	if len(req.PostForm) > 0 {
		line += " " + req.PostForm.Encode()
	}
	r.asked = append(r.asked, line)
	r.mu.Unlock()
	maps.Copy(w.Header(), r.header)
	w.WriteHeader(r.status)
	_, _ = w.Write([]byte(r.body))
}

func answering(t *testing.T, status int, body string) (*recorder, *DataSource) {
	r := &recorder{status: status, body: body}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	return r, &DataSource{URL: server.URL, Client: server.Client()}
}

const oneSeries = `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"a":"b"},"values":[[1.5,"1"]]}]}}`

// The expected lines are those that the real plugin sent.
func TestRequestsAreTheRecordedOnes(t *testing.T) {
	from, to := time.UnixMicro(1795344524_400775), time.UnixMicro(1795345124_400775)
	step := 15 * time.Second
	cases := []struct {
		name string
		ds   DataSource
		call func(*DataSource)
		want []string
	}{
		{
			"health",
			DataSource{},
			func(d *DataSource) { _, _ = d.Check(t.Context()) },
			[]string{"POST /api/v1/query query=1%2B1&time=4", "GET /api/v1/status/buildinfo"},
		},
		{
			"health by GET",
			DataSource{Method: "GET"},
			func(d *DataSource) { _, _ = d.Check(t.Context()) },
			[]string{"GET /api/v1/query?query=1%2B1&time=4", "GET /api/v1/status/buildinfo"},
		},
		{
			"range",
			DataSource{},
			func(d *DataSource) { _, _ = d.Range(t.Context(), "up*0/0", from, to, step) },
			[]string{"POST /api/v1/query_range end=1795345110&query=up%2A0%2F0&start=1795344510&step=15"},
		},
		{
			"range by GET",
			DataSource{Method: "GET"},
			func(d *DataSource) { _, _ = d.Range(t.Context(), "up", from, to, step) },
			[]string{"GET /api/v1/query_range?end=1795345110&query=up&start=1795344510&step=15"},
		},
		{
			"instant with everything",
			DataSource{Timeout: "30s", Stats: true, Custom: url.Values{"max_source_resolution": {"5m"}, "x": {"1"}}},
			func(d *DataSource) { _, _ = d.Instant(t.Context(), "nh", to) },
			[]string{"POST /api/v1/query?max_source_resolution=5m&stats=all&x=1 query=nh&time=1795345124.400775&timeout=30s"},
		},
		{
			"exemplars",
			DataSource{},
			func(d *DataSource) { _, _ = d.Exemplars(t.Context(), "1", from, to, step) },
			[]string{"POST /api/v1/query_exemplars end=1795345110&query=1&start=1795344510"},
		},
		{"suggested values", DataSource{}, func(d *DataSource) {
			_, _ = d.Suggestions(t.Context(), "job", []string{`up{job="demo"}`}, 10)
		}, []string{"POST /api/v1/label/job/values?limit=10&match%5B%5D=up%7Bjob%3D%22demo%22%7D"}},
		{
			"rules in both spellings",
			DataSource{},
			func(d *DataSource) { _, _ = d.ruleGroups(t.Context(), url.Values{"file": {"f"}}) },
			[]string{"GET /api/v1/rules?file=f&file%5B%5D=f"},
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r, ds := answering(t, 200, oneSeries)
			c.ds.URL, c.ds.Client = ds.URL, ds.Client
			c.call(&c.ds)
			require.Equal(t, c.want, r.asked)
		})
	}
}

// The expected errors are those that the real plugin reported, cut to the part
// that is not its JSON library's.
func TestAnswersThatGrafanaRefuses(t *testing.T) {
	failure := `{"status":"error","errorType":"execution","error":"backend eu-1: connection refused","warnings":["w1"]}`
	cases := []struct {
		name   string
		status int
		body   string
		want   string
	}{
		{"400", 400, failure, "execution: backend eu-1: connection refused"},
		{"422", 422, failure, "execution: backend eu-1: connection refused"},
		{"503", 503, failure, "execution: backend eu-1: connection refused"},
		{"404", 404, failure, "unexpected response with status code 404: " + failure},
		{"429", 429, failure, "unexpected response with status code 429: " + failure},
		{"499", 499, failure, "unexpected response with status code 499: " + failure},
		{"500", 500, failure, "unexpected response with status code 500: " + failure},
		{"502", 502, failure, "unexpected response with status code 502: " + failure},
		{"504", 504, failure, "unexpected response with status code 504: " + failure},
		{"text under 503", 503, "upstream is sad", "it is non-json"},
		{"error under 200", 200, `{"status":"error","errorType":"timeout","error":"boo"}`, "timeout: boo"},
		{"no data", 200, `{"status":"success"}`, "no data"},
		{"null data", 200, `{"status":"success","data":null}`, "expected object type"},
		{"number as value", 200, `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[1,1]]}]}}`, "not a JSON string"},
		{"word as value", 200, `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[1,"x"]]}]}}`, "invalid syntax"},
		{"string as time", 200, `{"status":"success","data":{"resultType":"scalar","result":["1","1"]}}`, "timestamp"},
		{"bucket of three", 200, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"histogram":[1,{"buckets":[[0,"1","2"]]}]}]}}`, "a bucket has 3 elements"},
		{"cut short", 200, oneSeries[:60], "non-json"},
		{"unknown type", 200, `{"status":"success","data":{"resultType":"tensor","result":[]}}`, "unknown result type"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, ds := answering(t, c.status, c.body)
			_, err := ds.Instant(t.Context(), "up", time.Unix(4, 0))
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestAnswersThatGrafanaAccepts(t *testing.T) {
	cases := []struct {
		name, body string
		want       Result
	}{
		{
			"result before type", `{"data":{"result":[{"values":[[1.5,"1"]],"metric":{"a":"b"}}],"resultType":"matrix"},"infos":["i1"],"warnings":["w1"],"status":"success"}`,
			Result{Type: "matrix", Notices: []string{"w1", "i1"}, Frames: []Frame{{Labels: map[string]string{"a": "b"}, Times: []int64{1500}, Values: []float64{1}}}},
		},
		{"null result", `{"status":"success","data":{"resultType":"matrix","result":null}}`, Result{Type: "matrix", Frames: []Frame{}}},
		{
			"unknown keys", `{"status":"success","x":1,"isPartial":true,"data":{"resultType":"scalar","result":[1,"2"],"stats":{"seriesFetched":"1"}}}`,
			Result{Type: "scalar", Frames: []Frame{{Times: []int64{1000}, Values: []float64{2}}}},
		},
		{"string", `{"status":"success","data":{"resultType":"string","result":[1,"abc"]}}`, Result{Type: "string", Text: "abc"}},
		{
			"floats and histograms become cells", `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[1,"1"]],"histograms":[[2,{"count":"1","sum":"1","buckets":[[3,"-1","1","4"]]}]]}]}}`,
			Result{Type: "matrix", Frames: []Frame{{Labels: map[string]string{}, Cells: []Cell{{Time: 2000, Layout: 3, Lower: -1, Upper: 1, Num: 4}}}}},
		},
		{
			"exemplars", `{"status":"success","data":[{"seriesLabels":{"a":"b"},"exemplars":[{"labels":{"t":"1"},"value":"0.5","timestamp":1.5}]}]}`,
			Result{Type: "exemplar", Frames: []Frame{{Labels: map[string]string{"a": "b"}, Times: []int64{1500}, Values: []float64{0.5}}}},
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, ds := answering(t, 200, c.body)
			got, err := ds.Instant(t.Context(), "up", time.Unix(4, 0))
			require.NoError(t, err)
			require.Equal(t, c.want, got)
		})
	}
}

func TestHealthShowsTheBareStatusOfAFailure(t *testing.T) {
	_, ds := answering(t, 503, `{"status":"error"}`)
	h, err := ds.Check(t.Context())
	require.NoError(t, err)
	require.Equal(t, "503 Service Unavailable - There was an error returned querying the Prometheus API.", h.Message)
	require.False(t, h.OK)
}

func TestAnyFeatureMeansMimir(t *testing.T) {
	for body, want := range map[string]string{
		`{"status":"success","data":{"features":{"ruler_config_api":"true"}}}`: "Mimir",
		`{"status":"success","data":{"features":{"ruler_config_api":true}}}`:   "",
		`{"status":"success","data":{"version":"3.15.0"}}`:                     "Prometheus",
	} {
		_, ds := answering(t, 200, body)
		require.Equal(t, want, ds.application(t.Context()), body)
	}
}

func TestZlibUnderTheNameDeflateIsNotUnderstood(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "deflate")
		z := zlib.NewWriter(w)
		_, _ = z.Write([]byte(`{"status":"success","data":[]}`))
		_ = z.Close()
	}))
	t.Cleanup(server.Close)
	ds := &DataSource{URL: server.URL, Client: server.Client()}
	_, err := ds.LabelNames(t.Context(), nil, time.Unix(0, 0), time.Unix(60, 0))
	require.ErrorContains(t, err, "flate: corrupt input")
}

func TestARefusedPostIsTriedAsGet(t *testing.T) {
	r, ds := answering(t, 405, "Method Not Allowed")
	_, err := ds.LabelNames(t.Context(), nil, time.Unix(0, 0), time.Unix(60, 0))
	require.ErrorContains(t, err, "405")
	require.Equal(t, []string{"POST /api/v1/labels end=120&limit=40000&start=0", "GET /api/v1/labels?end=120&limit=40000&start=0"}, r.asked)
}

func TestMetadataWithoutEntryBreaksThePage(t *testing.T) {
	for _, body := range []string{`{"status":"success","data":{"up":[]}}`, `{"status":"success","data":{"up":[{"type":null}]}}`} {
		_, ds := answering(t, 200, body)
		_, err := ds.Metadata(t.Context())
		require.ErrorContains(t, err, "no entry with a type")
	}
}

func TestARefreshAsksTenMinutesAgainAndReplacesThem(t *testing.T) {
	r, ds := answering(t, 200, `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[600,"1"],[1200,"1"],[1800,"1"]]}]}}`)
	p := Incremental{DataSource: ds, Expr: "up", Step: time.Minute}
	_, err := p.Refresh(t.Context(), time.Unix(600, 0), time.Unix(1800, 0))
	require.NoError(t, err)
	r.body = `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[1200,"2"],[1860,"2"]]}]}}`
	frames, err := p.Refresh(t.Context(), time.Unix(660, 0), time.Unix(1870, 0))
	require.NoError(t, err)
	require.Equal(t, "POST /api/v1/query_range end=1860&query=up&start=1200&step=60", r.asked[1])
	require.Equal(t, []Frame{{Labels: map[string]string{}, Times: []int64{1200_000, 1860_000}, Values: []float64{2, 2}}}, frames)
}

func TestLabelNamesAreEscapedForThePath(t *testing.T) {
	require.Equal(t, "job", Escape("job"))
	require.Equal(t, "__name__", Escape("__name__"))
	require.Equal(t, "U__lab_20_el", Escape("lab el"))
	require.Equal(t, "U__a__b_2e_c", Escape("a_b.c"))
}
