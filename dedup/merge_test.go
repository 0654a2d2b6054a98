package dedup

import (
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"
)

func TestMerge(t *testing.T) {
	for _, tc := range []struct {
		name string
		runs []string
		want string
	}{
		// What is there.
		{"no runs", nil, ""},
		{"empty runs", []string{"", ""}, ""},
		{"one run", []string{"0:1 15:2"}, "0:1 15:2"},
		{"empty runs are skipped", []string{"", "0:1 15:2", ""}, "0:1 15:2"},
		{"A wins at equal times", []string{"0:1 15:2 30:3", "0:7 15:8 30:9"}, "0:1 15:2 30:3"},
		{"A's marker loses against a value", []string{"0:1 15:s 30:3", "0:7 15:8 30:9"}, "0:1 15:8 30:3"},
		{"A's value wins against a marker", []string{"0:1 15:2 30:3", "0:7 15:s 30:9"}, "0:1 15:2 30:3"},

		// Shared clocks.
		{"shared: both miss some", []string{"0:0 15:1 45:3 75:5", "0:0 30:2 45:3 60:4 75:5"}, "0:0 15:1 30:2 45:3 60:4 75:5"},
		{"shared: irregular", []string{"0:0 4:1 29:3 31:4 50:6", "0:0 4:1 11:2 31:4 49:5 50:6"}, "0:0 4:1 11:2 29:3 31:4 49:5 50:6"},
		{"shared: before and after", []string{"30:2 45:3 60:4", "0:0 15:1 30:2 45:3 60:4 75:5"}, "0:0 15:1 30:2 45:3 60:4 75:5"},
		{"shared: odd milliseconds", []string{"0.117:0 30.117:2 45.118:3", "0.117:0 15.119:1 30.117:2"}, "0.117:0 15.119:1 30.117:2 45.118:3"},
		{"A away, B alone, after a marker", []string{"0:0 15:1 30:s", "0:0 15:1 300:9"}, "0:0 15:1 30:s 300:9"},
		{"shared: a marker from B", []string{"0:0 15:1 300:9", "0:0 15:1 30:s 300:9"}, "0:0 15:1 30:s 300:9"},
		{"shared: B lost its marker", []string{"0:0 15:1 30:s 45:3 60:4", "0:0 15:1 45:3 60:4"}, "0:0 15:1 30:s 45:3 60:4"},
		{"shared: no second marker", []string{"0:0 15:1 30:s 60:4", "0:0 15:1 45:s 60:4"}, "0:0 15:1 30:s 60:4"},
		{"shared: more coincide than contradict", []string{"0:0 30:1 60:2 90:3", "0:0 34:7 60:2"}, "0:0 30:1 34:7 60:2 90:3"},
		{"as many contradict as coincide", []string{"0:0 30:1 60:2 90:3", "0:0 34:7 70:8"}, "0:0 30:1 60:2 90:3"},
		{"tiny, equal phase", []string{"0:0 20:2", "10:1"}, "0:0 10:1 20:2"},
		{"tiny, equal phase, one each", []string{"10:1", "0:0"}, "0:0 10:1"},
		{"tiny, another phase", []string{"0:0 20:2", "10.123:1"}, "0:0 20:2"},
		{"tiny, phases of neighbours differ", []string{"0:0 20.5:2", "10:1"}, "0:0 20.5:2"},
		{"tiny, more contradicts than coincides", []string{"0:0 15:1", "7:1 22:2"}, "0:0 15:1"},

		// Different clocks: B lies 7 s later.
		{"A is whole", []string{"0..90/15", "7..97/15"}, "0..90/15"},
		{"A misses one", []string{"0..30/15 60..90/15", "7..97/15"}, "0..30/15 52:52 60..90/15"},
		{"A misses two", []string{"0..30/15 75..120/15", "7..127/15"}, "0..30/15 52:52 67:67 75..120/15"},
		{"half an interval away is far enough", []string{"0..30/15 60..90/15", "7.5..97.5/15"}, "0..30/15 37.5:37.5 52.5:52.5 60..90/15"},
		{"both miss the same", []string{"0..30/15 60..90/15", "7..22/15 67..97/15"}, "0..30/15 60..90/15"},
		{"B misses, A has", []string{"0..90/15", "7..22/15 67..97/15"}, "0..90/15"},
		{"B's last scrape before A's first is no gap", []string{"15..90/15", "7..97/15"}, "15..90/15"},
		{"A starts later", []string{"60..120/15", "7..127/15"}, "7..52/15 60..120/15"},
		{"A ends sooner", []string{"0..60/15", "7..127/15"}, "0..60/15 82..127/15"},
		{"B goes on for less than 1.5 intervals", []string{"0..60/15", "7..82/15"}, "0..60/15"},
		{"A was away", []string{"0..60/15 900..960/15", "7..67/15 307..367/15"}, "0..60/15 307..367/15 900..960/15"},
		{"A was away, B alone", []string{"0..60/15 900..960/15", "307:1"}, "0..60/15 307:1 900..960/15"},
		{"B before A", []string{"900..960/15", "7..67/15"}, "7..67/15 900..960/15"},
		{"an outage of each", []string{"0..60/15 135..240/15", "7..142/15 202..240/15"}, "0..60/15 82..127/15 135..240/15"},
		{"interval from B", []string{"0..15/15 60..60/15", "7..67/15"}, "0..15/15 37:37 52:52 60:60"},
		{"five minutes, another clock", []string{"0..1500/300", "100..1600/300"}, "0..1500/300"},
		{"five minutes, A misses one", []string{"0..600/300 1200..1500/300", "100..1600/300"}, "0..600/300 1000:1000 1200..1500/300"},

		// Stale markers on different clocks.
		{"a complete A with its marker", []string{"0..60/15 75:s", "7..67/15 82:s"}, "0..60/15 75:s"},
		{"B ended first", []string{"0..60/15 75:s", "7..52/15 67:s"}, "0..60/15 75:s"},
		{"B's last value comes after A's marker is due", []string{"0..60/15 75:s 120..180/15", "7..67/15 82:s 127..187/15"}, "0..60/15 75:s 120..180/15"},
		{"B goes on over A's marker", []string{"0..45/15 60:s 75..120/15", "7..127/15"}, "0..45/15 67:67 75..120/15"},
		{"B goes on after A's end", []string{"0..45/15 60:s", "7..127/15"}, "0..45/15 67..127/15"},
		{"B goes on, and ends", []string{"0..45/15 60:s", "7..112/15 127:s"}, "0..45/15 67..112/15 127:s"},
		{"B goes on once, and ends", []string{"0..45/15 60:s", "7..67/15 82:s"}, "0..45/15 67:67 82:s"},
		{"B was stale across A's marker", []string{"0..45/15 60:s 75..120/15", "7..37/15 52:s 67..127/15"}, "0..45/15 60:s 75..120/15"},
		{"B comes back later", []string{"0..45/15 60:s 300..360/15", "7..52/15 67:s 247..367/15"}, "0..45/15 60:s 247..292/15 300..360/15"},
		{"B's marker alone", []string{"0..120/15", "7..52/15 67:s 112..127/15"}, "0..120/15"},
		{"B's marker ends its fill", []string{"0..45/15 300..360/15", "7..97/15 112:s"}, "0..45/15 67..97/15 112:s 300..360/15"},
		{"A goes on after B's marker", []string{"0..45/15 120..180/15", "7..97/15 112:s"}, "0..45/15 67..97/15 120..180/15"},
		{"one marker for a fill", []string{"0..45/15 300..360/15", "7..97/15 112:s 127:s"}, "0..45/15 67..97/15 112:s 300..360/15"},
		{"only markers of B", []string{"0..45/15 300..360/15", "112:s"}, "0..45/15 300..360/15"},

		// Orders.
		{
			"third fills what two leave",
			[]string{"0..30/15 135..180/15", "7..67/15 142..187/15", "3..183/15"},
			"0..30/15 52:52 67:67 78..123/15 135..180/15",
		},
		{"the order decides", []string{"3..183/15", "7..67/15 142..187/15", "0..30/15 135..180/15"}, "3..183/15"},
		{"two fills after each other", []string{"0..30/15", "0..45/15", "0..60/15", "0..75/15"}, "0..75/15"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var runs []*Samples
			var before []string
			for _, r := range tc.runs {
				runs = append(runs, run(t, r))
				before = append(before, text(runs[len(runs)-1]))
			}
			require.Equal(t, text(run(t, tc.want)), text(merge(runs...)))
			for i, r := range runs {
				require.Equal(t, before[i], text(r), "a run was written to")
			}
		})
	}
}

