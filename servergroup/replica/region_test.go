package replica

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/health"
	"github.com/oneprom/oneprom/servergroup/lifetime"
	"github.com/oneprom/oneprom/servergroup/targets"
)

// TestAttempt_RegionsHaveSlots: those of one region do not take those of another.
func TestAttempt_RegionsHaveSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := make([]*Replica, 3)
		life := lifetime.New()
		t.Cleanup(life.End)
		h := NewRegistry(RegistryOptions{Life: life, Now: time.Now, Logger: slog.New(slog.DiscardHandler)}, NewMetrics(prometheus.NewRegistry()))
		for i, host := range []string{"a", "b", "c"} {
			list[i] = h.NewReplica(Group{Config: &config.DefaultGroup, Client: http.DefaultClient, Logger: slog.New(slog.DiscardHandler)}, targets.Endpoint{URL: &url.URL{Scheme: "http", Host: host}})
		}
		list[0].region, list[1].region = health.NewSlots(1), health.NewSlots(1)
		list[2].region = list[0].region
		go func() {
			_ = list[0].Attempt(t.Context(), false, func(context.Context) error { time.Sleep(10 * time.Second); return nil })
		}()
		synctest.Wait()
		began := time.Now()
		require.NoError(t, list[1].Attempt(t.Context(), false, func(context.Context) error { return nil }))
		require.Zero(t, time.Since(began))
		require.NoError(t, list[2].Attempt(t.Context(), false, func(context.Context) error { return nil }))
		require.Equal(t, 10*time.Second, time.Since(began))
	})
}
