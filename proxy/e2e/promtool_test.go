//go:build e2e

package e2e

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// promtool is the client that every operator has at hand.
func TestPromtool(t *testing.T) {
	shows(t, byPromtool, 1, 2, 5, 6, 11, 20, 21)
	promtool := filepath.Join(t.TempDir(), "promtool")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", promtool, "github.com/prometheus/prometheus/cmd/promtool").CombinedOutput()
	require.NoError(t, err, string(out))

	ref := reference(t)
	backend := oneBackend([]string{hostPort(t, ref)}, "replica_labels: [replica]")
	plain := oneprom(t, backend)
	prefixed := oneprom(t, backend, "--web.route-prefix=/prom", "--web.external-url=http://x/prom/")
	run := func(t *testing.T, args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), promtool, args...).CombinedOutput()
		require.NoError(t, err, string(out))
		return string(out)
	}
	for _, c := range []struct {
		name, want string
		args       func(url string) []string
	}{
		{"instant", "{job=\"b\"} => 5 @[600]\n", func(url string) []string {
			return []string{"query", "instant", "--time=600", url, `sum by (job) (m{job="b"})`}
		}},
		{"range", "", func(url string) []string {
			return []string{"query", "range", "--start=0", "--end=600", "--step=60s", url, "m"}
		}},
		{"series", "", func(url string) []string {
			return []string{"query", "series", "--match=m", "--start=0", "--end=600", url}
		}},
		{"labels", "a\nb\n", func(url string) []string { return []string{"query", "labels", "--start=0", "--end=600", url, "job"} }},
		{"analyze", "", func(url string) []string {
			return []string{"query", "analyze", "--server=" + url, "--type=histogram", "--duration=1h", "--time=3600", "--match=lat_bucket"}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := run(t, c.args(ref)...)
			if c.want != "" {
				require.Equal(t, c.want, want)
			}
			require.NotEmpty(t, want)
			require.Equal(t, want, run(t, c.args(plain)...))
			require.Equal(t, want, run(t, c.args(prefixed)...))
		})
	}
	for _, check := range []string{"healthy", "ready"} {
		t.Run(check, func(t *testing.T) {
			require.Contains(t, run(t, "check", check, "--url="+plain), "SUCCESS")
			require.Contains(t, run(t, "check", check, "--url="+prefixed), "SUCCESS")
		})
	}
}
