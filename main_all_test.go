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
