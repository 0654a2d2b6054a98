package backendtest

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/golang/snappy"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// openTestDB returns a TSDB with foo{i="1"} = 1, 2, 3 at 0, 15 and 30 s, and a native histogram.
func openTestDB(t *testing.T) *tsdb.DB {
	t.Helper()
	db, err := OpenDB(t.TempDir(), StartTimestamps)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })

	app := db.AppenderV2(t.Context())
	foo := labels.FromStrings("__name__", "foo", "i", "1")
	for n := range int64(3) {
		ex := exemplar.Exemplar{Labels: labels.FromStrings("trace", "x"), Value: 7, Ts: n * 15_000, HasTs: true}
		_, err := app.Append(0, foo, 0, n*15_000, float64(n+1), nil, nil, storage.AOptions{Exemplars: []exemplar.Exemplar{ex}})
		require.NoError(t, err)
	}
	h := tsdbutil.GenerateTestHistogram(3)
	_, err = app.Append(0, labels.FromStrings("__name__", "h"), 0, 0, 0, h, (*histogram.FloatHistogram)(nil), storage.AOptions{})
	require.NoError(t, err)
	require.NoError(t, app.Commit())
	return db
}

func startServer(t *testing.T, o Options) string {
	t.Helper()
	s := httptest.NewServer(NewHandler(o))
	t.Cleanup(s.Close)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return s.URL
}

