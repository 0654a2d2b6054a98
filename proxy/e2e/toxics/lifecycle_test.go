package toxics

import (
	"context"
	"errors"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest/fault"
)

// TestStart_WithEveryServerDown: whoever starts oneprom does not wait for servers, and hears of them
// from the answers.
func TestStart_WithEveryServerDown(t *testing.T) {
	w := sharedWorld()
	for name, f := range map[string]fault.Fault{"refusing": fault.Refuse(), "hanging": fault.Hang()} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, w)
			servers, ails := scopes[3].within(r, false)
			r.set(t, f, servers)
			began := time.Now()
			r.start(t)
			require.Less(t, time.Since(began), time.Second)
			for _, path := range []string{"/-/healthy", "/-/ready", "/api/v1/status/groups"} {
				got := r.ask(t.Context(), question{path: path})
				require.NoError(t, got.err)
				require.Equal(t, http.StatusOK, got.status, path)
				require.Less(t, got.after, time.Second, path)
			}
			for _, a := range r.askAll(t.Context(), w, 0, ails) {
				require.Equal(t, failed, a.outcome, "%s: %s %s", a.path, a.why, a.body)
			}
			r.set(t, fault.Fault{}, servers)
			require.Eventually(t, func() bool { return allRight(r.askAll(t.Context(), w, 1, ails)) }, recovery, 50*time.Millisecond)
		})
	}
}

// TestStop_LetsRequestsFinish: those under way get their whole answers, new ones none.
func TestStop_LetsRequestsFinish(t *testing.T) {
	w := sharedWorld()
	r := newRig(t, w)
	r.start(t)
	r.settle(t, w)

	servers, ails := scopes[3].within(r, false)
	r.set(t, fault.Latency(groupTimeout/2), servers)
	before := requests(r)
	underWay := make(chan []answered, 1)
	go func() { underWay <- r.askAll(t.Context(), w, 1, ails) }()
	require.Eventually(t, func() bool { return requests(r)-before >= int64(len(kinds)*len(zones)) }, recovery, time.Millisecond)
	select {
	case <-underWay:
		t.Fatal("the requests have ended")
	default:
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	require.NoError(t, r.server.Stop(ctx))
	answers := <-underWay
	finished := 0
	for _, a := range answers {
		if a.header.Get("X-Prometheus-Stopping") == "true" || errors.Is(a.err, syscall.ECONNREFUSED) { // it came too late
			continue
		}
		require.Equal(t, right, a.outcome, "%s: %s", a.path, a.why)
		finished++
	}
	require.Positive(t, finished)
	require.Error(t, r.ask(t.Context(), question{path: "/-/ready"}).err)
}

// requests is how many the servers have had.
func requests(r *rig) int64 {
	n := int64(0)
	for _, p := range r.proxies {
		n += p.Requests()
	}
	return n
}