func TestMergeReturnsTheRunItself(t *testing.T) {
	whole := run(t, "0..600/15 615:s")
	for _, other := range []string{"", "0..600/15 615:s", "7..607/15 622:s", "0..300/15", "105..405/15"} {
		require.Same(t, whole, merge(whole, run(t, other)), other)
		require.Same(t, whole, merge(run(t, ""), whole, run(t, other), run(t, other)), other)
	}
	dst := &Samples{}
	require.Same(t, dst, Merge(dst, nil))
	short := run(t, "0..300/15")
	require.Same(t, dst, Merge(dst, []*Samples{short, whole}))
	require.Same(t, dst, Merge(dst, []*Samples{short, run(t, "0..400/15"), run(t, "0..500/15"), whole}))
	require.Same(t, dst, Merge(dst, []*Samples{short, run(t, "0..400/15"), short}))
	require.Equal(t, text(run(t, "0..400/15")), text(dst))
}

func TestMergeHistograms(t *testing.T) {
	const (
		unknown = histogram.UnknownCounterReset
		not     = histogram.NotCounterReset
		reset   = histogram.CounterReset
		gauge   = histogram.GaugeType
	)
	hist := func(at, st int64, hint histogram.CounterResetHint, s *Samples) {
		h := tsdbutil.GenerateTestHistogram(at)
		h.CounterResetHint = hint
		s.AppendHistogram(st*1000, at*1000, h)
	}
	a, b := &Samples{}, &Samples{}
	hist(0, 1, unknown, a)
	hist(15, 2, not, a)
	b.Append(3000, 7000, 1) // floats and histograms mix
	hist(22, 4, reset, b)
	for at := int64(37); at < 90; at += 15 {
		hist(at, at, not, b)
	}
	hist(90, 9, not, a)
	hist(105, 9, not, a)
	wantT := []int64{0, 15000, 37000, 52000, 67000, 82000, 90000, 105000}
	wantST := []int64{1000, 2000, 37000, 52000, 67000, 82000, 9000, 9000}
	wantHints := []histogram.CounterResetHint{unknown, not, unknown, not, not, not, unknown, not}
	got := merge(a, b)
	require.Equal(t, wantT, got.T)
	require.Equal(t, wantST, got.ST)
	for i, h := range got.H {
		require.Equal(t, wantHints[i], h.CounterResetHint, "sample %d", i)
	}
	require.Equal(t, not, a.H[2].CounterResetHint, "shared histograms are not written to")
	require.Equal(t, not, b.H[2].CounterResetHint)
	require.Same(t, a.H[3], got.H[7], "others are not copied")

	for _, h := range append(append([]*histogram.Histogram{}, a.H...), b.H...) {
		if h != nil {
			h.CounterResetHint = gauge
		}
	}
	for i, h := range merge(a, b).H {
		require.Equal(t, gauge, h.CounterResetHint, "sample %d", i)
	}
}

