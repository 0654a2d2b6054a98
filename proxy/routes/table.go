package routes

import (
	"errors"
	"net/http"

	"github.com/oneprom/oneprom/proxy/api"
	"github.com/oneprom/oneprom/proxy/gate"
	"github.com/oneprom/oneprom/proxy/middleware"
	"github.com/oneprom/oneprom/proxy/tenant"
)

// rows is the table of all routes: for whom each is where there are tenants, what its requests
// want of the server groups, and what answers them.
func (o *Options) rows(upstream http.Handler) []Row {
	l, m := o.Lookups, o.Merged
	var storesNothing http.HandlerFunc // while the admin API is off, upstream says so
	if o.AdminAPI {
		storesNothing = o.api(func(*http.Request) (api.Result, error) { return api.Result{}, errNoStorage })
	}
	page := page{base: o.ExternalPath, groups: o.Status.Groups, logger: o.Logger}
	rows := []Row{
		// By the server groups as the tenant sees them.
		{"GET POST", "/api/v1/query", tenant.ForTenants, gate.Query, nil},
		{"GET POST", "/api/v1/query_range", tenant.ForTenants, gate.Query, nil},
		{"GET POST", "/api/v1/query_exemplars", tenant.ForTenants, gate.Lookup, o.api(l.Exemplars)},
		{"GET POST", "/api/v1/series", tenant.ForTenants, gate.Lookup, nil},
		{"GET POST", "/api/v1/labels", tenant.ForTenants, gate.Lookup, nil},
		{"GET", "/api/v1/label/:name/values", tenant.ForTenants, gate.Lookup, nil},
		{"POST", "/api/v1/label/:name/values", tenant.ForTenants, gate.Lookup, middleware.AsGet(o.Logger, upstream)},
		{"POST", "/api/v1/read", tenant.ForTenants, gate.Read, middleware.RefusePartial(middleware.NeverInternal(upstream))},
		{"GET", "/federate", tenant.ForTenants, gate.Scrape, o.Readiness.Gate(middleware.Compress(middleware.RefusePartial(o.Federate)))},

		// By the labels of rules, alerts and targets.
		{"GET", "/api/v1/rules", tenant.ForTenants, gate.Lookup, o.api(m.Rules)},
		{"GET", "/api/v1/alerts", tenant.ForTenants, gate.Lookup, o.api(m.Alerts)},
		{"GET", "/api/v1/targets", tenant.ForTenants, gate.Lookup, o.api(m.Targets)},
		{"GET", "/api/v1/targets/metadata", tenant.ForTenants, gate.Lookup, o.api(m.TargetMetadata)},

		// Of metadata nobody knows whose it is: tenants are shown none.
		{"GET", "/api/v1/metadata", tenant.ForTenants, gate.Lookup, o.api(l.Metadata)},

		// What a tenant's query becomes; what became of it, with the replicas' scrapes, is for
		// administrators.
		{"GET POST", "/api/v1/explain", tenant.ForTenants, gate.Query, o.open(o.Explain.ServeHTTP)},

		// Their own queries.
		{"GET", "/api/v1/status/queries", tenant.ForTenants, gate.NoWork, o.api(o.Queries.List)},
		{"DELETE", "/api/v1/status/queries/:id", tenant.ForTenants, gate.NoWork, o.api(o.admin(o.Queries.Cancel))},

		// By the request alone, or the same for everybody.
		{"GET POST", "/api/v1/format_query", tenant.ForTenants, gate.NoWork, nil},
		{"GET POST", "/api/v1/parse_query", tenant.ForTenants, gate.NoWork, nil},
		{"GET", "/api/v1/status/buildinfo", tenant.ForTenants, gate.NoWork, nil},
		{"POST", "/api/v1/status/buildinfo", tenant.ForTenants, gate.NoWork, middleware.AsGet(o.Logger, upstream)},
		{"GET", "/api/v1/openapi.yaml", tenant.ForTenants, gate.NoWork, o.Readiness.Gate(o.OpenAPI)},
		{"OPTIONS", "/api/v1/*path", tenant.ForAll, gate.NoWork, nil}, // of other origins

		// What is not separate for each tenant. Notifications are shown before oneprom is ready, too.
		{"GET", "/api/v1/features", tenant.ForAdmins, gate.Lookup, o.api(m.Features)},
		{"GET", "/api/v1/notifications", tenant.ForAdmins, gate.Lookup, o.beforeReady(api.Serve(m.Notifications, o.Logger))},
		{"GET", "/api/v1/notifications/live", tenant.ForAdmins, gate.NoWork, middleware.EndWith(o.Life, upstream)},
		{"GET", "/api/v1/alertmanagers", tenant.ForAdmins, gate.Lookup, o.api(m.Alertmanagers)},
		{"GET", "/api/v1/targets/relabel_steps", tenant.ForAdmins, gate.Lookup, o.api(m.OfScrapePool("/targets/relabel_steps"))},
		{"GET", "/api/v1/scrape_pools", tenant.ForAdmins, gate.Lookup, o.api(m.ScrapePools)},
		{"GET", "/api/v1/scrape_pools/config", tenant.ForAdmins, gate.Lookup, o.api(m.OfScrapePool("/scrape_pools/config"))},
		{"GET POST", "/api/v1/search/metric_names", tenant.ForAdmins, gate.Lookup, nil},
		{"GET POST", "/api/v1/search/label_names", tenant.ForAdmins, gate.Lookup, nil},
		{"GET POST", "/api/v1/search/label_values", tenant.ForAdmins, gate.Lookup, nil},
		{"GET", "/api/v1/status/config", tenant.ForAdmins, gate.NoWork, o.api(o.Status.serveConfig)},
		{"GET", "/api/v1/status/flags", tenant.ForAdmins, gate.NoWork, nil},
		{"GET", "/api/v1/status/groups", tenant.ForAdmins, gate.NoWork, o.api(o.Status.serveGroups)},
		{"GET", "/api/v1/status/runtimeinfo", tenant.ForAdmins, gate.NoWork, nil},
		{"GET", "/api/v1/status/walreplay", tenant.ForAdmins, gate.NoWork, nil},
		{"GET", "/api/v1/status/self_metrics", tenant.ForAdmins, gate.NoWork, nil},
		{"GET", "/api/v1/status/tsdb", tenant.ForAdmins, gate.Lookup, o.api(m.TSDBStatus)},
		{"GET", "/api/v1/status/tsdb/blocks", tenant.ForAdmins, gate.Lookup, o.api(m.TSDBBlocks)},
		{"POST", "/api/v1/write", tenant.ForAdmins, gate.NoWork, receivesNothing},
		{"POST", "/api/v1/otlp/v1/metrics", tenant.ForAdmins, gate.NoWork, receivesNothing},
		{"POST", "/api/v1/admin/breaker", tenant.ForAdmins, gate.NoWork, o.api(o.admin(o.Breakers.serve))},
		{"POST", "/api/v1/admin/cache/flush", tenant.ForAdmins, gate.NoWork, o.api(o.admin(o.Flushes.serve))},
		{"POST PUT", "/api/v1/admin/tsdb/delete_series", tenant.ForAdmins, gate.NoWork, storesNothing},
		{"POST PUT", "/api/v1/admin/tsdb/clean_tombstones", tenant.ForAdmins, gate.NoWork, storesNothing},
		{"POST PUT", "/api/v1/admin/tsdb/snapshot", tenant.ForAdmins, gate.NoWork, storesNothing},

		// These name the groups, and so perhaps tenants. There are neither series nor queries in
		// them.
		{"GET", "/metrics", tenant.ForAdmins, gate.NoWork, o.Gathered.ServeHTTP},
		{"POST PUT", "/-/reload", tenant.ForAdmins, gate.NoWork, o.Lifecycle.ifEnabled(o.Lifecycle.serveReload)},
		{"GET", "/-/reload", tenant.ForAdmins, gate.NoWork, onlyPostOrPut},
		{"POST PUT", "/-/quit", tenant.ForAdmins, gate.NoWork, o.Lifecycle.ifEnabled(o.Lifecycle.serveQuit)},
		{"GET", "/-/quit", tenant.ForAdmins, gate.NoWork, onlyPostOrPut},
		{"GET POST", "/debug/*subpath", tenant.ForAdmins, gate.NoWork, serveDebug},

		// Without anything of anybody's. The first two lead to the page.
		{"GET", "/", tenant.ForAll, gate.NoWork, page.redirect},
		{"GET", "/graph", tenant.ForAll, gate.NoWork, page.redirectGraph},
		{"GET", "/version", tenant.ForAll, gate.NoWork, serveVersion},
		{"GET", "/-/healthy", tenant.ForAll, gate.NoWork, says("oneprom is Healthy.\n")},
		{"HEAD", "/-/healthy", tenant.ForAll, gate.NoWork, says("")},
		{"GET", "/-/ready", tenant.ForAll, gate.NoWork, o.Readiness.GateReady(says("oneprom is Ready.\n"))},
		{"HEAD", "/-/ready", tenant.ForAll, gate.NoWork, o.Readiness.GateReady(says(""))},
	}
	for _, path := range pages { // the page shows the groups
		rows = append(rows, Row{"GET", path, tenant.ForAdmins, gate.NoWork, middleware.Compress(page.serve)})
	}
	return rows
}

