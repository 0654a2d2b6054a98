// Package roundtrip tests promjson with what upstream's own codec writes. It is
// a package of its own because the codec comes with half of Prometheus, which
// fuzzing promjson would have to instrument.
package roundtrip

import (
	"bytes"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	v1 "github.com/prometheus/prometheus/web/api/v1"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/oneprom/oneprom/servergroup/transport/promjson"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func requireSame(t testing.TB, want, got *histogram.FloatHistogram) {
	t.Helper()
	require.True(t, want.Equals(got), "want %+v\ngot  %+v", want, got)
	require.Equal(t, histogram.UnknownCounterReset, got.CounterResetHint)
}

// encode is what Prometheus answers if the result is one series of histograms.
func encode(t testing.TB, hs ...*histogram.FloatHistogram) []byte {
	t.Helper()
	var s promql.Series
	for i, h := range hs {
		s.Histograms = append(s.Histograms, promql.HPoint{T: int64(i), H: h})
	}
	body, err := v1.JSONCodec{}.Encode(&v1.Response{
		Status: "success",
		Data:   &v1.QueryData{ResultType: parser.ValueTypeMatrix, Result: promql.Matrix{s}},
	})
	require.NoError(t, err)
	return body
}

func decodeOne(t testing.TB, body []byte) *histogram.FloatHistogram {
	t.Helper()
	res, err := promjson.Decode(bytes.NewReader(body), promjson.Options{})
	require.NoError(t, err)
	return res.Series[0].Samples.FH[0]
}

// requireRoundTrip: h is printed, read as want, and printed as the same.
func requireRoundTrip(t testing.TB, h, want *histogram.FloatHistogram) {
	t.Helper()
	body := encode(t, h)
	got := decodeOne(t, body)
	requireSame(t, want, got)
	require.NoError(t, got.Validate())
	require.Equal(t, string(body), string(encode(t, got)))
}

func span(offset int32, length uint32) histogram.Span {
	return histogram.Span{Offset: offset, Length: length}
}

