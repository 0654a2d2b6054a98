package main

import (
	"runtime/debug"

	"github.com/prometheus/common/version"
)

// fillVersion takes the version and date that the go command recorded in the binary,
// where `make build` stamped none. The version package finds the revision itself.
func fillVersion(info *debug.BuildInfo) {
	if version.Version != "" {
		return
	}
	version.Version = info.Main.Version
	for _, setting := range info.Settings {
		if setting.Key == "vcs.time" {
			version.BuildDate = setting.Value
		}
	}
}
