package cache

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"
)

// answerOf is a random answer at the steps of a grid from one time to another one (ms).
func answerOf(rnd *rand.Rand, g Grid, from, to int64) (m promql.Matrix) {
	for i := range rnd.IntN(5) {
		s := promql.Series{Metric: labels.FromStrings("__name__", "m", "i", strconv.Itoa(i))}
		if i == 0 {
			s.Metric = labels.EmptyLabels()
		}
		for t := from; t <= to; t += g.Step {
			if rnd.IntN(4) > 0 {
				s.Floats = append(s.Floats, promql.FPoint{T: t, F: []float64{1, 0.1, math.NaN(), math.Inf(-1), math.Copysign(0, -1), 5e-324}[rnd.IntN(6)]})
			}
		}
		if i == 3 { // and histograms at the others
			for t := from; t <= to; t += g.Step {
				if !slices.ContainsFunc(s.Floats, func(p promql.FPoint) bool { return p.T == t }) && rnd.IntN(3) > 0 {
					h := tsdbutil.GenerateTestFloatHistogram(rnd.Int64N(9))
					switch rnd.IntN(4) {
					case 0:
						h = tsdbutil.GenerateTestCustomBucketsFloatHistogram(rnd.Int64N(9))
					case 1: // as of a minus sign
						h.Mul(-1)
						h.Sum, h.ZeroCount = math.Copysign(0, -1), math.Copysign(0, -1)
					}
					s.Histograms = append(s.Histograms, promql.HPoint{T: t, H: h})
				}
			}
		}
		if len(s.Floats)+len(s.Histograms) > 0 {
			m = append(m, s)
		}
	}
	return m
}

// within returns the part of an answer from one time to another one (ms).
func within(m promql.Matrix, from, to int64) (out promql.Matrix) {
	for _, s := range m {
		s.Floats = slices.DeleteFunc(slices.Clone(s.Floats), func(p promql.FPoint) bool { return p.T < from || p.T > to })
		s.Histograms = slices.DeleteFunc(slices.Clone(s.Histograms), func(p promql.HPoint) bool { return p.T < from || p.T > to })
		if len(s.Floats)+len(s.Histograms) > 0 {
			out = append(out, s)
		}
	}
	return out
}

// printed is an answer with all digits and signs of its histograms, whose String does not show -0 everywhere.
func printed(m promql.Matrix) string {
	var b strings.Builder
	for _, s := range m {
		fmt.Fprintln(&b, s.Metric, s.Floats)
		for _, p := range s.Histograms {
			fmt.Fprintf(&b, "%d %v %x %x %x %v %v %x %x %v\n", p.T, p.H.Schema, p.H.Count, p.H.Sum, p.H.ZeroCount, p.H.PositiveSpans, p.H.NegativeSpans, p.H.PositiveBuckets, p.H.NegativeBuckets, p.H.CustomValues)
		}
	}
	return b.String()
}

// TestBlocks_AreTheAnswer: an answer is the same if some of its blocks are encoded and decoded.
func TestBlocks_AreTheAnswer(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		start := rnd.Int64N(1e13) - 5e12
		g := GridOf(start, 1+rnd.Int64N(100_000))
		end := start + rnd.Int64N(200)*g.Step
		whole := answerOf(rnd, g, start, end)
		j := newJoined()
		for b := g.Block(start); b <= g.Block(end); b++ {
			from, to := max(start, g.Begin(b)), min(end, g.End(b))
			require.Equal(t, g.Block(from), b)
			require.Equal(t, g.Block(to), b)
			if rnd.IntN(2) == 0 {
				j.addMatrix(whole, from, to)
				continue
			}
			made := &Block{step: g.Step, First: 6, Made: 7, Until: 8, From: from, To: to, notes: []Note{{true, "a", "1:2"}, {false, "b", ""}}}
			require.NoError(t, made.fill(whole))
			value := made.encode(g, b, "key")
			_, err := decode(g, b, "another key", value)
			require.ErrorIs(t, err, errNoBlock)
			block, err := decode(g, b, "key", value)
			require.NoError(t, err)
			require.NoError(t, j.addBlock(block, from, to))
			require.Equal(t, made, block)
		}
		require.Equal(t, printed(whole), printed(j.result()))
	}
}

// TestDecode_Broken: bytes that were changed are no block, or the same.
func TestDecode_Broken(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	g := GridOf(0, 1000)
	made := &Block{step: g.Step, Made: 7, Until: 8, From: 0, To: 31_000}
	require.NoError(t, made.fill(answerOf(rnd, g, 0, 31_000)))
	value := made.encode(g, 0, "key")
	for range 2000 {
		broken := slices.Clone(value)
		broken[rnd.IntN(len(broken))] ^= 1 << rnd.IntN(8)
		if rnd.IntN(3) == 0 {
			broken = broken[:rnd.IntN(len(broken))]
		}
		_, err := decode(g, 0, "key", broken)
		require.ErrorIs(t, err, errNoBlock)
		block, err := decode(g, 0, "key", value)
		require.NoError(t, err)
		block.series[rnd.IntN(len(block.series))] ^= 1 << rnd.IntN(8)
		_ = newJoined().addBlock(block, 0, 31_000) // does not panic
	}
}
