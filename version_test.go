package main

import (
	"runtime/debug"
	"testing"

	"github.com/prometheus/common/version"
	"github.com/stretchr/testify/require"
)

// Without the stamp of `make build`, what go recorded says which oneprom it is.
func TestFillVersion(t *testing.T) {
	stamped, date := version.Version, version.BuildDate
	t.Cleanup(func() { version.Version, version.BuildDate = stamped, date })
	recorded := &debug.BuildInfo{
		Main:     debug.Module{Version: "v1.2.3"},
		Settings: []debug.BuildSetting{{Key: "vcs", Value: "git"}, {Key: "vcs.time", Value: "2026-11-28T10:00:00Z"}},
	}

	version.Version, version.BuildDate = "", ""
	fillVersion(recorded)
	require.Equal(t, "v1.2.3", version.Version)
	require.Equal(t, "2026-11-28T10:00:00Z", version.BuildDate)

	version.Version, version.BuildDate = "v2.0.0-3-gabcdef0", "2026-11-29T10:00:00Z"
	fillVersion(recorded)
	require.Equal(t, "v2.0.0-3-gabcdef0", version.Version, "the stamp stays")
	require.Equal(t, "2026-11-29T10:00:00Z", version.BuildDate)
}
