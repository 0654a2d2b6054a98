package demo

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var testEnd = time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)

func planOf(t *testing.T, name string) *plan {
	t.Helper()
	for _, p := range plans(testEnd) {
		if p.name == name {
			return &p
		}
	}
	require.FailNow(t, "no such server", name)
	return nil
}

func TestPlan_ReplicaBScrapesHalfAnIntervalApart(t *testing.T) {
	a, b := planOf(t, "eu-a"), planOf(t, "eu-b")
	seen := map[time.Duration]bool{}
	for i := range 200 {
		at := testEnd.Add(time.Duration(i) * interval)
		require.Equal(t, at, a.scrapedAt(at))
		late := b.scrapedAt(at).Sub(at.Add(-interval / 2))
		require.LessOrEqual(t, late.Abs(), 3*time.Millisecond)
		seen[late] = true
	}
	require.Len(t, seen, 7, "from 3 ms early to 3 ms late")
}

// What one replica of a pair misses, the other has: the truth is always known.
func TestPlans_NoSampleIsMissedByBothReplicas(t *testing.T) {
	for _, region := range regions {
		a, b := planOf(t, region+"-a"), planOf(t, region+"-b")
		missed := 0
		for at := testEnd.Add(-history); !at.After(testEnd); at = at.Add(interval) {
			require.False(t, a.misses(at) && b.misses(at), "%s at %s", region, at)
			if a.misses(at) {
				missed++
			}
		}
		require.Positive(t, missed, region)
		require.Empty(t, b.without)
	}
}

func TestSeries_CountersFallOnceAtTheRestart(t *testing.T) {
	truth := planOf(t, "truth")
	all := truth.seriesOf(testEnd)
	require.Len(t, all, 2*(4*5+2*3))
	require.Len(t, planOf(t, "eu-a").seriesOf(testEnd), 4*5+3, "without node-2")
	for _, s := range all {
		var count func(ms int64) float64
		switch s.labels.Get("__name__") {
		case "http_requests_total":
			count = s.value
		case "http_request_duration_seconds":
			count = func(ms int64) float64 {
				h := s.histogram(ms)
				require.NoError(t, h.Validate())
				return float64(h.Count)
			}
		default:
			continue
		}
		falls := 0
		before := testEnd.Add(-history)
		for at := before.Add(interval); !at.After(testEnd); at = at.Add(interval) {
			if count(at.UnixMilli()) < count(before.UnixMilli()) {
				falls++
			}
			before = at
		}
		require.Equal(t, 1, falls, s.labels)
	}
}

func TestLive_EndsWithItsClock(t *testing.T) {
	ticks := make(chan time.Time)
	close(ticks)
	w := &world{}
	require.ErrorIs(t, w.live(t.Context(), clock{now: time.Now, ticks: ticks}), errClock)
}
