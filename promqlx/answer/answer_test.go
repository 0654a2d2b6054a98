package answer

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/promqlx/plan"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// evaluated is a series with values 1, 2, 3 … at times.
func evaluated(i string, ts ...int64) segment {
	s := &dedup.Samples{}
	for n, t := range ts {
		s.Append(0, t, float64(n+1))
	}
	return segment{labels: labels.FromStrings("i", i), samples: s}
}

// columnsText prints samples, stale markers as `t:stale`.
func columnsText(s *dedup.Samples) string {
	var out []string
	for i, t := range s.T {
		text := fmt.Sprintf("%d:%g", t, s.F[i])
		if s.Stale(i) {
			text = fmt.Sprintf("%d:stale", t)
		}
		out = append(out, text)
	}
	return strings.Join(out, " ")
}

func TestOnGrid(t *testing.T) {
	st := transport.Steps{Start: 10, End: 50, Step: 10}
	f := func(want string, ts ...int64) {
		t.Helper()
		require.Equal(t, want, columnsText(onGrid(evaluated("", ts...).samples, st)))
	}
	f("10:1 20:2 30:3 40:4 50:5", 10, 20, 30, 40, 50)
	f("30:1 40:2 50:3", 30, 40, 50)
	f("50:1", 50)
	f("10:1 20:stale", 10)
	f("10:1 20:2 30:stale 40:3 50:stale", 10, 20, 40)
	f("10:1 20:stale 50:2", 10, 50)
	f("40:1 50:stale", 40)
}

func TestLanes(t *testing.T) {
	f := func(want []string, list ...segment) {
		t.Helper()
		var got []string
		for _, s := range lanes(list) {
			got = append(got, columnsText(s))
		}
		require.Equal(t, want, got)
	}
	f([]string{"10:1 20:2 30:1 40:2"}, evaluated("", 10, 20), evaluated("", 30, 40))
	f([]string{"10:1 20:2", "20:1 30:2"}, evaluated("", 10, 20), evaluated("", 20, 30))
	f([]string{"10:1 20:2 30:1 40:1", "20:1 25:2"}, evaluated("", 10, 20), evaluated("", 20, 25), evaluated("", 30), evaluated("", 40))
	f(nil)
}

func TestJoin(t *testing.T) {
	st := transport.Steps{Start: 10, End: 50, Step: 10}
	one, two := Answer{}, Answer{}
	one.series = []segment{evaluated("b", 10, 20), evaluated("a", 10, 20, 30, 40, 50)}
	two.series = []segment{evaluated("b", 40, 50), evaluated("a", 20), evaluated("c", 50)}
	one.Warnings.Add(newAnnotation("x (1:1)", annotations.PromQLInfo, nil))
	two.Warnings.Add(newAnnotation("y (1:1)", annotations.PromQLWarning, nil))
	var ws annotations.Annotations
	var got []string
	for _, s := range Join([]Answer{two, {}, one}, st, &ws) {
		text := s.Labels().String()
		it := s.Iterator(nil)
		for it.Next() != chunkenc.ValNone {
			ts, v := it.At()
			text += fmt.Sprintf(" %d:%g", ts, v)
		}
		got = append(got, text)
	}
	require.Equal(t, []string{
		`{i="a"} 10:1 20:2 30:3 40:4 50:5`, `{i="a"} 20:1 30:NaN`,
		`{i="b"} 10:1 20:2 30:NaN 40:1 50:2`, `{i="c"} 50:1`,
	}, got)
	warnings, infos := ws.AsStrings("", 0, 0)
	require.Equal(t, []string{"y (1:1)"}, warnings)
	require.Equal(t, []string{"x (1:1)"}, infos)
}

func TestAnnotation(t *testing.T) {
	positions := map[string]string{"1:5": "2:7", "1:1": "1:1"}
	for text, want := range map[string]string{"a (1:5)": "a (2:7)", "a (1:50)": "a (1:50)", "a (1:5) b": "a (1:5) b", "a (1:1)": "a (1:1)", "a": "a"} {
		n := newAnnotation(text, annotations.PromQLInfo, positions)
		require.Equal(t, strings.TrimSuffix(want, " ("+n.at.String()+")"), n.Error())
		n.SetQuery("")
		require.Equal(t, want, n.Error())
	}
	// Of those with one text, the last in the query is shown.
	var ws annotations.Annotations
	for _, at := range []string{"1:9", "2:10", "2:9", "1:30"} {
		ws.Add(newAnnotation("a ("+at+")", annotations.PromQLInfo, nil))
	}
	warnings, infos := ws.AsStrings("", 0, 0)
	require.Empty(t, warnings)
	require.Equal(t, []string{"a (2:10)"}, infos)
}

// TestVerify: sums of an average that are infinite, and mixtures, make a part doubtful.
func TestVerify(t *testing.T) {
	infinite := Answer{series: []segment{evaluated("a", 1, 2)}}
	infinite.series[0].samples.F[1] = math.Inf(-1)
	require.ErrorIs(t, infinite.Verify(&plan.Part{Averages: true}), ErrDoubtful)
	require.NoError(t, infinite.Verify(&plan.Part{}))
	var mixed Answer
	mixed.Warnings.Add(newAnnotation("PromQL warning: encountered a mix of histograms and floats for aggregation (1:1)", annotations.PromQLWarning, nil))
	require.ErrorIs(t, mixed.Verify(&plan.Part{Adds: true}), ErrDoubtful)
	require.NoError(t, mixed.Verify(&plan.Part{}))
}
