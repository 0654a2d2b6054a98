//go:build !remove_all_sd

package main

import (
	"maps"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/discovery"
	"github.com/stretchr/testify/require"
)

// Without build tags, no service discovery is missing.
func TestDiscoveries_All(t *testing.T) {
	want := append(slices.Collect(maps.Keys(discoveries)), "static")
	require.ElementsMatch(t, want, discovery.RegisteredConfigNames())
}