func get(t *testing.T, url string) (code int, body string) {
	t.Helper()
	resp, err := http.Get(url)
	require.NoError(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(b)
}

func TestHandler_AnswersAsPrometheus(t *testing.T) {
	db := openTestDB(t)
	base := startServer(t, Options{
		Queryable: db, Exemplars: db, Prefix: "/prom",
		ExternalLabels: labels.FromStrings("replica", "a"),
		Metadata: map[string][]metadata.Metadata{
			"foo": {{Type: model.MetricTypeCounter, Help: "1"}, {Type: model.MetricTypeGauge, Help: "2"}}, "bar": {{Type: model.MetricTypeGauge}},
		},
	}) + "/prom"

	f := func(path string, code int, want string) {
		t.Helper()
		gotCode, body := get(t, base+path)
		require.Equal(t, code, gotCode, body)
		require.Contains(t, body, want)
	}
	f("/-/healthy", 200, "Prometheus Server is Healthy.\n")
	f("/-/ready", 200, "Prometheus Server is Ready.\n")
	f("/api/v1/query?query=foo&time=30", 200, `[{"metric":{"__name__":"foo","i":"1"},"value":[30,"3"]}]`)
	f("/api/v1/query_range?query=foo&start=0&end=30&step=15", 200, `"values":[[0,"1"],[15,"2"],[30,"3"]]`)
	f("/api/v1/query?query=histogram_count(h)&time=0", 200, `"value":[0,"39"]`)
	f("/api/v1/query?query=sum(", 400, `invalid parameter \"query\": 1:5: parse error: unclosed left parenthesis`)
	f("/api/v1/query?query=foo+%2B+fill(0)+foo&time=0", 200, `"value":[0,"2"]`)
	f("/api/v1/query_exemplars?query=foo&start=0&end=60", 200, `"labels":{"trace":"x"},"value":"7"`)
	f("/api/v1/label/i/values", 200, `["1"]`)
	f("/api/v1/series?match[]=foo", 200, `[{"__name__":"foo","i":"1"}]`)
	f("/api/v1/status/buildinfo", 200, `"version":"3.15.0"`)
	f("/api/v1/status/config", 200, `external_labels:\n    replica: a\n`)
	f("/api/v1/status/tsdb", 200, `"numSeries":2`)
	f("/api/v1/features", 200, `"delayed_name_removal":true`)
	f("/api/v1/metadata", 200, `"bar":[{"type":"gauge","unit":"","help":""}]`)
	f("/api/v1/metadata?metric=foo&limit_per_metric=1", 200, `"data":{"foo":[{"type":"counter","unit":"","help":"1"}]}`)
	f("/api/v1/metadata?limit=x", 400, `limit must be a number`)
	f("/api/v1/nonsense", 404, `404 page not found`)
	f("/api/v1/read", 405, `Method Not Allowed`)
	for _, path := range []string{"targets", "rules", "alerts", "alertmanagers", "scrape_pools", "status/runtimeinfo", "status/flags", "status/tsdb/blocks", "status/walreplay", "status/self_metrics"} {
		f("/api/v1/"+path, 200, `"status":"success"`)
	}
}

func TestHandler_AnswersOverAnyStorage(t *testing.T) {
	base := startServer(t, Options{Queryable: Empty{}})
	f := func(path, want string) {
		t.Helper()
		code, body := get(t, base+path)
		require.Equal(t, 200, code, body)
		require.Contains(t, body, want)
	}
	f("/api/v1/query?query=foo", `"result":[]`)
	f("/api/v1/query_exemplars?query=foo&start=0&end=60", `"data":[]`)
	f("/api/v1/status/tsdb", `"numSeries":0`)
	f("/api/v1/status/tsdb/blocks", `"blocks":[]`)
	f("/api/v1/metadata", `"data":{}`)
}

// readResponse is a response of /api/v1/read.
type readResponse struct {
	code        int
	contentType string
	frames      int
	labels      []prompb.Label // of the last series
}

// read asks for one metric, all its samples, as a client that would rather have chunks.
func read(t *testing.T, base, metric string) readResponse {
	t.Helper()
	req := &prompb.ReadRequest{
		AcceptedResponseTypes: []prompb.ReadRequest_ResponseType{prompb.ReadRequest_STREAMED_XOR_CHUNKS, prompb.ReadRequest_SAMPLES},
		Queries:               []*prompb.Query{{EndTimestampMs: 1e9, Matchers: []*prompb.LabelMatcher{{Name: "__name__", Value: metric}}}},
	}
	raw, err := req.Marshal()
	require.NoError(t, err)
	resp, err := http.Post(base+"/api/v1/read", "application/x-protobuf", bytes.NewReader(snappy.Encode(nil, raw)))
	require.NoError(t, err)
	defer resp.Body.Close()
	a := readResponse{code: resp.StatusCode, contentType: resp.Header.Get("Content-Type")}
	switch a.contentType {
	case "application/x-protobuf":
		a.labels = lastOfSamples(t, resp.Body)
	case "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse":
		a.frames, a.labels = lastOfFrames(t, resp.Body)
	}
	return a
}

func lastOfSamples(t *testing.T, body io.Reader) []prompb.Label {
	t.Helper()
	compressed, err := io.ReadAll(body)
	require.NoError(t, err)
	raw, err := snappy.Decode(nil, compressed)
	require.NoError(t, err)
	var resp prompb.ReadResponse
	require.NoError(t, resp.Unmarshal(raw))
	series := resp.Results[0].Timeseries
	return series[len(series)-1].Labels
}

func lastOfFrames(t *testing.T, body io.Reader) (frames int, last []prompb.Label) {
	t.Helper()
	chunked := remote.NewChunkedReader(body, 1<<20, nil)
	for {
		var frame prompb.ChunkedReadResponse
		err := chunked.NextProto(&frame)
		if errors.Is(err, io.EOF) {
			return frames, last
		}
		require.NoError(t, err)
		frames++
		last = frame.ChunkedSeries[len(frame.ChunkedSeries)-1].Labels
	}
}

func TestHandler_RemoteReadModes(t *testing.T) {
	db := openTestDB(t)
	want := readResponse{
		code: 200, contentType: "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse", frames: 1,
		labels: []prompb.Label{{Name: "__name__", Value: "foo"}, {Name: "i", Value: "1"}, {Name: "replica", Value: "a"}},
	}
	o := Options{Queryable: db, ExternalLabels: labels.FromStrings("replica", "a")}
	require.Equal(t, want, read(t, startServer(t, o), "foo"))

	o.RemoteRead = SamplesOnly
	want.contentType, want.frames = "application/x-protobuf", 0
	require.Equal(t, want, read(t, startServer(t, o), "foo"))

	o.RemoteRead = NoRemoteRead
	require.Equal(t, readResponse{code: 404, contentType: "text/plain; charset=utf-8"}, read(t, startServer(t, o), "foo"))
}

func TestHandler_SamplesOnlyRejectsGarbage(t *testing.T) {
	base := startServer(t, Options{Queryable: Empty{}, RemoteRead: SamplesOnly})
	resp, err := http.Post(base+"/api/v1/read", "application/x-protobuf", strings.NewReader("garbage"))
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, 400, resp.StatusCode)
}

func TestHandler_MaxBytesInFrameSplitsSeries(t *testing.T) {
	db := openTestDB(t)
	app := db.AppenderV2(t.Context())
	for n := range int64(1000) {
		_, err := app.Append(0, labels.FromStrings("__name__", "long"), 0, n*15_000, float64(n)*1.1, nil, nil, storage.AOptions{})
		require.NoError(t, err)
	}
	require.NoError(t, app.Commit())

	require.Equal(t, 1, read(t, startServer(t, Options{Queryable: db}), "long").frames)
	require.Greater(t, read(t, startServer(t, Options{Queryable: db, MaxBytesInFrame: 1000}), "long").frames, 3)
}

func TestNewHandler_NeedsQueryable(t *testing.T) {
	require.PanicsWithValue(t, "backendtest: Options.Queryable is nil", func() { NewHandler(Options{}) })
}
