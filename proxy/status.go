package proxy

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/prometheus/common/version"
	v1 "github.com/prometheus/prometheus/web/api/v1"

	"github.com/oneprom/oneprom/proxy/api"
	"github.com/oneprom/oneprom/proxy/config"
	"github.com/oneprom/oneprom/servergroup"
)

// Version is the Prometheus whose PromQL and API oneprom speaks. Clients choose
// what to send by it.
const Version = "3.15.0"

// buildInfo is /api/v1/status/buildinfo. Grafana takes a server with any further
// key, `features` say, for something else than a Prometheus.
func buildInfo() *v1.PrometheusVersion {
	return &v1.PrometheusVersion{
		Version:   Version,
		Revision:  version.GetRevision(),
		Branch:    version.Branch,
		BuildUser: version.BuildUser,
		BuildDate: version.BuildDate,
		GoVersion: version.GoVersion,
	}
}

// statusAPI answers what is the matter with oneprom itself.
type statusAPI struct {
	born       time.Time
	config     func() *config.Config // in use
	groups     func() []servergroup.GroupStatus
	lastReload func() *reloadOutcome
}

// runtimeInfo is /api/v1/status/runtimeinfo.
func (s statusAPI) runtimeInfo() (v1.RuntimeInfo, error) {
	host, err := os.Hostname()
	if err != nil {
		return v1.RuntimeInfo{}, fmt.Errorf("host name: %w", err)
	}
	cwd, err := os.Getwd()
	if err != nil {
		return v1.RuntimeInfo{}, fmt.Errorf("working directory: %w", err)
	}
	outcome := s.lastReload()
	return v1.RuntimeInfo{
		StartTime:           s.born.UTC(),
		CWD:                 cwd,
		Hostname:            host,
		ServerTime:          time.Now().UTC(),
		ReloadConfigSuccess: outcome.ok,
		LastConfigTime:      outcome.success.UTC(),
		GoroutineCount:      runtime.NumGoroutine(),
		GOMAXPROCS:          runtime.GOMAXPROCS(0),
		GOMEMLIMIT:          debug.SetMemoryLimit(-1),
		GOGC:                os.Getenv("GOGC"),
		GODEBUG:             os.Getenv("GODEBUG"),
	}, nil
}

// serveConfig is /api/v1/status/config: the configuration in use, redacted.
func (s statusAPI) serveConfig(*http.Request) (api.Result, error) {
	return api.Result{Data: map[string]string{"yaml": s.config().String()}}, nil
}

// serveGroups is /api/v1/status/groups.
func (s statusAPI) serveGroups(*http.Request) (api.Result, error) {
	return api.Result{Data: s.groups()}, nil
}

// serveVersion is /version.
func serveVersion(w http.ResponseWriter, _ *http.Request) {
	_ = json.NewEncoder(w).Encode(buildInfo())
}
