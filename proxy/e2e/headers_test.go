package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestHeadersOfGrafana: of the headers that Grafana sends, a server gets those that its group allows, and the query log
// those that tell where a query comes from.
func TestHeadersOfGrafana(t *testing.T) {
	shows(t, byHTTP, 19)
	to, err := url.Parse(reference(t))
	require.NoError(t, err)
	forward := httputil.NewSingleHostReverseProxy(to)
	var mtx sync.Mutex
	var seen []http.Header
	behind := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/status/") || r.Header.Get("X-Scope-Orgid") == "" { // probes are oneprom's own
			forward.ServeHTTP(w, r)
			return
		}
		mtx.Lock()
		seen = append(seen, r.Header.Clone())
		mtx.Unlock()
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(behind.Close)
	log := filepath.Join(t.TempDir(), "queries.log")
	base := oneprom(t, "global: {query_log_file: '"+log+"'}\n"+
		oneBackend([]string{hostPort(t, behind.URL)}, "replica_labels: [replica]", "forward_headers: [X-Scope-OrgID, X-Grafana-User]"))

	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/api/v1/query?query=m&time=600", nil)
	require.NoError(t, err)
	sent := map[string]string{
		"X-Scope-OrgID": "tenant-1", "X-Grafana-User": "ann", "Authorization": "Bearer secret", "Cookie": "session=secret", "X-Grafana-Id": "secret",
		"X-Dashboard-Uid": "d1", "X-Panel-Id": "7",
	}
	for name, value := range sent {
		req.Header.Set(name, value)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusOK, resp.StatusCode, string(body))

	mtx.Lock()
	defer mtx.Unlock()
	require.NotEmpty(t, seen)
	for _, header := range seen {
		require.Equal(t, "tenant-1", header.Get("X-Scope-OrgID"))
		require.Equal(t, "ann", header.Get("X-Grafana-User"))
		for name := range sent {
			if name != "X-Scope-OrgID" && name != "X-Grafana-User" {
				require.Empty(t, header.Get(name), name)
			}
		}
	}
	var line map[string]any
	require.Eventually(t, func() bool {
		text, err := os.ReadFile(log)
		return err == nil && json.Unmarshal(text, &line) == nil
	}, time.Minute, 10*time.Millisecond)
	text, err := json.Marshal(line)
	require.NoError(t, err)
	require.Contains(t, string(text), `"d1"`)
	require.Contains(t, string(text), `"7"`)
	require.NotContains(t, string(text), "secret")
}
