//go:build e2e

package e2e

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/proxy/e2e/internal/world"
)

// TestTenants_OfStores: a tenant of an InfluxDB, which takes regular expressions for parts of values, of a
// VictoriaMetrics and of a Prometheus 2 sees what a Prometheus shows that has the tenant's data only.
func TestTenants_OfStores(t *testing.T) {
	teams := []string{"a", "ab", "xa", "a\nb", "A", "a.c", "secret", "secretary", "(a)", "^a$", "a|b"}
	var all []labels.Labels
	for i, team := range teams {
		for _, name := range []string{"m", "of_" + strconv.Itoa(i)} {
			b := labels.NewBuilder(labels.FromStrings("__name__", name, "job", "j", "instance", name+strconv.Itoa(i), "label_"+strconv.Itoa(i), "x"))
			all = append(all, b.Set("team", team).Labels())
		}
	}
	selectors := map[string]string{
		"one": `{team="a"}`, "regexp": `{team=~"a"}`, "or": `{team=~"a.?b|b"}`, "not": `{team!~"secret.*",job="j"}`,
	}
	now := time.Now().Truncate(time.Minute)
	from, to := now.Add(-10*time.Minute).UnixMilli(), now.UnixMilli()
	window := url.Values{"start": {strconv.FormatInt(from/1000, 10)}, "end": {strconv.FormatInt(to/1000, 10)}}.Encode()
	paths := []string{"/api/v1/labels?" + window, "/api/v1/label/team/values?" + window, "/api/v1/label/__name__/values?" + window}
	for _, selector := range []string{`m`, `{__name__=~".+"}`, `{team=~".*",job="j"}`, `m{team!="none"}`, `m{team=~"a|.*"}`, `m{team="secret"}`, `{__name__=~"m|of.*"}`} {
		paths = append(paths, meaningPaths(selector, from, to)...)
	}
	config := func(process *world.Process, options ...string) string {
		text := "global: {tenant_header: X-Tenant}\ntenants:\n"
		for name, selector := range selectors {
			text += fmt.Sprintf("  - {name: %s, header_values: [%s], selector: '%s'}\n", name, name, selector)
		}
		return text + oneBackend([]string{hostPort(t, process.URL)}, options...)
	}
	want := map[string]map[string]string{}
	for name, selector := range selectors {
		ms, err := parser.NewParser(parser.Options{}).ParseMetricSelector(selector)
		require.NoError(t, err)
		var own []labels.Labels
		for _, ls := range all {
			matches := true
			for _, m := range ms {
				matches = matches && m.Matches(ls.Get(m.Name))
			}
			if matches {
				own = append(own, ls)
			}
		}
		require.NotEmpty(t, own)
		require.Less(t, len(own), len(all))
		truth := world.RunFed(t, world.Prometheus, own, from, to)
		want[name] = map[string]string{}
		for _, path := range paths {
			want[name][path] = meant(t, truth.URL+path)
		}
		truth.Kill()
	}
	for kind, options := range map[world.Kind][]string{
		world.InfluxDB: {"query_params: {db: [prom]}"}, world.VictoriaMetrics: nil, world.Prometheus2: nil,
	} {
		base := oneprom(t, config(world.RunFed(t, kind, all, from, to), options...))
		for name := range selectors {
			if kind == world.InfluxDB && name == "not" {
				continue // docs/tenants.md
			}
			for _, path := range paths {
				require.Equal(t, want[name][path], meantFor(t, base+path, http.Header{"X-Tenant": {name}}), "%s, %s: %s", kind, selectors[name], path)
			}
		}
		for _, path := range paths { // a name in another form is nobody's
			for _, header := range []http.Header{{}, {"X-Tenant": {"one", "others"}}, {"X-Tenant": {"one,others"}}, {"X-Tenant": {"ONE"}}, {"X_Tenant": {"one"}}, {"X-Tenant": {""}}} {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+path, nil)
				require.NoError(t, err)
				req.Header = header
				resp, err := http.DefaultClient.Do(req)
				require.NoError(t, err)
				require.NoError(t, resp.Body.Close())
				require.Contains(t, []int{http.StatusUnauthorized, http.StatusForbidden}, resp.StatusCode)
			}
		}
	}
}
