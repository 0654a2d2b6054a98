package transport

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestClock(t *testing.T) {
	asked := time.Date(2026, 1, 2, 3, 4, 5, 600_000_000, time.UTC)
	came := asked.Add(10 * time.Second)
	f := func(want time.Duration, date string, header ...string) {
		t.Helper()
		c := &Clock{}
		h := http.Header{"Date": {date}}
		for _, name := range header {
			h.Set(name, "1")
		}
		c.observe(h, asked, came)
		require.Equal(t, want, c.Ahead())
	}
	f(0, "Fri, 02 Jan 2026 03:04:05 GMT") // in the second in which it was asked
	f(0, "Fri, 02 Jan 2026 03:04:10 GMT")
	f(0, "Fri, 02 Jan 2026 03:04:15 GMT")
	f(400*time.Millisecond, "Fri, 02 Jan 2026 03:04:16 GMT")
	f(3*time.Hour-15*time.Second-600*time.Millisecond, "Fri, 02 Jan 2026 06:04:00 GMT", "X")
	f(-600*time.Millisecond, "Fri, 02 Jan 2026 03:04:04 GMT")
	f(-time.Hour-600*time.Millisecond, "Fri, 02 Jan 2026 02:04:04 GMT")
	f(0, "Fri, 02 Jan 2026 02:04:04 GMT", "Age") // from a cache
	f(0, "yesterday")
	f(0, "")

	var none *Clock
	none.observe(http.Header{"Date": {"Fri, 02 Jan 2026 02:04:04 GMT"}}, asked, came)
	require.Zero(t, none.Ahead())
}

func TestClock_TheLastAnswerCounts(t *testing.T) {
	c := &Clock{}
	now := time.Now()
	c.observe(http.Header{"Date": {now.Add(time.Hour).UTC().Format(http.TimeFormat)}}, now, now)
	require.Greater(t, c.Ahead(), 59*time.Minute)
	c.observe(http.Header{"Date": {now.UTC().Format(http.TimeFormat)}}, now, now)
	require.Zero(t, c.Ahead())
}
