package servergroup

import (
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
)

func TestRoute_TimeRange(t *testing.T) {
	now := time.Unix(100_000, 0)
	hour := model.Duration(time.Hour)
	at := func(sec int64) Time { return Time{time.Unix(sec, 0)} }
	f := func(r TimeRange, from, to, wantFrom, wantTo int64, skipped string) {
		t.Helper()
		cfg := &Config{Name: "g", TimeRange: r}
		got := groupView{cfg: cfg}.route(nil, from*1000, to*1000, now)
		require.Equal(t, skipped, got.Skipped)
		if skipped == "" {
			require.Equal(t, []int64{wantFrom * 1000, wantTo * 1000}, []int64{got.MinT, got.MaxT})
		}
	}
	none := TimeRange{}
	f(none, 1, 2, 1, 2, "")
	f(none, -5, 1<<40, -5, 1<<40, "")
	f(TimeRange{MinAge: hour}, 90_000, 100_000, 90_000, 96_400, "")
	f(TimeRange{MinAge: hour}, 97_000, 100_000, 0, 0, "its time_range ends before or starts after the window [1970-01-02T02:56:40.000Z, 1970-01-02T03:46:40.000Z]")
	f(TimeRange{MaxAge: hour}, 90_000, 100_000, 96_400, 100_000, "")
	f(TimeRange{MaxAge: hour}, 90_000, 96_399, 0, 0, "its time_range ends before or starts after the window [1970-01-02T01:00:00.000Z, 1970-01-02T02:46:39.000Z]")
	f(TimeRange{MaxAge: hour}, 90_000, 96_400, 96_400, 96_400, "")
	f(TimeRange{Start: at(50), End: at(60)}, 0, 100, 50, 60, "")
	f(TimeRange{Start: at(50), End: at(60)}, 61, 100, 0, 0, "its time_range ends before or starts after the window [1970-01-01T00:01:01.000Z, 1970-01-01T00:01:40.000Z]")
}

func TestDisjoint_NeedsALabelThatTellsApart(t *testing.T) {
	f := func(want bool, a, b map[string]string) {
		t.Helper()
		require.Equal(t, want, disjoint(&Config{Labels: a}, &Config{Labels: b}))
	}
	f(true, map[string]string{"r": "eu"}, map[string]string{"r": "us"})
	f(false, map[string]string{"r": "eu"}, map[string]string{"r": "eu"})
	f(false, map[string]string{"r": "eu"}, map[string]string{"s": "x"})
	f(false, nil, nil)
}
