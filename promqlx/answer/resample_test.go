package answer

import (
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// seriesWith is a series of samples.
func seriesWith(s *dedup.Samples) *dedup.Series {
	return dedup.NewSeries(labels.FromStrings("a", "b"), []dedup.Run{s}, 0, 1000, nil)
}

// shownText prints what a series shows; histograms as their count.
func shownText(t *testing.T, s *resampledSeries) string {
	t.Helper()
	var out []string
	it := s.Iterator(nil)
	for typ := it.Next(); typ != chunkenc.ValNone; typ = it.Next() {
		switch at := it.AtT(); typ {
		case chunkenc.ValFloat:
			_, v := it.At()
			text := fmt.Sprintf("%d:%g", at, v)
			out = append(out, strings.Replace(text, "NaN", "stale", 1))
		default:
			_, h := it.AtFloatHistogram(nil)
			out = append(out, fmt.Sprintf("%d:{%g}", at, h.Count))
		}
	}
	require.NoError(t, it.Err())
	return strings.Join(out, " ")
}

// TestResampled: at each step the latest sample of the lookback, which is open to the
// left, and a stale marker where there is none after one.
func TestResampled(t *testing.T) {
	floats := &dedup.Samples{}
	for _, at := range []int64{5, 20, 22, 60} {
		floats.Append(0, at, float64(at))
	}
	floats.Append(0, 75, dedup.StaleNaN)
	floats.Append(0, 95, 95)
	f := func(want string, raw *dedup.Samples, st transport.Steps) {
		t.Helper()
		s := &resampledSeries{steps: st, segments: []segment{{labels: labels.FromStrings("a", "b"), resampled: &resampled{raw: seriesWith(raw), onRead: func(int) {}, steps: st}}}}
		require.Equal(t, want, shownText(t, s))
		require.Equal(t, want, shownText(t, s), "read again")
	}
	f("10:5 20:20 30:22 40:22 50:stale 60:60 70:60 80:stale 100:95", floats, transport.Steps{Start: 0, End: 100, Step: 10, Lookback: 20})
	f("25:22 30:stale 60:60 65:60 70:stale 95:95 100:95", floats, transport.Steps{Start: 25, End: 100, Step: 5, Lookback: 5 + 1})
	f("100:95", floats, transport.Steps{Start: 0, End: 100, Step: 50, Lookback: 6})
	f("", floats, transport.Steps{Start: 200, End: 300, Step: 10, Lookback: 5})
	f("", &dedup.Samples{}, transport.Steps{Start: 0, End: 100, Step: 10, Lookback: 20})

	both := &dedup.Samples{}
	both.AppendHistogram(0, 10, tsdbutil.GenerateTestHistogram(0))
	both.AppendHistogram(0, 20, tsdbutil.GenerateTestHistogram(1))
	both.Append(0, 40, 1)
	n0, n1 := tsdbutil.GenerateTestFloatHistogram(0).Count, tsdbutil.GenerateTestFloatHistogram(1).Count
	f(fmt.Sprintf("10:{%g} 15:{%[1]g} 20:{%g} 25:{%[2]g} 30:{%[2]g} 35:stale 40:1 45:1", n0, n1), both, transport.Steps{Start: 0, End: 45, Step: 5, Lookback: 15})
}

// TestResampled_InTurns: segments follow each other, what was answered there too.
func TestResampled_InTurns(t *testing.T) {
	raw := &dedup.Samples{}
	for at := range int64(10) {
		raw.Append(0, 10*at, float64(at))
	}
	all := transport.Steps{Start: 0, End: 80, Step: 10, Lookback: 10}
	early, late := all, all
	early.End, late.Start = 20, 60
	s := &resampledSeries{steps: all, segments: []segment{
		{labels: labels.FromStrings("a", "b"), resampled: &resampled{raw: seriesWith(raw), onRead: func(int) {}, steps: early}},
		evaluated("", 40),
		{labels: labels.FromStrings("a", "b"), resampled: &resampled{raw: seriesWith(raw), onRead: func(int) {}, steps: late}},
	}}
	require.Equal(t, "0:0 10:1 20:2 30:stale 40:1 50:stale 60:6 70:7 80:8", shownText(t, s))
}
