package e2e

import (
	"net"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest"
)

// A oneprom in front of another one: what is missing below is said above, and what is there is not lost with it.
func TestLevels_AGroupThatIsMissingBelowIsSaidAbove(t *testing.T) {
	c := plainClient(t)
	eu := hostPort(t, serve(t, backendtest.NewHandler(backendtest.Options{Queryable: loaded(t, "load 30s\n foo{i=\"1\"} 1x40")})))
	us := deadAddress(t)
	lower := oneprom(t, "server_groups:\n"+
		"  - {name: eu, labels: {region: eu}, static_configs: [{targets: ['"+eu+"']}]}\n"+
		"  - {name: us, labels: {region: us}, static_configs: [{targets: ['"+us+"']}]}\n")
	below := oneBackend([]string{hostPort(t, lower)})
	upper := oneprom(t, below)

	got := c.ask(t, upper, probe{path: instantQuery("count by (region) (foo)", 600)})
	require.Equal(t, http.StatusOK, got.status, got.body)
	require.Contains(t, got.body, `{"metric":{"region":"eu"},"value":[600,"1"]}`)
	require.Contains(t, got.body, "partial answer")
	require.Contains(t, got.body, us)
	require.Contains(t, c.ask(t, upper, probe{path: "/api/v1/status/groups"}).body, `"kind":"oneprom"`)

	strict := oneprom(t, "global: {partial_response: error}\n"+below)
	requireFailure(t, c.ask(t, strict, probe{path: instantQuery("count(foo)", 600)}), us)
	// What the lost group has no part in is whole.
	got = c.ask(t, strict, probe{path: instantQuery(`count(foo{region="eu"})`, 600)})
	require.Equal(t, http.StatusOK, got.status, got.body)
	require.NotContains(t, got.body, "warnings")
}

// deadAddress is one that refuses connections.
func deadAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}
