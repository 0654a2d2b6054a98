package proxy

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/proxy/api"
	"github.com/oneprom/oneprom/proxy/middleware"
	"github.com/oneprom/oneprom/proxy/queries"
	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/request"
)

func TestRedirects(t *testing.T) {
	f := func(flags []string, from, to string) {
		t.Helper()
		s, _ := newServer(t, oneGroup, flags...)
		w := get(s.Handler(), from)
		require.Equal(t, http.StatusFound, w.Code)
		require.Equal(t, to, w.Header().Get("Location"))
	}
	f(nil, "/", "/query")
	f(nil, "/graph?g0.expr=up%7Ba%3D%22b%2F%2F%22%7D&g0.tab=1", "/query?g0.expr=up%7Ba%3D%22b%2F%2F%22%7D&g0.tab=1")
	prefix := []string{"--web.external-url=http://x/prom/"}
	f(prefix, "/", "/prom")
	f(prefix, "/prom/", "/prom/query")
	f(prefix, "/prom/graph?g0.expr=up", "/prom/query?g0.expr=up")
	// Behind a proxy that removes the prefix.
	f([]string{"--web.external-url=http://x/prom/", "--web.route-prefix=/"}, "/", "/prom/query")
}

func TestPrefix(t *testing.T) {
	s, _ := startedServer(t, oneGroup, "--web.route-prefix=/prom/")
	for path, code := range map[string]int{
		"/prom/api/v1/query?query=1": http.StatusOK, "/prom/api/v1/status/config": http.StatusOK, "/prom/-/healthy": http.StatusOK,
		"/prom//api/v1/query?query=1": http.StatusOK, "//prom//-/healthy": http.StatusOK,
		"/api/v1/query?query=1": http.StatusNotFound, "/-/healthy": http.StatusNotFound, "/prometheus/-/healthy": http.StatusNotFound,
		"/prom/api/v1/nope": http.StatusNotFound, "/prom/nope": http.StatusNotFound,
	} {
		w := get(s.Handler(), path)
		require.Equal(t, code, w.Code, path)
		if code == http.StatusNotFound {
			require.Equal(t, "404 page not found\n", w.Body.String(), path)
		}
	}
}

func TestMethods_AreUpstreams(t *testing.T) {
	s, _ := startedServer(t, oneGroup)
	f := func(method, path string, code int) {
		t.Helper()
		require.Equal(t, code, ask(s.Handler(), method, path, "").Code)
	}
	f(http.MethodPut, "/api/v1/query", http.StatusMethodNotAllowed)
	f(http.MethodPost, "/api/v1/metadata", http.StatusMethodNotAllowed)
	f(http.MethodHead, "/api/v1/status/config", http.StatusMethodNotAllowed)
	f(http.MethodGet, "/api/v1/read", http.StatusMethodNotAllowed)
	f(http.MethodPost, "/-/healthy", http.StatusMethodNotAllowed)
	f(http.MethodOptions, "/api/v1/metadata", http.StatusNoContent)
}

func TestOwnRoutes_CompressAndAllowOrigins(t *testing.T) {
	s, _ := startedServer(t, strings.Replace(oneGroup, "name: a", "name: a"+strings.Repeat("a", 1000), 1))
	r := httptest.NewRequest(http.MethodGet, "/api/v1/status/groups", nil)
	r.Header.Set("Origin", "http://dash.example")
	r.Header.Set("Accept-Encoding", "gzip")
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	require.Equal(t, "gzip", w.Header().Get("Content-Encoding"))
	require.Equal(t, "Accept-Encoding, Origin", strings.Join(w.Header().Values("Vary"), ", "))
	require.Equal(t, "*", w.Header().Get("Access-Control-Allow-Origin"))
	require.Equal(t, "application/json", w.Header().Get("Content-Type"))
}

