package routes

import (
	"net/http"
	"testing"

	"github.com/prometheus/common/route"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/proxy/tenant"
)

func TestCheckRows(t *testing.T) {
	upstream := []endpoint{{"GET", "/api/v1/a"}, {"POST", "/api/v1/a"}}
	all := Row{Methods: "GET POST", Path: "/api/v1/a", Access: tenant.ForTenants}
	own := Row{Methods: "GET", Path: "/b", Access: tenant.ForAll, handler: says("b")}
	f := func(want string, rows ...Row) {
		t.Helper()
		if err := checkRows(rows, upstream); want == "" {
			require.NoError(t, err)
		} else {
			require.EqualError(t, err, want)
		}
	}
	f("", all, own)
	f("POST /api/v1/a, a route of Prometheus, has no row", Row{Methods: "GET", Path: "/api/v1/a", Access: tenant.ForTenants}, own)
	f("GET /b has two rows", all, own, own)
	f("the row of GET /b does not say for whom it is", all, Row{Methods: "GET", Path: "/b", handler: says("b")})
	f("the row of PUT /api/v1/a has no handler, and Prometheus has no such route", all, Row{Methods: "PUT", Path: "/api/v1/a", Access: tenant.ForAdmins})
}

func TestEndpointsOf(t *testing.T) {
	never := func(http.ResponseWriter, *http.Request) { t.Error("no handler is called") }
	require.Equal(t, []endpoint{{"OPTIONS", "/api/v1/*path"}, {"GET", "/api/v1/a"}, {"POST", "/api/v1/a"}, {"DELETE", "/api/v1/a/:x"}},
		endpointsOf(func(r *route.Router) {
			r.Options("/*path", never)
			r.Post("/a", never)
			r.Get("/a", never)
			r.Del("/a/:x", never)
		}))
}
