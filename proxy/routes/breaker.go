package routes

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/oneprom/oneprom/proxy/api"
	"github.com/oneprom/oneprom/servergroup/health"
)

// errNoAdmin is the answer to what only --web.enable-admin-api allows.
var errNoAdmin = api.NewError(http.StatusServiceUnavailable, "unavailable", errors.New("admin APIs are disabled: start oneprom with --web.enable-admin-api"))

// Breakers holds circuit breakers open or closed.
type Breakers struct {
	// Force reports whether there is such a replica (servergroup.Set.ForceBreaker).
	Force  func(group, replica string, state health.State) bool
	Logger *slog.Logger
}

// serve is POST /api/v1/admin/breaker: it holds the circuit breaker of a replica open or
// closed, until the state auto is asked for.
func (b Breakers) serve(r *http.Request) (api.Result, error) {
	group, replica, state := r.FormValue("group"), r.FormValue("replica"), health.State(r.FormValue("state"))
	switch state {
	case health.Open, health.Closed, health.Auto:
	default:
		return api.Result{}, api.BadParameter("state", fmt.Errorf("%q is none of open, closed, auto", api.Clip(string(state), api.MaxHeaderText)))
	}
	if !b.Force(group, replica, state) {
		return api.Result{}, api.NewError(http.StatusNotFound, "not_found", fmt.Errorf(
			"no replica %q in a server group %q: /api/v1/status/groups has the names and URLs", api.Clip(replica, api.MaxHeaderText), api.Clip(group, api.MaxHeaderText)))
	}
	b.Logger.Warn("circuit breaker forced", "group", group, "replica", replica, "state", state)
	return api.Result{}, nil
}