func TestHistogramExact(t *testing.T) {
	type fh = histogram.FloatHistogram
	type spans = []histogram.Span
	for name, h := range map[string]*fh{
		"schema 0":               {Schema: 0, Count: 6, Sum: 8, PositiveSpans: spans{span(0, 2)}, PositiveBuckets: []float64{1, 5}},
		"gaps":                   {Schema: 3, Count: 6, Sum: 8, PositiveSpans: spans{span(-5, 2), span(7, 1)}, PositiveBuckets: []float64{1, 5, .1}},
		"zero bucket":            {Schema: 2, Count: 6, Sum: 8, ZeroThreshold: 0.001, ZeroCount: 2.5, PositiveSpans: spans{span(1, 1)}, PositiveBuckets: []float64{1}},
		"zero bucket of width 0": {Schema: 2, Count: 6, Sum: 8, ZeroCount: 2, PositiveSpans: spans{span(1, 1)}, PositiveBuckets: []float64{1}},
		"negative": {
			Schema: 1, Count: 6, Sum: -8, ZeroThreshold: 0.25, ZeroCount: 2, NegativeSpans: spans{span(-1, 1), span(2, 2)}, NegativeBuckets: []float64{1, 2, 3},
			PositiveSpans: spans{span(1, 1)}, PositiveBuckets: []float64{1},
		},
		"only negative":                   {Schema: -2, Count: 6, Sum: -8, NegativeSpans: spans{span(-1, 3)}, NegativeBuckets: []float64{1, 2, 3}},
		"cut by zero":                     {Schema: 0, Count: 6, Sum: 8, ZeroThreshold: 0.3, ZeroCount: 2, PositiveSpans: spans{span(-1, 2)}, PositiveBuckets: []float64{1, 2}, NegativeSpans: spans{span(-1, 2)}, NegativeBuckets: []float64{1, 2}},
		"cut by zero, which is empty":     {Schema: 2, Count: 6, Sum: 8, ZeroThreshold: 0.45, PositiveSpans: spans{span(-4, 3)}, PositiveBuckets: []float64{1, 2, 3}},
		"cut by zero, which is empty (-)": {Schema: 0, Count: 6, Sum: 8, ZeroThreshold: 0.3, NegativeSpans: spans{span(-1, 2)}, NegativeBuckets: []float64{1, 2}},
		"within zero":                     {Schema: 0, Count: 6, Sum: 8, ZeroThreshold: 1, ZeroCount: 1, PositiveSpans: spans{span(-1, 3)}, PositiveBuckets: []float64{1, 2, 3}},
		"last and infinite":               {Schema: 0, Count: 6, Sum: math.Inf(1), PositiveSpans: spans{span(1023, 3)}, PositiveBuckets: []float64{1, 2, 3}, NegativeSpans: spans{span(1023, 3)}, NegativeBuckets: []float64{1, 2, 3}},
		"last and infinite, fine":         {Schema: 8, Count: 6, Sum: math.NaN(), PositiveSpans: spans{span(1024*256-1, 3)}, PositiveBuckets: []float64{1, 2, 3}},
		"last and infinite, coarse":       {Schema: -4, Count: 6, Sum: 0, PositiveSpans: spans{span(63, 3)}, PositiveBuckets: []float64{1, 2, 3}},
		"negative and NaN counts":         {Schema: 0, Count: -6, Sum: math.Inf(-1), PositiveSpans: spans{span(3, 2)}, PositiveBuckets: []float64{-1.5, math.NaN()}},
		"custom":                          {Schema: -53, Count: 6, Sum: 8, CustomValues: []float64{1, 2.5, 5}, PositiveSpans: spans{span(0, 4)}, PositiveBuckets: []float64{1, 2, 3, 4}},
		"custom powers":                   {Schema: -53, Count: 6, Sum: 8, CustomValues: []float64{1, 2, 4}, PositiveSpans: spans{span(0, 3)}, PositiveBuckets: []float64{1, 2, 3}},
		"custom from 0.1":                 {Schema: -53, Count: 6, Sum: 8, CustomValues: []float64{.1, .25, .5, 1}, PositiveSpans: spans{span(1, 3)}, PositiveBuckets: []float64{1, 2, 3}},
		"custom from 0":                   {Schema: -53, Count: 6, Sum: 8, CustomValues: []float64{0, 1, 2}, PositiveSpans: spans{span(1, 2)}, PositiveBuckets: []float64{1, 2}},
		"custom, negative bounds":         {Schema: -53, Count: 6, Sum: 8, CustomValues: []float64{-5, -1, 0, 1}, PositiveSpans: spans{span(1, 1), span(1, 2)}, PositiveBuckets: []float64{1, 2, 3}},
		"custom, overflow":                {Schema: -53, Count: 6, Sum: 8, CustomValues: []float64{16}, PositiveSpans: spans{span(1, 1)}, PositiveBuckets: []float64{2}},
		"custom, no bounds":               {Schema: -53, Count: 6, Sum: 8, PositiveSpans: spans{span(0, 1)}, PositiveBuckets: []float64{6}},
	} {
		t.Run(name, func(t *testing.T) {
			if h.PositiveBuckets != nil && !math.Signbit(h.Count) {
				require.NoError(t, h.Validate())
			}
			body := encode(t, h)
			got := decodeOne(t, body)
			requireSame(t, h, got)
			require.Equal(t, string(body), string(encode(t, got)))
		})
	}
}

