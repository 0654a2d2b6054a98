package proxy

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/proxy/api"
	"github.com/oneprom/oneprom/servergroup/backendtest"
)

// completenessConfig has a group that answers and, if it is named, one that is dead.
func completenessConfig(t *testing.T, dead, more string) string {
	t.Helper()
	data := promqltest.LoadedStorage(t, "load 30s\n  m{job=\"a\"} 1x10")
	t.Cleanup(func() { require.NoError(t, data.Close()) })
	backend := httptest.NewServer(backendtest.NewHandler(backendtest.Options{Queryable: data, EarlyNames: true}))
	t.Cleanup(backend.Close)
	const group = "  - name: %q\n    region: r\n    labels: {zone: %s}\n    static_configs: [{targets: ['%s']}]\n"
	out := "server_groups:\n" + fmt.Sprintf(group, "alive", "z1", strings.TrimPrefix(backend.URL, "http://"))
	if dead != "" {
		out += fmt.Sprintf(group, dead, "z2", "127.0.0.1:1") + more
	}
	return out
}

func askWith(h http.Handler, path, name, value string) *httptest.ResponseRecorder {
	req := httptest.NewRequest(http.MethodGet, path, nil)
	req.Header.Set(name, value)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w
}

var answered = []string{
	"/api/v1/query?time=60&query=m", "/api/v1/query?time=60&query=sum(m)", "/api/v1/query_range?start=0&end=60&step=30&query=avg(m)",
	"/api/v1/series?match[]=m&start=0&end=60", "/api/v1/labels?start=0&end=60", "/api/v1/label/job/values?start=0&end=60",
	"/api/v1/query_exemplars?query=m&start=0&end=60", "/api/v1/explain?time=60&query=m&analyze=true",
}

func TestCompleteness_IsInTheHeader(t *testing.T) {
	whole, _ := startedServer(t, completenessConfig(t, "", ""))
	odd, _ := startedServer(t, completenessConfig(t, "dead, truly", ""))
	for _, path := range answered {
		w := get(whole.Handler(), path)
		require.Equal(t, http.StatusOK, w.Code, "%s: %s", path, w.Body)
		require.Equal(t, "whole", w.Header().Get(api.CompletenessHeader), path)
		require.Empty(t, w.Header().Values(api.MissingHeader), path)

		w = get(odd.Handler(), path)
		require.Equal(t, http.StatusOK, w.Code, "%s: %s", path, w.Body)
		require.Equal(t, "partial", w.Header().Get(api.CompletenessHeader), path)
		require.Equal(t, "dead%2C+truly", w.Header().Get(api.MissingHeader), path)
	}
	// What is no answer about data says nothing.
	for _, path := range []string{"/api/v1/status/groups", "/api/v1/status/buildinfo", "/api/v1/query?query=(", "/api/v1/query?query=1"} {
		require.Empty(t, get(odd.Handler(), path).Header().Get(api.MissingHeader), path)
	}
	// A query of which the group that is dead has nothing is whole.
	w := get(odd.Handler(), "/api/v1/query?time=60&query="+url.QueryEscape(`m{zone="z1"}`))
	require.Equal(t, "whole", w.Header().Get(api.CompletenessHeader))
}

