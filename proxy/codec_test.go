package proxy

import (
	"math"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
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
		resp := &v1.Response{Status: "success", Data: &v1.QueryData{ResultType: value.Type(), Result: value}, Warnings: []string{"w"}}
		want, err := v1.JSONCodec{}.Encode(resp)
		require.NoError(t, err)
		got, err := codec{}.Encode(resp)
		require.NoError(t, err)
		require.Equal(t, string(want), string(got))
	}
	_, err := codec{}.Encode(&v1.Response{Data: func() {}})
	require.Error(t, err)
}
