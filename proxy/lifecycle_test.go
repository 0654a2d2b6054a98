package proxy

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
)

func status(t *testing.T, url string) (code int, body string, header http.Header) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(text), resp.Header
}

func TestServer_ServesFromStartToStop(t *testing.T) {
	s, _ := startedServer(t, oneGroup, "--web.listen-address=127.0.0.1:0", "--web.listen-address=127.0.0.1:0")
	require.Len(t, s.listeners, 3)
	for _, l := range s.listeners {
		code, body, _ := status(t, "http://"+l.Addr().String()+"/-/ready")
		require.Equal(t, http.StatusOK, code)
		require.Equal(t, "oneprom is Ready.\n", body)
	}
	require.ErrorContains(t, s.Start(t.Context()), "started before")
	require.NoError(t, s.Stop(t.Context()))
	require.NoError(t, s.Stop(t.Context()))
	_, err := net.Dial("tcp", s.Addr())
	require.Error(t, err)
	require.ErrorIs(t, s.Start(t.Context()), errStopped)
	require.ErrorIs(t, s.Reload(t.Context()), errStopped)
}

func TestServer_TwoAtOnce(t *testing.T) {
	a, _ := startedServer(t, oneGroup)
	b, _ := startedServer(t, oneGroup)
	require.NotEqual(t, a.Addr(), b.Addr())
	for _, s := range []*Server{a, b} {
		code, _, _ := status(t, "http://"+s.Addr()+"/-/healthy")
		require.Equal(t, http.StatusOK, code)
	}
}

func TestNew_FailureReleasesEverything(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	free := l.Addr().String()
	require.NoError(t, l.Close())
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = taken.Close() }()

	dir := t.TempDir()
	good, bad := filepath.Join(dir, "good.yml"), filepath.Join(dir, "bad.yml")
	writeConfig(t, good, oneGroup)
	writeConfig(t, bad, "server_groups: 1")
	f := func(want string, flags ...string) {
		t.Helper()
		_, err := New(options(t, append([]string{"--web.listen-address=" + free}, flags...)...))
		require.ErrorContains(t, err, want)
		l, err := net.Listen("tcp", free)
		require.NoError(t, err, "the listener was left open")
		require.NoError(t, l.Close())
	}
	f("bad.yml", "--config.file="+bad)
	f("no such file", "--config.file="+filepath.Join(dir, "none.yml"))
	f("--web.listen-address", "--config.file="+good, "--web.listen-address="+taken.Addr().String())
	f("--web.cors.origin", "--config.file="+good, "--web.cors.origin=(")
	f("--web.external-url", "--config.file="+good, "--web.external-url='x'")
	f("--web.config.file", "--config.file="+good, "--web.config.file="+bad)
	f("--query.max-samples", "--config.file="+good, "--query.max-samples=0")
}

func TestServer_ReadyOnceGroupsAreKnown(t *testing.T) {
	s, _ := newServer(t, oneGroup)
	gated := []string{"/-/ready", "/api/v1/query?query=1", "/api/v1/metadata", "/api/v1/status/config", "/api/v1/status/groups", "/api/v1/features", "/federate"}
	check := func(code int, stopping string) {
		t.Helper()
		for _, path := range gated {
			w := get(s.Handler(), path)
			if path == "/api/v1/metadata" && code == http.StatusOK {
				continue // whose backend does not exist
			}
			require.Equal(t, code, w.Code, path)
			require.Equal(t, stopping, w.Header().Get("X-Prometheus-Stopping"), path)
			if code != http.StatusOK {
				require.Equal(t, "Service Unavailable", w.Body.String(), path)
			}
		}
		require.Equal(t, code, ask(s.Handler(), http.MethodHead, "/-/ready", "").Code)
		for _, path := range []string{"/-/healthy", "/api/v1/status/walreplay", "/api/v1/notifications", "/metrics", "/query"} {
			require.Equal(t, http.StatusOK, get(s.Handler(), path).Code, path)
		}
		require.Equal(t, http.StatusOK, ask(s.Handler(), http.MethodHead, "/-/healthy", "").Code)
	}
	check(http.StatusServiceUnavailable, "false")
	require.NoError(t, s.Start(t.Context()))
	check(http.StatusOK, "")
	require.NoError(t, s.Stop(t.Context()))
	check(http.StatusServiceUnavailable, "true")
}

func shownConfig(t *testing.T, s *Server) string {
	t.Helper()
	var a struct{ Data struct{ YAML string } }
	require.NoError(t, json.Unmarshal(get(s.Handler(), "/api/v1/status/config").Body.Bytes(), &a))
	return a.Data.YAML
}

