package proxy

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/proxy/admission"
	"github.com/oneprom/oneprom/servergroup/backendtest"
)

const someRules = oneGroup + `
query_rules:
  - name: long
    max_range: 1d
    action: refuse
    reason: a day at most
  - name: scans
    selector_without_matchers: true
    action: refuse
    reason: name it
  - name: fine
    min_step: 10s
    action: refuse
    reason: 10s at least
  - name: wall
    header: {X-Dashboard-Uid: wall}
    max_concurrency: 1
`

// The same through everything, in front of a backend that hangs.
func TestAdmit_BurstOfQueries(t *testing.T) {
	data := promqltest.LoadedStorage(t, "load 30s\n  m 1x10")
	t.Cleanup(func() { require.NoError(t, data.Close()) })
	answer := backendtest.NewHandler(backendtest.Options{Queryable: data})
	var hangs atomic.Bool
	asked, goOn := make(chan struct{}, 1000), make(chan struct{})
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if hangs.Load() && !strings.HasPrefix(r.URL.Path, "/api/v1/status/") {
			asked <- struct{}{}
			<-goOn
		}
		answer.ServeHTTP(w, r)
	}))
	t.Cleanup(backend.Close)
	release := sync.OnceFunc(func() { close(goOn) })
	t.Cleanup(release)
	const limit = 3
	s, _ := startedServer(t, "server_groups:\n  - {name: a, static_configs: [{targets: ['"+strings.TrimPrefix(backend.URL, "http://")+"']}]}\n",
		fmt.Sprint("--query.max-concurrency=", limit), "--query.queue-timeout=200ms")
	require.Equal(t, http.StatusOK, get(s.Handler(), "/api/v1/query?query=m&time=60").Code)

	hangs.Store(true)
	answers := make(chan *httptest.ResponseRecorder, 10*limit)
	for i := range 10 * limit {
		go func() { answers <- get(s.Handler(), fmt.Sprintf("/api/v1/query?query=m%%2B%d&time=60", i)) }()
	}
	for range limit {
		<-asked
	}
	for range 9 * limit {
		w := <-answers
		require.Equal(t, http.StatusTooManyRequests, w.Code)
		require.Equal(t, "1", w.Header().Get("Retry-After"))
		require.Contains(t, w.Body.String(), "no slot of the 3 that --query.max-concurrency gives became free within 200ms")
	}
	release()
	for range limit {
		require.Equal(t, http.StatusOK, (<-answers).Code)
	}
	require.Empty(t, asked, "no others reached the backend")
	require.Equal(t, http.StatusOK, get(s.Handler(), "/api/v1/query?query=m&time=60").Code)
	require.NoError(t, testutil.GatherAndCompare(s.registry, strings.NewReader(`
# HELP oneprom_admission_slots_in_use How many requests are worked on.
# TYPE oneprom_admission_slots_in_use gauge
oneprom_admission_slots_in_use 0
`), "oneprom_admission_slots_in_use"))
	require.Contains(t, get(s.Handler(), "/metrics").Body.String(), fmt.Sprintf(`oneprom_http_requests_total{code="429",handler="/api/v1/query"} %d`, 9*limit))
}

