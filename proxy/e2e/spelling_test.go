//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/proxy/e2e/internal/world"
)

// exposed is what a target exposes at /text. The values are always the same, so that answers do not depend on the moment of a scrape.
const exposed = `# TYPE h histogram
h_bucket{le="0.5"} 1
h_bucket{le="1"} 2
h_bucket{le="2.0"} 2
h_bucket{le="1e3"} 2
h_bucket{le="+Inf"} 3
h_sum 5
h_count 3
# TYPE s summary
s{quantile="0"} 1
s{quantile="0.5"} 2
s{quantile="1"} 3
s_sum 6
s_count 3
# TYPE g gauge
g{le="1"} 1
g{quantile="1"} 1
# TYPE u unknown
u{quantile="1"} 1
u{le="1"} 1
`

// untyped is what it exposes besides, in the text format only, without any type.
const untyped = "n_bucket{le=\"1\"} 1\nn_bucket{le=\"+Inf\"} 2\nn{quantile=\"1\"} 2\n"

// runTarget starts the target, which exposes OpenMetrics at /openmetrics.
func runTarget(t *testing.T) (address string) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/openmetrics" {
			w.Header().Set("Content-Type", "application/openmetrics-text; version=1.0.0; charset=utf-8")
			_, _ = io.WriteString(w, exposed+"# EOF\n")
			return
		}
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		_, _ = io.WriteString(w, untyped+strings.ReplaceAll(exposed, "unknown", "untyped"))
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// spelledSelectors are those to which the spelling matters.
var spelledSelectors = []string{
	`h_bucket`, `s`, `g`, `u`, `n`, `n_bucket`, `h_bucket{le="1.0"}`, `h_bucket{le="1"}`, `h_bucket{le="1000.0"}`, `{le="1"}`, `{le="1.0"}`,
	`{le=~"1|2.0"}`, `{le!="",job="text"}`, `h_bucket{le!="1.0"}`, `s{quantile="1.0"}`, `s{quantile="1"}`, `{quantile="1"}`, `{quantile=~"0.5|0.0"}`,
}

// spelledPaths are requests about them, and about what is made of them.
func spelledPaths(at int64) (paths []string) {
	query := func(text string) {
		paths = append(paths, "/api/v1/query?"+url.Values{"query": {text}, "time": {strconv.FormatInt(at, 10)}}.Encode())
	}
	for _, selector := range spelledSelectors {
		query(selector)
		for _, path := range []string{"/series", "/labels", "/label/le/values", "/label/quantile/values"} {
			paths = append(paths, "/api/v1"+path+"?"+url.Values{"match[]": {selector}}.Encode())
		}
	}
	for _, text := range []string{
		`sum by (le) (h_bucket)`, `histogram_quantile(0.9, sum by (job, le) (h_bucket))`, `histogram_quantile(0.9, h_bucket)`, `count(h_bucket{le="2.0"})`,
		`count by (__name__, le) ({le!=""})`, `max by (quantile) (s)`, `sum(h_bucket)`, `sum by (le) (changes(h_bucket[1m]))`,
	} {
		query(text)
	}
	return append(paths, "/api/v1/label/le/values", "/api/v1/label/quantile/values")
}

// TestSpelling_OfRealServers has a Prometheus 2 and a Prometheus 3 scrape one target, and upgrades the first: oneprom in front of them
// answers as a Prometheus 3 alone.
func TestSpelling_OfRealServers(t *testing.T) {
	target := runTarget(t)
	config := "global: {scrape_interval: 1s}\nscrape_configs:\n"
	for _, job := range []string{"text", "openmetrics"} {
		config += fmt.Sprintf("- {job_name: %s, metrics_path: /%s, static_configs: [{targets: ['%s']}]}\n", job, job, target)
	}
	dir := t.TempDir()
	truth := world.RunScraping(t, world.Prometheus, t.TempDir(), config)
	two := world.RunScraping(t, world.Prometheus2, dir, config)
	three := world.RunScraping(t, world.Prometheus, t.TempDir(), config)
	awaitScrapes(t, truth, two, three)

	// This is what servers store, whatever the format. docs/backends.md says so.
	stored := func(p *world.Process, job string) map[string][]string {
		out := map[string][]string{}
		for _, ls := range seriesAt(t, p.URL, fmt.Sprintf(`{job=%q,__name__=~"h_bucket|s|g|u|n|n_bucket"}`, job)) {
			out[ls["__name__"]] = append(out[ls["__name__"]], ls["le"]+ls["quantile"])
		}
		for _, values := range out {
			slices.Sort(values)
		}
		return out
	}
	for _, job := range []string{"text", "openmetrics"} {
		as2 := map[string][]string{"h_bucket": {"+Inf", "0.5", "1", "1e3", "2.0"}, "s": {"0", "0.5", "1"}, "g": {"1", "1"}, "u": {"1", "1"}}
		as3 := map[string][]string{"h_bucket": {"+Inf", "0.5", "1.0", "1000.0", "2.0"}, "s": {"0.0", "0.5", "1.0"}, "g": {"1", "1"}, "u": {"1", "1"}}
		if job == "text" {
			for _, as := range []map[string][]string{as2, as3} {
				as["n_bucket"], as["n"] = []string{"+Inf", "1"}, []string{"1"}
			}
		}
		require.Equal(t, as2, stored(two, job), job)
		require.Equal(t, as3, stored(three, job), job)
	}

	compare := func(options []string, servers ...*world.Process) {
		t.Helper()
		var targets []string
		for _, p := range servers {
			targets = append(targets, hostPort(t, p.URL))
		}
		base := oneprom(t, oneBackend(targets, options...))
		for _, path := range spelledPaths(time.Now().Unix() - 1) {
			require.Equal(t, meant(t, truth.URL+path), meant(t, base+path), path)
		}
	}
	ways := [][]string{nil, {"replicas: merge"}, {"remote_read: never"}, {"pushdown: off"}}
	for _, way := range ways {
		compare(way, two, three)
	}
	compare(nil, two)
	require.NoError(t, two.Signal(syscall.SIGTERM))
	two.Wait()
	upgraded := world.RunScraping(t, world.Prometheus, dir, config)
	awaitScrapes(t, truth, upgraded, three)
	require.Len(t, seriesAt(t, upgraded.URL, `h_bucket{job="text",le=~"1|1.0"}`), 2, "it has both spellings")
	for _, way := range ways {
		compare(way, upgraded, three)
		compare(way, upgraded)
	}
}

// awaitScrapes waits until servers have scraped each target a few times.
func awaitScrapes(t *testing.T, servers ...*world.Process) {
	t.Helper()
	for _, p := range servers {
		since := time.Now()
		require.Eventually(t, func() bool {
			query := url.Values{"query": {fmt.Sprintf("count(count_over_time(up[%dms]) >= 3)", time.Since(since).Milliseconds()+1)}}
			return strings.Contains(meant(t, p.URL+"/api/v1/query?"+query.Encode()), `"2"`)
		}, time.Minute, 200*time.Millisecond)
	}
}

// seriesAt returns the labels of the series that a server has now.
func seriesAt(t *testing.T, base, selector string) []map[string]string {
	t.Helper()
	resp, err := http.Get(base + "/api/v1/series?" + url.Values{"match[]": {selector}}.Encode())
	require.NoError(t, err)
	defer resp.Body.Close()
	var answer struct{ Data []map[string]string }
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&answer))
	return answer.Data
}
