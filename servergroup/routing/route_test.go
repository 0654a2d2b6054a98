package routing

import (
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/config"
)

func TestRoute_TimeRange(t *testing.T) {
	now := time.Unix(100_000, 0)
	hour := model.Duration(time.Hour)
	at := func(sec int64) config.Time { return config.Time{Time: time.Unix(sec, 0)} }
	f := func(r config.TimeRange, from, to, wantFrom, wantTo int64, skipped string) {
		t.Helper()
		cfg := &config.Group{Name: "g", TimeRange: r}
		got := To(cfg, nil, from*1000, to*1000, now)
		require.Equal(t, skipped, got.Skipped)
		if skipped == "" {
			require.Equal(t, []int64{wantFrom * 1000, wantTo * 1000}, []int64{got.MinT, got.MaxT})
		}
	}
	none := config.TimeRange{}
	f(none, 1, 2, 1, 2, "")
	f(none, -5, 1<<40, -5, 1<<40, "")
	f(config.TimeRange{MinAge: hour}, 90_000, 100_000, 90_000, 96_400, "")
	f(config.TimeRange{MinAge: hour}, 97_000, 100_000, 0, 0, "its time_range ends before or starts after the window [1970-01-02T02:56:40.000Z, 1970-01-02T03:46:40.000Z]")
	f(config.TimeRange{MaxAge: hour}, 90_000, 100_000, 96_400, 100_000, "")
	f(config.TimeRange{MaxAge: hour}, 90_000, 96_399, 0, 0, "its time_range ends before or starts after the window [1970-01-02T01:00:00.000Z, 1970-01-02T02:46:39.000Z]")
	f(config.TimeRange{MaxAge: hour}, 90_000, 96_400, 96_400, 96_400, "")
	f(config.TimeRange{Start: at(50), End: at(60)}, 0, 100, 50, 60, "")
	f(config.TimeRange{Start: at(50), End: at(60)}, 61, 100, 0, 0, "its time_range ends before or starts after the window [1970-01-01T00:01:01.000Z, 1970-01-01T00:01:40.000Z]")
}
