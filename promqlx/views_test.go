package promqlx

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// seriesWith is a series of samples.
func seriesWith(s *dedup.Samples) *dedup.Series {
	return dedup.NewSeries(labels.FromStrings("a", "b"), []dedup.Run{s}, 0, 1000, nil)
}

// viewText prints what a series shows; histograms as their count.
func viewText(t *testing.T, s *viewed) string {
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

// TestViewed: at each step the latest sample of the lookback, which is open to the
// left, and a stale marker where there is none after one.
func TestViewed(t *testing.T) {
	floats := &dedup.Samples{}
	for _, at := range []int64{5, 20, 22, 60} {
		floats.Append(0, at, float64(at))
	}
	floats.Append(0, 75, dedup.StaleNaN)
	floats.Append(0, 95, 95)
	f := func(want string, raw *dedup.Samples, st transport.Steps) {
		t.Helper()
		s := &viewed{steps: st, stretches: []stretch{{labels: labels.FromStrings("a", "b"), view: &view{raw: seriesWith(raw), steps: st}}}}
		require.Equal(t, want, viewText(t, s))
		require.Equal(t, want, viewText(t, s), "read again")
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

// TestViewed_InTurns: stretches follow each other, what was answered there too.
func TestViewed_InTurns(t *testing.T) {
	raw := &dedup.Samples{}
	for at := range int64(10) {
		raw.Append(0, 10*at, float64(at))
	}
	all := transport.Steps{Start: 0, End: 80, Step: 10, Lookback: 10}
	early, late := all, all
	early.End, late.Start = 20, 60
	s := &viewed{steps: all, stretches: []stretch{
		{labels: labels.FromStrings("a", "b"), view: &view{raw: seriesWith(raw), steps: early}},
		evaluated("", 40),
		{labels: labels.FromStrings("a", "b"), view: &view{raw: seriesWith(raw), steps: late}},
	}}
	require.Equal(t, "0:0 10:1 20:2 30:stale 40:1 50:stale 60:6 70:7 80:8", viewText(t, s))
}

// TestExecute_FetchedOnce: what several parts or selectors need of a replica.
func TestExecute_FetchedOnce(t *testing.T) {
	a, b := newStore(t, targets("", false)), newStore(t, targets("", true))
	c := newStore(t, targets("", true))
	pair, one := groupAt("g", map[string]string{"group": "g"}, a, b), groupAt("h", map[string]string{"group": "h"}, c)
	mergeAll(&pair)
	pushdownOff(&one)
	e := engineOver(t, config.PartialWarn, pair, one)
	all := truthOf(t, targets(`,group="g"`, true)+targets(`,group="h"`, true))
	asked := func(s *store) int {
		_, reads := s.asked()
		return len(slices.DeleteFunc(reads, func(name string) bool { return name != "m_total" }))
	}
	requireTruth(t, e, all, `m_total`, at(15, 16)) // probes
	asked(a)
	asked(b)
	f := func(times int, text string) {
		t.Helper()
		requireTruth(t, e, all, text, at(15, 60))
		require.Equal(t, []int{times, times}, []int{asked(a), asked(b)}, text)
	}
	f(1, `avg(m_total)`)
	f(1, `m_total / m_total`)
	f(1, `m_total{job="j",instance="t0"} + m_total{instance="t0",job="j"}`)
	f(1, `quantile(0.5, m_total) + sum(m_total)`)
	// What is among the series of another selector is not fetched, either.
	f(1, `sum(m_total{instance="t0"}) / sum(m_total)`)
	f(1, `sum(rate(m_total{instance=~"t0|t1",job="j"}[5m])) / sum(rate(m_total{job="j"}[5m])) * count(rate(m_total{job="j",instance="t2"}[5m]))`)
	f(1, `m_total{instance="t0"} * on (group) group_left () count by (group) (m_total) / on (group) group_left () sum by (group) (m_total{instance!="t1"})`)
	f(1, `rate(m_total{instance="t0"}[1m]) / rate(m_total[5m])`)
	f(2, `m_total{instance="t0"} / m_total{job="j"}`)
	f(2, `m_total{instance="t0"} / m_total offset 1m`)
	f(2, `sum(m_total{instance="t0"}) / sum(rate(m_total[5m]))`)
}
