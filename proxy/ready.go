package proxy

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync/atomic"

	"github.com/oneprom/oneprom/proxy/config"
)

// readiness says whether requests can be answered: once the server groups are
// known, and until the server stops.
type readiness struct {
	groupsKnown func() bool
	stopping    atomic.Bool
	// answered tells of how many groups a server has answered, and how many there are.
	answered func() (groups, all int)
	when     func() config.ReadyWhen
	was      atomic.Bool // enough had answered once
}

// enough reports whether as many groups have answered as ready_when wants. Once that was
// so it stays: a region that is gone must not take oneprom out of rotation.
func (r *readiness) enough() bool {
	if r.was.Load() {
		return true
	}
	groups, all := r.answered()
	when := r.when()
	ok := when == config.ReadyNone || when == config.ReadyAny && groups > 0 || when == config.ReadyAll && groups == all
	if ok {
		r.was.Store(true)
	}
	return ok
}

// gateReady is gate for /-/ready, which waits for servers if ready_when says so.
func (r *readiness) gateReady(h http.HandlerFunc) http.HandlerFunc {
	return r.gate(func(w http.ResponseWriter, req *http.Request) {
		if r.enough() {
			h(w, req)
			return
		}
		groups, all := r.answered()
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = fmt.Fprintf(w, "Service Unavailable: of %d server groups, %d have answered (ready_when: %s)\n", all, groups, r.when())
	})
}

// gate answers 503, as Prometheus does, while requests cannot be answered.
func (r *readiness) gate(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		stopping := r.stopping.Load()
		if !stopping && r.groupsKnown() {
			h(w, req)
			return
		}
		w.Header().Set("X-Prometheus-Stopping", strconv.FormatBool(stopping))
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, "Service Unavailable")
	}
}
