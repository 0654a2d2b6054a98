// Package routes is the table of all routes, and the way of a request to the handler of its
// route.
//
// A route is a row of the table (table.go): methods and path, for whom it is where there are
// tenants, what its requests want of the server groups, and what answers them. Prometheus' own
// API stands behind the table: it answers the rows that have no handler here, and refuses what
// has no row. New does not accept a table in which a route of that API is missing.
//
// Options.handler is the life of a request, top to bottom. What answers in this package is
// small and of no other room: the page, the status of oneprom itself, circuit breakers, and the
// life of the server.
package routes

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/grafana/regexp"
	"github.com/julienschmidt/httprouter"
	"github.com/prometheus/common/route"
	v1 "github.com/prometheus/prometheus/web/api/v1"

	"github.com/oneprom/oneprom/proxy/config"
	"github.com/oneprom/oneprom/proxy/explain"
	"github.com/oneprom/oneprom/proxy/federate"
	"github.com/oneprom/oneprom/proxy/gate"
	"github.com/oneprom/oneprom/proxy/identity"
	"github.com/oneprom/oneprom/proxy/middleware"
	"github.com/oneprom/oneprom/proxy/queries"
	"github.com/oneprom/oneprom/proxy/tenant"
	"github.com/oneprom/oneprom/proxy/tracing"
	"github.com/oneprom/oneprom/proxy/views"
)

// Options are what requests pass, and what answers them. All are needed.
type Options struct {
	Prefix       string // of all routes, without a slash at the end
	ExternalPath string // that of Prefix as clients see it: what leads to the page
	AdminAPI     bool   // whether what changes something may be done by request
	CORSOrigin   *regexp.Regexp
	Config       func() *config.Config // in use
	Life         context.Context       // ends with the server, and so do requests that would not
	Logger       *slog.Logger

	Metrics    *Metrics
	Identities *identity.Checker
	Tracing    *tracing.Tracing
	Guard      *tenant.Guard
	Gate       *gate.Gate
	Readiness  *middleware.Readiness

	Upstream  *v1.API // of Prometheus, which lets everybody in
	OpenAPI   http.HandlerFunc
	Lookups   views.Lookups
	Merged    views.Merged // but for Self, which is Upstream
	Explain   *explain.Handler
	Federate  *federate.Handler
	Queries   *queries.Queries
	Status    Status
	Breakers  Breakers
	Flushes   Flushes
	Lifecycle Lifecycle
	Gathered  http.Handler // /metrics
}

// Router answers requests.
type Router struct {
	http.Handler
	rows []Row
}

// New returns a router, or an error that says which rows of the table of routes are wrong.
func New(o Options) (*Router, error) {
	upstream := route.New()
	o.Upstream.Register(upstream)
	o.Merged.Self = views.SelfAPI{Handler: upstream}
	rows := o.rows(upstream)
	if err := checkRows(rows, endpointsOf(o.Upstream.Register)); err != nil {
		return nil, fmt.Errorf("table of routes: %w", err)
	}
	return &Router{Handler: o.handler(rows, upstream), rows: rows}, nil
}

// Rows are those of the table of routes.
func (r *Router) Rows() []Row { return r.rows }

// handler is the life of a request, top to bottom. What a single route adds is in guarded, and
// where the route is: readiness, compression, cross-origin headers.
func (o *Options) handler(rows []Row, upstream http.Handler) http.Handler {
	panics := &middleware.Panics{Count: o.Metrics.Panics, QueryText: queries.TextOf, Logger: o.Logger}
	api, web := o.mux(rows, upstream)
	return middleware.MergeSlashes(
		panics.Recover(
			o.Identities.Check(
				o.Tracing.Trace(
					middleware.ForwardHeaders(o.Config, o.Logger,
						o.Guard.Identify(
							panics.Recover( // once more, where it is known who asks
								splitAt(o.Prefix+apiPrefix,
									o.Queries.Observe(panics.Recover,
										middleware.Completeness(
											middleware.PartialResponse(o.Logger,
												middleware.Pushdown(o.Logger, middleware.Cache(o.Logger, api))))),
									web))))))))
}

// mux sends requests to the rows of the API, without its prefix, and to the others. What has
// no row below the API, upstream refuses in its own way; elsewhere that is httprouter's.
func (o *Options) mux(rows []Row, upstream http.Handler) (api, web *httprouter.Router) {
	api, web = &httprouter.Router{NotFound: upstream}, httprouter.New()
	for _, r := range rows {
		switch {
		case r.handler != nil:
		case (r.Class == gate.Query || r.Class == gate.Lookup) && !strings.HasPrefix(r.Path, apiPrefix+"/search/"): // which streams
			r.handler = middleware.Compress(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Del("Vary") // upstream says it again
				upstream.ServeHTTP(w, r)
			})
		default:
			r.handler = upstream.ServeHTTP
		}
		h := o.guarded(r)
		for _, e := range r.endpoints() {
			if r.ofAPI() {
				handle(api, e.method, strings.TrimPrefix(e.path, apiPrefix), h)
			} else {
				handle(web, e.method, o.Prefix+e.path, h)
			}
		}
	}
	if o.Prefix != "" {
		handle(web, http.MethodGet, "/", o.guarded(Row{Path: "/", Access: tenant.ForAll, handler: http.RedirectHandler(o.Prefix, http.StatusFound).ServeHTTP}))
	}
	return api, web
}

// guarded is the handler of a row behind what all routes have: metrics, whom it is for,
// admission.
func (o *Options) guarded(r Row) http.HandlerFunc {
	plainErrors := !r.ofAPI() || r.Class.PlainText()
	return o.Metrics.instrument(r.Path, o.Guard.Permit(r.Access, plainErrors, o.Gate.Admit(r.Class, r.handler)))
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
