package proxy

import (
	"io"

	"github.com/oneprom/oneprom/proxy/config"
	"github.com/oneprom/oneprom/proxy/queries"
	"github.com/oneprom/oneprom/proxy/tracing"
)

// observers are what a configuration has queries logged and traced with.
type observers struct {
	queryLog io.WriteCloser // nil: nowhere
	tracer   *tracing.Tracer
}

// newObservers opens what a configuration names, and touches nothing that is in use.
func (s *Server) newObservers(cfg *config.Config) (*observers, error) {
	f, err := queries.OpenLog(cfg.Global.QueryLogFile)
	if err != nil {
		return nil, err
	}
	o := &observers{queryLog: f, tracer: s.tracing.Current()}
	if !o.tracer.Serves(cfg.Tracing) {
		if o.tracer, err = tracing.New(cfg.Tracing, s.logger.With("component", "tracing")); err != nil {
			o.discard(s)
			return nil, err
		}
	}
	return o, nil
}

// install puts the observers to use instead of the ones before.
func (o *observers) install(s *Server) {
	s.queryLog.Use(o.queryLog)
	s.tracing.Use(o.tracer)
}

// discard closes observers that are not put to use.
func (o *observers) discard(s *Server) {
	if o == nil {
		return
	}
	if o.queryLog != nil {
		_ = o.queryLog.Close() // nothing was written
	}
	if o.tracer != s.tracing.Current() {
		o.tracer.Close()
	}
}
