package servergroup

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/lifetime"
	"github.com/oneprom/oneprom/servergroup/replica"
)

// override is a backend that answers some paths (below /api/v1) otherwise: with
// a status, or by a handler.
type override struct {
	http.Handler
	status  map[string]int
	replace map[string]http.HandlerFunc
	on      atomic.Bool
}

func overridden(t *testing.T, load string, change ...func(*backendtest.Options)) *override {
	t.Helper()
	opts := backendtest.Options{Queryable: promqltest.LoadedStorage(t, load)}
	for _, c := range change {
		c(&opts)
	}
	o := &override{Handler: backendtest.NewHandler(opts)}
	o.on.Store(true)
	return o
}

// untold are the statuses of a Prometheus that does not show what it is.
var untold = map[string]int{"/status/buildinfo": 404, "/status/flags": 404, "/status/tsdb": 404}

// without returns the same backend with a status for some paths.
func (o *override) without(status map[string]int) *override {
	other := &override{Handler: o.Handler, status: status}
	other.on.Store(true)
	return other
}

func (o *override) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/api/v1")
	switch {
	case o.on.Load() && o.status[path] != 0:
		http.Error(w, "busy", o.status[path])
	case o.on.Load() && o.replace[path] != nil:
		o.replace[path](w, r)
	default:
		o.Handler.ServeHTTP(w, r)
	}
}

// clock is a time that a test moves.
type clock struct{ ms atomic.Int64 }

func (c *clock) now() time.Time { return time.UnixMilli(c.ms.Load()) }

// setAt returns a set whose clock stands at 60 s.
func setAt(t *testing.T, cfgs ...config.Group) (*Set, *clock) {
	t.Helper()
	c := &clock{}
	c.ms.Store(60_000)
	s, err := NewSet(Options{Now: c.now})
	require.NoError(t, err)
	t.Cleanup(s.Close)
	require.NoError(t, s.Apply(t.Context(), cfgs, config.PartialWarn))
	return s, c
}

// probedStatus probes the only replica of a group of the server.
func probedStatus(t *testing.T, mode config.RemoteRead, srv *httptest.Server) (replica.Status, error) {
	t.Helper()
	cfg := groupOf("a", srv)
	cfg.RemoteRead = mode
	s, _ := setAt(t, cfg)
	_, err := firstReplica(s).Ready(t.Context())
	return s.Status()[0].Replicas[0], err
}

// TestProbe_PassingFailureIsNotTakenForNoExternalLabels: twins would not merge.
func TestProbe_PassingFailureIsNotTakenForNoExternalLabels(t *testing.T) {
	for path, status := range map[string]int{"/status/config": 503, "/status/groups": 500} {
		t.Run(path, func(t *testing.T) {
			a := overridden(t, "load 15s\n foo 1x3", external("replica", "a"))
			b := overridden(t, "load 15s\n foo 1x3", external("replica", "b"))
			a.status = map[string]int{path: status}
			b.status = map[string]int{path: 429}
			s, c := setAt(t, groupOf("a", serve(t, a), serve(t, b)))
			_, _, err := selectText(t, s, `foo`, 0, 0)
			require.ErrorContains(t, err, fmt.Sprintf("status %d", status))
			a.on.Store(false)
			b.on.Store(false)
			c.ms.Add(replica.ProbeInterval.Milliseconds())
			got, ws, err := selectText(t, s, `foo`, 0, 0)
			require.NoError(t, err)
			require.Empty(t, strs(ws))
			require.Equal(t, `{__name__="foo"} 0:1`+"\n", got)
		})
	}
}

// TestProbe_ConfigurationIsBelievedFirst: the series `up` has a label of its own
// of the name of the external label, and so does not show that.
func TestProbe_ConfigurationIsBelievedFirst(t *testing.T) {
	srv := backend(t, "load 15s\n up{region=\"us\"} 1x10\n foo 1x3", external("region", "eu"))
	st, err := probedStatus(t, config.RemoteReadAuto, srv)
	require.NoError(t, err)
	require.Equal(t, map[string]string{"region": "eu"}, st.ExternalLabels)
	require.Equal(t, "remote_read_streamed", st.Transport)
}

func TestProbe_SampleWhereTheConfigurationIsNotShown(t *testing.T) {
	whole := overridden(t, "load 15s\n up{job=\"a\"} 1x10", external("region", "eu"))
	for _, status := range []int{400, 401, 403, 404, 405, 501} {
		o := whole.without(map[string]int{"/status/config": status})
		st, err := probedStatus(t, config.RemoteReadAuto, serve(t, o))
		require.NoError(t, err)
		require.Equal(t, map[string]string{"region": "eu"}, st.ExternalLabels, status)
		require.Equal(t, "remote_read_streamed", st.Transport, status)

		o = whole.without(map[string]int{"/status/config": status, "/query": 503})
		_, err = probedStatus(t, config.RemoteReadAuto, serve(t, o))
		require.ErrorContains(t, err, "status 503")
	}
}

