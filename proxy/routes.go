package proxy

import (
	"net/http"
	"strings"

	"github.com/julienschmidt/httprouter"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/route"
)

// router is the life of a request, top to bottom. What a single route adds is
// told where the route is: metrics, whom it is for, admission, readiness, compression, cross-origin
// headers.
func (s *Server) router(upstream http.Handler, l lookups, m mergedViews, federate http.Handler) http.Handler {
	return mergeSlashes(
		s.recoverPanics(
			s.traced(
				s.forwardHeaders(
					s.identify(
						splitAt(s.routePrefix+"/api/v1",
							s.observeQueries(tellCompleteness(s.requestPartial(s.requestPushdown(s.apiRoutes(upstream, l, m))))),
							s.webRoutes(federate)))))))
}

// apiRoutes are the routes below /api/v1: ours, and then upstream's, which also
// answers what nobody knows.
func (s *Server) apiRoutes(upstream http.Handler, l lookups, m mergedViews) http.Handler {
	r := &httprouter.Router{NotFound: upstream}
	instrument := s.metrics.instrumentBelow("/api/v1")
	handle := func(method, path string, h http.HandlerFunc) {
		r.HandlerFunc(method, path, instrument(path, s.permit("/api/v1"+path, s.doorman.admit(path, h))))
	}
	open := func(method, path string, h http.HandlerFunc) {
		handle(method, path, s.readiness.gate(compress(s.allowOrigin(h))))
	}
	ours := func(method, path string, h apiHandler) { open(method, path, serveAPI(h, s.logger)) }
	ours(http.MethodGet, "/query_exemplars", l.exemplars)
	ours(http.MethodPost, "/query_exemplars", l.exemplars)
	ours(http.MethodGet, "/metadata", l.metadata)
	ours(http.MethodGet, "/rules", m.rules)
	ours(http.MethodGet, "/alerts", m.alerts)
	ours(http.MethodGet, "/targets", m.targets)
	ours(http.MethodGet, "/targets/metadata", m.targetMetadata)
	ours(http.MethodGet, "/targets/relabel_steps", m.ofScrapePool("/targets/relabel_steps"))
	ours(http.MethodGet, "/scrape_pools", m.scrapePools)
	ours(http.MethodGet, "/scrape_pools/config", m.ofScrapePool("/scrape_pools/config"))
	ours(http.MethodGet, "/alertmanagers", m.alertmanagers)
	ours(http.MethodGet, "/features", m.features)
	ours(http.MethodGet, "/status/tsdb", m.tsdbStatus)
	ours(http.MethodGet, "/status/tsdb/blocks", m.tsdbBlocks)
	handle(http.MethodGet, "/notifications", compress(s.allowOrigin(serveAPI(m.notifications, s.logger)))) // also before oneprom is ready
	open(http.MethodGet, "/explain", s.serveExplain)
	open(http.MethodPost, "/explain", s.serveExplain)
	ours(http.MethodGet, "/status/config", s.serveConfig)
	ours(http.MethodGet, "/status/groups", s.serveGroups)
	ours(http.MethodGet, "/status/queries", s.serveQueries)
	ours(http.MethodDelete, "/status/queries/:id", s.serveCancelQuery)
	ours(http.MethodPost, "/admin/breaker", s.serveBreaker)

	// Upstream's handlers, with something changed before them.
	r.Handler(http.MethodPost, "/label/:name/values", s.asGet(upstream))
	r.Handler(http.MethodPost, "/status/buildinfo", s.asGet(upstream))
	r.Handler(http.MethodPost, "/read", wholeOnly(neverInternal(upstream)))
	r.Handler(http.MethodGet, "/notifications/live", s.endsWithServer(upstream))
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
		r.Get(path, compress(s.servePage))
	}
	r.Get("/federate", s.doorman.admit("/federate", s.readiness.gate(compress(wholeOnly(federate)))))
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
