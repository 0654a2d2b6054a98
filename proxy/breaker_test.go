package proxy

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestBreaker_IsForced(t *testing.T) {
	s, _ := startedServer(t, completenessConfig(t, "", ""), "--web.enable-admin-api")
	replica := s.set.Status()[0].Replicas[0].URL
	force := func(group, replica, state string) (int, string) {
		form := url.Values{"group": {group}, "replica": {replica}, "state": {state}}
		w := ask(s.Handler(), http.MethodPost, "/api/v1/admin/breaker?"+form.Encode(), "")
		return w.Code, w.Body.String()
	}
	state := func() string { return s.set.Status()[0].Replicas[0].Breaker }
	code, body := force("alive", replica, "open")
	require.Equal(t, http.StatusNoContent, code, body)
	require.Equal(t, "open", state())
	require.Equal(t, http.StatusServiceUnavailable, get(s.Handler(), "/api/v1/query?query=m&time=60").Code)
	code, body = force("alive", replica, "auto")
	require.Equal(t, http.StatusNoContent, code, body)
	require.Equal(t, "closed", state())
	require.Equal(t, http.StatusOK, get(s.Handler(), "/api/v1/query?query=m&time=60").Code)

	code, body = force("alive", replica, "ajar")
	require.Equal(t, http.StatusBadRequest, code)
	require.Contains(t, body, "none of open, closed, auto")
	code, body = force("alive", "http://nowhere", "open")
	require.Equal(t, http.StatusNotFound, code)
	require.Contains(t, body, "/api/v1/status/groups")

	locked, _ := startedServer(t, completenessConfig(t, "", ""))
	w := ask(locked.Handler(), http.MethodPost, "/api/v1/admin/breaker?state=open", "")
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
	require.Contains(t, w.Body.String(), "--web.enable-admin-api")
}
