package migrate

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/discovery"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/oneprom/oneprom/proxy/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var update = flag.Bool("update", false, "write the golden files")

// Each file of promxy or Prometheus becomes the file beside it, which oneprom takes.
func TestFile_Golden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, path := range files {
		t.Run(filepath.Base(path), func(t *testing.T) {
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			got, err := File(data, filepath.Base(path))
			require.NoError(t, err)
			_, err = config.Parse(got, "got")
			require.NoError(t, err, "%s", got)

			golden := strings.TrimSuffix(path, ".yml") + ".golden"
			if *update {
				require.NoError(t, os.WriteFile(golden, got, 0o644))
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err)
			require.Equal(t, string(want), string(got))
		})
	}
}

func TestFile_NotAFileToMigrate(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		_, err := File([]byte(text), "f")
		require.EqualError(t, err, want)
	}
	f("server_groups: []\n", "f:1: a configuration of oneprom already: there are server_groups at the top level")
	f("a: b\n", "f:1: neither a configuration of promxy (there is no `promxy`) nor of Prometheus (there are no scrape_configs)")
	f("- a\n", "f:1: neither a configuration of promxy nor of Prometheus: expected a mapping")
	f("a: [\n", "f:1: not YAML: did not find expected node content")
	f("\npromxy: {}\n", "f:2: promxy.server_groups: expected a list of server groups")
	f("promxy: {server_groups: {a: b}}\n", "f:1: promxy.server_groups: expected a list of server groups")
	f("promxy:\n  server_groups:\n  - a\n", "f:3: promxy.server_groups[0]: expected a mapping")
	f("promxy: &a [*a]\n", "f:1: YAML aliases expand too far or are recursive")
}

// Settings that several groups share by anchors and merges are those of each.
func TestFile_Aliases(t *testing.T) {
	got, err := File([]byte(`promxy:
  server_groups:
    - &a {static_configs: [{targets: [a]}], labels: &l {x: a, y: b}, scheme: https}
    - {<<: *a, static_configs: [{targets: [b]}], labels: {<<: *l, x: c}}
`), "f")
	require.NoError(t, err)
	cfg, err := config.Parse(got, "got")
	require.NoError(t, err, "%s", got)
	require.Len(t, cfg.ServerGroups, 2)
	require.Equal(t, "c-b", cfg.ServerGroups[1].Name)
	require.Equal(t, map[string]string{"x": "c", "y": "b"}, cfg.ServerGroups[1].Labels)
	require.Equal(t, "https", cfg.ServerGroups[1].Scheme)
}

// What cannot be read is not left out: without a header, another tenant may answer.
func TestFile_MalformedIsNotLeftOut(t *testing.T) {
	group := "promxy:\n  server_groups:\n    - static_configs: [{targets: [a]}]\n      "
	for text, want := range map[string]string{
		group + "http_headers: [X-Scope-OrgID, a]":                                       "headers",
		group + "http_headers: {X-Scope-OrgID: [a]}":                                     "headers",
		group + "http_headers: {X-Scope-OrgID: {a: b}, Y: c}":                            "headers",
		group + "http_headers: {Authorization: \"Basic ???\"}":                           "authorization",
		group + "labels: [a, b]":                                                         "labels",
		"promxy:\n  server_groups:\n    - static_configs: [{targets: [a], labels: [b]}]": "labels",
	} {
		got, err := File([]byte(text+"\n"), "f")
		require.NoError(t, err)
		_, err = config.Parse(got, "got")
		require.ErrorContains(t, err, want, "%s\n%s", text, got)
	}
}

// Labels that begin with two underscores are for relabelling.
func TestFile_LabelsForRelabeling(t *testing.T) {
	got, err := File([]byte(`promxy:
  server_groups:
    - static_configs:
        - {targets: [a], labels: {__scheme__: https, __param_x: "1", zone: z}}
        - {targets: [b], labels: {zone: z}}
      relabel_configs: [{source_labels: [__param_x], target_label: __metrics_path__}]
`), "f")
	require.NoError(t, err)
	cfg, err := config.Parse(got, "got")
	require.NoError(t, err, "%s", got)
	require.Len(t, cfg.ServerGroups, 1)
	require.Equal(t, map[string]string{"zone": "z"}, cfg.ServerGroups[0].Labels)
	statics := cfg.ServerGroups[0].ServiceDiscoveryConfigs[0].(discovery.StaticConfig)
	require.Equal(t, model.LabelSet{"__scheme__": "https", "__param_x": "1"}, statics[0].Labels)
	require.Empty(t, statics[1].Labels)
}

// A labeldrop may name its labels by a regular expression.
func TestFile_DroppedLabels(t *testing.T) {
	f := func(rules string, left bool, want ...string) {
		t.Helper()
		got, err := File([]byte("promxy:\n  server_groups:\n    - static_configs: [{targets: [a]}]\n      metrics_relabel_configs: ["+rules+"]\n"), "f")
		require.NoError(t, err)
		cfg, err := config.Parse(got, "got")
		require.NoError(t, err, "%s", got)
		require.Equal(t, want, cfg.ServerGroups[0].ReplicaLabels, "%s", got)
		require.Equal(t, left, strings.Contains(string(got), "# metrics_relabel_configs:"), "%s", got)
	}
	f(`{action: labeldrop, source_label: replica}`, false, "replica")
	f(`{action: labeldrop, regex: replica}`, false, "replica")
	f(`{action: labeldrop, regex: replica|prometheus_replica}`, false, "replica", "prometheus_replica")
	f(`{action: labeldrop, regex: replica_.*}`, true)
	f(`{action: labeldrop}`, true)
	f(`{action: labeldrop, regex: a}, {action: replace, source_label: a, target_label: b}`, true)
	f(`{action: labeldrop, source_label: a}, {action: replace, source_label: a, target_label: b}`, true)
}

func TestCommand_Run(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "promxy.yml"), filepath.Join(dir, "oneprom.yml")
	write := func(text string) { require.NoError(t, os.WriteFile(in, []byte(text), 0o644)) }
	write("promxy: {server_groups: [{static_configs: [{targets: [a]}]}]}\n")

	var stdout strings.Builder
	require.NoError(t, (&Command{File: in}).Run(&stdout))
	require.Contains(t, stdout.String(), "  - name: a\n")
	require.NoError(t, (&Command{File: in, Output: out}).Run(nil))
	written, err := os.ReadFile(out)
	require.NoError(t, err)
	require.Equal(t, stdout.String(), string(written))

	// A file that is there is not written over.
	require.ErrorIs(t, (&Command{File: in, Output: out}).Run(nil), os.ErrExist)

	// What cannot be right here is written, and said.
	write("promxy: {server_groups: [{static_configs: [{targets: [a]}]}, {static_configs: [{targets: [a]}]}]}\n")
	stdout.Reset()
	err = (&Command{File: in}).Run(&stdout)
	require.ErrorContains(t, err, "what was written needs a hand still:\nthe output:")
	require.ErrorContains(t, err, "http://a is a replica of server_groups[0] too")
	require.Contains(t, stdout.String(), "  - name: a-2\n")
}

// FuzzFile: nothing makes it panic, and what it writes is YAML.
func FuzzFile(f *testing.F) {
	files, err := filepath.Glob("testdata/*.yml")
	require.NoError(f, err)
	for _, path := range files {
		data, err := os.ReadFile(path)
		require.NoError(f, err)
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := File(data, "f")
		if err != nil {
			return
		}
		_, err = config.Document(got, "got")
		require.NoError(t, err, "%s", got)
	})
}
