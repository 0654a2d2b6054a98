package proxy

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/proxy/api"
	"github.com/oneprom/oneprom/proxy/queries"
	"github.com/oneprom/oneprom/servergroup/backendtest"
)

// heldBackend is a Prometheus that answers nothing about m_total before release is
// closed. asked tells of each request that waits, left of each whose client has gone.
func heldBackend(t *testing.T) (addr string, asked, left chan string, release chan struct{}) {
	t.Helper()
	db := promqltest.LoadedStorage(t, explainData)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	prometheus := backendtest.NewHandler(backendtest.Options{Queryable: db, EarlyNames: true})
	asked, left, release = make(chan string, 100), make(chan string, 100), make(chan struct{})
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if text := r.FormValue("query"); strings.Contains(text, "m_total") {
			asked <- text
			select {
			case <-release:
			case <-r.Context().Done():
				left <- text
				return
			}
		}
		prometheus.ServeHTTP(w, r)
	}))
	t.Cleanup(backend.Close)
	return strings.TrimPrefix(backend.URL, "http://"), asked, left, release
}

func singleConfig(addr, global string) string {
	return fmt.Sprintf("global: {%s}\nserver_groups:\n  - name: a\n    static_configs: [{targets: ['%s']}]\n", global, addr)
}

// rate is what a single replica is asked as it is, at the time of explainData.
const rateQuery = `sum(rate(m_total[5m]))`

// begun asks a query in the background.
func begun(s *Server, text string, header ...string) <-chan *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/api/v1/query", strings.NewReader(url.Values{"query": {text}, "time": {"3600"}}.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	out := make(chan *httptest.ResponseRecorder, 1)
	go func() {
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		out <- w
	}()
	return out
}

// listedIn are the running queries.
func listedIn(t *testing.T, s *Server) (list []queries.Listed) {
	t.Helper()
	w := get(s.Handler(), "/api/v1/status/queries")
	require.Equal(t, http.StatusOK, w.Code, w.Body)
	var a struct{ Data json.RawMessage }
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &a))
	require.NoError(t, json.Unmarshal(a.Data, &list))
	require.NotNil(t, list, "an empty list, not null")
	return list
}

