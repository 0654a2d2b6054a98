package pushdown

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/findings"
)

// TestAccount_MostOfTheLoadIsAFinding, and a part of it is not. It is logged once.
func TestAccount_MostOfTheLoadIsAFinding(t *testing.T) {
	var log bytes.Buffer
	a := NewMetrics(prometheus.NewRegistry()).NewAccount("g", "r", slog.New(slog.NewTextHandler(&log, nil)))
	now := time.Unix(1_000_000, 0)
	count := func(evaluated, lost int, why Reason) {
		for range evaluated {
			a.Evaluated(now)
		}
		for range lost {
			a.Lost(why, now)
		}
	}
	count(0, fewest-1, Features)
	require.Empty(t, a.Findings.List(now), "a few queries are no load")
	count(0, 1, Features)
	require.Len(t, a.Findings.List(now), 1)
	require.Contains(t, a.Findings.List(now)[0], "--enable-feature")
	count(0, 1000, Features)
	require.Equal(t, 1, strings.Count(log.String(), "msg=finding"))

	// What has changed since is forgotten.
	now = now.Add(findings.Age + time.Second)
	count(fewest, fewest, Version)
	require.Empty(t, a.Findings.List(now), "half of the load is not most of it")
	now = now.Add(window)
	count(0, 1, Version)
	require.Len(t, a.Findings.List(now), 1, "the window before counts")
	require.Contains(t, a.Findings.List(now)[0], "upgrade")

	// Where nothing can be changed, there is nothing to say.
	now = now.Add(findings.Age + time.Second)
	count(0, fewest, Dialect)
	count(0, fewest, "")
	require.Empty(t, a.Findings.List(now))

	var none *Account
	none.Evaluated(now)
	none.Lost(Off, now)
}

func TestMetrics_ForgetGroup(t *testing.T) {
	m := NewMetrics(prometheus.NewRegistry())
	a := m.NewAccount("g", "r", slog.New(slog.DiscardHandler))
	a.Evaluated(time.Time{})
	a.Lost(Off, time.Time{})
	m.ForgetGroup("g")
	require.Zero(t, testutil.CollectAndCount(m.lost)+testutil.CollectAndCount(m.evaluated))
}
