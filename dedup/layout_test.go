package dedup

import (
	"math"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"
)

// A few bytes that promise billions of buckets must not cost memory.
func TestHostileHistogramLayoutsCostNothing(t *testing.T) {
	encodings := []chunkenc.Encoding{chunkenc.EncHistogram, chunkenc.EncFloatHistogram, chunkenc.EncHistogramST, chunkenc.EncFloatHistogramST}
	rng := rand.New(rand.NewPCG(1, 2))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 5000 {
		data := make([]byte, 3+rng.IntN(60))
		for i := range data {
			data[i] = byte(rng.Uint32())
		}
		for _, e := range encodings {
			var s Samples
			_ = Chunks{{MinT: math.MinInt64, MaxT: math.MaxInt64, Encoding: e, Data: data}}.AppendTo(&s, math.MinInt64, math.MaxInt64)
		}
	}
	runtime.ReadMemStats(&after)
	require.Less(t, (after.TotalAlloc-before.TotalAlloc)>>20, uint64(200), "MiB for 20,000 chunks")
}

// Whatever layout upstream writes passes.
func TestLayoutsOfUpstreamPass(t *testing.T) {
	for _, h := range []*histogram.Histogram{
		{},
		{Schema: -4, ZeroThreshold: 1e-128, PositiveSpans: []histogram.Span{{Offset: -3, Length: 2}, {Offset: 5000, Length: 1}}, PositiveBuckets: []int64{0, 0, 0}},
		{Schema: 8, ZeroThreshold: 0.3, NegativeSpans: []histogram.Span{{Offset: math.MinInt32, Length: 40}}, NegativeBuckets: make([]int64, 40)},
		{Schema: histogram.CustomBucketsSchema, PositiveSpans: []histogram.Span{{Length: 3}}, PositiveBuckets: []int64{1, 2, 3}, CustomValues: []float64{0.1, 7e300}},
	} {
		for _, c := range []chunkenc.Chunk{chunkenc.NewHistogramChunk(), chunkenc.NewHistogramSTChunk()} {
			app, err := c.Appender()
			require.NoError(t, err)
			_, _, _, err = app.AppendHistogram(nil, 0, 1000, h.Copy(), true)
			require.NoError(t, err)
			require.NoError(t, checkLayout(c.Encoding(), c.Bytes()), "%s", h)
		}
		for _, c := range []chunkenc.Chunk{chunkenc.NewFloatHistogramChunk(), chunkenc.NewFloatHistogramSTChunk()} {
			app, err := c.Appender()
			require.NoError(t, err)
			_, _, _, err = app.AppendFloatHistogram(nil, 0, 1000, h.ToFloat(nil), true)
			require.NoError(t, err)
			require.NoError(t, checkLayout(c.Encoding(), c.Bytes()), "%s", h)
		}
	}
}
