package proxy

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/proxy/api"
	"github.com/oneprom/oneprom/proxy/gate"
	"github.com/oneprom/oneprom/proxy/middleware"
	"github.com/oneprom/oneprom/proxy/queries"
)

// loggedIn stops a server and returns the lines of its query log, with numbers as text.
func loggedIn(t *testing.T, s *Server, path string) (lines []map[string]any) {
	t.Helper()
	require.NoError(t, s.Stop(t.Context()))
	return linesOf(t, path)
}

func linesOf(t *testing.T, path string) (lines []map[string]any) {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	for text := range strings.Lines(string(data)) {
		dec := json.NewDecoder(strings.NewReader(text))
		dec.UseNumber()
		var line map[string]any
		require.NoError(t, dec.Decode(&line), text)
		lines = append(lines, line)
	}
	return lines
}

func TestQueryLog_OneLineForEachQuery(t *testing.T) {
	s, file := startedServer(t, singleConfig(explainBackend(t, explainData, true), "query_log_file: queries.log"), sameFeatures)
	path := filepath.Join(filepath.Dir(file), "queries.log")
	send := func(method, target, form string, header ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, target, strings.NewReader(form))
		if form != "" {
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		return w
	}
	send(http.MethodPost, "/api/v1/query_range", "query=m_total&start=60&end=120&step=15",
		"Authorization", "Basic YWxpY2U6aHVudGVyMg==", "Cookie", "hunter2", "X-Id-Token", "hunter2",
		"User-Agent", "Grafana/13", "X-Dashboard-Uid", "dash", "X-Panel-Id", "7", "X-Grafana-Org-Id", "1", "X-Grafana-User", strings.Repeat("x", 1000))
	send(http.MethodGet, "/api/v1/query?query=m_total%2B", "", "Accept-Encoding", "gzip")
	send(http.MethodGet, "/api/v1/query?query=m_total&time=x", "", "Accept-Encoding", "deflate")
	send(http.MethodGet, "/api/v1/explain?query=m_total&time=60&analyze=true", "")
	send(http.MethodGet, "/api/v1/explain?query=m_total", "") // asks nobody
	send(http.MethodGet, "/api/v1/labels", "")

	lines := loggedIn(t, s, path)
	require.Len(t, lines, 4)
	first := lines[0]
	at, err := time.Parse(time.RFC3339Nano, first["time"].(string))
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), at, time.Minute)
	for _, positive := range []string{"duration", "queued"} {
		seconds, err := first[positive].(json.Number).Float64()
		require.NoError(t, err)
		require.Positive(t, seconds)
		require.Less(t, seconds, 60.0)
	}
	require.Len(t, first["plan"], 16)
	require.Contains(t, []any{"miss", "bypass; reason=a replica has never answered"}, first["cache"]) // oneprom has just begun
	for _, varies := range []string{"time", "duration", "queued", "plan", "cache"} {
		delete(first, varies)
	}
	n := func(text string) json.Number { return json.Number(text) }
	require.Equal(t, map[string]any{
		"query": "m_total", "api": "query_range", "start": n("60"), "end": n("120"), "step": n("15"),
		"status": n("200"), "completeness": "whole", "series": n("2"), "samples": n("10"),
		"client": "192.0.2.1", "user": "alice", "user_agent": "Grafana/13",
		"dashboard": "dash", "panel": "7", "grafana_org": "1", "grafana_user": strings.Repeat("x", api.MaxHeaderText) + "…",
	}, first)

	require.Equal(t, n("400"), lines[1]["status"])
	require.Equal(t, `invalid parameter "query": 1:9: parse error: unexpected end of input`, lines[1]["error"])
	require.NotContains(t, lines[1], "queued", "it was never evaluated")
	require.NotContains(t, lines[1], "series")
	require.Contains(t, lines[2]["error"], `invalid parameter "time"`)
	require.NotContains(t, lines[2], "start")
	require.Equal(t, "explain", lines[3]["api"])
	require.Equal(t, first["query"], lines[3]["query"])

	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NotContains(t, string(data), "hunter2")
}

func TestQueryLog_OnlyWhatTookLong(t *testing.T) {
	s, file := startedServer(t, singleConfig(explainBackend(t, explainData, true), "query_log_file: queries.log, query_log_min_duration: 1h"))
	require.Equal(t, http.StatusOK, get(s.Handler(), "/api/v1/query?query=m_total&time=60").Code)
	require.Empty(t, loggedIn(t, s, filepath.Join(filepath.Dir(file), "queries.log")))
}

