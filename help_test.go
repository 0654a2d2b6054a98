package main

import (
	"strings"
	"testing"

	"github.com/alecthomas/kingpin/v2"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/proxy"
)

// TestHelp_OfACommandIsItsOwn: what the server has flags for does not drown a command's.
func TestHelp_OfACommandIsItsOwn(t *testing.T) {
	var opts proxy.Options
	help := func(args ...string) string {
		var b strings.Builder
		app := kingpin.New("oneprom", "").UsageWriter(&b).Terminate(nil)
		proxy.AddFlags(app, &opts)
		shortenHelp(app)
		app.Command("demo", "").Flag("listen", "").String()
		app.Command("explain", "").Flag("time", "").String()
		ctx, err := app.ParseContext(args)
		require.NoError(t, err)
		require.NoError(t, app.UsageForContext(ctx))
		return b.String()
	}
	require.Contains(t, help("demo"), "--listen")
	require.NotContains(t, help("demo"), "--config.file")
	require.Contains(t, help("explain"), "--time")
	require.Contains(t, help("explain"), "--config.file")
	require.Contains(t, help(), "--config.file")
}
