package dialect

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/oneprom/oneprom/servergroup/backendtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func load(t *testing.T, text string) storage.Storage {
	t.Helper()
	s := promqltest.LoadedStorage(t, text)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// asker asks a handler over HTTP. Its header goes with each request.
type asker struct {
	t      *testing.T
	url    string
	header http.Header
}

func ask(t *testing.T, h http.Handler) asker {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return asker{t: t, url: s.URL, header: http.Header{}}
}

func (a asker) send(method, path, body string) (code int, contentType, answer string) {
	a.t.Helper()
	req, err := http.NewRequest(method, a.url+path, strings.NewReader(body))
	require.NoError(a.t, err)
	req.Header = a.header.Clone()
	if method == http.MethodPost && req.Header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(a.t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(a.t, err)
	return resp.StatusCode, resp.Header.Get("Content-Type"), string(b)
}

// expect wants a GET to be answered with the status and the text in it.
func (a asker) expect(path string, code int, want string) {
	a.t.Helper()
	gotCode, _, body := a.send(http.MethodGet, path, "")
	require.Equal(a.t, code, gotCode, body)
	require.Contains(a.t, body, want)
}

// result is the result of a query, as text.
func (a asker) result(path string) string {
	a.t.Helper()
	code, _, body := a.send(http.MethodGet, path, "")
	require.Equal(a.t, 200, code, body)
	var e struct {
		Data struct{ Result json.RawMessage }
	}
	require.NoError(a.t, json.Unmarshal([]byte(body), &e), body)
	return string(e.Data.Result)
}

// read asks for all of one metric by remote read and returns its frames, or the refusal.
func (a asker) read(prefix, metric string, types ...prompb.ReadRequest_ResponseType) (code int, contentType, text string, frames int) {
	a.t.Helper()
	raw, err := (&prompb.ReadRequest{AcceptedResponseTypes: types, Queries: []*prompb.Query{{
		EndTimestampMs: 1e12, Matchers: []*prompb.LabelMatcher{{Name: "__name__", Value: metric}},
	}}}).Marshal()
	require.NoError(a.t, err)
	code, contentType, text = a.send(http.MethodPost, prefix+"/api/v1/read", string(snappy.Encode(nil, raw)))
	if strings.Contains(contentType, "streamed") {
		stream := remote.NewChunkedReader(bytes.NewReader([]byte(text)), 1<<20, nil)
		for {
			var frame prompb.ChunkedReadResponse
			err := stream.NextProto(&frame)
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(a.t, err)
			frames++
		}
	}
	return code, contentType, text, frames
}

const chunkType = prompb.ReadRequest_STREAMED_XOR_CHUNKS

func TestThanos(t *testing.T) {
	th := NewThanos(ThanosOptions{ReplicaLabels: []string{"replica"}, Stores: []Store{
		{Name: "10.0.0.1:10901", Labels: labels.FromStrings("cluster", "eu", "replica", "a"), Data: load(t, "load 30s\n m{i=\"1\"} 0+1x10 _x10 21+1x99")},
		{Name: "10.0.0.2:10901", Labels: labels.FromStrings("cluster", "eu", "replica", "b"), Data: load(t, "load 30s\n m{i=\"1\"} 0+1x120\n only 1x120\n ends 1 NaN stale")},
	}})
	a := ask(t, th)
	a.expect("/api/v1/status/buildinfo", 200, `"version":"0.39.2"`)
	a.expect("/api/v1/status/flags", 200, `"query.replica-label":"replica"`)
	a.expect("/api/v1/stores", 200, `"sidecar":[{"labelSets":[{"cluster":"eu","replica":"a"}]`)
	for _, path := range []string{"status/config", "features", "read", "format_query", "status/tsdb"} {
		a.expect("/api/v1/"+path, 404, "404 page not found")
	}
	code, _, _ := a.send(http.MethodPost, "/api/v1/label/i/values", "")
	require.Equal(t, 405, code)
	a.expect("/api/v1/label/replica/values", 200, `["a","b"]`)
	a.expect("/api/v1/labels", 200, `["__name__","cluster","i","replica"]`)

	require.JSONEq(t, `[{"metric":{"__name__":"m","cluster":"eu","i":"1"},"value":[60,"2"]}]`, a.result("/api/v1/query?query=m&time=60"))
	require.Contains(t, a.result("/api/v1/query?query=m&time=60&dedup=false"), `"replica":"b"},"value":[60,"2"]`)
	require.Equal(t, `[]`, a.result(`/api/v1/query?time=60&query=m{cluster="us"}`))
	require.Contains(t, a.result(`/api/v1/query?time=60&dedup=false&query=count(m{replica="a"})`), `"1"`)
	// Deduplication loses two intervals at the change from one replica to the other.
	require.Contains(t, a.result("/api/v1/query?query=count_over_time(m[10m1s])&time=600"), `[600,"20"]`)
	a.expect("/api/v1/query?query=m&time=60&dedup=maybe", 400, `'dedup' parameter`)
	// An explicit lookback is taken.
	require.Equal(t, `[]`, a.result("/api/v1/query?query=m&time=59&lookback_delta=20&dedup=false"))

	// Stale markers end series, and NaN is NaN.
	require.Equal(t, `[]`, a.result("/api/v1/query?query=ends&time=100"))
	require.Contains(t, a.result("/api/v1/query?query=ends&time=35"), `[35,"NaN"]`)

	th.SetDown("10.0.0.2:10901", true)
	a.expect("/api/v1/query?query=only&time=60", 200, `"warnings":["fetch series for {cluster=\"eu\", replica=\"b\"} Addr: 10.0.0.2:10901: rpc error`)
	a.expect("/api/v1/query?query=only&time=60&partial_response=false", 422, `"errorType":"execution","error":"expanding series: proxy Series(): rpc error: code = Aborted`)
	a.expect("/api/v1/stores", 200, `"lastError":"rpc error`)
	th.SetDown("10.0.0.2:10901", false)
	a.expect("/api/v1/query?query=only&time=60&partial_response=false", 200, `"value":[60,"1"]`)
}

func TestThanos_DownsamplesAndCutsTimes(t *testing.T) {
	stores := []Store{{Name: "s", Labels: labels.FromStrings("replica", "a"), Data: load(t, "load 30s\n m 0+1x1000")}}
	a := ask(t, NewThanos(ThanosOptions{Stores: stores, AutoDownsampling: true}))
	const path = "/api/v1/query_range?query=count_over_time(m[10m])&start=6000&end=6000&step=1500"
	require.Contains(t, a.result(path), `[6000,"3"]`)
	require.Contains(t, a.result(path+"&max_source_resolution=0s"), `[6000,"20"]`)
	a.expect(path+"&max_source_resolution=x", 400, `'max_source_resolution' parameter`)
	require.Contains(t, ask(t, NewThanos(ThanosOptions{Stores: stores})).result(path), `[6000,"20"]`)

	a = ask(t, NewThanos(ThanosOptions{Stores: stores, Distributed: true}))
	require.Contains(t, a.result("/api/v1/query_range?query=m&start=60.5&end=70&step=1.5"), `[[60,"2"],[61,"2"]`)
}

func TestMimir(t *testing.T) {
	data := load(t, "load 30s\n m{i=\"1\"} 0+1.1x3000\n m{i=\"2\"} 1")
	a := ask(t, NewMimir(MimirOptions{
		Data: data, Align: true, NoLookbackDelta: true, MaxBytesInFrame: 1000,
		Limits: &Limits{Series: 1, Words: MimirWords},
	}))
	a.expect("/prometheus/api/v1/status/buildinfo", 200, `"application":"Grafana Mimir"`)
	a.expect("/prometheus/api/v1/query?query=1", 401, "no org id\n")
	code, _, text, _ := a.read("/prometheus", `m`, chunkType)
	require.Equal(t, 401, code)
	require.Equal(t, "no org id\n", text)

	a.header.Set(TenantHeader, "t")
	a.expect("/prometheus/api/v1/status/config", 404, "404 page not found")
	a.expect("/api/v1/query?query=1", 404, "404 page not found")
	require.Contains(t, a.result(`/prometheus/api/v1/query_range?query=m{i="1"}&start=95&end=135&step=20`), `[[80,"2.2"],[100,"3.3000000000000003"],[120,"4.4"]]`)
	require.NotEqual(t, `[]`, a.result(`/prometheus/api/v1/query?query=m{i="1"}&time=61&lookback_delta=1`))
	a.expect(`/prometheus/api/v1/query?query=m&time=0`, 422, `"errorType":"execution","error":"expanding series: the query exceeded the maximum number of series (limit: 1 series) (err-mimir-max-series-per-query).`)
	code, _, text, _ = a.read("/prometheus", "m", chunkType)
	require.Equal(t, 400, code)
	require.Contains(t, text, "err-mimir-max-series-per-query")

	a = ask(t, NewMimir(MimirOptions{Data: data, MaxBytesInFrame: 1000}))
	a.header.Set(TenantHeader, "t")
	code, contentType, _, frames := a.read("/prometheus", "m", chunkType)
	require.Equal(t, 200, code)
	require.Contains(t, contentType, "streamed")
	require.Greater(t, frames, 3)
	_, contentType, _, _ = a.read("/prometheus", "m")
	require.Equal(t, "application/x-protobuf", contentType)
}

func TestMimir_CachesUnlessToldNotTo(t *testing.T) {
	data := load(t, "load 30s\n m 0+1x10")
	a := ask(t, NewMimir(MimirOptions{Data: data, Cache: true}))
	a.header.Set(TenantHeader, "t")
	const path = "/prometheus/api/v1/query_range?query=m&start=300&end=330&step=30&lookback_delta=1"
	before := a.result(path)
	app := data.Appender(t.Context())
	_, err := app.Append(0, labels.FromStrings("__name__", "m"), 330_000, 7)
	require.NoError(t, err)
	require.NoError(t, app.Commit())
	require.Equal(t, before, a.result(path))
	a.header.Set("Cache-Control", "no-store")
	require.Contains(t, a.result(path), `[330,"7"]`)
}

func TestCortex(t *testing.T) {
	c := NewCortex(CortexOptions{Data: load(t, "load 30s\n m{i=\"1\"} 1x10\n m{i=\"2\"} 1x10"), Prefix: "/api/prom", Limits: &Limits{ChunkBytes: 150, Words: CortexWords}})
	a := ask(t, c)
	a.expect("/api/prom/api/v1/status/buildinfo", 404, "")
	a.expect("/api/prom/api/v1/query?query=m", 401, "no org id\n")
	a.header.Set(TenantHeader, "t")
	require.Contains(t, a.result("/api/prom/api/v1/query?query=count(m)&time=60&limit=1"), `"2"`)
	code, contentType, _, _ := a.read("/api/prom", "m", chunkType)
	require.Equal(t, 200, code)
	require.Equal(t, "application/x-protobuf", contentType)

	c.SetPartial(true)
	a.expect("/api/prom/api/v1/query?query=count(m)&time=60", 200, `"value":[60,"1"]}]},"warnings":["query result may contain partial data"]`)
	a = ask(t, NewCortex(CortexOptions{Data: backendtest.Empty{}, Prefix: "/prometheus", BuildInfo: true}))
	a.expect("/prometheus/api/v1/status/buildinfo", 200, `"version":"1.19.0"`)
}

func TestLimits(t *testing.T) {
	data := load(t, "load 30s\n m 0+1x1000")
	l := &Limits{Points: 11000, Samples: 500, Words: PrometheusWords}
	a := ask(t, NewPrometheus(backendtest.Options{Queryable: data}, l))
	a.expect("/api/v1/query_range?query=1&start=0&end=11001&step=1", 400, "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)")
	a.expect("/api/v1/query?query=m[400m]&time=24000", 422, `"errorType":"execution","error":"query processing would load too many samples into memory in query execution"`)
	code, _, text, _ := a.read("", "m")
	require.Equal(t, 400, code)
	require.Equal(t, "exceeded sample limit (500)\n", text)
	code, _, _, frames := a.read("", "m", chunkType)
	require.Equal(t, 200, code)
	require.Equal(t, 1, frames)
	require.Equal(t, 3, l.Refused())

	f := func(l *Limits, query string, code int, want string) {
		t.Helper()
		ask(t, NewPrometheus(backendtest.Options{Queryable: data}, l)).expect("/api/v1/"+query, code, want)
	}
	f(&Limits{Points: 5, Words: MimirWords}, "query_range?query=m&start=0&end=100&step=10", 400, "exceeded maximum resolution of 5 points")
	f(&Limits{ChunkBytes: 100, Words: CortexWords}, "query?query=m[400m]&time=24000", 422, "expanding series: the query hit the aggregated chunks size limit (limit: 100 bytes)")
	f(&Limits{Samples: 100, Words: ThanosWords}, "query?query=m[400m]&time=24000", 422, "failed to send samples: limit 100 violated")
	f(&Limits{Samples: 100, Words: ThanosWords}, "query?query=m[40m]&time=24000", 200, "")
	f(&Limits{Samples: 100, Words: VictoriaMetricsWords}, "query?query=m[400m]&time=24000", 422, "-search.maxSamplesPerQuery=100 samples")
	f(&Limits{Points: 5, Words: VictoriaMetricsWords}, "query_range?query=m&start=0&end=100&step=10", 422, `"errorType":"422"`)
}

func TestChanging(t *testing.T) {
	data := load(t, "load 30s\n m 1")
	c := NewChanging(NewPrometheus(backendtest.Options{Queryable: data}, nil))
	a := ask(t, c)
	a.expect("/api/v1/status/buildinfo", 200, `"version":"`+backendtest.Version)
	c.Become(NewThanos(ThanosOptions{Stores: []Store{{Data: data}}}))
	a.expect("/api/v1/status/buildinfo", 200, `"version":"0.39.2"`)
	_, _, body := a.send(http.MethodPost, "/api/v1/query", url.Values{"query": {"m"}, "time": {"0"}}.Encode())
	require.Contains(t, body, `"value":[0,"1"]`)
}