func TestQueryLog_ReloadOpensTheFileAnew(t *testing.T) {
	const global = "query_log_file: queries.log"
	s, file := startedServer(t, singleConfig("127.0.0.1:1", global))
	dir := filepath.Dir(file)
	path, old := filepath.Join(dir, "queries.log"), filepath.Join(dir, "queries.log.1")
	query := func() { get(s.Handler(), "/api/v1/query?query=1") }

	query()
	require.Eventually(t, func() bool { return len(linesOf(t, path)) == 1 }, 10*time.Second, time.Millisecond)
	require.NoError(t, os.Rename(path, old))
	query()
	require.Eventually(t, func() bool { return len(linesOf(t, old)) == 2 }, 10*time.Second, time.Millisecond)
	require.NoError(t, s.Reload(t.Context()))
	query()
	require.Eventually(t, func() bool { return len(linesOf(t, path)) == 1 }, 10*time.Second, time.Millisecond)

	// A file that cannot be written changes nothing.
	writeConfig(t, file, singleConfig("127.0.0.1:1", "query_log_file: none/queries.log"))
	err := s.Reload(t.Context())
	require.ErrorContains(t, err, "global.query_log_file: open "+filepath.Join(dir, "none/queries.log"))
	query()
	require.Eventually(t, func() bool { return len(linesOf(t, path)) == 2 }, 10*time.Second, time.Millisecond)

	writeConfig(t, file, singleConfig("127.0.0.1:1", ""))
	require.NoError(t, s.Reload(t.Context()))
	query()
	require.Len(t, loggedIn(t, s, path), 2)
	require.Len(t, linesOf(t, old), 2)
}

func TestStart_QueryLogThatCannotBeWritten(t *testing.T) {
	s, _ := newServer(t, singleConfig("127.0.0.1:1", "query_log_file: none/queries.log"))
	require.ErrorContains(t, s.Start(t.Context()), "global.query_log_file: open ")
}

// A panic is the failure of its query, which is named, and of nothing else.
func TestQueryLog_Panic(t *testing.T) {
	s, file := startedServer(t, singleConfig("127.0.0.1:1", "query_log_file: queries.log"))
	var logged bytes.Buffer
	panics := &middleware.Panics{Count: s.httpMetrics.Panics, QueryText: queries.TextOf, Logger: slog.New(slog.NewTextHandler(&logged, nil))}
	h := panics.Recover(s.queries.Observe(panics.Recover, s.gate.Admit(gate.Query, func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("begin") != "" {
			_, _ = io.WriteString(w, "half")
		}
		panic("boom")
	})))
	w := ask(h, http.MethodPost, "/query", "query=up")
	require.Equal(t, http.StatusInternalServerError, w.Code)
	require.Equal(t, apiFailure("internal", "panic while answering: boom"), w.Body.String())
	require.Contains(t, logged.String(), "query=up panic=boom")
	require.Equal(t, 1.0, testutil.ToFloat64(s.httpMetrics.Panics))
	require.PanicsWithValue(t, http.ErrAbortHandler, func() { ask(h, http.MethodPost, "/query", "query=up&begin=1") })
	require.Empty(t, listedIn(t, s))

	lines := loggedIn(t, s, filepath.Join(filepath.Dir(file), "queries.log"))
	require.Len(t, lines, 2)
	require.Equal(t, json.Number("500"), lines[0]["status"])
	require.Equal(t, "panic while answering: boom", lines[0]["error"])
	require.Equal(t, "the answer was cut off", lines[1]["error"])
}

func TestQueryLog_CompletenessIsThatOfTheAnswer(t *testing.T) {
	s, file := startedServer(t, "global: {query_log_file: queries.log}"+regionsConfig(explainBackend(t, explainData, true), "127.0.0.1:1"))
	require.Equal(t, http.StatusOK, get(s.Handler(), "/api/v1/query?query=m_total&time=60").Code)
	line := loggedIn(t, s, filepath.Join(filepath.Dir(file), "queries.log"))[0]
	require.Equal(t, "partial", line["completeness"])
	require.Equal(t, "us", line["missing"])
}

func TestQueryLog_RefusedIsAnswered(t *testing.T) {
	addr, asked, _, release := heldBackend(t)
	s, file := startedServer(t, singleConfig(addr, "query_log_file: queries.log"), sameFeatures, "--query.max-concurrency=1", "--query.max-queued=0")
	first := begun(s, rateQuery)
	<-asked
	require.Equal(t, http.StatusTooManyRequests, (<-begun(s, "up")).Code)
	close(release)
	require.Equal(t, http.StatusOK, (<-first).Code)
	line := loggedIn(t, s, filepath.Join(filepath.Dir(file), "queries.log"))[0]
	require.Equal(t, json.Number("429"), line["status"])
	require.Equal(t, "up", line["query"])
	require.Contains(t, line["error"], "--query.max-concurrency")
	require.NotContains(t, line, "queued")
}