// errNoStorage is the answer to what changes a TSDB.
var errNoStorage = api.NewError(http.StatusServiceUnavailable, "unavailable", errors.New("oneprom stores no samples: ask the Prometheus servers behind it"))

// receivesNothing refuses samples. Upstream would name flags that oneprom does not have.
func receivesNothing(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "oneprom stores no samples: write them to the Prometheus servers or the store behind it", http.StatusNotFound)
}

// api is a handler of oneprom's own API.
func (o *Options) api(answer api.Handler) http.HandlerFunc {
	return o.open(api.Serve(answer, o.Logger))
}

// open is a handler that answers as those of upstream's API do: once oneprom is ready,
// compressed, and for other origins.
func (o *Options) open(answer http.HandlerFunc) http.HandlerFunc {
	return o.Readiness.Gate(o.beforeReady(answer))
}

// beforeReady is the same for one that answers before oneprom is ready, too.
func (o *Options) beforeReady(answer http.HandlerFunc) http.HandlerFunc {
	return middleware.Compress(middleware.AllowOrigin(o.CORSOrigin, answer))
}

// admin lets a handler act only if --web.enable-admin-api is given.
func (o *Options) admin(answer api.Handler) api.Handler {
	return func(r *http.Request) (api.Result, error) {
		if !o.AdminAPI {
			return api.Result{}, errNoAdmin
		}
		return answer(r)
	}
}
