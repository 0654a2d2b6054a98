package proxy

import (
	"context"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest"
)

// TestURLs_KeepTheirSecrets: no URL of the configuration leaves the process with its password or
// its parameters, though upstream logs some, and makes labels of metrics of them.
func TestURLs_KeepTheirSecrets(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "oneprom.yml")
	writeConfig(t, file, `
remote_write:
  - {name: a, url: 'http://u:hunter2@127.0.0.1:1/write?key=hunter2'}
  - {name: b, url: 'http://127.0.0.1:1/', oauth2: {client_id: a, client_secret: hunter2, token_url: 'http://u:hunter2@127.0.0.1:1/?key=hunter2'}}
alerting: {alertmanagers: [{http_sd_configs: [{url: 'http://u:hunter2@127.0.0.1:1/sd?key=hunter2'}]}]}
server_groups:
  - name: a
    static_configs: [{targets: ['127.0.0.1:1'], labels: {__param_key: hunter2}}]
    relabel_configs: [{target_label: __param_more, replacement: hunter2}]
`)
	var logged backendtest.Log
	o := options(t, "--config.file="+file, "--web.listen-address=127.0.0.1:0", "--storage.agent.path="+filepath.Join(dir, "wal"),
		"--web.external-url=http://u:hunter2@x/?key=hunter2", "--web.enable-lifecycle")
	o.Logger = slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s, err := New(o)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, s.Stop(context.Background()))
		require.NotContains(t, logged.String(), "hunter2")
	})
	require.NoError(t, s.Start(t.Context()))
	for _, said := range []string{"Starting WAL watcher", "Unable to refresh target groups"} {
		require.Eventually(t, func() bool { return strings.Contains(logged.String(), said) }, 30*time.Second, time.Millisecond, said)
	}
	for path, want := range map[string]string{
		"/metrics": `url="http://u:xxxxx@127.0.0.1:1/write?<secret>"`, "/api/v1/status/config": `u:xxxxx@127.0.0.1:1/sd?`, "/api/v1/status/flags": "u:xxxxx@x",
		"/api/v1/status/groups": "127.0.0.1:1", "/api/v1/alertmanagers": "success", "/api/v1/query?query=up": "error", "/query": "127.0.0.1:1",
	} {
		w := get(s.Handler(), path)
		require.Contains(t, w.Body.String(), want, path)
		require.NotContains(t, w.Body.String(), "hunter2", path)
	}
	writeConfig(t, file, "remote_write: [{url: 'http://u:hunter2@a/'}]\nserver_groups: [{name: a, http_sd_configs: [{url: 'http://u:hunter2@:x/?key=hunter2'}]}]")
	w := ask(s.Handler(), http.MethodPost, "/-/reload", "")
	require.Equal(t, http.StatusInternalServerError, w.Code)
	require.NotContains(t, w.Body.String(), "hunter2")
}
