//go:build e2e

package e2e

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/proxy/e2e/internal/world"
)

// startWorldOneprom starts a oneprom in front of all groups of a started world and returns its base URL.
func startWorldOneprom(t testing.TB, w *world.World) string {
	t.Helper()
	return runWorldOneprom(t, w).URL
}

// bothWays runs a test of a oneprom in front of a started world with push-down on and off.
func bothWays(t *testing.T, w *world.World, test func(t *testing.T, base string)) {
	t.Helper()
	t.Run("push-down", func(t *testing.T) { test(t, startWorldOneprom(t, w)) })
	t.Run("no push-down", func(t *testing.T) { test(t, startWithoutPushdown(t, w)) })
}

// startWithoutPushdown is startWorldOneprom with push-down off.
func startWithoutPushdown(t testing.TB, w *world.World) string {
	t.Helper()
	return runWorldOneprom(t, w, "global: {pushdown: off}").URL
}

// onepromBinary returns the path of the binary under test: $ONEPROM_BIN, or the one built from this module.
func onepromBinary(t testing.TB) string {
	t.Helper()
	if binary := os.Getenv("ONEPROM_BIN"); binary != "" {
		return binary
	}
	return world.Binary(t, "github.com/oneprom/oneprom")
}

// runWorldOneprom starts the binary under test. more are lines of its configuration.
func runWorldOneprom(t testing.TB, w *world.World, more ...string) *world.Process {
	t.Helper()
	return runFlaggedOneprom(t, w, nil, more...)
}

// runFlaggedOneprom is runWorldOneprom with flags.
func runFlaggedOneprom(t testing.TB, w *world.World, flags []string, more ...string) *world.Process {
	t.Helper()
	config := filepath.Join(t.TempDir(), "oneprom.yml")
	require.NoError(t, os.WriteFile(config, []byte(strings.Join(append(more, worldConfig(w)), "\n")), 0o644))
	binary := onepromBinary(t)
	return world.Run(t, binary, append([]string{"--config.file=" + config, "--enable-feature=" + world.Features}, flags...)...)
}

// worldConfig is the configuration of a oneprom for the world.
func worldConfig(w *world.World) string {
	var b strings.Builder
	b.WriteString("server_groups:\n")
	for _, g := range w.Groups {
		fmt.Fprintf(&b, "  - name: %s\n", g.Name)
		switch kind := g.Replicas[0].Kind; kind {
		case world.InfluxDB:
			fmt.Fprintf(&b, "    query_params: {db: [%s]}\n", strings.Join(world.InfluxParams["db"], ", "))
			fallthrough
		case world.VictoriaMetrics, world.Oneprom:
			fmt.Fprintf(&b, "    kind: %s\n", kind)
		}
		if g.Region != "" {
			fmt.Fprintf(&b, "    region: %s\n", g.Region)
		}
		if len(g.Labels) > 0 {
			b.WriteString("    labels:\n")
		}
		for _, name := range slices.Sorted(maps.Keys(g.Labels)) {
			fmt.Fprintf(&b, "      %s: %q\n", name, g.Labels[name])
		}
		if len(g.ReplicaLabels) > 0 {
			fmt.Fprintf(&b, "    replica_labels: [%s]\n", strings.Join(g.ReplicaLabels, ", "))
		}
		if len(g.Intrinsic) > 0 {
			fmt.Fprintf(&b, "    intrinsic_labels: [%s]\n", strings.Join(g.Intrinsic, ", "))
		}
		if len(g.CopiesOf) > 0 {
			fmt.Fprintf(&b, "    copies_of: [%s]\n", strings.Join(g.CopiesOf, ", "))
		}
		if g.DataEnd > 0 {
			fmt.Fprintf(&b, "    time_range: {end: %q}\n", time.UnixMilli(g.DataEnd).UTC().Format(time.RFC3339))
		}
		var targets []string
		for _, r := range g.Replicas {
			targets = append(targets, fmt.Sprintf("%q", strings.TrimPrefix(r.URL, "http://")))
		}
		fmt.Fprintf(&b, "    static_configs: [{targets: [%s]}]\n", strings.Join(targets, ", "))
	}
	return b.String()
}