func TestProbe_ExternalLabelsUnknown(t *testing.T) {
	o := overridden(t, "load 15s\n foo 1x10", external("region", "eu"))
	o.status = map[string]int{"/status/config": 404}
	st, err := probedStatus(t, config.RemoteReadAuto, serve(t, o))
	require.NoError(t, err)
	require.Equal(t, "query_api", st.Transport)
	require.Contains(t, st.TransportReason, "external labels unknown: ")
	require.Contains(t, st.TransportReason, "no series `up`")

	st, err = probedStatus(t, config.RemoteReadAlways, serve(t, o))
	require.NoError(t, err)
	require.Equal(t, "remote_read_streamed", st.Transport)
	require.Empty(t, st.ExternalLabels)
}

// TestProbe_OnepromAddsNoExternalLabels: it shows some, and tells of its groups.
func TestProbe_OnepromAddsNoExternalLabels(t *testing.T) {
	o := overridden(t, "load 15s\n foo 1x3", external("region", "eu"))
	o.replace = map[string]http.HandlerFunc{"/status/groups": func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"status": "success", "data": [{"name": "a", "replicas": []}]}`))
	}}
	st, err := probedStatus(t, config.RemoteReadAuto, serve(t, o))
	require.NoError(t, err)
	require.Equal(t, "oneprom", st.Kind)
	require.Empty(t, st.ExternalLabels)
	require.Equal(t, "remote_read_streamed", st.Transport)
}

func TestProbe_WhatIsForbiddenIsNotThere(t *testing.T) {
	whole := overridden(t, "load 15s\n foo 1x3")
	for _, status := range []int{401, 403, 404} {
		o := whole.without(map[string]int{"/read": status, "/status/buildinfo": status, "/status/flags": status, "/status/tsdb": status})
		st, err := probedStatus(t, config.RemoteReadAuto, serve(t, o))
		require.NoError(t, err)
		require.Equal(t, "unknown", st.Kind)
		require.Equal(t, "query_api", st.Transport)
		require.Contains(t, st.TransportReason, fmt.Sprintf("no remote read: status %d", status))
		_, err = probedStatus(t, config.RemoteReadAlways, serve(t, o))
		require.ErrorContains(t, err, "remote_read: always, but: ")
	}
}

// TestReplica_FailingRefreshKeepsTheProfile, unless requests fail, too.
func TestReplica_FailingRefreshKeepsTheProfile(t *testing.T) {
	o := overridden(t, "load 15s\n foo 1x3")
	o.status = map[string]int{"/status/buildinfo": 503}
	o.on.Store(false)
	s, c := setAt(t, groupOf("a", serve(t, o)))
	r := firstReplica(s)
	known, err := r.Ready(t.Context())
	require.NoError(t, err)

	o.on.Store(true)
	c.ms.Add(replica.ProfileAge.Milliseconds())
	if probing := r.Refresh(); probing != nil { // else the probe has ended already
		<-probing
	}
	require.Contains(t, s.Status()[0].Replicas[0].LastError, "status 503")
	p, err := r.Ready(t.Context())
	require.NoError(t, err)
	require.Same(t, known, p)

	o.status["/read"] = 503
	c.ms.Add(replica.ProbeInterval.Milliseconds())
	_, _, err = selectText(t, s, `foo`, 0, 0)
	require.Error(t, err)
	_, err = r.Ready(t.Context())
	require.ErrorContains(t, err, "status 503")
}

// TestSet_ProbesOnceAMinute: a probe takes some time, and is followed by the next a minute after it began.
func TestSet_ProbesOnceAMinute(t *testing.T) {
	backend := overridden(t, "load 15s\n foo 1x3")
	c := &clock{}
	c.ms.Store(60_000)
	slow := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.ms.Add(1)
		backend.ServeHTTP(w, r)
	})
	ticks := make(chan time.Time)
	s, err := NewSet(Options{Now: c.now, Ticks: ticks})
	require.NoError(t, err)
	t.Cleanup(s.Close)
	require.NoError(t, s.Apply(t.Context(), []config.Group{groupOf("a", serve(t, slow))}, config.PartialWarn))
	_, err = firstReplica(s).Ready(t.Context())
	require.NoError(t, err)
	probed := func() time.Time { return *s.Status()[0].Replicas[0].LastProbe }
	first := probed()
	for _, at := range []int64{90_000, 120_000} {
		c.ms.Store(at)
		ticks <- c.now()
	}
	require.Eventually(t, func() bool { return probed().After(first) }, 10*time.Second, time.Millisecond)
}

// TestClose_EndsProbes: they outlive the query that started them, not the Set.
func TestClose_EndsProbes(t *testing.T) {
	asked, ended := make(chan struct{}, 1), make(chan struct{})
	srv := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-r.Context().Done()
		close(ended)
	}))
	cfg := groupOf("a", srv)
	cfg.Timeout = model.Duration(time.Hour)
	s, _ := setAt(t, cfg)
	<-asked
	r := firstReplica(s)
	query, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := r.Ready(query)
	require.ErrorIs(t, err, context.Canceled)
	probing := r.Refresh()
	require.NotNil(t, probing)

	s.Close()
	select {
	case <-probing:
	default:
		require.Fail(t, "Close did not wait for the probe")
	}
	<-ended
	r.Forget()
	_, err = r.Ready(t.Context())
	require.ErrorIs(t, err, lifetime.ErrEnded)
}
