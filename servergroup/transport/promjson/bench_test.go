package promjson

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"runtime"
	"testing"
	"time"

	"github.com/prometheus/client_golang/api"
	apiv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
)

// The response that is measured: an hour of a fleet at steps of 15 seconds.
const (
	benchSeries = 1000
	benchPoints = 240
)

// TestDecodeMemory: decoding allocates little more than what the columns hold.
func TestDecodeMemory(t *testing.T) {
	const (
		series, points = 300, 1000
		most           = 24 // bytes a sample
	)
	for name, s := range map[string]shape{"mix": mix, "17 digits": digits17} {
		body := matrixBody(series, points, s)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		res, err := Decode(bytes.NewReader(body), Options{})
		runtime.ReadMemStats(&after)
		require.NoError(t, err)
		require.Len(t, res.Series, series)
		perSample := float64(after.TotalAlloc-before.TotalAlloc) / series / points
		t.Logf("%s: %.2f bytes a sample", name, perSample)
		require.LessOrEqual(t, perSample, float64(most))
		require.GreaterOrEqual(t, perSample, float64(sampleBytes))
	}
}

// encodingJSON reads a response by encoding/json into the types of prometheus/common.
func encodingJSON(body []byte) (model.Matrix, error) {
	var response struct {
		Status string `json:"status"`
		Data   struct {
			Result model.Matrix `json:"result"`
		} `json:"data"`
	}
	err := json.NewDecoder(bytes.NewReader(body)).Decode(&response)
	return response.Data.Result, err
}

// canned answers every request with a body.
type canned []byte

func (c canned) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{}, ContentLength: int64(len(c)),
		Body: io.NopCloser(bytes.NewReader(c)),
	}, nil
}

func clientGolang(tb testing.TB, body []byte) apiv1.API {
	c, err := api.NewClient(api.Config{Address: "http://127.0.0.1:9090", RoundTripper: canned(body)})
	require.NoError(tb, err)
	return apiv1.NewAPI(c)
}

var benchRange = apiv1.Range{Start: time.Unix(0, 0), End: time.Unix(1000, 0), Step: time.Second}

// TestClientGolang: client_golang and encoding/json read the same samples from the
// bodies that are measured.
func TestClientGolang(t *testing.T) {
	body := matrixBody(20, 50, mix)
	want, _, err := clientGolang(t, body).QueryRange(context.Background(), "up", benchRange)
	require.NoError(t, err)
	same, err := encodingJSON(body)
	require.NoError(t, err)
	require.Equal(t, want, same)
	got, err := Decode(bytes.NewReader(body), Options{})
	require.NoError(t, err)
	for i, s := range want.(model.Matrix) {
		for j, p := range s.Values {
			require.Equal(t, int64(p.Timestamp), got.Series[i].Samples.T[j])
			require.Equal(t, float64(p.Value), got.Series[i].Samples.F[j])
		}
		require.Equal(t, len(s.Metric), got.Series[i].Labels.Len())
		require.Equal(t, string(s.Metric["pod"]), got.Series[i].Labels.Get("pod"))
	}
}

// measure runs f and reports its cost per sample.
func measure(b *testing.B, body []byte, samples int, f func() error) {
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	b.ResetTimer()
	for range b.N {
		if err := f(); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	runtime.ReadMemStats(&after)
	total := float64(b.N) * float64(samples)
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/total, "ns/sample")
	b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/total, "B/sample")
}

func BenchmarkMatrix(b *testing.B) {
	for _, c := range []struct {
		name string
		s    shape
	}{{"mix", mix}, {"17digits", digits17}} {
		body := matrixBody(benchSeries, benchPoints, c.s)
		samples := benchSeries * benchPoints
		b.Run(c.name+"/promjson", func(b *testing.B) {
			measure(b, body, samples, func() error {
				_, err := Decode(bytes.NewReader(body), Options{})
				return err
			})
		})
		b.Run(c.name+"/client_golang", func(b *testing.B) {
			client := clientGolang(b, body)
			measure(b, body, samples, func() error {
				_, _, err := client.QueryRange(context.Background(), "up", benchRange)
				return err
			})
		})
		b.Run(c.name+"/encoding_json", func(b *testing.B) {
			measure(b, body, samples, func() error {
				_, err := encodingJSON(body)
				return err
			})
		})
	}
}

func BenchmarkVector(b *testing.B) {
	const series = 10000
	body := vectorBody(series)
	b.Run("promjson", func(b *testing.B) {
		measure(b, body, series, func() error {
			_, err := Decode(bytes.NewReader(body), Options{})
			return err
		})
	})
	b.Run("client_golang", func(b *testing.B) {
		client := clientGolang(b, body)
		measure(b, body, series, func() error {
			_, _, err := client.Query(context.Background(), "up", time.Unix(0, 0))
			return err
		})
	})
}
