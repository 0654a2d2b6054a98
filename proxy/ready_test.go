package proxy

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestReady_WhenServersHaveAnswered(t *testing.T) {
	const soon = 10 * time.Second
	config := func(when, dead string) string {
		return "global: {ready_when: " + when + "}\n" + completenessConfig(t, dead, "")
	}
	ready := func(s *Server) bool { return get(s.Handler(), "/-/ready").Code == http.StatusOK }
	for when, text := range map[string]string{"none": config("none", "dead"), "any": config("any", "dead"), "all": config("all", "")} {
		s, _ := startedServer(t, text)
		require.Eventually(t, func() bool { return ready(s) }, soon, time.Millisecond, when)
	}

	s, file := startedServer(t, config("all", "dead"))
	require.Eventually(t, func() bool {
		return strings.Contains(get(s.Handler(), "/-/ready").Body.String(), "of 2 server groups, 1 have answered (ready_when: all)")
	}, soon, time.Millisecond)
	require.Equal(t, http.StatusServiceUnavailable, get(s.Handler(), "/-/ready").Code)
	// Queries are answered all the same.
	require.Equal(t, http.StatusOK, get(s.Handler(), "/api/v1/query?time=60&query=m").Code)

	// Who was ready once stays so.
	writeConfig(t, file, config("all", ""))
	require.NoError(t, s.Reload(t.Context()))
	require.Eventually(t, func() bool { return ready(s) }, soon, time.Millisecond)
	writeConfig(t, file, config("all", "dead"))
	require.NoError(t, s.Reload(t.Context()))
	require.True(t, ready(s))
}
