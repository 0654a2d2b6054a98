package e2e

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The layer below the answers: methods, encodings, cross-origin rules, paths
// outside the API, prefixes.

func TestContractRouterErrorsAreText(t *testing.T) {
	shows(t, byHTTP, 3, 21)
	c := newContractPair(t)
	text405 := "Method Not Allowed\n"
	c.run(t, []probe{
		{name: "unknown path", path: "/api/v1/nope", status: http.StatusNotFound, want: "404 page not found\n"},
		{name: "unknown root path", path: "/nope", status: http.StatusNotFound, want: "404 page not found\n"},
		{name: "PUT", method: "PUT", path: "/api/v1/query", status: http.StatusMethodNotAllowed, want: text405},
		{name: "POST on a GET", method: "POST", path: "/api/v1/rules", status: http.StatusMethodNotAllowed, want: text405},
		{name: "HEAD on the API", method: "HEAD", path: "/api/v1/query?query=1", status: http.StatusMethodNotAllowed},
		{name: "GET on read", path: "/api/v1/read", status: http.StatusMethodNotAllowed, want: text405},
		{name: "POST on healthy", method: "POST", path: "/-/healthy", status: http.StatusMethodNotAllowed, want: text405},
	})
	for _, base := range []string{c.direct, c.oneprom} {
		allow := c.ask(t, base, probe{method: "PUT", path: "/api/v1/query"}).header.Get("Allow")
		require.Contains(t, allow, "GET")
		require.Contains(t, allow, "POST")
	}
}

func TestContractEncodings(t *testing.T) {
	shows(t, byHTTP, 16)
	c := newContractPair(t)
	for accept, want := range map[string]string{
		"": "", "gzip": "gzip", "gzip;q=1.0": "", "deflate": "deflate", "br, gzip": "gzip", "gzip, deflate, br, zstd": "gzip",
		"gzip;q=0.5, deflate": "deflate", "zstd": "", "br": "", "snappy": "", "*": "",
	} {
		t.Run(accept, func(t *testing.T) {
			p := probe{path: "/api/v1/query_range?query=m&start=0&end=3600&step=15", header: map[string]string{"Accept-Encoding": accept}}
			direct, through := c.ask(t, c.direct, p), c.ask(t, c.oneprom, p)
			for _, r := range []reply{direct, through} {
				require.Equal(t, want, r.header.Get("Content-Encoding"))
				require.Equal(t, "Accept-Encoding, Origin", strings.Join(r.header.Values("Vary"), ", "))
				require.Equal(t, "application/json", r.header.Get("Content-Type"))
				for _, name := range []string{"ETag", "Last-Modified", "Cache-Control"} {
					require.Empty(t, r.header.Get(name), name)
				}
			}
			require.Equal(t, direct.body, through.body)
		})
	}
}

func TestContractUnknownAcceptGivesJSON(t *testing.T) {
	shows(t, byHTTP, 16)
	c := newContractPair(t)
	for _, accept := range []string{"text/html", "application/x-protobuf", "*/*"} {
		c.run(t, []probe{{name: accept, path: "/api/v1/query?query=1&time=4", header: map[string]string{"Accept": accept}, want: scalarAnswer("4", "1")}})
	}
}

func TestContractCrossOrigin(t *testing.T) {
	shows(t, byHTTP, 17)
	c := newContractPair(t)
	origin := map[string]string{"Origin": "http://dash.example"}
	want := map[string]string{
		"Access-Control-Allow-Origin":   "*",
		"Access-Control-Allow-Methods":  "GET, POST, OPTIONS",
		"Access-Control-Allow-Headers":  "Accept, Authorization, Content-Type, Origin",
		"Access-Control-Expose-Headers": "Date",
	}
	for _, base := range []string{c.direct, c.oneprom} {
		for _, p := range []probe{
			{method: "OPTIONS", path: "/api/v1/query_range", header: origin},
			{path: "/api/v1/query?query=1", header: origin},
			{path: "/api/v1/query?query=(", header: origin},
		} {
			r := c.ask(t, base, p)
			for name, value := range want {
				if name == "Access-Control-Expose-Headers" && base == c.oneprom && r.header.Get("X-Oneprom-Completeness") != "" {
					value += ", X-Oneprom-Completeness, X-Oneprom-Missing, X-Oneprom-Cache" // which upstream has not
				}
				require.Equal(t, value, r.header.Get(name), "%s of %s %s", name, p.method, p.path)
			}
		}
		r := c.ask(t, base, probe{path: "/api/v1/query?query=1"})
		require.Empty(t, r.header.Get("Access-Control-Allow-Origin"))
	}
	c.run(t, []probe{{name: "OPTIONS", method: "OPTIONS", path: "/api/v1/anything", header: origin, status: http.StatusNoContent}})
}

