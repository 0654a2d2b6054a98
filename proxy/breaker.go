package proxy

import (
	"fmt"
	"net/http"

	"github.com/oneprom/oneprom/servergroup/health"
)

// serveBreaker is POST /api/v1/admin/breaker: it holds the circuit breaker of a replica
// open or closed, until it is told auto.
func (s *Server) serveBreaker(r *http.Request) (answer, error) {
	if !s.opts.EnableAdminAPI {
		return answer{}, errNoAdmin
	}
	group, replica, state := r.FormValue("group"), r.FormValue("replica"), health.State(r.FormValue("state"))
	switch state {
	case health.Open, health.Closed, health.Auto:
	default:
		return answer{}, badParameter("state", fmt.Errorf("%q is none of open, closed, auto", clipped(string(state), maxHeaderText)))
	}
	if !s.set.ForceBreaker(group, replica, state) {
		return answer{}, &apiError{http.StatusNotFound, "not_found", fmt.Errorf(
			"no replica %q in a server group %q: /api/v1/status/groups has the names and URLs", clipped(replica, maxHeaderText), clipped(group, maxHeaderText))}
	}
	s.logger.Warn("circuit breaker forced", "group", group, "replica", replica, "state", state)
	return answer{}, nil
}
