package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/julienschmidt/httprouter"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/route"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/promqlx"
	"github.com/oneprom/oneprom/proxy/explain"
	"github.com/oneprom/oneprom/proxy/federate"
	"github.com/oneprom/oneprom/proxy/gate"
	"github.com/oneprom/oneprom/proxy/middleware"
	"github.com/oneprom/oneprom/proxy/queries"
	"github.com/oneprom/oneprom/proxy/tenant"
	"github.com/oneprom/oneprom/proxy/views"
)

// apiPrefix is what the paths of the API begin with, below --web.route-prefix.
const apiPrefix = "/api/v1"

// row is a row of the table of routes: what is to be known of a route before a request is
// let through to its handler.
type row struct {
	methods string // separated by blanks
	path    string // below --web.route-prefix, with parameters as httprouter has them
	access  tenant.Access
	class   gate.Class
	handler http.HandlerFunc // nil: upstream's API
}

// ofAPI reports whether the row is of a route of the API.
func (r row) ofAPI() bool { return strings.HasPrefix(r.path, apiPrefix+"/") }

// endpoint is what a request is for, and a row has one or more of.
type endpoint struct{ method, path string }

func (r row) endpoints() (es []endpoint) {
	for method := range strings.FieldsSeq(r.methods) {
		es = append(es, endpoint{method, r.path})
	}
	return es
}

// checkRows says what is wrong with a table of routes. Each route of upstream's API must have
// a row: of another one nobody would have said for whom it is.
func checkRows(rows []row, upstream []endpoint) error {
	var errs []error
	known := map[endpoint]bool{}
	for _, r := range rows {
		for _, e := range r.endpoints() {
			if known[e] {
				errs = append(errs, fmt.Errorf("%s %s has two rows", e.method, e.path))
			}
			known[e] = true
			if r.access == tenant.ForNobody {
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

// wire makes what answers requests, of what New has made before.
func (s *Server) wire(storage *promqlx.Storage) (http.Handler, error) {
	st := statusAPI{born: s.born, config: s.config.Load, groups: s.set.Status, lastReload: s.lastReload.Load}
	upstreamAPI := s.upstreamAPI(storage, st)
	upstream := route.New()
	upstreamAPI.Register(upstream)
	view := s.set.View
	h := &handlers{
		upstream: upstream,
		lookups:  views.Lookups{Parser: s.parser, Groups: func(ctx context.Context) views.Groups { return view(ctx) }},
		merged:   views.Merged{Self: views.SelfAPI{Handler: upstream}, Groups: view, Parser: s.parser},
		explain:  &explain.Handler{Engine: s.engine, Groups: view, Now: s.opts.Now, Logger: s.logger},
		federate: &federate.Handler{
			Storage: storage, Parser: s.parser, Lookback: time.Duration(s.opts.LookbackDelta), Now: s.opts.Now,
			ExternalLabels: func() labels.Labels { return s.config.Load().Global.ExternalLabels },
			Logger:         s.logger.With("component", "federation"),
		},
		queries:    s.queries,
		status:     st,
		breakers:   breakers{force: s.set.ForceBreaker, logger: s.logger},
		page:       page{base: s.externalURL.Path, groups: s.set.Status, logger: s.logger},
		lifecycle:  lifecycle{enabled: s.opts.EnableLifecycle, reload: func() error { return s.Reload(s.life) }, quit: s.requestQuit},
		metrics:    promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{Registry: s.registry}),
		adminAPI:   s.opts.EnableAdminAPI,
		readiness:  &s.readiness,
		corsOrigin: s.corsOrigin,
		life:       s.life,
		logger:     s.logger,
	}
	s.rows = h.routes()
	if err := checkRows(s.rows, endpointsOf(upstreamAPI.Register)); err != nil {
		return nil, fmt.Errorf("table of routes: %w", err)
	}
	return s.router(s.rows, upstream), nil
}

// router is the life of a request, top to bottom. What a single route adds is in guarded, and
// where the route is: readiness, compression, cross-origin headers.
func (s *Server) router(rows []row, upstream http.Handler) http.Handler {
	panics := &middleware.Panics{Count: s.metrics.panics, QueryText: queries.TextOf, Logger: s.logger}
	api, web := s.mux(rows, upstream)
	return middleware.MergeSlashes(
		panics.Recover(
			s.tracing.Trace(
				middleware.ForwardHeaders(s.config.Load, s.logger,
					s.guard.Identify(
						splitAt(s.routePrefix+apiPrefix,
							s.queries.Observe(panics.Recover,
								middleware.Completeness(
									middleware.PartialResponse(s.logger,
										middleware.Pushdown(s.logger, api)))),
							web))))))
}

// mux sends requests to the rows of the API, without its prefix, and to the others. What has
// no row below the API, upstream refuses in its own way; elsewhere that is httprouter's.
func (s *Server) mux(rows []row, upstream http.Handler) (api, web *httprouter.Router) {
	api, web = &httprouter.Router{NotFound: upstream}, httprouter.New()
	for _, r := range rows {
		if r.handler == nil {
			r.handler = upstream.ServeHTTP
		}
		h := s.guarded(r)
		for _, e := range r.endpoints() {
			if r.ofAPI() {
				handle(api, e.method, strings.TrimPrefix(e.path, apiPrefix), h)
			} else {
				handle(web, e.method, s.routePrefix+e.path, h)
			}
		}
	}
	if s.routePrefix != "" {
		handle(web, http.MethodGet, "/", s.guarded(row{path: "/", access: tenant.ForAll, handler: http.RedirectHandler(s.routePrefix, http.StatusFound).ServeHTTP}))
	}
	return api, web
}

// guarded is the handler of a row behind what all routes have: metrics, whom it is for,
// admission.
func (s *Server) guarded(r row) http.HandlerFunc {
	plainErrors := !r.ofAPI() || r.class.PlainText()
	return s.metrics.instrument(r.path, s.guard.Permit(r.access, plainErrors, s.gate.Admit(r.class, r.handler)))
}

// handle has a handler read the parameters of its path by route.Param, as upstream's do.
func handle(mux *httprouter.Router, method, path string, h http.HandlerFunc) {
	mux.Handle(method, path, func(w http.ResponseWriter, r *http.Request, params httprouter.Params) {
		ctx := r.Context()
		for _, p := range params {
			ctx = route.WithParam(ctx, p.Key, p.Value)
		}
		h(w, r.WithContext(ctx))
	})
}

// splitAt sends requests below a prefix to one handler, which does not see the
// prefix, and the others to another.
func splitAt(prefix string, below, others http.Handler) http.Handler {
	below = http.StripPrefix(prefix, below)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, prefix+"/") {
			below.ServeHTTP(w, r)
			return
		}
		others.ServeHTTP(w, r)
	})
}