// TestHistogramLost pins down what doc comments say is lost.
func TestHistogramLost(t *testing.T) {
	type fh = histogram.FloatHistogram
	type spans = []histogram.Span
	for _, tc := range []struct {
		name    string
		h, want *fh
	}{
		{
			"hint", &fh{CounterResetHint: histogram.GaugeType, Count: 1, Sum: 1, PositiveSpans: spans{span(0, 1)}, PositiveBuckets: []float64{1}},
			&fh{Count: 1, Sum: 1, PositiveSpans: spans{span(0, 1)}, PositiveBuckets: []float64{1}},
		},
		{
			"empty buckets, width of an empty zero bucket", &fh{Count: 1, ZeroThreshold: .001, PositiveSpans: spans{span(0, 3)}, PositiveBuckets: []float64{0, 1, 0}, NegativeSpans: spans{span(0, 1)}, NegativeBuckets: []float64{0}},
			&fh{Count: 1, PositiveSpans: spans{span(1, 1)}, PositiveBuckets: []float64{1}},
		},
		{"schema without buckets", &fh{Schema: 3, Count: 2, ZeroCount: 2, ZeroThreshold: .5}, &fh{Schema: 8, Count: 2, ZeroCount: 2, ZeroThreshold: .5}},
		{"custom without buckets", &fh{Schema: -53, Count: 0, CustomValues: []float64{1, 2}}, &fh{Schema: 8}},
		{
			"custom bounds", &fh{Schema: -53, Count: 3, CustomValues: []float64{1, 2.5, 4, 8, 10}, PositiveSpans: spans{span(0, 1), span(2, 1)}, PositiveBuckets: []float64{1, 2}},
			&fh{Schema: -53, Count: 3, CustomValues: []float64{1, 4, 8}, PositiveSpans: spans{span(0, 1), span(1, 1)}, PositiveBuckets: []float64{1, 2}},
		},
		{
			"custom powers", &fh{Schema: -53, Count: 3, CustomValues: []float64{1, 2, 4}, PositiveSpans: spans{span(1, 2)}, PositiveBuckets: []float64{1, 2}},
			&fh{Count: 3, PositiveSpans: spans{span(1, 2)}, PositiveBuckets: []float64{1, 2}},
		},
		{
			"cut into", &fh{Count: 3, ZeroThreshold: .3, PositiveSpans: spans{span(-1, 2)}, PositiveBuckets: []float64{1, 2}},
			&fh{Schema: -53, Count: 3, CustomValues: []float64{.3, .5, 1}, PositiveSpans: spans{span(1, 2)}, PositiveBuckets: []float64{1, 2}},
		},
	} {
		t.Run(tc.name, func(t *testing.T) { requireRoundTrip(t, tc.h, tc.want) })
	}
}

// TestHistogramRandom: histograms that have a whole bucket come back as they
// were, whatever their schema.
func TestHistogramRandom(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	side := func(n int32) (spans []histogram.Span, counts []float64) {
		// Up to 75 buckets from 2^-900 on, which end before 2^1024.
		most := 1900 - int(math.Ldexp(75, int(-n)))
		for range 1 + rng.IntN(4) {
			s := span(rng.Int32N(10)+1, uint32(rng.IntN(5)+1))
			if spans == nil {
				s.Offset = int32(math.Ldexp(float64(rng.IntN(most)-900), int(n))) + rng.Int32N(5)
			}
			spans = append(spans, s)
			for range s.Length {
				counts = append(counts, float64(rng.IntN(1000)+1)/float64(rng.IntN(3)+1))
			}
		}
		return spans, counts
	}
	for range 3000 {
		h := &histogram.FloatHistogram{Schema: rng.Int32N(13) - 4, Count: float64(rng.IntN(1e6)), Sum: rng.NormFloat64()}
		h.PositiveSpans, h.PositiveBuckets = side(h.Schema)
		if rng.IntN(2) == 0 {
			h.NegativeSpans, h.NegativeBuckets = side(h.Schema)
		}
		if rng.IntN(2) == 0 {
			h.ZeroThreshold, h.ZeroCount = math.Ldexp(rng.Float64(), -960), float64(rng.IntN(100)+1)
		}
		requireRoundTrip(t, h, h)
	}
}
