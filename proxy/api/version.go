package api

import (
	"github.com/prometheus/common/version"
	v1 "github.com/prometheus/prometheus/web/api/v1"
)

// Version is the Prometheus whose PromQL and API oneprom speaks. Clients choose
// what to send by it.
const Version = "3.15.0"

// BuildInfo is /api/v1/status/buildinfo. Grafana takes a server with any further
// key, `features` say, for something else than a Prometheus.
func BuildInfo() *v1.PrometheusVersion {
	return &v1.PrometheusVersion{
		Version:   Version,
		Revision:  version.GetRevision(),
		Branch:    version.Branch,
		BuildUser: version.BuildUser,
		BuildDate: version.BuildDate,
		GoVersion: version.GoVersion,
	}
}
