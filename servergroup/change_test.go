package servergroup

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	commoncfg "github.com/prometheus/common/config"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/health"
)

// Preparing a change touches nothing: not even what is known of replicas that both have.
func TestChange_PrepareTouchesNothing(t *testing.T) {
	a, b := backend(t, ""), backend(t, "")
	cfg := groupOf("a", a)
	s := newTestSet(t, config.PartialWarn, cfg)
	before := s.current.Load()
	cfg = groupOf("a", a, b)
	_, err := s.Prepare([]config.Group{cfg}, config.PartialError)
	require.NoError(t, err)
	require.Same(t, before, s.current.Load())
	require.Equal(t, 1, s.registry.Len())
}

// TestChange_Rollback changes a group, and takes that back. Its replica is then probed as it
// was before.
func TestChange_Rollback(t *testing.T) {
	h := backendtest.NewHandler(backendtest.Options{Queryable: promqltest.LoadedStorage(t, "load 15s\n foo 1x3")})
	var broken atomic.Bool
	var asBefore, asNext atomic.Int64 // probes; what a profile needs may still be asked as next
	srv := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.FormValue("query") != "vector(1)":
		case r.Header.Get("X-Next") == "":
			asBefore.Add(1)
		default:
			asNext.Add(1)
		}
		if broken.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		h.ServeHTTP(w, r)
	}))
	s := newTestSet(t, config.PartialWarn, groupOf("a", srv))
	before := s.current.Load()
	r := (*before.groups()[0].replicas.Load())[0]
	next, other := groupOf("a", srv), groupOf("b", backend(t, ""))
	next.Headers = map[string]commoncfg.Secret{"X-Next": "1"}

	c, err := s.Prepare([]config.Group{next, other}, config.PartialError)
	require.NoError(t, err)
	require.NoError(t, c.Commit(t.Context()))
	require.Len(t, s.Status(), 2)
	s.refresh() // must not forget what a rollback needs
	require.NoError(t, c.Rollback())
	require.Same(t, before, s.current.Load())
	require.Equal(t, 1, s.registry.Len())
	got, ws, err := selectText(t, s, "foo", 0, 0)
	require.NoError(t, err)
	require.Empty(t, ws)
	require.Equal(t, `{__name__="foo"} 0:1`+"\n", got)

	broken.Store(true)
	for range 10 {
		_, _, _ = selectText(t, s, "foo", 0, hour)
	}
	require.Eventually(t, func() bool { return r.Health.State() == health.Open }, 5*time.Second, time.Millisecond)
	was, wasNext := asBefore.Load(), asNext.Load()
	require.Eventually(t, func() bool { return asBefore.Load() >= was+2 }, 10*time.Second, 10*time.Millisecond)
	require.Equal(t, wasNext, asNext.Load())
}

func TestChange_RollbackOfTheFirst(t *testing.T) {
	s := newTestSet(t, config.PartialWarn)
	s.current.Store(nil)
	c, err := s.Prepare([]config.Group{groupOf("a", backend(t, ""))}, config.PartialWarn)
	require.NoError(t, err)
	require.NoError(t, c.Commit(t.Context()))
	require.True(t, s.Ready())
	require.NoError(t, c.Rollback())
	require.False(t, s.Ready())
	require.Zero(t, s.registry.Len())
}

// TestChange_RollbackOfDiscovery: discovery has to begin anew, and the group has its targets
// meanwhile.
func TestChange_RollbackOfDiscovery(t *testing.T) {
	old, next := backend(t, ""), backend(t, "")
	sd := make(fixedSD, 1)
	sd <- targetsOf(old.URL)
	cfg := groupOf("a")
	cfg.ServiceDiscoveryConfigs = discovery.Configs{sd}
	s := newTestSet(t, config.PartialWarn, cfg)

	changed := groupOf("a")
	changed.ServiceDiscoveryConfigs = discovery.Configs{make(fixedSD)}
	c, err := s.Prepare([]config.Group{changed}, config.PartialWarn)
	require.NoError(t, err)
	impatient, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, c.Commit(impatient))
	require.NoError(t, c.Rollback())
	require.Never(t, func() bool { return len(urls(s.current.Load().groups()[0])) != 1 }, time.Second, 10*time.Millisecond)
	require.Equal(t, []string{old.URL}, urls(s.current.Load().groups()[0]))
	sd <- targetsOf(next.URL)
	require.Eventually(t, func() bool { return urls(s.current.Load().groups()[0])[0] == next.URL }, 10*time.Second, 10*time.Millisecond)
}
