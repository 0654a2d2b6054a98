// Package toxics breaks the servers behind oneprom in every way that servers break, and looks at each
// answer: it is right, or says what is missing, or is an error in time that names who failed. There is
// nothing else.
package toxics

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/oneprom/oneprom/proxy"
	"github.com/oneprom/oneprom/servergroup/backendtest/fault"
)

var updateFlag = flag.Bool("update", false, "write what was measured to docs/resilience.md; with -tags e2e only")

func TestMain(m *testing.M) { goleak.VerifyTestMain(withWorld{m}) }

// withWorld closes the world of all tests after them.
type withWorld struct{ *testing.M }

func (m withWorld) Run() int {
	defer closeWorld()
	return m.M.Run()
}

// rig is oneprom in front of the world's servers, each behind a fault of its own.
type rig struct {
	proxies map[string]*fault.Proxy // by the server's name
	file    string                  // the configuration
	server  *proxy.Server
	client  *http.Client
}

// newRig makes oneprom, which is not started, with command line flags.
func newRig(t *testing.T, w *world, flags ...string) *rig {
	t.Helper()
	r := &rig{proxies: map[string]*fault.Proxy{}, file: filepath.Join(t.TempDir(), "oneprom.yml")}
	for name, handler := range w.servers {
		p, err := fault.New(handler)
		require.NoError(t, err)
		t.Cleanup(p.Close)
		r.proxies[name] = p
	}
	r.configure(t, zones)
	var o proxy.Options
	app := kingpin.New("oneprom", "")
	proxy.AddFlags(app, &o)
	_, err := app.Parse(append(flags, "--config.file="+r.file, "--web.listen-address=127.0.0.1:0", "--query.timeout="+queryTimeout.String()))
	require.NoError(t, err)
	r.server, err = proxy.New(o)
	require.NoError(t, err)
	transport := &http.Transport{MaxIdleConnsPerHost: 100}
	r.client = &http.Client{Transport: transport, Timeout: time.Minute}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		require.NoError(t, r.server.Stop(ctx))
	})
	return r
}

// configure writes a configuration with a group for each of the zones. The options are further lines
// of each group.
func (r *rig) configure(t *testing.T, zones []zone, options ...string) {
	t.Helper()
	var b strings.Builder
	b.WriteString("server_groups:\n")
	for _, z := range zones {
		fmt.Fprintf(&b, "  - name: %s\n    region: %s\n    labels: {zone: %s}\n    replica_labels: [replica]\n    timeout: %s\n", z.name, z.region, z.name, groupTimeout)
		for _, o := range options {
			b.WriteString("    " + o + "\n")
		}
		fmt.Fprintf(&b, "    static_configs: [{targets: ['%s', '%s']}]\n", r.proxies[z.name+"-a"].Addr(), r.proxies[z.name+"-b"].Addr())
	}
	require.NoError(t, os.WriteFile(r.file, []byte(b.String()), 0o600))
}

func (r *rig) start(t *testing.T) {
	t.Helper()
	require.NoError(t, r.server.Start(t.Context()))
}

// settle asks until all is right, which it is once every server has been asked what it is.
func (r *rig) settle(t *testing.T, w *world) {
	t.Helper()
	for began := time.Now(); ; {
		answers := r.askAll(t.Context(), w, 0, ailment{})
		if allRight(answers) {
			return
		}
		i := slices.IndexFunc(answers, func(a answered) bool { return a.outcome != right })
		require.Less(t, time.Since(began), recovery, "%s: %s", answers[i].path, answers[i].why)
	}
}

// set puts the servers under a fault.
func (r *rig) set(t *testing.T, f fault.Fault, servers []string) {
	t.Helper()
	for _, name := range servers {
		require.NoError(t, r.proxies[name].Set(f))
	}
}