func TestPost_WhereUpstreamKnowsGetOnly(t *testing.T) {
	s, _ := startedServer(t, oneGroup)
	w := ask(s.Handler(), http.MethodPost, "/api/v1/status/buildinfo", "x=1")
	require.Equal(t, http.StatusOK, w.Code)
	var build struct{ Data map[string]string }
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &build))
	require.Len(t, build.Data, 6)
	require.Equal(t, api.Version, build.Data["version"])

	// What the handler sees: a GET with the parameters of both, the body's first.
	var seen *http.Request
	w = ask(middleware.AsGet(s.logger, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen = r })), http.MethodPost, "/x?limit=1&match[]=a", "limit=2&match[]=b")
	require.Equal(t, http.StatusOK, w.Code)
	require.Equal(t, http.MethodGet, seen.Method)
	require.Equal(t, "2", seen.FormValue("limit"))
	require.Equal(t, []string{"b", "a"}, seen.Form["match[]"])
	body, err := io.ReadAll(seen.Body)
	require.NoError(t, err)
	require.Empty(t, body)

	for path, message := range map[string]string{
		"/api/v1/label/job/values":       `match[] must contain at least one non-empty matcher`,
		"/api/v1/label/U__a_2e_b/values": `match[] must contain at least one non-empty matcher`,
		"/api/v1/label/%ff/values":       `invalid label name: \"\\xff\"`,
	} {
		w = ask(s.Handler(), http.MethodPost, path, `match[]={a=""}`)
		require.Equal(t, apiFailure("bad_data", message), w.Body.String())
	}
	w = ask(middleware.AsGet(s.logger, nil), http.MethodPost, "/x", "%zz")
	require.Equal(t, http.StatusBadRequest, w.Code)
	require.Contains(t, w.Body.String(), "error parsing form values")
}

func TestUnavailableGroups_Are503(t *testing.T) {
	s, _ := startedServer(t, oneGroup)
	for _, path := range []string{"/api/v1/query?query=up", "/api/v1/series?match[]=up", "/api/v1/labels", "/api/v1/label/job/values", "/api/v1/metadata", "/api/v1/query_exemplars?query=up", "/federate?match[]=up"} {
		w := get(s.Handler(), path)
		require.Equal(t, http.StatusServiceUnavailable, w.Code, path)
		require.Contains(t, w.Body.String(), `server group`, path)
	}
	code, override := api.OverrideErrorCode(0, errors.New("x"))
	require.False(t, override, code)
	code, override = api.OverrideErrorCode(0, &completeness.UnavailableError{})
	require.True(t, override)
	require.Equal(t, http.StatusServiceUnavailable, code)
}

func TestPanic_FailsItsRequestOnly(t *testing.T) {
	s, _ := newServer(t, oneGroup)
	panics := &middleware.Panics{Count: s.httpMetrics.Panics, QueryText: queries.TextOf, Logger: s.logger}
	w := get(panics.Recover(middleware.Compress(func(http.ResponseWriter, *http.Request) { panic("boom") })), "/")
	require.Equal(t, http.StatusInternalServerError, w.Code)
	require.Equal(t, apiFailure("internal", "panic while answering: boom"), w.Body.String())
	require.Equal(t, 1.0, testutil.ToFloat64(s.httpMetrics.Panics))

	// What it says may be of anybody's data.
	w = httptest.NewRecorder()
	req := httptest.NewRequest(http.MethodGet, "/", nil)
	req = req.WithContext(request.With(t.Context(), func(r *request.Request) { r.Restricted = true }))
	panics.Recover(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("boom") })).ServeHTTP(w, req)
	require.Equal(t, apiFailure("internal", "panic while answering: details are hidden from tenants"), w.Body.String())

	// Half an answer must not look like a whole one.
	for _, begin := range []func(http.ResponseWriter){
		func(w http.ResponseWriter) { _, _ = io.WriteString(w, "half") },
		func(w http.ResponseWriter) { w.WriteHeader(http.StatusOK) },
		func(w http.ResponseWriter) { w.(http.Flusher).Flush() },
	} {
		require.PanicsWithValue(t, http.ErrAbortHandler, func() {
			get(panics.Recover(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				begin(w)
				panic("boom")
			})), "/")
		})
	}
}

func TestPage(t *testing.T) {
	s, _ := startedServer(t, oneGroup, "--web.external-url=http://x/prom")
	w := get(s.Handler(), `/prom/query?g0.expr=up%7Ba%3D%22%3Cb%3E%22%7D`)
	require.Equal(t, http.StatusOK, w.Code)
	require.Equal(t, "text/html; charset=utf-8", w.Header().Get("Content-Type"))
	for _, text := range []string{api.Version, `action="/prom/api/v1/query"`, `value="up{a=&#34;&lt;b&gt;&#34;}"`, "<td>a</td>", "http://127.0.0.1:1"} {
		require.Contains(t, w.Body.String(), text)
	}
}

