//go:build !remove_all_sd

package main

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/discovery"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/proxy/config"
)

// Without build tags, no service discovery is missing.
func TestDiscoveries_All(t *testing.T) {
	want := append(slices.Collect(maps.Keys(discoveries)), "static")
	require.ElementsMatch(t, want, discovery.RegisteredConfigNames())
}

// TestDocs_Discoveries: the files that the document shows are files of oneprom.
func TestDocs_Discoveries(t *testing.T) {
	data, err := os.ReadFile("docs/discovery.md")
	require.NoError(t, err)
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(data, -1)
	require.NotEmpty(t, blocks)
	for _, block := range blocks {
		_, err := config.Parse(block[1], "docs/discovery.md")
		require.NoError(t, err, "%s", block[1])
	}
}

// The errors of some clients show secrets.
func TestDiscoveries_ErrorsWithoutSecrets(t *testing.T) {
	_, err := config.Parse([]byte("server_groups: [{name: a, scaleway_sd_configs: [{role: instance, project_id: 00000000-0000-0000-0000-000000000000, access_key: SCW0123456789ABCDEFG, secret_key: hunter2}]}]"), "f")
	require.ErrorContains(t, err, "invalid secret key format '<secret>'")
	require.NotContains(t, err.Error(), "hunter2")
}

// TestExampleDiscoveries reads what config.example.yaml shows of service discoveries in
// comments.
func TestExampleDiscoveries(t *testing.T) {
	example, err := os.ReadFile("config.example.yaml")
	require.NoError(t, err)
	shown := regexp.MustCompile(`(?m)^    # (\w+)_sd_configs: .*$`)
	kinds := shown.FindAllSubmatch(example, -1)
	require.Len(t, kinds, 3)
	text := regexp.MustCompile(`(?m)^    # (\w+_sd_configs: )`).ReplaceAll(example, []byte("    $1"))
	cfg, err := config.Parse(text, "config.example.yaml")
	require.NoError(t, err)
	for _, g := range cfg.ServerGroups {
		if g.Name == "shards" {
			require.Len(t, g.ServiceDiscoveryConfigs, 4)
		}
	}
}
