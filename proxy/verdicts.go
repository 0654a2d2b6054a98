package proxy

// verdict says for whom a route is where there are tenants.
type verdict int

const (
	forNobody  verdict = iota // none has been given
	forAll                    // those that are no tenant's, too: there is nothing in it
	forTenants                // each is shown what is its own
	forAdmins                 // it tells of everything, or does something to everybody
)

// verdicts are those of all routes. One that is missing here is for nobody.
var verdicts = map[string]verdict{
	// By the server groups as the tenant sees them.
	"/api/v1/query": forTenants, "/api/v1/query_range": forTenants, "/api/v1/query_exemplars": forTenants,
	"/api/v1/series": forTenants, "/api/v1/labels": forTenants, "/api/v1/label/:name/values": forTenants,
	"/api/v1/read": forTenants, "/federate": forTenants,
	// Of metadata nobody knows whose it is: tenants are told none.
	"/api/v1/metadata": forTenants,
	// What a tenant's query becomes; what became of it, with the replicas' scrapes, is for
	// administrators.
	"/api/v1/explain": forTenants,
	// Their own queries.
	"/api/v1/status/queries": forTenants, "/api/v1/status/queries/:id": forTenants,
	// By the request alone, or the same for everybody.
	"/api/v1/format_query": forTenants, "/api/v1/parse_query": forTenants,
	"/api/v1/status/buildinfo": forTenants, "/api/v1/openapi.yaml": forTenants,

	// What is not told apart by tenant.
	"/api/v1/features": forAdmins, "/api/v1/notifications": forAdmins, "/api/v1/notifications/live": forAdmins,
	"/api/v1/rules": forAdmins, "/api/v1/alerts": forAdmins, "/api/v1/alertmanagers": forAdmins,
	"/api/v1/targets": forAdmins, "/api/v1/targets/metadata": forAdmins, "/api/v1/targets/relabel_steps": forAdmins,
	"/api/v1/scrape_pools": forAdmins, "/api/v1/scrape_pools/config": forAdmins,
	"/api/v1/search/metric_names": forAdmins, "/api/v1/search/label_names": forAdmins, "/api/v1/search/label_values": forAdmins,
	"/api/v1/status/config": forAdmins, "/api/v1/status/flags": forAdmins, "/api/v1/status/groups": forAdmins,
	"/api/v1/status/runtimeinfo": forAdmins, "/api/v1/status/walreplay": forAdmins, "/api/v1/status/self_metrics": forAdmins,
	"/api/v1/status/tsdb": forAdmins, "/api/v1/status/tsdb/blocks": forAdmins,
	"/api/v1/write": forAdmins, "/api/v1/otlp/v1/metrics": forAdmins,
	"/api/v1/admin/breaker": forAdmins, "/api/v1/admin/tsdb/delete_series": forAdmins,
	"/api/v1/admin/tsdb/clean_tombstones": forAdmins, "/api/v1/admin/tsdb/snapshot": forAdmins,

	// The page shows the groups.
	"/query": forAdmins, "/alerts": forAdmins, "/rules": forAdmins, "/tsdb-status": forAdmins, "/config": forAdmins, "/flags": forAdmins,
	"/service-discovery": forAdmins, "/alertmanager-discovery": forAdmins, "/status": forAdmins, "/targets": forAdmins,
	// These name the groups, and so perhaps tenants. There are neither series nor queries in
	// them.
	"/metrics":  forAdmins,
	"/-/reload": forAdmins, "/-/quit": forAdmins, "/debug/*subpath": forAdmins,

	"/": forAll, "/graph": forAll, // which lead to the page
	"/api/v1/*path": forAll, // OPTIONS, of other origins
	"/-/healthy":    forAll, "/-/ready": forAll, "/version": forAll,
}
