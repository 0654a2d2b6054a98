package servergroup

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	commoncfg "github.com/prometheus/common/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/health"
	"github.com/oneprom/oneprom/servergroup/lookup"
	"github.com/oneprom/oneprom/servergroup/request"
	"github.com/oneprom/oneprom/servergroup/view"
)

// heard are the values of headers of the requests to a backend.
type heard struct {
	mtx      sync.Mutex
	requests []http.Header
}

func (h *heard) forget() {
	h.mtx.Lock()
	defer h.mtx.Unlock()
	h.requests = nil
}

// values are the distinct values of a header, "-" where it was missing.
func (h *heard) values(name string) []string {
	h.mtx.Lock()
	defer h.mtx.Unlock()
	var out []string
	for _, header := range h.requests {
		value := "-"
		if list := header.Values(name); len(list) > 0 {
			value = strings.Join(list, "|")
		}
		out = append(out, value)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// listening is a backend of which every request is heard.
func listening(t *testing.T, h *heard) http.Handler {
	backend := backendtest.NewHandler(backendtest.Options{Queryable: promqltest.LoadedStorage(t, "load 1m\n foo 1 2\n")})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mtx.Lock()
		h.requests = append(h.requests, r.Header.Clone())
		h.mtx.Unlock()
		backend.ServeHTTP(w, r)
	})
}

func named(name string) []*labels.Matcher {
	return []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, labels.MetricName, name)}
}

func TestForwardHeaders_NamedOnesOnly(t *testing.T) {
	var h heard
	cfg := groupOf("a", serve(t, listening(t, &h)))
	cfg.ForwardHeaders = []string{"x-scope-orgid", "Authorization", "Cookie"}
	cfg.Headers = map[string]commoncfg.Secret{"X-Scope-OrgID": "probes", "X-Own": "always"}
	cfg.HTTPClientConfig.BasicAuth = &commoncfg.BasicAuth{Username: "own", Password: "hunter2"}
	s := newTestSet(t, config.PartialWarn, cfg)
	ask := func(header http.Header) {
		ctx := request.With(t.Context(), func(r *request.Request) { r.Header = header })
		_, _, err := lookup.Series(ctx, s.View(ctx), lookup.Lookup{Matchers: named("foo"), MaxT: 60_000})
		require.NoError(t, err)
	}
	own := "Basic " + "b3duOmh1bnRlcjI="
	_, _, err := selectText(t, s, "foo", 0, 60_000) // probes, and is no client's
	require.NoError(t, err)
	require.Equal(t, []string{"probes"}, h.values("X-Scope-OrgID"))
	require.Equal(t, []string{own}, h.values("Authorization"))

	h.forget()
	ask(http.Header{"X-Scope-Orgid": {"1"}, "Authorization": {"Bearer mine"}, "Cookie": {"a=b"}, "X-Grafana-User": {"ann"}, "X-Own": {"forged"}})
	require.Equal(t, []string{"1"}, h.values("X-Scope-OrgID"))
	require.Equal(t, []string{"Bearer mine"}, h.values("Authorization"))
	require.Equal(t, []string{"a=b"}, h.values("Cookie"))
	require.Equal(t, []string{"-"}, h.values("X-Grafana-User"))
	require.Equal(t, []string{"always"}, h.values("X-Own"))

	// Who sends nothing borrows nothing.
	h.forget()
	ask(http.Header{})
	require.Equal(t, []string{"-"}, h.values("X-Scope-OrgID"))
	require.Equal(t, []string{"-"}, h.values("Authorization"))
}

func TestForwardHeaders_NoneUnlessConfigured(t *testing.T) {
	var h heard
	s := newTestSet(t, config.PartialWarn, groupOf("a", serve(t, listening(t, &h))))
	ctx := request.With(t.Context(), func(r *request.Request) { r.Header = http.Header{"Authorization": {"Bearer mine"}, "Cookie": {"a=b"}} })
	_, _, err := lookup.Series(ctx, s.View(ctx), lookup.Lookup{Matchers: named("foo"), MaxT: 60_000})
	require.NoError(t, err)
	require.Equal(t, []string{"-"}, h.values("Authorization"))
	require.Equal(t, []string{"-"}, h.values("Cookie"))
}

