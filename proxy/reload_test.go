package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/proxy/config"
)

// A reload that fails at any of its steps, before or while that is put to use, leaves
// everything as it was.
func TestReload_AllOrNothing(t *testing.T) {
	text := func(name string) string {
		return strings.ReplaceAll(`
global: {external_labels: {site: NAME}, tenant_header: X-Tenant, query_log_file: NAME.log}
rule_files: [NAME.rules.yml]
remote_write: [{url: 'http://127.0.0.1:1/NAME'}]
tracing: {client_type: http, endpoint: '127.0.0.1:1', insecure: true, headers: {x-name: NAME}}
query_rules: [{name: NAME, regex: NAME, action: refuse, reason: refused by NAME}]
tenants:
  - {name: NAME, header_values: [NAME], selector: '{team="a"}'}
  - {name: root, header_values: [root], admin: true}
server_groups:
  - {name: NAME, static_configs: [{targets: ['127.0.0.1:1']}]}
`, "NAME", name)
	}
	s, file := newServer(t, text("old"), "--storage.agent.path="+t.TempDir())
	dir := filepath.Dir(file)
	for _, name := range []string{"old", "new"} {
		writeConfig(t, filepath.Join(dir, name+".rules.yml"), "groups: [{name: "+name+", rules: [{record: "+name+", expr: '1'}]}]")
	}
	require.NoError(t, s.Start(t.Context()))

	// What can be seen of a configuration, and what must not be another value.
	state := func() []any {
		api := func(path string) string {
			return as(s, "root", http.MethodGet, "/api/v1/"+path, "").Body.String()
		}
		seen := []any{s.config.Load(), s.rules.Load(), s.tenants.Load(), s.tracing.Current(), api("status/config")}
		for _, name := range []string{"old", "new"} {
			seen = append(seen,
				as(s, name, http.MethodGet, "/api/v1/labels", "").Code == http.StatusForbidden,
				strings.Contains(api("query?query="+name), "refused by "+name),
				strings.Contains(api("rules"), `"name":"`+name+`"`),
				strings.Contains(api("status/groups"), `"name":"`+name+`"`),
				strings.Contains(as(s, "root", http.MethodGet, "/metrics", "").Body.String(), `url="http://127.0.0.1:1/`+name+`"`))
		}
		return seen
	}
	before := state()
	require.Equal(t, []any{false, true, true, true, true, true, false, false, false, false}, before[5:])

	writeConfig(t, file, text("new"))
	steps := slices.Clone(s.steps)
	errBroken := errors.New("broken")
	for i, step := range steps {
		for phase, prepare := range map[string]func(*config.Config) (change, error){
			"prepare": func(*config.Config) (change, error) { return change{}, errBroken },
			"commit": func(cfg *config.Config) (change, error) {
				c, err := step.prepare(cfg)
				commit := c.commit
				c.commit = func(ctx context.Context) error {
					if commit == nil {
						return errBroken
					}
					return errors.Join(commit(ctx), errBroken)
				}
				return c, err
			},
		} {
			s.steps[i].prepare = prepare
			require.ErrorIs(t, s.Reload(t.Context()), errBroken, "%s: %s", step.name, phase)
			require.Equal(t, before, state(), "%s: %s", step.name, phase)
		}
		s.steps[i] = step
	}
	written, err := os.ReadFile(filepath.Join(dir, "new.log"))
	require.NoError(t, err)
	require.Empty(t, written)

	require.NoError(t, s.Reload(t.Context()))
	after := state()
	require.Equal(t, []any{true, false, false, false, false, false, true, true, true, true}, after[5:])
	require.NotEqual(t, fmt.Sprint(before[4]), fmt.Sprint(after[4]))
	require.NotEmpty(t, loggedIn(t, s, filepath.Join(dir, "new.log")))
}