// What asks the servers needs a slot, and so does a plan, which is work. What else oneprom answers of
// itself does not.
func TestAdmit_OnlyWhatAsksTheServersWaits(t *testing.T) {
	s, _ := startedServer(t, oneGroup, "--query.max-concurrency=1", "--query.max-queued=0")
	leave, err := s.gate.Queue.Enter(t.Context(), admission.Request{})
	require.NoError(t, err)
	defer leave()
	for _, target := range []string{
		"/query?query=up", "/query_range?query=up&start=0&end=1&step=1", "/explain?analyze=true&query=up", "/explain?query=up", "/series?match[]=up",
		"/labels", "/label/job/values", "/query_exemplars?query=up", "/metadata",
		"/rules", "/alerts", "/alertmanagers", "/notifications", "/features", "/targets", "/targets/metadata", "/targets/relabel_steps",
		"/scrape_pools", "/scrape_pools/config", "/status/tsdb", "/status/tsdb/blocks",
		"/search/metric_names", "/search/label_names", "/search/label_values",
	} {
		w := get(s.Handler(), "/api/v1"+target)
		require.Equal(t, http.StatusTooManyRequests, w.Code, target)
		require.Contains(t, w.Body.String(), `{"status":"error","errorType":"unavailable","error":"too many requests: no slot of the 1 that --query.max-concurrency gives is free, `+
			`and no more than 0 requests may wait: ask less at once, or raise it or --query.max-queued"}`, target)
	}
	for _, target := range []string{"/query", "/query_range", "/explain?analyze=true", "/explain", "/series", "/labels", "/label/job/values", "/query_exemplars", "/read"} {
		require.Equal(t, http.StatusTooManyRequests, ask(s.Handler(), http.MethodPost, "/api/v1"+target, "query=up&match[]=up").Code, target)
	}
	require.Equal(t, http.StatusTooManyRequests, get(s.Handler(), "/federate?match[]=up").Code)

	for _, target := range []string{
		"/api/v1/format_query?query=up", "/api/v1/parse_query?query=up",
		"/api/v1/status/config", "/api/v1/status/groups", "/api/v1/status/flags", "/api/v1/status/buildinfo", "/api/v1/status/runtimeinfo",
		"/-/healthy", "/-/ready", "/metrics", "/query",
	} {
		require.Equal(t, http.StatusOK, get(s.Handler(), target).Code, target)
	}
}

// Upstream's own gate does not take 0 for no limit.
func TestAdmit_RemoteReadWithoutALimit(t *testing.T) {
	data := promqltest.LoadedStorage(t, "load 30s\n  m 1x10")
	t.Cleanup(func() { require.NoError(t, data.Close()) })
	backend := httptest.NewServer(backendtest.NewHandler(backendtest.Options{Queryable: data}))
	t.Cleanup(backend.Close)
	s, _ := startedServer(t, "server_groups:\n  - {name: a, static_configs: [{targets: ['"+strings.TrimPrefix(backend.URL, "http://")+"']}]}\n",
		"--storage.remote.read-concurrent-limit=0")
	require.Equal(t, http.StatusOK, ask(s.Handler(), http.MethodPost, "/api/v1/read", readRequest(t, "m")).Code)
}

func TestQueryRules_Refuse(t *testing.T) {
	s, _ := startedServer(t, someRules)
	const long, scans, fine = `the query rule \"long\" refuses this query: a day at most`,
		`the query rule \"scans\" refuses this query: name it`, `the query rule \"fine\" refuses this query: 10s at least`
	day := "start=0&end=86400&step=60"
	for target, want := range map[string]string{
		"/query?query=rate(up[2d])":                           long,
		"/query?query=rate(up[1d*2])":                         long,
		"/query_range?query=1&start=0&end=86401&step=60":      long,
		"/explain?query=1&start=0&end=86401&step=60":          long,
		"/explain?query=rate(up[2d])&analyze=true":            long,
		"/query_range?query=1&start=0&end=86400&step=60":      "",
		"/query?query=1&start=0&end=86401&step=60":            "", // which are not looked at
		"/query?query=" + url.QueryEscape(`{job=~".+"}`):      scans,
		"/explain?query=" + url.QueryEscape(`{job=~".+"}`):    scans,
		"/query_range?query=1&start=0&end=60&step=9":          fine,
		"/query_range?query=1&start=0&end=60&step=9s&limit=1": fine,
		"/query?query=1&step=9":                               "",
		"/query_range?query=1&" + day:                         "",
		"/query_range?query=1&time=1&" + day:                  "",
	} {
		method, path := http.MethodGet, "/api/v1"+target
		for range 2 {
			form := ""
			if method == http.MethodPost {
				path, form, _ = strings.Cut(path, "?")
			}
			w := ask(s.Handler(), method, path, form)
			if want == "" {
				require.Equal(t, http.StatusOK, w.Code, target)
			} else {
				require.Equal(t, http.StatusUnprocessableEntity, w.Code, target)
				require.Equal(t, apiFailure("execution", want), w.Body.String(), target)
			}
			method = http.MethodPost
		}
	}

	// The body counts before the URL, as for the handler.
	w := ask(s.Handler(), http.MethodPost, "/api/v1/query?query=1", "query=rate(up[2d])")
	require.Equal(t, http.StatusUnprocessableEntity, w.Code)
	w = ask(s.Handler(), http.MethodPost, "/api/v1/query?query=rate(up[2d])", "query=1")
	require.Equal(t, http.StatusOK, w.Code)

	// What is wrong with a request is said as without rules, and what is no query
	// is not judged.
	require.Equal(t, apiFailure("bad_data", `invalid parameter \"query\": 1:2: parse error: unexpected end of input inside braces`), get(s.Handler(), "/api/v1/query?query=%7B").Body.String())
	require.Equal(t, apiFailure("bad_data", `invalid parameter \"step\": cannot parse \"\" to a valid duration`), get(s.Handler(), "/api/v1/query_range?query=up&start=0&end=90000").Body.String())
	require.Equal(t, http.StatusServiceUnavailable, get(s.Handler(), "/api/v1/series?match[]="+url.QueryEscape(`{job=~".+"}`)).Code)
}