// A view is like another one if the same is passed on, of what is passed on at all.
func TestForwardHeaders_Alike(t *testing.T) {
	cfg := groupOf("a", backend(t, "load 1m\n foo 1\n"))
	cfg.ForwardHeaders = []string{"X-Scope-OrgID"}
	s := newTestSet(t, config.PartialWarn, cfg, groupOf("b"))
	of := func(header http.Header) *view.View {
		return s.View(request.With(t.Context(), func(r *request.Request) { r.Header = header }))
	}
	one := of(http.Header{"X-Scope-Orgid": {"1"}, "X-Other": {"x"}})
	require.True(t, one.Alike(of(http.Header{"X-Scope-Orgid": {"1"}, "X-Other": {"y"}})))
	require.False(t, one.Alike(of(http.Header{"X-Scope-Orgid": {"2"}, "X-Other": {"x"}})))
	require.False(t, one.Alike(of(http.Header{"X-Scope-Orgid": {"1", "1"}})))
	require.False(t, one.Alike(of(nil)))
}

// What oneprom sees of the scrapes need not be what a client is shown.
func TestForwardHeaders_NoEvidence(t *testing.T) {
	load := `load 1m
 up{job="a", instance="a"} 1 1 1
 foo{job="a", instance="a"} 1 1 1
`
	cfg := groupOf("a", backend(t, load), backend(t, load))
	none := func(cfg config.Group) string {
		s := newTestSet(t, config.PartialWarn, cfg)
		v := s.View(t.Context())
		sh, err := v.Evidence(t.Context(), v.Groups[0], named("foo"), 0, 120_000)
		require.NoError(t, err)
		return sh.Unavailable
	}
	require.Empty(t, none(cfg))
	cfg.ForwardHeaders = []string{"Cookie"}
	require.Contains(t, none(cfg), "forward_headers")
}

// A client with a wrong password must not take a replica away from the others.
func TestForwardHeaders_RefusedClientIsNoFailure(t *testing.T) {
	var h heard
	good := listening(t, &h)
	srv := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "Bearer wrong" {
			http.Error(w, "who?", http.StatusUnauthorized)
			return
		}
		good.ServeHTTP(w, r)
	}))
	cfg := groupOf("a", srv)
	cfg.ForwardHeaders = []string{"Authorization"}
	s := newTestSet(t, config.PartialWarn, cfg)
	ask := func(ctx context.Context) error {
		_, _, err := lookup.Series(ctx, s.View(ctx), lookup.Lookup{Matchers: named("foo"), MaxT: 60_000})
		return err
	}
	require.NoError(t, ask(t.Context()))
	for range 50 {
		require.ErrorContains(t, ask(request.With(t.Context(), func(r *request.Request) { r.Header = http.Header{"Authorization": {"Bearer wrong"}} })), "401")
	}
	require.Equal(t, health.Closed, firstReplica(s).Health.State())
	require.Empty(t, s.Status()[0].Replicas[0].LastError)
	require.NoError(t, ask(request.With(t.Context(), func(r *request.Request) { r.Header = http.Header{"Authorization": {"Bearer right"}} })))
}

// Findings give series as examples.
func TestForwardHeaders_FindingsAreNotShown(t *testing.T) {
	load := "load 1m\n foo{region=\"hunter2\"} 1 1\n"
	cfg := groupOf("a", backend(t, load))
	cfg.Labels = map[string]string{"region": "eu"}
	cfg.ForwardHeaders = []string{"Cookie"}
	s := newTestSet(t, config.PartialWarn, cfg)
	ctx := request.With(t.Context(), func(r *request.Request) { r.Header = http.Header{"Cookie": {"a=b"}} })
	v := s.View(ctx)
	_, ws := fetched(ctx, t, v, view.Selection{Matchers: named("foo"), MaxT: 60_000})
	require.NotEmpty(t, ws) // who sees the series is told
	require.NotContains(t, fmt.Sprint(s.Status()), "hunter2")
	require.Len(t, s.Status()[0].Findings, 1)
	require.Contains(t, s.Status()[0].Findings[0], "in the log only")
}
