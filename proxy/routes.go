package proxy

import (
	"net/http"
	"strings"

	"github.com/julienschmidt/httprouter"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/route"

	"github.com/oneprom/oneprom/proxy/api"
	"github.com/oneprom/oneprom/proxy/explain"
	"github.com/oneprom/oneprom/proxy/middleware"
	"github.com/oneprom/oneprom/proxy/queries"
	"github.com/oneprom/oneprom/proxy/views"
)

// router is the life of a request, top to bottom. What a single route adds is
// told where the route is: metrics, whom it is for, admission, readiness, compression, cross-origin
// headers.
func (s *Server) router(upstream http.Handler, l views.Lookups, m views.Merged, federate http.Handler) http.Handler {
	panics := &middleware.Panics{Count: s.metrics.panics, QueryText: queries.TextOf, Logger: s.logger}
	return middleware.MergeSlashes(
		panics.Recover(
			s.tracing.Trace(
				middleware.ForwardHeaders(s.config.Load, s.logger,
					s.guard.Identify(
						splitAt(s.routePrefix+"/api/v1",
							s.queries.Observe(panics.Recover,
								middleware.Completeness(
									middleware.PartialResponse(s.logger,
										middleware.Pushdown(s.logger,
											s.apiRoutes(upstream, l, m))))),
							s.webRoutes(federate)))))))
}

// apiRoutes are the routes below /api/v1: ours, and then upstream's, which also
// answers what nobody knows.
func (s *Server) apiRoutes(upstream http.Handler, l views.Lookups, m views.Merged) http.Handler {
	r := &httprouter.Router{NotFound: upstream}
	instrument := s.metrics.instrumentBelow("/api/v1")
	handle := func(method, path string, h http.HandlerFunc) {
		r.HandlerFunc(method, path, instrument(path, s.permit("/api/v1"+path, s.gate.Admit(errands[path], h))))
	}
	open := func(method, path string, h http.HandlerFunc) {
		handle(method, path, s.readiness.gate(middleware.Compress(middleware.AllowOrigin(s.corsOrigin, h))))
	}
	ours := func(method, path string, h api.Handler) { open(method, path, api.Serve(h, s.logger)) }
	ours(http.MethodGet, "/query_exemplars", l.Exemplars)
	ours(http.MethodPost, "/query_exemplars", l.Exemplars)
	ours(http.MethodGet, "/metadata", l.Metadata)
	ours(http.MethodGet, "/rules", m.Rules)
	ours(http.MethodGet, "/alerts", m.Alerts)
	ours(http.MethodGet, "/targets", m.Targets)
	ours(http.MethodGet, "/targets/metadata", m.TargetMetadata)
	ours(http.MethodGet, "/targets/relabel_steps", m.OfScrapePool("/targets/relabel_steps"))
	ours(http.MethodGet, "/scrape_pools", m.ScrapePools)
	ours(http.MethodGet, "/scrape_pools/config", m.OfScrapePool("/scrape_pools/config"))
	ours(http.MethodGet, "/alertmanagers", m.Alertmanagers)
	ours(http.MethodGet, "/features", m.Features)
	ours(http.MethodGet, "/status/tsdb", m.TSDBStatus)
	ours(http.MethodGet, "/status/tsdb/blocks", m.TSDBBlocks)
	handle(http.MethodGet, "/notifications", middleware.Compress(middleware.AllowOrigin(s.corsOrigin, api.Serve(m.Notifications, s.logger)))) // also before oneprom is ready
	explained := &explain.Handler{Engine: s.engine, Groups: s.set.View, Now: s.opts.Now, Logger: s.logger}
	open(http.MethodGet, "/explain", explained.ServeHTTP)
	open(http.MethodPost, "/explain", explained.ServeHTTP)
	ours(http.MethodGet, "/status/config", s.serveConfig)
	ours(http.MethodGet, "/status/groups", s.serveGroups)
	ours(http.MethodGet, "/status/queries", s.queries.List)
	ours(http.MethodDelete, "/status/queries/:id", s.adminOnly(s.queries.Cancel))
	ours(http.MethodPost, "/admin/breaker", s.adminOnly(s.serveBreaker))

	// Upstream's handlers, with something changed before them.
	r.Handler(http.MethodPost, "/label/:name/values", middleware.AsGet(s.logger, upstream))
	r.Handler(http.MethodPost, "/status/buildinfo", middleware.AsGet(s.logger, upstream))
	r.Handler(http.MethodPost, "/read", middleware.WholeOnly(middleware.NeverInternal(upstream)))
	r.Handler(http.MethodGet, "/notifications/live", middleware.EndWith(s.life, upstream))
	return r
}

// webRoutes are the routes outside of /api/v1.
func (s *Server) webRoutes(federate http.Handler) http.Handler {
	r := route.New().WithInstrumentation(func(route string, h http.HandlerFunc) http.HandlerFunc {
		return s.metrics.instrument(route, s.permit(route, h))
	})
	if s.routePrefix != "" {
		r.Get("/", func(w http.ResponseWriter, req *http.Request) {
			http.Redirect(w, req, s.routePrefix, http.StatusFound)
		})
		r = r.WithPrefix(s.routePrefix)
	}
	query := s.externalURL.Path + "/query"
	r.Get("/", func(w http.ResponseWriter, req *http.Request) { http.Redirect(w, req, query, http.StatusFound) })
	r.Get("/graph", func(w http.ResponseWriter, req *http.Request) {
		http.Redirect(w, req, query+"?"+req.URL.RawQuery, http.StatusFound)
	})
	for _, path := range pages {
		r.Get(path, middleware.Compress(s.servePage))
	}
	r.Get("/federate", s.gate.Admit(errands["/federate"], s.readiness.gate(middleware.Compress(middleware.WholeOnly(federate)))))
	r.Get("/metrics", promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{Registry: s.registry}).ServeHTTP)
	r.Get("/version", serveVersion)

	r.Get("/-/healthy", says("oneprom is Healthy.\n"))
	r.Head("/-/healthy", says(""))
	r.Get("/-/ready", s.readiness.gateReady(says("oneprom is Ready.\n")))
	r.Head("/-/ready", s.readiness.gateReady(says("")))
	for path, h := range map[string]http.HandlerFunc{"/-/reload": s.serveReload, "/-/quit": s.serveQuit} {
		r.Post(path, s.lifecycle(h))
		r.Put(path, s.lifecycle(h))
		r.Get(path, onlyPostOrPut)
	}
	r.Get("/debug/*subpath", serveDebug)
	r.Post("/debug/*subpath", serveDebug)
	return r
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
