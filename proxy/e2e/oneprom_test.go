//go:build e2e

package e2e

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

// onepromFlags make oneprom's engine that of promqltest.
var onepromFlags = []string{
	"--enable-feature=promql-experimental-functions,promql-delayed-name-removal,promql-extended-range-selectors," +
		"promql-binop-fill-modifiers,promql-duration-expr,use-start-timestamps",
	"--query.max-samples=10000",
}

// keeps are the flags of a oneprom whose answers are kept, until they are flushed: the data behind the groups of
// promqltest changes while it runs, at every `clear` of a file, for the same times.
var keeps = []string{"--cache.size=16MiB", "--web.enable-admin-api"}

// startOneprom starts oneprom over the groups and returns its base URL, without a trailing slash. It
// stops when the test ends.
func startOneprom(t *testing.T, groups []groupSpec, flags ...string) (baseURL string) {
	t.Helper()
	return oneprom(t, onepromConfig(t, groups), slices.Concat(onepromFlags, flags)...)
}

// onepromConfig is the configuration file with these groups.
func onepromConfig(t *testing.T, groups []groupSpec) string {
	t.Helper()
	type m = map[string]any
	var list []m
	for _, g := range groups {
		group := m{
			"name": g.name, "labels": m{}, "remote_read": g.remoteRead,
			"static_configs": []m{{"targets": g.targets}},
		}
		span := m{}
		if !g.start.IsZero() {
			span["start"] = g.start.Format(time.RFC3339)
		}
		if !g.end.IsZero() {
			span["end"] = g.end.Format(time.RFC3339)
		}
		if len(span) > 0 {
			group["time_range"] = span
		}
		list = append(list, group)
	}
	text, err := yaml.Marshal(m{"global": m{"evaluation_interval": "1m"}, "server_groups": list})
	require.NoError(t, err)
	return string(text)
}