func TestReload(t *testing.T) {
	s, file := startedServer(t, oneGroup, "--web.enable-lifecycle")
	require.Contains(t, shownConfig(t, s), "site: here")
	require.Equal(t, 1.0, testutil.ToFloat64(s.metrics.reloadOK))

	other := oneGroup + "  - name: b\n    static_configs: [{targets: ['127.0.0.1:2']}]\n"
	writeConfig(t, file, other)
	for _, method := range []string{http.MethodPost, http.MethodPut} {
		w := ask(s.Handler(), method, "/-/reload", "")
		require.Equal(t, http.StatusOK, w.Code, w.Body)
		require.Empty(t, w.Body.String())
	}
	require.Contains(t, shownConfig(t, s), "name: b")
	require.Len(t, s.set.Status(), 2)
}

func TestReload_BadFileChangesNothing(t *testing.T) {
	s, file := startedServer(t, oneGroup, "--web.enable-lifecycle")
	before := shownConfig(t, s)
	loaded := testutil.ToFloat64(s.metrics.reloadTime)
	f := func(text, want string) {
		t.Helper()
		writeConfig(t, file, text)
		w := ask(s.Handler(), http.MethodPost, "/-/reload", "")
		require.Equal(t, http.StatusInternalServerError, w.Code)
		require.Regexp(t, "^failed to reload config: .*"+want, w.Body.String())
		require.Equal(t, before, shownConfig(t, s))
		require.Len(t, s.set.Status(), 1)
		require.Equal(t, 0.0, testutil.ToFloat64(s.metrics.reloadOK))
		require.Equal(t, loaded, testutil.ToFloat64(s.metrics.reloadTime))
		require.Contains(t, get(s.Handler(), "/api/v1/notifications").Body.String(), "Configuration reload has failed.")
		require.Contains(t, get(s.Handler(), "/api/v1/status/runtimeinfo").Body.String(), `"reloadConfigSuccess":false`)
	}
	f("server_group: []", "server_group")
	// Valid to read, impossible to build: everything is built before the swap.
	f(oneGroup+"  - name: b\n    tls_config: {ca_file: nowhere.pem}\n    static_configs: [{targets: ['127.0.0.1:2']}]\n", "nowhere.pem")
	require.NoError(t, os.Remove(file))
	require.ErrorIs(t, s.Reload(t.Context()), os.ErrNotExist)

	writeConfig(t, file, oneGroup)
	require.NoError(t, s.Reload(t.Context()))
	require.Equal(t, 1.0, testutil.ToFloat64(s.metrics.reloadOK))
	require.Contains(t, get(s.Handler(), "/api/v1/notifications").Body.String(), `{"status":"success","data":[]`)
}

func TestLifecycle_Disabled(t *testing.T) {
	s, _ := startedServer(t, oneGroup)
	for _, path := range []string{"/-/reload", "/-/quit"} {
		for _, method := range []string{http.MethodPost, http.MethodPut} {
			w := ask(s.Handler(), method, path, "")
			require.Equal(t, http.StatusForbidden, w.Code)
			require.Equal(t, "Lifecycle API is not enabled.", w.Body.String())
		}
		w := get(s.Handler(), path)
		require.Equal(t, http.StatusMethodNotAllowed, w.Code)
		require.Equal(t, "Only POST or PUT requests allowed", w.Body.String())
	}
}

func TestRun_EndsByQuit(t *testing.T) {
	s, _ := newServer(t, oneGroup, "--web.enable-lifecycle")
	ended := make(chan error, 1)
	go func() { ended <- s.Run(t.Context()) }()
	require.Equal(t, "Requesting termination... Goodbye!", ask(s.Handler(), http.MethodPost, "/-/quit", "").Body.String())
	require.Equal(t, "Termination already in progress.", ask(s.Handler(), http.MethodPut, "/-/quit", "").Body.String())
	require.NoError(t, <-ended)
}

func TestRun_EndsWithContext(t *testing.T) {
	s, _ := newServer(t, oneGroup)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, s.Run(ctx))
}

func TestRun_EndsWhenListenerFails(t *testing.T) {
	s, _ := newServer(t, oneGroup)
	require.NoError(t, s.listeners[0].Close())
	require.ErrorContains(t, s.Run(t.Context()), "serving "+s.Addr())
}

// A client that listens to notifications would keep the server from stopping.
func TestStop_EndsLiveNotifications(t *testing.T) {
	s, _ := startedServer(t, oneGroup)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + s.Addr() + "/api/v1/notifications/live")
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	require.Equal(t, "text/event-stream", resp.Header.Get("Content-Type"))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	require.NoError(t, s.Stop(ctx))
}

func TestStop_CutsOffWhatDoesNotEnd(t *testing.T) {
	s, _ := newServer(t, oneGroup)
	asked := make(chan struct{})
	for _, srv := range s.http.servers {
		srv.Handler = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			close(asked)
			<-r.Context().Done()
		})
	}
	require.NoError(t, s.Start(t.Context()))
	answered := make(chan error, 1)
	go func() {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Get("http://" + s.Addr())
		if err == nil {
			_ = resp.Body.Close()
		}
		answered <- err
	}()
	<-asked
	now, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorContains(t, s.Stop(now), "requests were cut off")
	require.NoError(t, <-answered, "the handler was told, not only its connection closed")
	s.stopErr = nil // said above; the clean-up of the test asks again
}
