package proxy

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestCheckConfig_Example: what a newcomer tries first.
func TestCheckConfig_Example(t *testing.T) {
	var out strings.Builder
	require.NoError(t, CheckConfig(options(t), &out, "../config.example.yaml", false))
	require.Equal(t, "Checking ../config.example.yaml\n"+
		"  WARNING: ../config.example.yaml:N: server_groups[1].file_sd_configs[0].files[0]: there is no file targets/us-*.yml\n"+
		"  WARNING: ../config.example.yaml:N: rule_files[0]: there is no file ../rules/*.yml\n"+
		"  SUCCESS: 4 entries of server_groups, 0 rules in 0 files\n", regexp.MustCompile(`:\d+:`).ReplaceAllString(out.String(), ":N:"))
}

// TestCheckConfig_Files: a file that is named and not there is said with its line, of whatever section.
func TestCheckConfig_Files(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "oneprom.yml")
	writeConfig(t, file, `global: {query_log_file: nowhere/q.log}
rule_files:
  - rules.yml
  - more.yml
rules:
  groups:
    other: {partial_response: warn}
tracing: {endpoint: 'c:4317', tls_config: {key_file: t, cert_file: t}}
alerting:
  alertmanagers:
    - static_configs: [{targets: [am]}]
      authorization: {credentials_file: am-token}
remote_write:
  - url: http://a
    google_iam: {credentials_file: google}
server_groups:
  - name: a
    labels: {password_file: no-file}
    basic_auth:
      username: u
      password_file: password
    http_headers: {X: {files: [h1, header]}}
    http_sd_configs: [{url: 'http://sd', bearer_token_file: sd-token}]
  - &b
    name: b
    basic_auth: {username_file: sub, password: x}
    file_sd_configs: [{files: ['targets/*.yml']}]
  - <<: *b
    name: c
    tls_config: {ca_file: ca}
`)
	var out strings.Builder
	err := CheckConfig(options(t), &out, file, false)
	require.Error(t, err)
	missing := func(line, key, name string) string {
		return file + ":" + line + ": " + key + ": stat " + filepath.Join(dir, name) + ": no such file or directory\n"
	}
	require.Equal(t, missing("1", "global.query_log_file", "nowhere")+
		missing("8", "tracing.tls_config.key_file", "t")+
		missing("8", "tracing.tls_config.cert_file", "t")+
		missing("12", "alerting.alertmanagers[0].authorization.credentials_file", "am-token")+
		missing("15", "remote_write[0].google_iam.credentials_file", "google")+
		missing("21", "server_groups[0].basic_auth.password_file", "password")+
		missing("22", "server_groups[0].http_headers.X.files[0]", "h1")+
		missing("22", "server_groups[0].http_headers.X.files[1]", "header")+
		missing("23", "server_groups[0].http_sd_configs[0].bearer_token_file", "sd-token")+
		missing("26", "server_groups[1].basic_auth.username_file", "sub")+
		missing("30", "server_groups[2].tls_config.ca_file", "ca")+
		missing("3", "rule_files[0]", "rules.yml")+
		strings.TrimSuffix(missing("4", "rule_files[1]", "more.yml"), "\n"), err.Error())
	require.NotContains(t, out.String(), "SUCCESS")

	// The syntax is right all the same, as where a pipeline checks it without the secrets.
	out.Reset()
	require.NoError(t, CheckConfig(options(t), &out, file, true))
	require.Equal(t, "Checking "+file+"\n  SUCCESS: the syntax is valid: 3 entries of server_groups\n", out.String())

	// With all files there, it is what they say that counts.
	for _, name := range []string{"t", "am-token", "google", "password", "h1", "header", "sd-token", "ca"} {
		writeConfig(t, filepath.Join(dir, name), "x")
	}
	require.NoError(t, os.Mkdir(filepath.Join(dir, "nowhere"), 0o755))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "sub"), 0o755))
	writeConfig(t, filepath.Join(dir, "rules.yml"), "groups: [{name: g, rules: [{alert: A, expr: up == 0}]}]")
	writeConfig(t, filepath.Join(dir, "more.yml"), "groups: []")
	require.EqualError(t, CheckConfig(options(t), io.Discard, file, false), file+":26: server_groups[1].basic_auth.username_file: "+filepath.Join(dir, "sub")+" is a directory\n"+
		file+":7: rules.groups.other: no file of rule_files has such a group: remove it, or correct the name")
	require.NoError(t, os.Remove(filepath.Join(dir, "sub")))
	writeConfig(t, filepath.Join(dir, "sub"), "x")
	writeConfig(t, filepath.Join(dir, "more.yml"), "groups: [{name: other, rules: []}]")
	err = CheckConfig(options(t), io.Discard, file, false)
	require.ErrorContains(t, err, file+":28: server_groups[2]: tls_config: unable to use specified CA cert")
	require.ErrorContains(t, err, file+":8: tracing: tls_config: ")
}

// TestRoutes_WhatAStoreWouldDo: no answer names a flag that oneprom does not have, or that would not
// help.
func TestRoutes_WhatAStoreWouldDo(t *testing.T) {
	off, _ := startedServer(t, oneGroup)
	on, _ := startedServer(t, oneGroup, "--web.enable-admin-api", "--enable-feature=search-api", "--web.search.max-limit=5")
	for _, path := range []string{"/api/v1/write", "/api/v1/otlp/v1/metrics"} {
		for _, s := range []*Server{off, on} {
			w := ask(s.Handler(), http.MethodPost, path, "")
			require.Equal(t, http.StatusNotFound, w.Code)
			require.Equal(t, "oneprom stores no samples: write them to the Prometheus servers or the store behind it\n", w.Body.String())
		}
	}
	for _, action := range []string{"delete_series?match[]=up", "clean_tombstones", "snapshot"} {
		require.Equal(t, apiFailure("unavailable", "admin APIs disabled"), ask(off.Handler(), http.MethodPost, "/api/v1/admin/tsdb/"+action, "").Body.String())
		require.Equal(t, apiFailure("unavailable", "oneprom stores no samples: ask the Prometheus servers behind it"), ask(on.Handler(), http.MethodPost, "/api/v1/admin/tsdb/"+action, "").Body.String())
	}
	require.Contains(t, get(on.Handler(), "/api/v1/search/metric_names?limit=6").Body.String(), "(5, see --web.search.max-limit)")
}
