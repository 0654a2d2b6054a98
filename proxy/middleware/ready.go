package middleware

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync/atomic"

	"github.com/oneprom/oneprom/proxy/config"
)

// Readiness says whether requests can be answered: once the server groups are known, and
// until the server stops.
type Readiness struct {
	GroupsKnown func() bool
	// Answered returns of how many groups a server has answered, and how many there are.
	Answered func() (groups, all int)
	When     func() config.ReadyWhen // there are enough of them

	stopping atomic.Bool
	was      atomic.Bool // enough had answered once
}

// End ends it for good: the server stops.
func (r *Readiness) End() { r.stopping.Store(true) }

// enough reports whether as many groups have answered as ready_when wants. Once that was
// so it stays: a region that is gone must not take oneprom out of rotation.
func (r *Readiness) enough() bool {
	if r.was.Load() {
		return true
	}
	groups, all := r.Answered()
	when := r.When()
	ok := when == config.ReadyNone || when == config.ReadyAny && groups > 0 || when == config.ReadyAll && groups == all
	if ok {
		r.was.Store(true)
	}
	return ok
}

// GateReady is Gate for /-/ready, which waits for servers if ready_when says so.
func (r *Readiness) GateReady(h http.HandlerFunc) http.HandlerFunc {
	return r.Gate(func(w http.ResponseWriter, req *http.Request) {
		if r.enough() {
			h(w, req)
			return
		}
		groups, all := r.Answered()
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = fmt.Fprintf(w, "Service Unavailable: of %d server groups, %d have answered (ready_when: %s)\n", all, groups, r.When())
	})
}

// Gate answers 503, as Prometheus does, while requests cannot be answered.
func (r *Readiness) Gate(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		stopping := r.stopping.Load()
		if !stopping && r.GroupsKnown() {
			h(w, req)
			return
		}
		w.Header().Set("X-Prometheus-Stopping", strconv.FormatBool(stopping))
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, "Service Unavailable")
	}
}
