package proxy

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest"
)

// A backend has data of a tenant only for those who name it.
func TestForwardHeaders(t *testing.T) {
	byTenant := map[string]http.Handler{"": backendtest.NewHandler(backendtest.Options{Queryable: promqltest.LoadedStorage(t, "load 1m\n m{of=\"nobody\"} 0x5\n")})}
	for _, tenant := range []string{"a", "b"} {
		byTenant[tenant] = backendtest.NewHandler(backendtest.Options{Queryable: promqltest.LoadedStorage(t, "load 1m\n m{of=\""+tenant+"\"} 0x5\n")})
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Cookie") != "" {
			http.Error(w, "a cookie", http.StatusTeapot)
			return
		}
		byTenant[r.Header.Get("X-Scope-OrgID")].ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	s, _ := startedServer(t, "server_groups:\n- {name: g, forward_headers: [X-Scope-OrgID], static_configs: [{targets: ['"+strings.TrimPrefix(srv.URL, "http://")+"']}]}\n")
	for _, path := range []string{
		"/api/v1/query?query=m&time=60", "/api/v1/query?query=count+by(of)(m)&time=60", "/api/v1/query_range?query=m&start=0&end=60&step=30",
		"/api/v1/series?match[]=m&start=0&end=60", "/api/v1/label/of/values?start=0&end=60",
	} {
		for _, tenant := range []string{"a", "b", ""} {
			req := httptest.NewRequest(http.MethodGet, path, nil)
			req.Header.Set("Cookie", "session=1")
			if tenant != "" {
				req.Header.Set("X-Scope-OrgID", tenant)
			} else {
				tenant = "nobody"
			}
			rec := httptest.NewRecorder()
			s.Handler().ServeHTTP(rec, req)
			require.Equal(t, http.StatusOK, rec.Code, rec.Body)
			require.Contains(t, rec.Body.String(), `"`+tenant+`"`, path)
		}
	}
	rec := askWith(s.Handler(), "/api/v1/query?query=m", "X-Scope-OrgID", strings.Repeat("x", 6<<10))
	require.Equal(t, http.StatusRequestHeaderFieldsTooLarge, rec.Code)
	require.NotContains(t, rec.Body.String(), "xxx")
}