func TestContractStatusPages(t *testing.T) {
	shows(t, byHTTP, 9, 10, 12)
	c := newContractPair(t)
	probes := []probe{
		{name: "buildinfo", path: "/api/v1/status/buildinfo", like: sameKeys},
		{name: "no such rule", path: "/api/v1/rules?rule_name[]=nope", want: `{"status":"success","data":{"groups":[]}}`},
		{name: "version", path: "/version", like: sameStatus},
		{name: "notifications", path: "/api/v1/notifications", want: `{"status":"success","data":[]}`},
		{name: "target metadata", path: "/api/v1/targets/metadata"},
	}
	for _, page := range []string{
		"targets", "scrape_pools", "alertmanagers", "features", "status/config", "status/flags",
		"status/runtimeinfo", "status/tsdb", "status/tsdb/blocks", "status/walreplay", "status/self_metrics?metric_name_pattern=nope",
	} {
		probes = append(probes, probe{name: page, path: "/api/v1/" + page, like: sameStatus})
	}
	c.run(t, probes)
}

// Clients decode these into fixed structures: keys that Prometheus has must be
// there with the same type.
func TestContractStatusSchemas(t *testing.T) {
	shows(t, byHTTP, 9, 12)
	c := newContractPair(t)
	keys := map[string][]string{
		"/api/v1/status/buildinfo":   {".version string", ".revision string", ".branch string", ".buildUser string", ".buildDate string", ".goVersion string"},
		"/api/v1/status/runtimeinfo": {".startTime string", ".CWD string", ".goroutineCount float64", ".reloadConfigSuccess bool", ".lastConfigTime string", ".corruptionCount float64", ".storageRetention string", ".serverTime string", ".hostname string"},
		"/api/v1/status/config":      {".yaml string"},
		"/api/v1/status/walreplay":   {".min float64", ".max float64", ".current float64"},
		"/api/v1/status/tsdb":        {".headStats.numSeries float64", ".headStats.chunkCount float64", ".headStats.minTime float64", ".headStats.maxTime float64"},
	}
	for path, want := range keys {
		for _, base := range []string{c.direct, c.oneprom} {
			got := skeleton(t, c.ask(t, base, probe{path: path}).body)
			for _, key := range want {
				require.Contains(t, got, ".data"+key, "%s%s", base, path)
			}
		}
	}
	for _, base := range []string{c.direct, c.oneprom} {
		for path, list := range map[string][]string{
			"/api/v1/targets":       {"activeTargets", "droppedTargets", "droppedTargetCounts"},
			"/api/v1/scrape_pools":  {"scrapePools"},
			"/api/v1/alertmanagers": {"activeAlertmanagers", "droppedAlertmanagers"},
			"/api/v1/alerts":        {"alerts"},
			"/api/v1/status/tsdb":   {"headStats", "seriesCountByMetricName", "labelValueCountByLabelName", "memoryInBytesByLabelName", "seriesCountByLabelValuePair"},
		} {
			var answer struct {
				Data map[string]json.RawMessage `json:"data"`
			}
			require.NoError(t, json.Unmarshal([]byte(c.ask(t, base, probe{path: path}).body), &answer))
			for _, key := range list {
				require.NotEmpty(t, answer.Data[key], path+" "+key)
				if path != "/api/v1/scrape_pools" {
					require.NotEqual(t, "null", string(answer.Data[key]), path+" "+key)
				}
			}
		}
		var build struct {
			Data map[string]any `json:"data"`
		}
		require.NoError(t, json.Unmarshal([]byte(c.ask(t, base, probe{path: "/api/v1/status/buildinfo"}).body), &build))
		require.Len(t, build.Data, 6, "a features key makes Grafana take it for Mimir")
		require.Regexp(t, `^3\.\d+\.\d+`, build.Data["version"])
	}
}

