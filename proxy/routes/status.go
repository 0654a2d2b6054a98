package routes

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	v1 "github.com/prometheus/prometheus/web/api/v1"

	"github.com/oneprom/oneprom/proxy/api"
	"github.com/oneprom/oneprom/proxy/config"
	"github.com/oneprom/oneprom/servergroup"
)

// Status answers what is the matter with oneprom itself.
type Status struct {
	Born   time.Time
	Config func() *config.Config // in use
	Groups func() []servergroup.GroupStatus
	// LastReload returns whether the last attempt to load the configuration succeeded, and when
	// one last did.
	LastReload func() (ok bool, success time.Time)
}

// RuntimeInfo is /api/v1/status/runtimeinfo.
func (s Status) RuntimeInfo() (v1.RuntimeInfo, error) {
	host, err := os.Hostname()
	if err != nil {
		return v1.RuntimeInfo{}, fmt.Errorf("host name: %w", err)
	}
	cwd, err := os.Getwd()
	if err != nil {
		return v1.RuntimeInfo{}, fmt.Errorf("working directory: %w", err)
	}
	ok, success := s.LastReload()
	return v1.RuntimeInfo{
		StartTime:           s.Born.UTC(),
		CWD:                 cwd,
		Hostname:            host,
		ServerTime:          time.Now().UTC(),
		ReloadConfigSuccess: ok,
		LastConfigTime:      success.UTC(),
		GoroutineCount:      runtime.NumGoroutine(),
		GOMAXPROCS:          runtime.GOMAXPROCS(0),
		GOMEMLIMIT:          debug.SetMemoryLimit(-1),
		GOGC:                os.Getenv("GOGC"),
		GODEBUG:             os.Getenv("GODEBUG"),
	}, nil
}

// serveConfig is /api/v1/status/config: the configuration in use, redacted.
func (s Status) serveConfig(*http.Request) (api.Result, error) {
	return api.Result{Data: map[string]string{"yaml": s.Config().String()}}, nil
}

// serveGroups is /api/v1/status/groups.
func (s Status) serveGroups(*http.Request) (api.Result, error) {
	return api.Result{Data: s.Groups()}, nil
}

// serveVersion is /version.
func serveVersion(w http.ResponseWriter, _ *http.Request) {
	_ = json.NewEncoder(w).Encode(api.BuildInfo())
}
