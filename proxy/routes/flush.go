package routes

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	v1 "github.com/prometheus/prometheus/web/api/v1"

	"github.com/oneprom/oneprom/promqlx/cache"
	"github.com/oneprom/oneprom/proxy/api"
	"github.com/oneprom/oneprom/servergroup"
)

// Flushes drops kept answers.
type Flushes struct {
	// Flush drops what is kept (cache.Cache.Flush); nil if nothing is.
	Flush func(cache.Flush)
	// Groups are the server groups that there are.
	Groups func() []servergroup.GroupStatus
	Now    func() time.Time
	Logger *slog.Logger
}

// serve is POST /api/v1/admin/cache/flush: answers that come of samples of a server group, or of all, from one
// time to another one, are evaluated again.
func (f Flushes) serve(r *http.Request) (api.Result, error) {
	if f.Flush == nil {
		return api.Result{}, api.NewError(http.StatusServiceUnavailable, "unavailable", errors.New("there is no cache: start oneprom with --cache.size"))
	}
	group := r.FormValue("group")
	if group != "" && !slices.ContainsFunc(f.Groups(), func(g servergroup.GroupStatus) bool { return g.Name == group }) {
		return api.Result{}, api.NewError(http.StatusNotFound, "not_found", fmt.Errorf(
			"no server group %q: /api/v1/status/groups has the names", api.Clip(group, api.MaxHeaderText)))
	}
	start, err := api.TimeParam(r, "start", v1.MinTime)
	if err != nil {
		return api.Result{}, err
	}
	end, err := api.TimeParam(r, "end", v1.MaxTime)
	switch {
	case err != nil:
		return api.Result{}, err
	case end.Before(start):
		return api.Result{}, api.BadParameter("end", errors.New("it is before start"))
	}
	f.Flush(cache.Flush{Group: group, From: start.UnixMilli(), To: end.UnixMilli(), At: f.Now().UnixMilli()})
	f.Logger.Warn("kept answers were flushed", "group", group, "start", start, "end", end)
	return api.Result{}, nil
}
