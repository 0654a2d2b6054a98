package proxy

import (
	"time"

	"github.com/oneprom/oneprom/proxy/admission"
	"github.com/oneprom/oneprom/proxy/gate"
)

// gateOptions are those of the gate that requests to the server groups pass.
func (s *Server) gateOptions() gate.Options {
	o := s.opts
	return gate.Options{
		Queue: admission.NewQueue(admission.Options{
			Slots: o.MaxConcurrency, SlotsPerClient: o.MaxConcurrencyPerClient,
			MaxQueued: o.MaxQueued, MaxWait: time.Duration(o.QueueTimeout), Registerer: s.registry,
		}),
		ConcurrentRead: o.ReadConcurrentLimit,
		Rules:          s.rules.Load, Parser: s.parser, Timeout: time.Duration(o.QueryTimeout), ClientHeader: o.ClientHeader,
		CORSOrigin: s.corsOrigin, Asked: s.queries.Asked, Now: o.Now, Logger: s.logger,
	}
}

// logged returns whether queries are logged, and how long one must take for that.
func (s *Server) logged() (on bool, atLeast time.Duration) {
	global := &s.config.Load().Global
	return global.QueryLogFile != "", time.Duration(global.QueryLogMinDuration)
}
