package proxy

import (
	"net/http"
	"strings"

	"github.com/oneprom/oneprom/proxy/gate"
)

// errands are those of the routes.
var errands = map[string]gate.Class{
	"/query": gate.Query, "/query_range": gate.Query, "/explain": gate.Explain,
	"/series": gate.Lookup, "/labels": gate.Lookup, "/label/:name/values": gate.Lookup, "/query_exemplars": gate.Lookup, "/metadata": gate.Lookup,
	"/rules": gate.Lookup, "/alerts": gate.Lookup, "/alertmanagers": gate.Lookup, "/notifications": gate.Lookup, "/features": gate.Lookup,
	"/targets": gate.Lookup, "/targets/metadata": gate.Lookup, "/targets/relabel_steps": gate.Lookup,
	"/scrape_pools": gate.Lookup, "/scrape_pools/config": gate.Lookup, "/status/tsdb": gate.Lookup, "/status/tsdb/blocks": gate.Lookup,
	"/search/metric_names": gate.Lookup, "/search/label_names": gate.Lookup, "/search/label_values": gate.Lookup,
	"/federate": gate.Scrape, "/read": gate.Read,
}

// permit lets the requests of a route in that its verdict is for.
func (s *Server) permit(route string, h http.HandlerFunc) http.HandlerFunc {
	s.routes = append(s.routes, route)
	plain := !strings.HasPrefix(route, "/api/v1/") || route == "/api/v1/read"
	return s.guard.Permit(verdicts[route], plain, h)
}
