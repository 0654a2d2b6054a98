package audit

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/evidence"
	"github.com/oneprom/oneprom/servergroup/lifetime"
	"github.com/oneprom/oneprom/servergroup/replica"
	"github.com/oneprom/oneprom/servergroup/targets"
)

// world is an auditor with a group of one replica that is asked nothing.
type world struct {
	*Group
	life *lifetime.Lifetime
	only *replica.Replica
}

func newWorld(t *testing.T, share float64, random func() float64) world {
	life := lifetime.New()
	t.Cleanup(life.End)
	m := replica.NewMetrics(prometheus.NewRegistry())
	logger := slog.New(slog.DiscardHandler)
	cfg := config.DefaultGroup
	cfg.Name = "g"
	reg := replica.NewRegistry(replica.RegistryOptions{Life: life, Now: time.Now, Logger: logger}, m)
	only := reg.NewReplica(replica.Group{Config: &cfg, Client: http.DefaultClient, Logger: logger}, targets.Endpoint{URL: &url.URL{Scheme: "http", Host: "a"}})
	a := New(Options{Share: share, Life: life, Now: time.Now, Random: random, Metrics: m, Logger: logger})
	return world{a.NewGroup(&cfg, &evidence.Losses{}, logger), life, only}
}

func (w world) counted(outcome string) float64 {
	return testutil.ToFloat64(w.auditor.Metrics.Audits.WithLabelValues(outcome, "g", ""))
}

// alone is an answer of a replica that has no twin: its audit ends at once, as failed.
func (w world) alone() Answer { return Answer{Replica: w.only, Replicas: []*replica.Replica{w.only}} }

func never(t *testing.T) func() Answer {
	return func() Answer {
		require.Fail(t, "it was not to be looked at")
		return Answer{}
	}
}

func over() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func TestOffer_Share(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		drawn := 0.0
		w := newWorld(t, 0.5, func() float64 { return drawn })
		w.Offer(over(), w.alone)
		synctest.Wait()
		require.Equal(t, 1.0, w.counted(failed))
		drawn = 0.5
		w.Offer(over(), never(t))
		newWorld(t, 0, func() float64 { panic("nothing is drawn") }).Offer(over(), never(t))
		(*Group)(nil).Offer(over(), never(t))
	})
}

// TestOffer_WhenTheQueryIsOver: the audit waits for that, but not for ever, and holds the only slot.
func TestOffer_WhenTheQueryIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, nil)
		query, end := context.WithCancel(t.Context())
		w.Offer(query, w.alone)
		synctest.Wait()
		require.Zero(t, w.counted(failed))
		w.Offer(over(), never(t))
		require.Equal(t, 1.0, w.counted(busy))
		end()
		synctest.Wait()
		require.Equal(t, 1.0, w.counted(failed))
		w.Offer(t.Context(), w.alone)
		time.Sleep(longestQuery)
		synctest.Wait()
		require.Equal(t, 2.0, w.counted(failed))
	})
}

func TestOffer_EndsWithGroupAndProcess(t *testing.T) {
	for name, end := range map[string]func(world){"group": func(w world) { w.End() }, "process": func(w world) { w.life.End() }} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 1, nil)
				w.Offer(t.Context(), w.alone)
				end(w)
				synctest.Wait()
				require.False(t, w.auditor.busy.Load())
				w.Offer(over(), w.alone)
				synctest.Wait()
				require.False(t, w.auditor.busy.Load())
				require.Zero(t, w.counted(failed))
			})
		})
	}
}

// TestBudget: what an audit has fetched must be earned before the next one begins.
func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, nil)
		w.Loaded(1 << 40) // more than it can save
		w.spend(savedBytes + 1000)
		w.Offer(over(), never(t))
		require.Equal(t, 1.0, w.counted(overBudget))
		w.Loaded(partOfLoad * 1000)
		w.Offer(over(), never(t))
		require.Equal(t, 2.0, w.counted(overBudget))
		w.Loaded(partOfLoad)
		w.Offer(over(), w.alone)
		synctest.Wait()
		require.Equal(t, 1.0, w.counted(failed))
	})
}

// TestWindowOf: only what is settled is looked at, and at most longestWindow of it.
func TestWindowOf(t *testing.T) {
	drawn := 0.0
	w := newWorld(t, 1, func() float64 { return drawn })
	const h = 60 * minute
	w.auditor.Now = func() time.Time { return time.UnixMilli(100 * h) }
	settled := evidence.Settled(w.auditor.Now())
	f := func(from, to int64, want, fetched evidence.Span) {
		t.Helper()
		got, ok := w.windowOf(Selection{Windows: []evidence.Span{{From: from, To: to}}})
		require.True(t, ok)
		require.Equal(t, window{want, fetched}, got)
	}
	f(90*h, 91*h, evidence.Span{From: 90 * h, To: 91 * h}, evidence.Span{From: 90*h - 6*minute, To: 91*h + 6*minute})
	f(99*h, 100*h, evidence.Span{From: 99 * h, To: settled}, evidence.Span{From: 99*h - 6*minute, To: settled})
	f(80*h, 90*h, evidence.Span{From: 80 * h, To: 82 * h}, evidence.Span{From: 80*h - 6*minute, To: 82*h + 6*minute})
	drawn = 0.5
	f(80*h, 90*h, evidence.Span{From: 84 * h, To: 86 * h}, evidence.Span{From: 84*h - 6*minute, To: 86*h + 6*minute})
	_, ok := w.windowOf(Selection{Windows: []evidence.Span{{From: settled, To: 100 * h}}})
	require.False(t, ok)
	w.config.TimeRange.End = config.Time{Time: time.UnixMilli(91*h + minute)}
	f(90*h, 91*h, evidence.Span{From: 90 * h, To: 91 * h}, evidence.Span{From: 90*h - 6*minute, To: 91*h + minute})
}
