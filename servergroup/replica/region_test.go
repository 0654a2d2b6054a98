package replica

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/health"
	"github.com/oneprom/oneprom/servergroup/lifetime"
	"github.com/oneprom/oneprom/servergroup/request"
	"github.com/oneprom/oneprom/servergroup/targets"
)

// inRegions are replicas, each in the region of that index, which has the given number of slots.
func inRegions(t *testing.T, slots int, regions ...string) []*Replica {
	life := lifetime.New()
	t.Cleanup(life.End)
	reg := NewRegistry(RegistryOptions{Life: life, Now: time.Now, Logger: slog.New(slog.DiscardHandler), RegionConcurrency: slots}, NewMetrics(prometheus.NewRegistry()))
	list := make([]*Replica, len(regions))
	for i, region := range regions {
		cfg := config.DefaultGroup
		cfg.Region, cfg.MaxConcurrency = region, 1
		list[i] = reg.NewReplica(Group{Config: &cfg, Client: http.DefaultClient, Logger: slog.New(slog.DiscardHandler)},
			targets.Endpoint{URL: &url.URL{Scheme: "http", Host: strconv.Itoa(i)}})
		list[i].Health.SetProbe(func(context.Context) error { return nil })
	}
	return list
}

func sleepy(context.Context) error { time.Sleep(10 * time.Second); return nil }

func atOnce(context.Context) error { return nil }

// TestAttempt_RegionsHaveSlots: those of one region do not take those of another.
func TestAttempt_RegionsHaveSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := inRegions(t, 1, "x", "y", "x")
		go func() { _ = list[0].Attempt(t.Context(), false, sleepy) }()
		synctest.Wait()
		began := time.Now()
		require.NoError(t, list[1].Attempt(t.Context(), false, atOnce))
		require.Zero(t, time.Since(began))
		require.NoError(t, list[2].Attempt(t.Context(), false, atOnce))
		require.Equal(t, 10*time.Second, time.Since(began))
	})
}

// TestAttempt_WhoWaitsForAReplicaHoldsNoSlotOfItsRegion: else the other replicas of the region would
// have nothing to do while somebody waits for them.
func TestAttempt_WhoWaitsForAReplicaHoldsNoSlotOfItsRegion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := inRegions(t, 2, "x", "x")
		for range 3 {
			go func() { _ = list[0].Attempt(t.Context(), false, sleepy) }()
		}
		synctest.Wait()
		began := time.Now()
		require.NoError(t, list[1].Attempt(t.Context(), false, atOnce))
		require.Zero(t, time.Since(began))
		time.Sleep(time.Minute)
	})
}

// TestAttempt_TurnsAreByQueryAndClient of the request that servers are asked for.
func TestAttempt_TurnsAreByQueryAndClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := inRegions(t, 0, "")[0]
		one := func(client string) context.Context {
			return request.With(t.Context(), func(q *request.Request) { q.Asker = &health.Asker{Client: client} })
		}
		many := one("a")
		for range 3 {
			go func() { _ = r.Attempt(many, false, sleepy) }()
			synctest.Wait()
		}
		began := time.Now()
		require.NoError(t, r.Attempt(one("b"), false, atOnce))
		require.Equal(t, 20*time.Second, time.Since(began), "of three that had come before, one has its turn first")
		time.Sleep(time.Minute)
	})
}