// sharedTotal is how many queries have waited for the execution of an equal one.
func sharedTotal(t *testing.T, s *Server) float64 {
	t.Helper()
	families, err := s.registry.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == "oneprom_queries_shared_total" {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	require.FailNow(t, "no such metric")
	return 0
}

func TestQueries_ListedWhileTheyRun(t *testing.T) {
	addr, asked, _, release := heldBackend(t)
	s, _ := startedServer(t, singleConfig(addr, ""), sameFeatures)
	require.Empty(t, listedIn(t, s))
	before := time.Now()
	first := begun(s, rateQuery, "X-Dashboard-Uid", "dash", "X-Panel-Id", "7", "User-Agent", "Grafana/13", "Authorization", "Bearer hunter2")
	<-asked
	second := begun(s, rateQuery+" + 1")
	<-asked

	list := listedIn(t, s)
	require.Len(t, list, 2)
	q := list[0]
	require.Equal(t, rateQuery, q.Query)
	require.Equal(t, "query", q.API)
	require.EqualValues(t, 3600, *q.Start)
	require.EqualValues(t, 3600, *q.End)
	require.Zero(t, q.Step)
	require.False(t, q.Since.Before(before.Truncate(0)))
	require.Positive(t, q.Duration)
	require.Equal(t, "running", q.State)
	require.Len(t, q.Plan, 16)
	require.Equal(t, "192.0.2.1", q.Client)
	require.Equal(t, []string{"dash", "7", "Grafana/13"}, []string{q.Dashboard, q.Panel, q.UserAgent})
	require.Equal(t, rateQuery+" + 1", list[1].Query)
	require.NotContains(t, get(s.Handler(), "/api/v1/status/queries").Body.String(), "hunter2")

	close(release)
	require.Equal(t, http.StatusOK, (<-first).Code)
	require.Equal(t, http.StatusOK, (<-second).Code)
	require.Empty(t, listedIn(t, s))
}

func TestQueries_CancelledOneEndsWithItsRequests(t *testing.T) {
	addr, asked, left, release := heldBackend(t)
	s, _ := startedServer(t, singleConfig(addr, ""), sameFeatures, "--web.enable-admin-api")
	answered := begun(s, rateQuery)
	text := <-asked
	other := begun(s, rateQuery+" * 2")
	<-asked
	id := listedIn(t, s)[0].ID

	w := ask(s.Handler(), http.MethodDelete, "/api/v1/status/queries/"+id, "")
	require.Equal(t, http.StatusNoContent, w.Code)
	require.Empty(t, w.Body.String())
	w = <-answered
	require.Equal(t, api.StatusClientClosed, w.Code)
	require.Contains(t, w.Body.String(), `"errorType":"canceled"`)
	require.Equal(t, text, <-left)
	require.Len(t, listedIn(t, s), 1)

	w = ask(s.Handler(), http.MethodDelete, "/api/v1/status/queries/"+id, "")
	require.Equal(t, http.StatusNotFound, w.Code)
	require.Contains(t, w.Body.String(), "no query with the id "+id+" is running")
	w = ask(s.Handler(), http.MethodDelete, "/api/v1/status/queries/x", "")
	require.Equal(t, http.StatusBadRequest, w.Code)

	close(release)
	require.Equal(t, http.StatusOK, (<-other).Code)
}

func TestQueries_CancelledOneDoesNotDisturbAnEqualOne(t *testing.T) {
	addr, asked, left, release := heldBackend(t)
	s, _ := startedServer(t, singleConfig(addr, ""), sameFeatures, "--web.enable-admin-api")
	first := begun(s, rateQuery)
	<-asked
	second := begun(s, rateQuery)
	require.Eventually(t, func() bool { return sharedTotal(t, s) == 1 }, 10*time.Second, time.Millisecond)
	require.Len(t, listedIn(t, s), 2)
	require.Equal(t, listedIn(t, s)[0].Plan, listedIn(t, s)[1].Plan)

	w := ask(s.Handler(), http.MethodDelete, "/api/v1/status/queries/"+listedIn(t, s)[0].ID, "")
	require.Equal(t, http.StatusNoContent, w.Code)
	require.Equal(t, api.StatusClientClosed, (<-first).Code)
	close(release)
	require.Equal(t, http.StatusOK, (<-second).Code)
	require.Empty(t, left, "the replica was not disturbed")
	require.Empty(t, asked, "nor asked again")
}

func TestQueries_CancelNeedsTheFlag(t *testing.T) {
	s, _ := startedServer(t, oneGroup)
	w := ask(s.Handler(), http.MethodDelete, "/api/v1/status/queries/1", "")
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
	require.Equal(t, apiFailure("unavailable", "admin APIs are disabled: start oneprom with --web.enable-admin-api"), w.Body.String())
	require.Contains(t, get(s.Handler(), "/api/v1/features").Body.String(), `"admin":false`)
	s, _ = startedServer(t, oneGroup, "--web.enable-admin-api")
	require.Contains(t, get(s.Handler(), "/api/v1/features").Body.String(), `"admin":true`)
}

func TestQueries_QueuedOneIsListedAndCancelled(t *testing.T) {
	addr, asked, _, release := heldBackend(t)
	s, _ := startedServer(t, singleConfig(addr, ""), sameFeatures, "--web.enable-admin-api", "--query.max-concurrency=1")
	first := begun(s, rateQuery)
	<-asked
	second := begun(s, "up")
	require.Eventually(t, func() bool { return len(listedIn(t, s)) == 2 }, 10*time.Second, time.Millisecond)
	q := listedIn(t, s)[1]
	require.Equal(t, []string{"up", "queued", ""}, []string{q.Query, q.State, q.Plan})
	require.Equal(t, http.StatusNoContent, ask(s.Handler(), http.MethodDelete, "/api/v1/status/queries/"+q.ID, "").Code)
	w := <-second
	require.Equal(t, api.StatusClientClosed, w.Code)
	require.Contains(t, w.Body.String(), `"errorType":"canceled"`)
	close(release)
	require.Equal(t, http.StatusOK, (<-first).Code)
}
