package routes

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/prometheus/common/route"

	"github.com/oneprom/oneprom/proxy/gate"
	"github.com/oneprom/oneprom/proxy/tenant"
)

// apiPrefix is what the paths of the API begin with, below --web.route-prefix.
const apiPrefix = "/api/v1"

// Row is a row of the table of routes: what is to be known of a route before a request is let
// through to its handler.
type Row struct {
	Methods string // separated by blanks
	Path    string // below --web.route-prefix, with parameters as httprouter has them
	Access  tenant.Access
	Class   gate.Class
	handler http.HandlerFunc // nil: upstream's API
}

// ofAPI reports whether the row is of a route of the API.
func (r Row) ofAPI() bool { return strings.HasPrefix(r.Path, apiPrefix+"/") }

// endpoint is what a request is for, and a row has one or more of.
type endpoint struct{ method, path string }

func (r Row) endpoints() (es []endpoint) {
	for method := range strings.FieldsSeq(r.Methods) {
		es = append(es, endpoint{method, r.Path})
	}
	return es
}

// checkRows says what is wrong with a table of routes. Each route of upstream's API must have
// a row: of another one nobody would have said for whom it is.
func checkRows(rows []Row, upstream []endpoint) error {
	var errs []error
	known := map[endpoint]bool{}
	for _, r := range rows {
		for _, e := range r.endpoints() {
			if known[e] {
				errs = append(errs, fmt.Errorf("%s %s has two rows", e.method, e.path))
			}
			known[e] = true
			if r.Access == tenant.ForNobody {
				errs = append(errs, fmt.Errorf("the row of %s %s does not say for whom it is", e.method, e.path))
			}
			if r.handler == nil && !slices.Contains(upstream, e) {
				errs = append(errs, fmt.Errorf("the row of %s %s has no handler, and Prometheus has no such route", e.method, e.path))
			}
		}
	}
	for _, e := range upstream {
		if !known[e] {
			errs = append(errs, fmt.Errorf("%s %s, a route of Prometheus, has no row", e.method, e.path))
		}
	}
	return errors.Join(errs...)
}

// endpointsOf returns what a router of upstream's API has routes for, which no router says:
// each path is asked for with each method, of handlers that only note that they were reached.
func endpointsOf(register func(*route.Router)) (es []endpoint) {
	var paths []string
	reached := ""
	r := route.New().WithInstrumentation(func(path string, _ http.HandlerFunc) http.HandlerFunc {
		paths = append(paths, path)
		return func(http.ResponseWriter, *http.Request) { reached = path }
	})
	register(r)
	slices.Sort(paths)
	methods := []string{
		http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch,
		http.MethodDelete, http.MethodOptions, http.MethodConnect, http.MethodTrace, route.MethodQuery,
	}
	for _, path := range slices.Compact(paths) {
		for _, method := range methods {
			req, err := http.NewRequest(method, path, http.NoBody)
			if err != nil { // impossible: the path is a route's
				panic(fmt.Sprintf("BUG: a request for %s %s: %v", method, path, err))
			}
			reached = ""
			r.ServeHTTP(nowhere{}, req)
			if reached == path {
				es = append(es, endpoint{method, apiPrefix + path})
			}
		}
	}
	return es
}

// nowhere is an http.ResponseWriter that keeps nothing.
type nowhere struct{}

func (nowhere) Header() http.Header         { return http.Header{} }
func (nowhere) Write(b []byte) (int, error) { return len(b), nil }
func (nowhere) WriteHeader(int)             {}
