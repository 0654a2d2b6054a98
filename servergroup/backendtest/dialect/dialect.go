// Package dialect emulates backends that differ from a Prometheus 3: Prometheus 2, Thanos Query, Grafana
// Mimir and Cortex, and any of them with limits. Each is upstream's API over a storage, with the other server's
// routes, parameters and errors around it. Where a client does not ask in the right way, they are as
// wrong as the originals: that is their purpose.
package dialect

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/common/model"

	"github.com/oneprom/oneprom/servergroup/backendtest"
)

// Changing is a backend that is replaced by another one at the same address, as in an upgrade.
type Changing struct{ now atomic.Pointer[http.Handler] }

// NewChanging returns a backend that is h at first.
func NewChanging(h http.Handler) *Changing {
	c := &Changing{}
	c.Become(h)
	return c
}

// Become replaces the backend by h, from the next request on.
func (c *Changing) Become(h http.Handler) { c.now.Store(&h) }

// ServeHTTP implements http.Handler.
func (c *Changing) ServeHTTP(w http.ResponseWriter, r *http.Request) { (*c.now.Load()).ServeHTTP(w, r) }

// writeData answers 200 with data in Prometheus' envelope.
func writeData(w http.ResponseWriter, data any) {
	backendtest.WriteJSON(w, http.StatusOK, map[string]any{"status": "success", "data": data})
}

// writeError answers with an error in Prometheus' envelope.
func writeError(w http.ResponseWriter, code int, errorType, text string) {
	backendtest.WriteJSON(w, code, map[string]any{"status": "error", "errorType": errorType, "error": text})
}

// routed reports whether a path below /api/v1/ is one of the routes, and so exists. The value of a label
// is the route `label/values`.
func routed(path string, routes []string) bool {
	if name, ok := strings.CutPrefix(path, "label/"); ok && strings.HasSuffix(name, "/values") {
		path = "label/values"
	}
	return slices.Contains(routes, path)
}

// times are the parameters of a range query, in ms.
type times struct{ start, end, step int64 }

// rangeOf reads them. It fails where upstream's API does, which then says so itself.
func rangeOf(r *http.Request) (t times, ok bool) {
	start, err1 := parseTime(r.FormValue("start"))
	end, err2 := parseTime(r.FormValue("end"))
	step, err3 := parseDuration(r.FormValue("step"))
	return times{start, end, step}, err1 == nil && err2 == nil && err3 == nil && step > 0 && end >= start
}

// write puts the times into the request's form.
func (t times) write(r *http.Request) {
	for name, ms := range map[string]int64{"start": t.start, "end": t.end, "step": t.step} {
		r.Form.Set(name, strconv.FormatFloat(float64(ms)/1000, 'f', 3, 64))
	}
}

func parseTime(s string) (ms int64, err error) {
	if sec, err := strconv.ParseFloat(s, 64); err == nil {
		return int64(math.Round(sec * 1000)), nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	return t.UnixMilli(), err
}

func parseDuration(s string) (ms int64, err error) {
	if sec, err := strconv.ParseFloat(s, 64); err == nil {
		return int64(math.Round(sec * 1000)), nil
	}
	d, err := model.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("cannot parse %q to a valid duration", s)
	}
	return time.Duration(d).Milliseconds(), nil
}