func TestCompleteness_EndsWhereTheRequestOrTheGroupSaysSo(t *testing.T) {
	lenient, _ := startedServer(t, completenessConfig(t, "dead", ""))
	strict, _ := startedServer(t, completenessConfig(t, "dead", "    partial_response: error\n"))
	for _, path := range answered {
		w := askWith(lenient.Handler(), path, "X-Oneprom-Partial-Response", "error")
		require.Equal(t, http.StatusServiceUnavailable, w.Code, path)
		require.Equal(t, "dead", w.Header().Get(api.MissingHeader), path)
		require.Empty(t, w.Header().Get(api.CompletenessHeader), path)
		require.Equal(t, http.StatusServiceUnavailable, get(strict.Handler(), path).Code, path)
		require.Equal(t, http.StatusOK, askWith(strict.Handler(), path, "X-Oneprom-Partial-Response", "warn").Code, path)

		// As clients of Thanos say it.
		require.Equal(t, http.StatusServiceUnavailable, get(lenient.Handler(), path+"&partial_response=false").Code, path)
		require.Equal(t, http.StatusOK, get(strict.Handler(), path+"&partial_response=1").Code, path)
		require.Equal(t, http.StatusOK, askWith(strict.Handler(), path+"&partial_response=false", "X-Oneprom-Partial-Response", "warn").Code, path)
		w = get(lenient.Handler(), path+"&partial_response=perhaps")
		require.Equal(t, http.StatusBadRequest, w.Code, path)
		require.Contains(t, w.Body.String(), `"perhaps\" is neither true nor false`)

		w = askWith(lenient.Handler(), path, "X-Oneprom-Partial-Response", "perhaps")
		require.Equal(t, http.StatusBadRequest, w.Code)
		require.Contains(t, w.Body.String(), `"perhaps\" is neither warn nor error`)
	}
}

func TestCompleteness_ScriptsOfOtherOriginsMayReadIt(t *testing.T) {
	s, _ := startedServer(t, completenessConfig(t, "dead", ""))
	w := askWith(s.Handler(), "/api/v1/query?time=60&query=m", "Origin", "http://dash.example")
	require.Equal(t, "Date, X-Oneprom-Completeness, X-Oneprom-Missing, X-Oneprom-Cache", w.Header().Get("Access-Control-Expose-Headers"))
}

func TestCompleteness_ExplainTellsOfEachGroup(t *testing.T) {
	s, _ := startedServer(t, completenessConfig(t, "dead", "  - name: other\n    region: r2\n    labels: {zone: z3}\n    static_configs: [{targets: ['127.0.0.1:2']}]\n"))
	w := get(s.Handler(), "/api/v1/explain?time=60&analyze=true&query="+url.QueryEscape(`sum(m{zone!="z3"})`))
	require.Equal(t, http.StatusOK, w.Code, w.Body)
	var got struct {
		Data struct {
			PlanDigest string
			Analysis   struct{ Completeness []map[string]any }
		}
	}
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &got))
	require.Len(t, got.Data.PlanDigest, 16)
	shares := got.Data.Analysis.Completeness
	require.Len(t, shares, 3)
	require.Equal(t, map[string]any{"group": "alive", "region": "r", "state": "whole", "minTime": -239.999, "maxTime": 60.0}, shares[0])
	require.Contains(t, shares[1]["reason"], "did not answer")
	require.Equal(t, "partial", shares[1]["state"])
	require.Contains(t, shares[2]["reason"], "label")
	require.Equal(t, "skipped", shares[2]["state"])
	require.NotContains(t, shares[2], "minTime")
}

func TestCompleteness_FalsehoodsAreErrors(t *testing.T) {
	s, _ := startedServer(t, completenessConfig(t, "dead", ""))
	for _, text := range []string{
		`absent(m{job="nowhere"})`, `absent_over_time(m{job="nowhere"}[1m])`, `absent(sum(m{job="nowhere"}))`,
		`count(m) < 5`, `5 > count(m)`, `sum(m) == 1`, `m unless m{zone="z2"}`, `vector(1) and on () absent(m{job="nowhere"})`,
	} {
		w := get(s.Handler(), "/api/v1/query?time=60&query="+url.QueryEscape(text))
		require.Equal(t, http.StatusServiceUnavailable, w.Code, "%s: %s", text, w.Body)
		require.Contains(t, w.Body.String(), `this query needs every server group`, text)
		require.Contains(t, w.Body.String(), `server group \"dead\"`, text)
	}
	// What the dead group has nothing of, and what it only makes less of, is told.
	for _, text := range []string{`absent(m{zone="z1",job="nowhere"})`, `count(m) > 0`, `m unless m{zone="z1",job="nowhere"}`, `sum(m) or vector(0)`, `m < 5`} {
		w := get(s.Handler(), "/api/v1/query?time=60&query="+url.QueryEscape(text))
		require.Equal(t, http.StatusOK, w.Code, "%s: %s", text, w.Body)
	}
}
