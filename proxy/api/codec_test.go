package api

import (
	"bytes"
	"fmt"
	"math"
	"runtime"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/prometheus/prometheus/util/stats"
	v1 "github.com/prometheus/prometheus/web/api/v1"
	"github.com/stretchr/testify/require"
)

func TestCodec_WritesWhatUpstreamsWrites(t *testing.T) {
	lset := labels.FromStrings("__name__", "m", "a", "<&>\u2028")
	for _, value := range []parser.Value{
		promql.Matrix{},
		promql.Matrix{{Metric: lset, Floats: []promql.FPoint{{T: 1, F: math.NaN()}, {T: 2, F: 1e300}}, Histograms: []promql.HPoint{{T: 3, H: tsdbutil.GenerateTestFloatHistogram(1)}}}},
		promql.Vector{{Metric: lset, T: 1, F: math.Inf(-1)}},
		promql.Scalar{T: 1, V: 0.1},
		promql.String{T: 1, V: "<x>"},
	} {
		requireUpstreams(t, success(value))
	}
	_, err := Codec{}.Encode(&v1.Response{Data: func() {}})
	require.Error(t, err)
}

func TestCodec_WritesBigMatricesAsUpstreamDoes(t *testing.T) {
	odd := []float64{math.NaN(), math.Inf(1), math.Inf(-1), math.Copysign(0, -1), 5e-324, 1e300, 1. / 3, 0, 42}
	oddly := func(i int) float64 { return odd[i%len(odd)] }
	huge := helpedBytes/pointBytes + 1 // points of a series that no helper gets
	for name, m := range map[string]promql.Matrix{
		"floats":                      floats(3000, 20, oddly),
		"just big":                    floats(1, bigBytes/pointBytes, oddly),
		"one huge":                    floats(1, huge, oddly),
		"all huge":                    floats(5, huge, oddly),
		"one huge at the start":       slices.Concat(floats(1, huge, oddly), floats(2000, 20, oddly)),
		"one huge among others":       slices.Concat(floats(800, 20, oddly), floats(1, huge, oddly), floats(2000, 20, oddly)),
		"one huge at the end":         slices.Concat(floats(2000, 20, oddly), floats(1, huge, oddly)),
		"no points":                   floats(10000, 0, oddly),
		"histograms":                  histograms(200, 10),
		"histograms, floats and both": slices.Concat(histograms(50, 10), floats(1000, 20, oddly), mixed(500)),
	} {
		t.Run(name, func(t *testing.T) {
			require.GreaterOrEqual(t, matrixBytes(m), bigBytes)
			for _, cores := range []int{1, 2, 3, 8} {
				setCores(t, cores)
				requireUpstreams(t, success(m))
			}
		})
	}
}

func TestCodec_FailsForDamagedHistograms(t *testing.T) {
	setCores(t, maxEncoders)
	for _, at := range []int{0, 1000, 1999} { // in batches of the caller's and of helpers
		m := floats(2000, 100, func(i int) float64 { return float64(i) })
		h := tsdbutil.GenerateTestCustomBucketsFloatHistogram(1)
		h.CustomValues = nil // upstream's iterator panics without
		m[at].Histograms = []promql.HPoint{{T: 1, H: h}}
		_, err := Codec{}.Encode(success(m))
		require.ErrorContains(t, err, "broken samples")
	}
}

func TestCodec_TakesLittleMoreMemoryThanTheAnswer(t *testing.T) {
	setCores(t, maxEncoders)
	count := func(i int) float64 { return float64(i % 1000) }
	for name, m := range map[string]promql.Matrix{
		"many series": floats(2000, 500, count),
		"huge series": floats(4, 250_000, count),
	} {
		t.Run(name, func(t *testing.T) {
			resp := success(m)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := Codec{}.Encode(resp)
			runtime.ReadMemStats(&after)
			require.NoError(t, err)
			require.Less(t, int(after.TotalAlloc-before.TotalAlloc), matrixBytes(m)+maxEncoders*2*batchBytes)
		})
	}
}