func TestQueryRules_Bound(t *testing.T) {
	s, _ := startedServer(t, someRules, "--query.max-queued=0")
	wall := http.Header{"X-Dashboard-Uid": {"wall"}}
	expr, err := s.parser.ParseExpr("1")
	require.NoError(t, err)
	pools, err := s.rules.Load().Judge(admission.Query{Text: "1", Expr: expr, Header: wall})
	require.NoError(t, err)
	leave, err := s.gate.Queue.Enter(t.Context(), admission.Request{Pools: pools})
	require.NoError(t, err)

	send := func() *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodGet, "/api/v1/query?query=1", nil)
		r.Header = wall
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		return w
	}
	w := send()
	require.Equal(t, http.StatusTooManyRequests, w.Code)
	require.Contains(t, w.Body.String(), `no slot of the 1 that max_concurrency of the query rule \"wall\" gives is free`)
	require.Equal(t, http.StatusOK, get(s.Handler(), "/api/v1/query?query=1").Code)
	require.Contains(t, get(s.Handler(), "/metrics").Body.String(), `oneprom_admission_refused_total{reason="queue_full",slots="rule"} 1`)

	// What is under way counts after a reload.
	require.NoError(t, s.Reload(t.Context()))
	require.Equal(t, http.StatusTooManyRequests, send().Code)
	leave()
	require.Equal(t, http.StatusOK, send().Code)
}

func TestQueryRules_Reload(t *testing.T) {
	s, file := startedServer(t, someRules)
	require.Equal(t, http.StatusUnprocessableEntity, get(s.Handler(), "/api/v1/query?query=rate(up[2d])").Code)
	writeConfig(t, file, strings.Replace(someRules, "max_range: 1d", "max_range: 3d", 1))
	require.NoError(t, s.Reload(t.Context()))
	require.Equal(t, http.StatusServiceUnavailable, get(s.Handler(), "/api/v1/query?query=rate(up[2d])").Code)
	require.Equal(t, http.StatusUnprocessableEntity, get(s.Handler(), "/api/v1/query?query=rate(up[4d])").Code)

	// A bad file changes nothing.
	writeConfig(t, file, strings.Replace(someRules, "max_range: 1d", "max_range: 9d\n    regex: (", 1))
	require.ErrorContains(t, s.Reload(t.Context()), "query_rules[0].regex: not a regular expression: missing closing )")
	require.Equal(t, http.StatusUnprocessableEntity, get(s.Handler(), "/api/v1/query?query=rate(up[4d])").Code)

	writeConfig(t, file, oneGroup)
	require.NoError(t, s.Reload(t.Context()))
	require.Equal(t, http.StatusServiceUnavailable, get(s.Handler(), "/api/v1/query?query=rate(up[4d])").Code)
}
