package proxy

import (
	"io"
	"net/http"
	"strconv"
	"sync/atomic"
)

// readiness says whether requests can be answered: once the server groups are
// known, and until the server stops.
type readiness struct {
	groupsKnown func() bool
	stopping    atomic.Bool
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
