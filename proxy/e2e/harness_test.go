// Package e2e looks at oneprom from outside, over HTTP, as its clients do.
package e2e

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alecthomas/kingpin/v2"
	config_util "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/oneprom/oneprom/proxy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(checkedTests{m}) }

// keepsNothing is the flag of a oneprom whose answers are not kept, where the data behind it changes as it never does.
const keepsNothing = "--cache.size=0"

// oneprom starts the proxy with the configuration file and the command line
// flags (`--name=value`) and returns its base URL, without a trailing slash and
// with the route prefix if the flags name one. It stops when the test ends.
func oneprom(t *testing.T, yamlText string, flags ...string) (baseURL string) {
	t.Helper()
	return onepromAt(t, nil, yamlText, flags...)
}

// onepromAt is oneprom with a clock; nil is that of the machine.
func onepromAt(t *testing.T, now func() time.Time, yamlText string, flags ...string) (baseURL string) {
	t.Helper()
	t.Helper()
	file := filepath.Join(t.TempDir(), "oneprom.yml")
	require.NoError(t, os.WriteFile(file, []byte(yamlText), 0o600))
	var o proxy.Options
	app := kingpin.New("oneprom", "")
	proxy.AddFlags(app, &o)
	_, err := app.Parse(append([]string{"--config.file=" + file, "--web.listen-address=127.0.0.1:0"}, flags...))
	require.NoError(t, err)
	o.Now = now
	server, err := proxy.New(o)
	require.NoError(t, err)
	require.NoError(t, server.Start(t.Context()))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		require.NoError(t, server.Stop(ctx))
	})
	prefix := strings.TrimSuffix(o.RoutePrefix, "/")
	return "http://" + server.Addr() + prefix
}

// remoteRead is upstream's remote read client of the backend at host:port.
func remoteRead(t *testing.T, target string, timeout model.Duration) storage.SampleAndChunkQueryable {
	t.Helper()
	client, err := remote.NewReadClient(target, &remote.ClientConfig{
		URL:              &config_util.URL{URL: &url.URL{Scheme: "http", Host: target, Path: "/api/v1/read"}},
		Timeout:          timeout,
		ChunkedReadLimit: config.DefaultChunkedReadLimit,
		HTTPClientConfig: config_util.HTTPClientConfig{},
	}, config_util.WithKeepAlivesDisabled())
	require.NoError(t, err)
	first := func() (int64, error) { return 0, nil }
	return remote.NewSampleAndChunkQueryableClient(client, labels.EmptyLabels(), nil, true, first)
}

// oneBackend is the configuration of one group, `a`, with one replica for each
// address. The options are further lines of the group.
func oneBackend(targets []string, options ...string) string {
	text := "server_groups:\n  - name: a\n"
	for _, option := range options {
		text += "    " + option + "\n"
	}
	text += "    static_configs:\n      - targets:\n"
	for _, target := range targets {
		text += "          - '" + target + "'\n"
	}
	return text
}

// hostPort is the address in a base URL.
func hostPort(t *testing.T, baseURL string) string {
	t.Helper()
	u, err := url.Parse(baseURL)
	require.NoError(t, err)
	return u.Host
}

// serve starts a handler on a loopback port and returns its base URL. Ending
// the test closes the open connections, so handlers that hang are released.
func serve(t *testing.T, h http.Handler) (baseURL string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := &http.Server{Handler: h}
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() {
		_ = server.Close()
		running.Wait()
	})
	return "http://" + l.Addr().String()
}
