package proxy

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestCache_RequestsAndAnswersSaySo: headers, explanations and metrics show what is kept, and requests may refuse it.
func TestCache_RequestsAndAnswersSaySo(t *testing.T) {
	s, _ := startedServer(t, completenessConfig(t, "", ""), "--web.enable-admin-api")
	const path = "/api/v1/query_range?query=m&start=30&end=90&step=15"
	cached := func(headers ...string) string {
		t.Helper()
		r := httptest.NewRequest(http.MethodGet, path, nil)
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		require.Equal(t, http.StatusOK, w.Code, w.Body)
		return w.Header().Get("X-Oneprom-Cache")
	}
	flush := func(query string) (int, string) {
		w := ask(s.Handler(), http.MethodPost, "/api/v1/admin/cache/flush?"+query, "")
		return w.Code, w.Body.String()
	}
	get(s.Handler(), "/api/v1/query?query=m&time=60") // the replicas are known afterwards
	require.Equal(t, "miss", cached())
	require.Equal(t, "hit", cached())
	require.Equal(t, "bypass; reason=the request says so", cached("Cache-Control", "max-age=0, No-Store"))
	require.Equal(t, "bypass; reason=the request says so", cached("X-Oneprom-Cache", "off"))
	require.Equal(t, "hit", cached("X-Oneprom-Cache", "on"))
	require.Empty(t, get(s.Handler(), "/api/v1/query?query=m&time=60").Header().Get("X-Oneprom-Cache"))
	text := get(s.Handler(), "/api/v1/explain?query=m&start=30&end=120&step=15&format=text").Body.String()
	require.Regexp(t, `(?m)^cache: partial, 1 of 1 blocks, evaluated \S+ to \S+ ago\n  not kept: at 105`, text)
	require.Contains(t, get(s.Handler(), "/api/v1/explain?query=time()&start=30&end=120&step=15&format=text").Body.String(), "cache: not asked: the result is no vector")

	for _, elsewhere := range []string{"start=91", "group=alive&end=-300"} {
		code, body := flush(elsewhere)
		require.Equal(t, http.StatusNoContent, code, body)
		require.Equal(t, "hit", cached(), elsewhere)
	}
	for _, here := range []string{"", "group=alive", "start=90", "group=alive&end=-200"} {
		code, body := flush(here)
		require.Equal(t, http.StatusNoContent, code, body)
		require.Equal(t, "miss", cached(), here)
		kept := func() bool { return cached() == "hit" } // not what was made in the millisecond of the flush
		require.Eventually(t, kept, 10*time.Second, time.Millisecond)
	}
	for query, want := range map[string]string{
		"group=nobody":   "/api/v1/status/groups has the names",
		"start=x":        "invalid time value for 'start'",
		"start=10&end=9": "it is before start",
	} {
		code, body := flush(query)
		require.Contains(t, []int{http.StatusBadRequest, http.StatusNotFound}, code)
		require.Contains(t, body, want)
	}
	metrics := get(s.Handler(), "/metrics").Body.String()
	require.Contains(t, metrics, "oneprom_cache_bypasses_total{reason=\"the request says so\"} 2")
	require.Regexp(t, `oneprom_cache_memory_bytes [1-9]`, metrics)

	none, _ := startedServer(t, completenessConfig(t, "", ""), "--web.enable-admin-api", "--cache.size=0")
	w := ask(none.Handler(), http.MethodPost, "/api/v1/admin/cache/flush", "")
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
	require.Contains(t, w.Body.String(), "--cache.size")
}
