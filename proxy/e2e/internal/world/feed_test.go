package world

import (
	"math"
	"testing"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"
)

func TestFeeder_SendsEverySampleOnceWithExternalLabels(t *testing.T) {
	got := map[string][]float64{}
	requests := 0
	f := &feeder{external: labels.FromStrings("replica", "a", "job", "external"), send: func(body []byte) error {
		raw, err := snappy.Decode(nil, body)
		require.NoError(t, err)
		var req prompb.WriteRequest
		require.NoError(t, req.Unmarshal(raw))
		requests++
		for _, ts := range req.Timeseries {
			name := ts.ToLabels(&labels.ScratchBuilder{}, nil).String()
			for _, s := range ts.Samples {
				got[name] = append(got[name], s.Value)
			}
		}
		return nil
	}}
	var up, own storage.SeriesRef
	want := map[string][]float64{}
	for i := range batchSamples {
		var err error
		up, err = f.Append(up, labels.FromStrings("__name__", "up", "job", "own"), 0, int64(i), float64(i), nil, nil, storage.AppendV2Options{})
		require.NoError(t, err)
		own, err = f.Append(own, labels.FromStrings("__name__", "m"), 0, int64(i), float64(-i), nil, nil, storage.AppendV2Options{})
		require.NoError(t, err)
		require.NoError(t, f.Commit())
		want[`{__name__="up", job="own", replica="a"}`] = append(want[`{__name__="up", job="own", replica="a"}`], float64(i))
		want[`{__name__="m", job="external", replica="a"}`] = append(want[`{__name__="m", job="external", replica="a"}`], float64(-i))
	}
	require.NoError(t, f.flush())
	require.Equal(t, 3, requests)
	require.Equal(t, want, got)

	_, err := f.Append(0, labels.FromStrings("__name__", "h"), 0, 1, 0, &histogram.Histogram{}, nil, storage.AppendV2Options{})
	require.Error(t, err)
}

func TestKind_Holds(t *testing.T) {
	exponential, buckets := sample{h: &histogram.Histogram{}}, sample{h: &histogram.Histogram{Schema: histogram.CustomBucketsSchema}}
	for _, c := range []struct {
		v                       sample
		prometheus2, vm, influx bool
	}{
		{sample{f: 1}, true, true, true},
		{sample{f: math.Inf(1)}, true, true, false},
		{sample{f: math.NaN()}, true, true, true},
		{sample{f: math.Float64frombits(value.StaleNaN)}, true, true, true},
		{exponential, true, false, false},
		{sample{fh: &histogram.FloatHistogram{}}, true, false, false},
		{buckets, false, false, false},
	} {
		got := []bool{Prometheus.holds(c.v), Prometheus2.holds(c.v), VictoriaMetrics.holds(c.v), InfluxDB.holds(c.v)}
		require.Equal(t, []bool{true, c.prometheus2, c.vm, c.influx}, got, "%v", c.v)
	}
}

func TestDecimal(t *testing.T) {
	require.Equal(t, 0.333, decimal(1.0/3))
	require.Equal(t, -21.5, decimal(-21.5))
	require.Equal(t, 5e9, decimal(5e9+0.4))
	require.True(t, math.IsNaN(decimal(math.NaN())))
	require.True(t, math.IsInf(decimal(math.Inf(-1)), -1))
}
