package proxy

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alecthomas/kingpin/v2"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// oneGroup is a configuration whose only backend does not exist.
const oneGroup = `
global:
  external_labels: {site: here}
server_groups:
  - name: a
    static_configs: [{targets: ['127.0.0.1:1']}]
`

// options parses a command line.
func options(t testing.TB, flags ...string) Options {
	t.Helper()
	app := kingpin.New("oneprom", "").Terminate(nil)
	var o Options
	AddFlags(app, &o)
	_, err := app.Parse(flags)
	require.NoError(t, err)
	return o
}

func writeConfig(t testing.TB, file, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
}

// newServer makes a server that is not started, with its configuration file. It
// is stopped when the test ends. It audits nothing, so that nobody is asked by chance.
func newServer(t testing.TB, yaml string, flags ...string) (s *Server, file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "oneprom.yml")
	writeConfig(t, file, yaml)
	s, err := New(options(t, append([]string{"--config.file=" + file, "--web.listen-address=127.0.0.1:0", "--audit.share=0"}, flags...)...))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Stop(context.Background())) })
	return s, file
}

func startedServer(t testing.TB, yaml string, flags ...string) (s *Server, file string) {
	t.Helper()
	s, file = newServer(t, yaml, flags...)
	require.NoError(t, s.Start(t.Context()))
	return s, file
}

// ask sends a request; a form makes it a form-encoded body.
func ask(h http.Handler, method, target, form string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(form))
	if form != "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func get(h http.Handler, target string) *httptest.ResponseRecorder {
	return ask(h, http.MethodGet, target, "")
}

func apiFailure(typ, text string) string {
	return `{"status":"error","errorType":"` + typ + `","error":"` + text + `"}`
}
