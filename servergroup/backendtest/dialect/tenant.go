package dialect

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/oneprom/oneprom/servergroup/backendtest"
)

// TenantHeader names the tenant of a request to Mimir or Cortex. Without it, data is not shown.
const TenantHeader = "X-Scope-OrgID"

// MimirOptions say what a Mimir holds and how it was started.
type MimirOptions struct {
	Data storage.SampleAndChunkQueryable
	// Align is align_queries_with_step of the tenant: start and end of range queries are rounded down
	// to multiples of the step.
	Align bool
	// Cache keeps the answers of range queries, except for requests with `Cache-Control: no-store`.
	Cache bool
	// NoLookbackDelta ignores lookback_delta, as Mimir did before 3.1.
	NoLookbackDelta bool
	// MaxBytesInFrame bounds a frame of remote read; 0: 1 MiB.
	MaxBytesInFrame int
	// Limits bound queries; nil: they do not.
	Limits *Limits
}

// mimirRoutes are what Mimir has below /prometheus/api/v1/.
var mimirRoutes = []string{
	"read", "query", "query_range", "query_exemplars", "labels", "label/values", "series", "metadata", "format_query", "rules", "alerts",
}

// NewMimir returns a Grafana Mimir, below /prometheus.
func NewMimir(o MimirOptions) http.Handler {
	next := NewPrometheus(backendtest.Options{Queryable: o.Data, Prefix: "/prometheus", MaxBytesInFrame: o.MaxBytesInFrame}, o.Limits)
	if o.Cache {
		next = &cached{next: next, answers: map[string]*httptest.ResponseRecorder{}}
	}
	front := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/read") {
			next.ServeHTTP(w, r)
			return
		}
		if err := r.ParseForm(); err != nil {
			writeError(w, http.StatusBadRequest, "bad_data", err.Error())
			return
		}
		if o.NoLookbackDelta {
			r.Form.Del("lookback_delta")
		}
		if at, ok := rangeOf(r); ok && o.Align && strings.HasSuffix(r.URL.Path, "/query_range") {
			times{at.start / at.step * at.step, at.end / at.step * at.step, at.step}.write(r)
		}
		next.ServeHTTP(w, r)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/prometheus/api/v1/status/buildinfo", "/api/v1/status/buildinfo":
			writeData(w, map[string]any{
				"application": "Grafana Mimir", "version": "2.17.0", "revision": "a0b1c2d", "branch": "HEAD", "goVersion": "go1.24.6",
				"features": map[string]string{"ruler_config_api": "true", "alertmanager_config_api": "true", "query_sharding": "false", "federated_rules": "false"},
			})
		case "/api/v1/status/config", "/api/v1/status/flags":
			writeData(w, map[string]string{})
		default:
			forTenants("/prometheus", mimirRoutes, front).ServeHTTP(w, r)
		}
	})
}

// forTenants lets requests for the routes below prefix pass that name their tenant.
func forTenants(prefix string, routes []string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path, ok := strings.CutPrefix(r.URL.Path, prefix+"/api/v1/")
		switch {
		case !ok || !routed(path, routes):
			http.NotFound(w, r)
		case r.Header.Get(TenantHeader) == "":
			http.Error(w, "no org id", http.StatusUnauthorized)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// cached answers the same range query in the same way, whatever has been written since.
type cached struct {
	next    http.Handler
	mtx     sync.Mutex
	answers map[string]*httptest.ResponseRecorder
}

func (c *cached) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasSuffix(r.URL.Path, "/query_range") || strings.Contains(r.Header.Get("Cache-Control"), "no-store") {
		c.next.ServeHTTP(w, r)
		return
	}
	c.mtx.Lock()
	defer c.mtx.Unlock()
	key := strings.Join([]string{r.Header.Get(TenantHeader), r.FormValue("query"), r.FormValue("start"), r.FormValue("end"), r.FormValue("step")}, "\n")
	if c.answers[key] == nil {
		c.answers[key] = httptest.NewRecorder()
		r.Header.Del("Accept-Encoding") // other clients may not understand it
		c.next.ServeHTTP(c.answers[key], r)
	}
	a := c.answers[key]
	w.Header().Set("Content-Type", a.Header().Get("Content-Type"))
	w.WriteHeader(a.Code)
	_, _ = w.Write(a.Body.Bytes()) // a client that went away is not our concern
}

// CortexOptions say what a Cortex holds and how it was started.
type CortexOptions struct {
	Data storage.SampleAndChunkQueryable
	// Prefix is /prometheus or the older /api/prom.
	Prefix string
	// BuildInfo is whether it has /status/buildinfo, which is off by default.
	BuildInfo bool
	// Limits bound queries; nil: they do not.
	Limits *Limits
}

// Cortex is a Cortex.
type Cortex struct {
	http.Handler
	partial atomic.Bool
}

// SetPartial makes an ingester zone unreachable: every other series is missing, and the answers to
// queries say so in a warning.
func (c *Cortex) SetPartial(partial bool) { c.partial.Store(partial) }

// NewCortex returns a Cortex. Its remote read sends samples, whatever it is asked for.
func NewCortex(o CortexOptions) *Cortex {
	c := &Cortex{}
	next := NewPrometheus(backendtest.Options{
		Queryable: lossy{o.Data, &c.partial}, Prefix: o.Prefix, RemoteRead: backendtest.SamplesOnly,
	}, o.Limits)
	front := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/api/v1/query") && r.ParseForm() == nil {
			r.Form.Del("limit")
		}
		next.ServeHTTP(w, r)
	})
	c.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if o.BuildInfo && r.URL.Path == o.Prefix+"/api/v1/status/buildinfo" {
			writeData(w, map[string]string{"version": "1.19.0", "revision": "d1e2f3a", "branch": "HEAD", "buildUser": "", "buildDate": "", "goVersion": "go1.23.6"})
			return
		}
		forTenants(o.Prefix, mimirRoutes, front).ServeHTTP(w, r)
	})
	return c
}

// lossy is a storage that loses every other series while partial is set.
type lossy struct {
	storage.SampleAndChunkQueryable
	partial *atomic.Bool
}

func (s lossy) Querier(mint, maxt int64) (storage.Querier, error) {
	q, err := s.SampleAndChunkQueryable.Querier(mint, maxt)
	return lossyQuerier{q, s.partial}, err
}

type lossyQuerier struct {
	storage.Querier
	partial *atomic.Bool
}

func (q lossyQuerier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	set := q.Querier.Select(ctx, sorted, hints, ms...)
	if !q.partial.Load() {
		return set
	}
	return lossySet{set}
}

type lossySet struct{ storage.SeriesSet }

func (s lossySet) Next() bool {
	if !s.SeriesSet.Next() {
		return false
	}
	return s.SeriesSet.Next() // every second series
}

func (s lossySet) Warnings() annotations.Annotations {
	ws := s.SeriesSet.Warnings()
	return ws.Add(errors.New("query result may contain partial data"))
}