func TestDebug(t *testing.T) {
	s, _ := newServer(t, oneGroup)
	for path, code := range map[string]int{
		"/debug/pprof": http.StatusMovedPermanently, "/debug/pprof/": http.StatusOK, "/debug/pprof/cmdline": http.StatusOK,
		"/debug/pprof/goroutine?debug=1": http.StatusOK, "/debug/vars": http.StatusNotFound,
	} {
		require.Equal(t, code, get(s.Handler(), path).Code, path)
	}
}

func TestMetrics(t *testing.T) {
	s, _ := startedServer(t, oneGroup)
	get(s.Handler(), "/api/v1/query?query=1")
	get(s.Handler(), "/api/v1/status/config")
	body := get(s.Handler(), "/metrics").Body.String()
	for _, line := range []string{
		"oneprom_build_info{", "go_goroutines ", "process_start_time_seconds ", "oneprom_config_last_reload_successful 1",
		`oneprom_http_requests_total{code="200",handler="/api/v1/query"} 1`, `oneprom_http_requests_total{code="200",handler="/api/v1/status/config"} 1`,
	} {
		require.Contains(t, body, line)
	}
}

// TestMetrics_Lint: what a running server exposes under our name is named and described
// as Prometheus wants it.
func TestMetrics_Lint(t *testing.T) {
	s, _ := startedServer(t, singleConfig(explainBackend(t, explainData, true), "query_log_file: queries.log"))
	get(s.Handler(), "/api/v1/query?query=m_total&time=3600")
	get(s.Handler(), "/federate?match[]=m_total")
	body := get(s.Handler(), "/metrics").Body.String()
	require.Contains(t, body, "\noneprom_query_log_lost_lines_total 0\n")
	problems, err := promlint.New(strings.NewReader(body)).Lint()
	require.NoError(t, err)
	for _, p := range problems {
		require.False(t, strings.HasPrefix(p.Metric, "oneprom_"), "%s: %s", p.Metric, p.Text)
	}
}

// Empty is not absent: clients decode these without looking.
func TestEmptyAnswers(t *testing.T) {
	s, _ := startedServer(t, singleConfig(teller(t, nil), ""))
	for path, data := range map[string]string{
		"targets":            `{"activeTargets":[],"droppedTargets":[],"droppedTargetCounts":{}}`,
		"targets/metadata":   `[]`,
		"scrape_pools":       `{"scrapePools":[]}`,
		"rules":              `{"groups":[]}`,
		"alerts":             `{"alerts":[]}`,
		"alertmanagers":      `{"activeAlertmanagers":[],"droppedAlertmanagers":[]}`,
		"notifications":      `[]`,
		"status/walreplay":   `{"min":0,"max":0,"current":0}`,
		"status/tsdb/blocks": `{"blocks":[]}`,
		"status/self_metrics?metric_name_pattern=x": `[]`,
	} {
		w := get(s.Handler(), "/api/v1/"+path)
		require.Equal(t, `{"status":"success","data":`+data+`}`, w.Body.String(), path)
	}
	require.Contains(t, get(s.Handler(), "/api/v1/status/tsdb").Body.String(), `"chunkCount":0,`)
	require.Contains(t, get(s.Handler(), "/api/v1/features").Body.String(), `"promql_functions"`)
	document := get(s.Handler(), "/api/v1/openapi.yaml").Body.String()
	require.Contains(t, document, "openapi: 3.1")
	require.Contains(t, document, "/query_range:")
	require.Contains(t, get(s.Handler(), "/api/v1/status/flags").Body.String(), `"query.timeout":"2m"`)
	require.Contains(t, get(s.Handler(), "/api/v1/parse_query?query=mad_over_time(m[1m])").Body.String(), `"success"`)
	require.Contains(t, get(s.Handler(), "/api/v1/query?query=mad_over_time(m[1m])").Body.String(), `"bad_data"`)
}
