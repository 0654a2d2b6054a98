package proxy

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
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

// A client chooses no tenant of a server by a header that the configuration sets or does not name: neither twice, in another
// spelling, nor by what it says of its connection.
func TestForwardHeaders_ClientsChooseNothingElse(t *testing.T) {
	backend := backendtest.NewHandler(backendtest.Options{Queryable: promqltest.LoadedStorage(t, "load 1m\n m 0x5\n")})
	var mtx sync.Mutex
	var wrong []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ok := slices.Equal(r.Header.Values("X-Scope-OrgID"), []string{"own"}) && slices.Equal(r.Header.Values("THANOS-TENANT"), []string{"own"})
		for name := range r.Header {
			ok = ok && !strings.Contains(name, "Forwarded") && !strings.Contains(name, "_")
		}
		if passed := r.Header.Values("X-Passed"); !ok || len(passed) > 0 && !slices.Equal(passed, []string{"1", "2"}) {
			mtx.Lock()
			wrong = append(wrong, fmt.Sprint(r.Method, r.URL.Path, r.Header))
			mtx.Unlock()
		}
		backend.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	s, _ := startedServer(t, "server_groups:\n- {name: g, forward_headers: [X-Passed], headers: {X-Scope-OrgID: own}, http_headers: {THANOS-TENANT: {values: [own]}}, static_configs: [{targets: ['"+strings.TrimPrefix(srv.URL, "http://")+"']}]}\n")
	for i, lines := range []string{
		"X-Scope-OrgID: x\r\nTHANOS-TENANT: x", "x-scope-orgid: x\r\nthanos-tenant: x", "X-Scope-OrgID: own\r\nX-Scope-OrgID: x", "X_Scope_OrgID: x\r\nThanos_Tenant: x",
		"Connection: X-Scope-OrgID, THANOS-TENANT", "Connection: X-Passed\r\nX-Passed: 1\r\nx-passed: 2", "X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-User: x\r\nX-Forwarded-Host: x\r\nForwarded: for=x", "Proxy-Connection: keep-alive\r\nTE: trailers",
	} {
		conn, err := net.Dial("tcp", s.Addr())
		require.NoError(t, err)
		_, err = fmt.Fprintf(conn, "GET /api/v1/query?query=m&time=%d HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n", 60+i, lines)
		require.NoError(t, err)
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, resp.StatusCode, lines)
		require.NoError(t, conn.Close())
	}
	mtx.Lock()
	defer mtx.Unlock()
	require.Empty(t, wrong)
}
