package servergroup

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	commoncfg "github.com/prometheus/common/config"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest"
	"github.com/oneprom/oneprom/servergroup/backendtest/fault"
	"github.com/oneprom/oneprom/servergroup/config"
)

// behindProxy returns a proxy before a backend, and a group of it.
func behindProxy(t *testing.T, change ...func(*backendtest.Options)) (*fault.Proxy, config.Group) {
	t.Helper()
	opts := backendtest.Options{Queryable: promqltest.LoadedStorage(t, "load 15s\n foo{a=\"1\"} 1x3\n other{b=\"1\"} 1x3")}
	for _, c := range change {
		c(&opts)
	}
	p, err := fault.New(backendtest.NewHandler(opts))
	require.NoError(t, err)
	t.Cleanup(p.Close)
	return p, groupOf("a", &httptest.Server{URL: "http://" + p.Addr()})
}

// TestProxy_RedirectionsThatLoseBodies: the server is asked by GET where that can be, and the redirection is named.
func TestProxy_RedirectionsThatLoseBodies(t *testing.T) {
	for _, status := range []int{http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect} {
		p, cfg := behindProxy(t)
		require.NoError(t, p.Set(fault.Redirects(status)))
		s := newTestSet(t, config.PartialWarn, cfg)
		got, ws, err := selectText(t, s, `foo`, 0, 0)
		require.NoError(t, err)
		require.Empty(t, strs(ws))
		require.Equal(t, `{__name__="foo", a="1"} 0:1`+"\n", got)
		require.Equal(t, []string{"__name__", "a"}, namesOf(t, s.View(t.Context()), lookupOf(t, `foo`, 0)))
		require.Equal(t, []string{`{__name__="foo", a="1"}`}, seriesShown(t, s.View(t.Context()), lookupOf(t, `foo`, 0)))
		st := s.Status()[0].Replicas[0]
		if status == http.StatusTemporaryRedirect || status == http.StatusPermanentRedirect {
			require.Equal(t, "remote_read_streamed", st.Transport)
			require.Empty(t, st.Findings)
			continue
		}
		lost := fmt.Sprintf("redirected with status %d, which loses the body of a POST: name the URL that it leads to as the target (from /api/v1/", status)
		require.Contains(t, st.TransportReason, "no remote read: "+lost)
		require.Len(t, st.Findings, 1)
		require.Contains(t, st.Findings[0], lost)

		cfg.RemoteRead = config.RemoteReadAlways
		_, _, err = selectText(t, newTestSet(t, config.PartialWarn, cfg), `foo`, 0, 0)
		require.ErrorContains(t, err, "remote_read: always, but: http://"+p.Addr()+": "+lost)
	}
}

// TestProxy_ClosedConnectionsAreNotFailures, whichever credentials the group has.
func TestProxy_ClosedConnectionsAreNotFailures(t *testing.T) {
	for _, clientConfig := range []commoncfg.HTTPClientConfig{
		{FollowRedirects: true, EnableHTTP2: true},
		{FollowRedirects: true, BasicAuth: &commoncfg.BasicAuth{Username: "u", Password: "p"}},
		{FollowRedirects: true, HTTPHeaders: &commoncfg.Headers{Headers: map[string]commoncfg.Header{"X-Key": {Values: []string{"v"}}}}},
	} {
		for _, change := range []func(*backendtest.Options){func(*backendtest.Options) {}, noRemoteRead} {
			p, cfg := behindProxy(t, change)
			cfg.HTTPClientConfig = clientConfig
			require.NoError(t, p.Set(fault.ClosesIdle()))
			s := newTestSet(t, config.PartialWarn, cfg)
			for range 5 {
				got, ws, err := selectText(t, s, `foo`, 0, 0)
				require.NoError(t, err)
				require.Empty(t, strs(ws))
				require.Equal(t, `{__name__="foo", a="1"} 0:1`+"\n", got)
				require.Equal(t, []string{`{__name__="foo", a="1"}`}, seriesShown(t, s.View(t.Context()), lookupOf(t, `foo`, 0)))
			}
			require.Empty(t, s.Status()[0].Replicas[0].LastError)
		}
	}
}

func TestProxy_LostFormsAreAFinding(t *testing.T) {
	p, cfg := behindProxy(t)
	require.NoError(t, p.Set(fault.DropsBodies()))
	s, c := setAt(t, cfg)
	ask := func() {
		t.Helper()
		got, ws, err := selectText(t, s, `foo`, 0, 0)
		require.NoError(t, err)
		require.Empty(t, strs(ws))
		require.Equal(t, `{__name__="foo", a="1"} 0:1`+"\n", got)
		require.Equal(t, []string{"__name__", "a"}, namesOf(t, s.View(t.Context()), lookupOf(t, `foo`, 0)))
		require.Equal(t, []string{`{__name__="foo", a="1"}`}, seriesShown(t, s.View(t.Context()), lookupOf(t, `foo`, 0)))
	}
	probe := func() {
		t.Helper()
		c.ms.Add(60_000)
		<-firstReplica(s).Refresh()
	}
	findings := func() []string { return s.Status()[0].Replicas[0].Findings }
	for range 2 {
		ask()
		require.Len(t, findings(), 1)
		require.Contains(t, findings()[0], "forms that are sent by POST do not reach the backend")
		probe()
		require.Len(t, findings(), 1)
	}
	require.Contains(t, s.Status()[0].Replicas[0].TransportReason, "no remote read: status 400")

	require.NoError(t, p.Set(fault.Fault{}))
	probe()
	require.Empty(t, findings())
	ask()
	require.Empty(t, findings())
}

// TestProxy_CompressedAnswersAreRead although the server is near, so that none are wanted.
func TestProxy_CompressedAnswersAreRead(t *testing.T) {
	for _, change := range []func(*backendtest.Options){func(*backendtest.Options) {}, noRemoteRead} {
		p, cfg := behindProxy(t, change)
		require.NoError(t, p.Set(fault.Compresses()))
		s := newTestSet(t, config.PartialWarn, cfg)
		got, ws, err := selectText(t, s, `foo`, 0, 0)
		require.NoError(t, err)
		require.Empty(t, strs(ws))
		require.Equal(t, `{__name__="foo", a="1"} 0:1`+"\n", got)
		require.Equal(t, "prometheus", s.Status()[0].Replicas[0].Kind)
	}
}
