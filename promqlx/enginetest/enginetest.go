// Package enginetest sets up upstream's engine for tests, and compares its results.
package enginetest

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"
)

// Options returns the options of an engine that can evaluate the queries of upstream's tests.
func Options() promql.EngineOpts {
	return promql.EngineOpts{
		MaxSamples:               1e6,
		Timeout:                  time.Minute,
		NoStepSubqueryIntervalFn: func(int64) int64 { return 60000 },
		EnableAtModifier:         true,
		EnableNegativeOffset:     true,
		Parser:                   parser.NewParser(promqltest.TestParserOpts),
	}
}

// Copy returns a copy of a value that outlives its query. A matrix is sorted by labels.
func Copy(v parser.Value) parser.Value {
	switch v := v.(type) {
	case promql.Matrix:
		out := make(promql.Matrix, len(v))
		for i, s := range v {
			out[i] = promql.Series{Metric: s.Metric.Copy(), Floats: slices.Clone(s.Floats)}
			for _, p := range s.Histograms {
				out[i].Histograms = append(out[i].Histograms, promql.HPoint{T: p.T, H: p.H.Copy()})
			}
		}
		sort.Sort(out)
		return out
	case promql.Vector:
		return slices.Clone(v)
	}
	return v
}

// SortByLabels sorts a vector whose order the engine leaves open.
func SortByLabels(v promql.Vector) {
	sort.Slice(v, func(i, j int) bool { return labels.Compare(v[i].Metric, v[j].Metric) < 0 })
}

// RequireSame compares the values of results, which may differ by a relative tolerance. If
// stats is set, only count and sum of histograms are compared.
func RequireSame(t testing.TB, want, got *promql.Result, tolerance float64, stats bool, what string) {
	t.Helper()
	if want.Err != nil {
		require.Error(t, got.Err, what)
		return
	}
	require.NoError(t, got.Err, what)
	require.Equal(t, Lines(want.Value), Lines(got.Value), what)
	ws, gs := samples(want.Value), samples(got.Value)
	require.Len(t, gs, len(ws), what)
	for i := range ws {
		same := near(ws[i].f, gs[i].f, tolerance)
		if ws[i].h != nil {
			same = nearHistogram(ws[i].h, gs[i].h, tolerance, stats)
		}
		if !same {
			require.Fail(t, "another value", "%s\nwant %v %s\ngot  %v %s\n\n%v\n\n%v", what, ws[i].f, ws[i].h, gs[i].f, gs[i].h, want.Value, got.Value)
		}
	}
}

func nearHistogram(a, b *histogram.FloatHistogram, tolerance float64, stats bool) bool {
	if !near(a.Sum, b.Sum, tolerance) || !near(a.Count, b.Count, tolerance) {
		return false
	}
	if stats {
		return true
	}
	as, bs := buckets(a), buckets(b)
	return slices.EqualFunc(as, bs, func(a, b histogram.Bucket[float64]) bool {
		return a.Lower == b.Lower && a.Upper == b.Upper && near(a.Count, b.Count, tolerance)
	})
}

// buckets returns the buckets of a histogram that are not empty.
func buckets(h *histogram.FloatHistogram) (out []histogram.Bucket[float64]) {
	for it := h.AllBucketIterator(); it.Next(); {
		if b := it.At(); b.Count != 0 {
			out = append(out, b)
		}
	}
	return out
}

func near(a, b, tolerance float64) bool {
	if a == b || math.IsNaN(a) && math.IsNaN(b) {
		return true
	}
	return !math.IsInf(a, 0) && !math.IsInf(b, 0) && math.Abs(a-b) <= tolerance*max(math.Abs(a), math.Abs(b), 1)
}

// Lines prints the labels and times of a value, a line for each series.
func Lines(v parser.Value) []string {
	var out []string
	switch v := v.(type) {
	case promql.Matrix:
		for _, s := range v {
			line := s.Metric.String()
			for _, p := range s.Floats {
				line += fmt.Sprintf(" %d", p.T)
			}
			for _, p := range s.Histograms {
				line += fmt.Sprintf(" h%d", p.T)
			}
			out = append(out, line)
		}
	case promql.Vector:
		for _, s := range v {
			out = append(out, fmt.Sprintf("%s %d %v", s.Metric, s.T, s.H != nil))
		}
	case promql.String:
		out = append(out, v.String())
	}
	return out
}

// value is a float or a histogram.
type value struct {
	f float64
	h *histogram.FloatHistogram
}

// samples returns the samples of a value.
func samples(v parser.Value) (out []value) {
	switch v := v.(type) {
	case promql.Matrix:
		for _, s := range v {
			for _, p := range s.Floats {
				out = append(out, value{f: p.F})
			}
			for _, p := range s.Histograms {
				out = append(out, value{h: p.H})
			}
		}
	case promql.Vector:
		for _, s := range v {
			out = append(out, value{f: s.F, h: s.H})
		}
	case promql.Scalar:
		out = append(out, value{f: v.V})
	}
	return out
}