// requireUpstreams encodes a response as it is and with all that an answer can
// have, and compares with upstream's codec. The response must stay as it is.
func requireUpstreams(t *testing.T, resp *v1.Response) {
	t.Helper()
	full, data := *resp, *resp.Data.(*v1.QueryData)
	data.Stats = stats.NewQueryStats(&stats.Statistics{Timers: stats.NewQueryTimers(), Samples: stats.NewQuerySamples(true)})
	full.Data, full.Warnings, full.Infos = &data, []string{"w", "<w>"}, []string{"i"}
	for _, resp := range []*v1.Response{resp, &full} {
		respWas, dataWas := *resp, *resp.Data.(*v1.QueryData)
		want, err := v1.JSONCodec{}.Encode(resp)
		require.NoError(t, err)
		got, err := Codec{}.Encode(resp)
		require.NoError(t, err)
		requireSame(t, want, got)
		require.Same(t, respWas.Data, resp.Data)
		require.IsType(t, dataWas.Result, resp.Data.(*v1.QueryData).Result)
	}
}

// requireSame shows where two long texts differ, and not all of them.
func requireSame(t *testing.T, want, got []byte) {
	t.Helper()
	if bytes.Equal(want, got) {
		return
	}
	at := 0
	for at < min(len(want), len(got)) && want[at] == got[at] {
		at++
	}
	excerpt := func(b []byte) string { return string(b[max(0, at-100):min(len(b), at+100)]) }
	require.Equal(t, excerpt(want), excerpt(got), "at byte %d of %d", at, len(want))
	require.Len(t, got, len(want))
}

// setCores sets GOMAXPROCS until the test ends.
func setCores(t *testing.T, n int) {
	was := runtime.GOMAXPROCS(n)
	t.Cleanup(func() { runtime.GOMAXPROCS(was) })
}

// BenchmarkCodec encodes 1,000 series of 240 points, as a panel over some hours
// asks for: with many digits, as rates have, and with few, as counts have.
func BenchmarkCodec(b *testing.B) {
	b.Run("rates", func(b *testing.B) { benchmarkCodec(b, func(i int) float64 { return float64(i) / 7 }) })
	b.Run("counts", func(b *testing.B) { benchmarkCodec(b, func(i int) float64 { return float64(i % 1000) }) })
}

func benchmarkCodec(b *testing.B, value func(i int) float64) {
	resp := success(floats(1000, 240, value))
	out, err := Codec{}.Encode(resp)
	require.NoError(b, err)
	b.SetBytes(int64(len(out)))
	b.ReportAllocs()
	for b.Loop() {
		_, err := Codec{}.Encode(resp)
		require.NoError(b, err)
	}
}

func success(v parser.Value) *v1.Response {
	return &v1.Response{Status: "success", Data: &v1.QueryData{ResultType: v.Type(), Result: v}}
}

// floats returns a matrix whose i-th point, counted through all series, is value(i).
func floats(series, points int, value func(i int) float64) promql.Matrix {
	m := make(promql.Matrix, series)
	for i := range m {
		m[i].Metric = labels.FromStrings("__name__", "http_requests_total", "instance", fmt.Sprintf("host-%d:9090", i), "job", "node", "path", "/api/v1/query_range")
		for j := range points {
			m[i].Floats = append(m[i].Floats, promql.FPoint{T: 1700000000000 + int64(j)*15000, F: value(points*i + j)})
		}
	}
	return m
}

func histograms(series, points int) promql.Matrix {
	m := floats(series, 0, nil)
	for i := range m {
		for j := range points {
			m[i].Histograms = append(m[i].Histograms, promql.HPoint{T: int64(j-1) * 1500, H: tsdbutil.GenerateTestFloatHistogram(int64(i + j))})
		}
	}
	return m
}

// mixed returns a matrix of series with odd labels, with floats and histograms.
func mixed(series int) promql.Matrix {
	m := histograms(series, 2)
	for i := range m {
		m[i].Floats = []promql.FPoint{{T: -1001, F: float64(i)}, {T: 7, F: -0.5}}
		m[i].Metric = labels.FromStrings("a.b \"c\"", "<&>\u2028\\\n\x00\xff", "i", fmt.Sprint("ü", i))
	}
	m[0].Metric = labels.EmptyLabels()
	return m
}
