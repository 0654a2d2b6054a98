//go:build !remove_all_sd

package main

import (
	"bufio"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestBuild_Stamp: what `make build` makes says of which commit it is: when asked, as
// its first words, and as a metric.
func TestBuild_Stamp(t *testing.T) {
	dir := t.TempDir()
	binary, config := filepath.Join(dir, "oneprom"), filepath.Join(dir, "oneprom.yml")
	output := func(name string, args ...string) string {
		out, err := exec.Command(name, args...).Output()
		require.NoError(t, err, "%s %q", name, args)
		return strings.TrimSpace(string(out))
	}
	version := output("git", "describe", "--tags", "--always", "--dirty")
	revision := output("git", "rev-parse", "HEAD")
	output("make", "build", "BINARY="+binary)

	said := output(binary, "--version")
	require.Contains(t, said, "oneprom, version "+version+" (branch: "+output("git", "rev-parse", "--abbrev-ref", "HEAD")+", revision: "+revision+")")
	require.Regexp(t, `build date: +\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`, said)

	require.NoError(t, os.WriteFile(config, []byte("server_groups: [{name: a, static_configs: [{targets: ['127.0.0.1:1']}]}]"), 0o644))
	server := exec.Command(binary, "--config.file="+config, "--web.listen-address=127.0.0.1:0")
	log, err := server.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, server.Start())
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait() // which says that it was killed
	})
	lines := bufio.NewScanner(log)
	require.True(t, lines.Scan())
	require.Contains(t, lines.Text(), "(version="+version+",")
	var address []string
	for address == nil && lines.Scan() {
		address = regexp.MustCompile(`address=(127\.0\.0\.1:\d+)`).FindStringSubmatch(lines.Text())
	}
	require.NotNil(t, address, "the log names no address")
	resp, err := http.Get("http://" + address[1] + "/metrics")
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	metrics, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Regexp(t, `(?m)^oneprom_build_info\{.*revision="`+revision+`".*version="`+regexp.QuoteMeta(version)+`"`, string(metrics))
}