func TestMergeForgetsResetsAfterADroppedMarker(t *testing.T) {
	a := &Samples{}
	for at := int64(0); at < 120; at += 15 {
		h := tsdbutil.GenerateTestFloatHistogram(at)
		h.CounterResetHint = histogram.NotCounterReset
		if at == 60 {
			h = &histogram.FloatHistogram{Sum: StaleNaN}
		}
		a.AppendFloatHistogram(0, at*1000, h)
	}
	// B shows that the series went on, but its samples are too near to A's.
	b := run(t, "50:1 74:1 80:1")
	got := merge(a, b)
	require.Equal(t, []int64{0, 15000, 30000, 45000, 75000, 90000, 105000}, got.T)
	require.Equal(t, histogram.NotCounterReset, got.FH[3].CounterResetHint)
	require.Equal(t, histogram.UnknownCounterReset, got.FH[4].CounterResetHint)
	require.Equal(t, histogram.NotCounterReset, got.FH[5].CounterResetHint)
	require.Equal(t, histogram.NotCounterReset, a.FH[5].CounterResetHint)
}

func TestLowMedian(t *testing.T) {
	for _, tc := range []struct {
		sorted []int64
		but    int64
		want   int64
	}{
		{nil, 0, 0},
		{[]int64{5}, 5, 0},
		{[]int64{5}, 0, 5},
		{[]int64{3, 5}, 0, 3},
		{[]int64{3, 5}, 3, 5},
		{[]int64{3, 5}, 5, 3},
		{[]int64{1, 2, 3}, 0, 2},
		{[]int64{1, 2, 3}, 1, 2},
		{[]int64{1, 2, 3}, 2, 1},
		{[]int64{1, 2, 3}, 3, 1},
		{[]int64{1, 2, 3, 4}, 1, 3},
		{[]int64{1, 2, 3, 4}, 4, 2},
		{[]int64{4, 4, 4, 9}, 4, 4},
	} {
		got, ok := lowMedian(tc.sorted, tc.but)
		require.Equal(t, tc.want, got, "%v without %d", tc.sorted, tc.but)
		require.Equal(t, tc.want != 0, ok)
	}
}

func TestMarginOf(t *testing.T) {
	require.Equal(t, int64(0), MarginOf(0))
	require.Equal(t, int64(0), MarginOf(1))
	require.Equal(t, int64(Margin), MarginOf(2))
	require.Equal(t, int64(2*Margin), MarginOf(3))
}
