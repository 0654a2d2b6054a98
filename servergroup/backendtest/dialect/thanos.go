package dialect

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"github.com/oneprom/oneprom/servergroup/backendtest"
)

// ThanosOptions say what a Thanos Query is in front of, and how it was started.
type ThanosOptions struct {
	Stores []Store
	// ReplicaLabels are --query.replica-label: dropped where a request has dedup=true.
	ReplicaLabels []string
	// AutoDownsampling is --query.auto-downsampling: as if requests had max_source_resolution=auto.
	AutoDownsampling bool
	// Distributed is --query.mode=distributed: times and steps are cut to whole seconds.
	Distributed bool
	// Plain is a server that was built without the flags of a release, and tells no version.
	Plain bool
	// Limits bound queries; nil: they do not.
	Limits *Limits
}

// Store is one StoreAPI of a Thanos Query: a Prometheus with a sidecar, say.
type Store struct {
	// Name is its address.
	Name string
	// Labels are the external labels, which all its series get.
	Labels labels.Labels
	Data   storage.Queryable
}

// Thanos is a Thanos Query.
type Thanos struct {
	opts ThanosOptions
	next http.Handler

	mtx  sync.Mutex
	down map[string]bool // stores that do not answer
}

// NewThanos starts nothing that must be ended.
func NewThanos(o ThanosOptions) *Thanos {
	t := &Thanos{opts: o, down: map[string]bool{}}
	t.next = NewPrometheus(backendtest.Options{Queryable: t, RemoteRead: backendtest.NoRemoteRead}, o.Limits)
	return t
}

// SetDown makes a store unreachable, or reachable again.
func (t *Thanos) SetDown(name string, down bool) {
	t.mtx.Lock()
	defer t.mtx.Unlock()
	t.down[name] = down
}

func (t *Thanos) isDown(name string) bool {
	t.mtx.Lock()
	defer t.mtx.Unlock()
	return t.down[name]
}

// thanosRoutes are what Thanos Query has below /api/v1/; anything else is 404.
var thanosRoutes = []string{
	"query", "query_range", "label/values", "series", "labels", "alerts", "rules", "targets", "metadata",
	"query_exemplars", "status/runtimeinfo",
}

// ServeHTTP implements http.Handler.
func (t *Thanos) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, isAPI := strings.CutPrefix(r.URL.Path, "/api/v1/")
	switch {
	case !isAPI:
		t.next.ServeHTTP(w, r)
	case path == "status/buildinfo":
		version := "0.39.2"
		if t.opts.Plain {
			version = ""
		}
		writeData(w, map[string]string{
			"version": version, "revision": "b2ab0d9", "branch": "HEAD",
			"buildUser": "root@thanos", "buildDate": "20250617-08:36:04", "goVersion": "go1.24.0",
		})
	case path == "status/flags":
		writeData(w, map[string]string{"query.replica-label": strings.Join(t.opts.ReplicaLabels, ","), "enable-feature": ""})
	case path == "stores":
		writeData(w, t.storeStatus())
	case !routed(path, thanosRoutes):
		http.NotFound(w, r)
	case strings.HasPrefix(path, "label/") && r.Method == http.MethodPost:
		http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
	default:
		t.serveQuery(w, r)
	}
}

// storeStatus is /api/v1/stores.
func (t *Thanos) storeStatus() map[string][]map[string]any {
	var list []map[string]any
	for _, s := range t.opts.Stores {
		var lastError any
		if t.isDown(s.Name) {
			lastError = "rpc error: code = Unavailable desc = connection refused"
		}
		list = append(list, map[string]any{
			"name": s.Name, "lastCheck": time.Now().UTC(), "lastError": lastError,
			"labelSets": []map[string]string{s.Labels.Map()}, "minTime": 0, "maxTime": int64(math.MaxInt64),
		})
	}
	return map[string][]map[string]any{"sidecar": list}
}

// thanosParams are what Thanos adds to the parameters of a query.
type thanosParams struct {
	dedup, partial bool
	resolution     int64 // of the coarsest data that is good enough, ms
}

type thanosKey struct{}

func (t *Thanos) serveQuery(w http.ResponseWriter, r *http.Request) {
	isRange := strings.HasSuffix(r.URL.Path, "/query_range")
	var p thanosParams
	var err error
	if err = r.ParseForm(); err == nil {
		p.dedup, err = boolParam(r, "dedup")
	}
	if err == nil {
		p.partial, err = boolParam(r, "partial_response")
	}
	if err == nil {
		p.resolution, err = t.resolution(r, isRange)
	}
	if err != nil {
		writeError(w, http.StatusBadRequest, "bad_data", err.Error())
		return
	}
	if strings.Contains(r.URL.Path, "/query") {
		r.Form.Del("limit")
	}
	if at, ok := rangeOf(r); ok && isRange && t.opts.Distributed {
		second := func(ms int64) int64 { return ms - ms%1000 }
		times{second(at.start), second(at.end), max(second(at.step), 1)}.write(r)
	}
	t.next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), thanosKey{}, p)))
}

// resolution is max_source_resolution in ms. On its own accord Thanos takes a fifth of the step.
func (t *Thanos) resolution(r *http.Request, isRange bool) (int64, error) {
	text := r.FormValue("max_source_resolution")
	if text != "" && text != "auto" {
		ms, err := parseDuration(text)
		if err != nil {
			return 0, fmt.Errorf("'max_source_resolution' parameter: %w", err)
		}
		return ms, nil
	}
	at, ok := rangeOf(r)
	if !isRange || !ok || text == "" && !t.opts.AutoDownsampling {
		return 0, nil
	}
	return at.step / 5, nil
}

// boolParam is true if the parameter is absent.
func boolParam(r *http.Request, name string) (bool, error) {
	text := r.FormValue(name)
	if text == "" {
		return true, nil
	}
	b, err := strconv.ParseBool(text)
	if err != nil {
		return false, fmt.Errorf("'%s' parameter: %w", name, err)
	}
	return b, nil
}