func TestContractManagementPages(t *testing.T) {
	shows(t, byHTTP, 11, 18)
	c := newContractPair(t)
	c.run(t, []probe{
		{name: "healthy", path: "/-/healthy", like: sameStatus},
		{name: "ready", path: "/-/ready", like: sameStatus},
		{name: "healthy by HEAD", method: "HEAD", path: "/-/healthy"},
		{name: "ready by HEAD", method: "HEAD", path: "/-/ready"},
		{name: "metrics", path: "/metrics", like: sameStatus},
		{name: "pprof", path: "/debug/pprof/cmdline", like: sameStatus},
		{name: "goroutines", path: "/debug/pprof/goroutine?debug=1", like: sameStatus},
	})
	for _, base := range []string{c.direct, c.oneprom} {
		require.Regexp(t, ` is Healthy\.\n$`, c.ask(t, base, probe{path: "/-/healthy"}).body)
		require.Regexp(t, ` is Ready\.\n$`, c.ask(t, base, probe{path: "/-/ready"}).body)
		redirects(t, c, base, "/", "/query")
		redirects(t, c, base, "/graph?g0.expr=up%7Ba%3D%22b%22%7D&g0.tab=1", "/query?g0.expr=up%7Ba%3D%22b%22%7D&g0.tab=1")
		// A base URL with a slash at its end.
		r := c.ask(t, base, probe{path: "//-/healthy"})
		if r.status != http.StatusOK {
			require.Equal(t, "/-/healthy", r.header.Get("Location"))
		}
	}
	r := c.ask(t, c.oneprom, probe{path: "/query"})
	require.Equal(t, http.StatusOK, r.status)
	require.Contains(t, r.header.Get("Content-Type"), "text/html")
}

func redirects(t *testing.T, c contractPair, base, from, to string) {
	t.Helper()
	r := c.ask(t, base, probe{path: from})
	require.Equal(t, http.StatusFound, r.status)
	require.Equal(t, to, r.header.Get("Location"))
}

func TestContractFederation(t *testing.T) {
	shows(t, byHTTP, 15)
	c := newContractPair(t)
	c.run(t, []probe{
		{name: "text", path: "/federate?match[]=up", like: sameStatus},
		{name: "two selectors", path: "/federate?" + q("match[]", "up", "match[]", "recent_total"), like: sameStatus},
		{name: "bad selector", path: "/federate?match[]=%7B", status: http.StatusBadRequest},
		{name: "stale series are left out", path: "/federate?match[]=gaps", want: ""},
	})
	for _, base := range []string{c.direct, c.oneprom} {
		r := c.ask(t, base, probe{path: "/federate?match[]=up&match[]=recent_total"})
		require.Regexp(t, `^# TYPE recent_total untyped\nrecent_total\{instance="0",job="a"[^}]*\} 60 \d+\n# TYPE up untyped\nup\{instance="0",job="a"[^}]*\} 1 \d+\nup\{instance="0",job="b"[^}]*\} 1 \d+\n$`, r.body)
		require.Contains(t, r.header.Get("Content-Type"), "text/plain; version=0.0.4")
	}
}

func TestContractUnderAPrefix(t *testing.T) {
	shows(t, byHTTP, 20)
	c := newContractPair(t, "--web.route-prefix=/prom", "--web.external-url=http://x/prom/")
	c.run(t, []probe{
		{name: "query", path: "/api/v1/query?query=1&time=4", want: scalarAnswer("4", "1")},
		{name: "healthy", path: "/-/healthy", like: sameStatus},
		{name: "ready", path: "/-/ready", like: sameStatus},
		{name: "federate", path: "/federate?match[]=up", like: sameStatus},
		{name: "unknown", path: "/api/v1/nope", status: http.StatusNotFound},
	})
	for _, base := range []string{c.direct, c.oneprom} {
		host := strings.TrimSuffix(base, "/prom")
		require.NotEqual(t, base, host)
		redirects(t, c, host, "/", "/prom")
		redirects(t, c, base, "/", "/prom/query")
		redirects(t, c, base, "/graph?g0.expr=up", "/prom/query?g0.expr=up")
		require.Equal(t, http.StatusNotFound, c.ask(t, host, probe{path: "/api/v1/query?query=1"}).status)
	}
}
