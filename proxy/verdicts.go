package proxy

import "github.com/oneprom/oneprom/proxy/tenant"

// verdicts are those of all routes. One that is missing here is for nobody.
var verdicts = map[string]tenant.Access{
	// By the server groups as the tenant sees them.
	"/api/v1/query": tenant.ForTenants, "/api/v1/query_range": tenant.ForTenants, "/api/v1/query_exemplars": tenant.ForTenants,
	"/api/v1/series": tenant.ForTenants, "/api/v1/labels": tenant.ForTenants, "/api/v1/label/:name/values": tenant.ForTenants,
	"/api/v1/read": tenant.ForTenants, "/federate": tenant.ForTenants,
	// By the labels of rules, alerts and targets.
	"/api/v1/rules": tenant.ForTenants, "/api/v1/alerts": tenant.ForTenants, "/api/v1/targets": tenant.ForTenants, "/api/v1/targets/metadata": tenant.ForTenants,
	// Of metadata nobody knows whose it is: tenants are told none.
	"/api/v1/metadata": tenant.ForTenants,
	// What a tenant's query becomes; what became of it, with the replicas' scrapes, is for
	// administrators.
	"/api/v1/explain": tenant.ForTenants,
	// Their own queries.
	"/api/v1/status/queries": tenant.ForTenants, "/api/v1/status/queries/:id": tenant.ForTenants,
	// By the request alone, or the same for everybody.
	"/api/v1/format_query": tenant.ForTenants, "/api/v1/parse_query": tenant.ForTenants,
	"/api/v1/status/buildinfo": tenant.ForTenants, "/api/v1/openapi.yaml": tenant.ForTenants,

	// What is not told apart by tenant.
	"/api/v1/features": tenant.ForAdmins, "/api/v1/notifications": tenant.ForAdmins, "/api/v1/notifications/live": tenant.ForAdmins,
	"/api/v1/alertmanagers": tenant.ForAdmins, "/api/v1/targets/relabel_steps": tenant.ForAdmins,
	"/api/v1/scrape_pools": tenant.ForAdmins, "/api/v1/scrape_pools/config": tenant.ForAdmins,
	"/api/v1/search/metric_names": tenant.ForAdmins, "/api/v1/search/label_names": tenant.ForAdmins, "/api/v1/search/label_values": tenant.ForAdmins,
	"/api/v1/status/config": tenant.ForAdmins, "/api/v1/status/flags": tenant.ForAdmins, "/api/v1/status/groups": tenant.ForAdmins,
	"/api/v1/status/runtimeinfo": tenant.ForAdmins, "/api/v1/status/walreplay": tenant.ForAdmins, "/api/v1/status/self_metrics": tenant.ForAdmins,
	"/api/v1/status/tsdb": tenant.ForAdmins, "/api/v1/status/tsdb/blocks": tenant.ForAdmins,
	"/api/v1/write": tenant.ForAdmins, "/api/v1/otlp/v1/metrics": tenant.ForAdmins,
	"/api/v1/admin/breaker": tenant.ForAdmins, "/api/v1/admin/tsdb/delete_series": tenant.ForAdmins,
	"/api/v1/admin/tsdb/clean_tombstones": tenant.ForAdmins, "/api/v1/admin/tsdb/snapshot": tenant.ForAdmins,

	// The page shows the groups.
	"/query": tenant.ForAdmins, "/alerts": tenant.ForAdmins, "/rules": tenant.ForAdmins, "/tsdb-status": tenant.ForAdmins, "/config": tenant.ForAdmins, "/flags": tenant.ForAdmins,
	"/service-discovery": tenant.ForAdmins, "/alertmanager-discovery": tenant.ForAdmins, "/status": tenant.ForAdmins, "/targets": tenant.ForAdmins,
	// These name the groups, and so perhaps tenants. There are neither series nor queries in
	// them.
	"/metrics":  tenant.ForAdmins,
	"/-/reload": tenant.ForAdmins, "/-/quit": tenant.ForAdmins, "/debug/*subpath": tenant.ForAdmins,

	"/": tenant.ForAll, "/graph": tenant.ForAll, // which lead to the page
	"/api/v1/*path": tenant.ForAll, // OPTIONS, of other origins
	"/-/healthy":    tenant.ForAll, "/-/ready": tenant.ForAll, "/version": tenant.ForAll,
}
