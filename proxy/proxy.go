// Package proxy is the daemon: it reads the configuration, serves the HTTP API
// of Prometheus over the server groups, and starts, reloads and stops it all as
// a value, so that tests run it in-process.
//
// New makes the parts and wires them; what one part is to call of another stands in wire.go. What
// becomes of a request is in package routes.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/grafana/regexp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/promql/parser"
	upstreamfeatures "github.com/prometheus/prometheus/util/features"
	"github.com/prometheus/prometheus/util/notifications"

	"github.com/oneprom/oneprom/promqlx"
	"github.com/oneprom/oneprom/promqlx/bounds"
	"github.com/oneprom/oneprom/promqlx/metricsql"
	"github.com/oneprom/oneprom/proxy/admission"
	"github.com/oneprom/oneprom/proxy/config"
	"github.com/oneprom/oneprom/proxy/gate"
	"github.com/oneprom/oneprom/proxy/identity"
	"github.com/oneprom/oneprom/proxy/middleware"
	"github.com/oneprom/oneprom/proxy/queries"
	"github.com/oneprom/oneprom/proxy/routes"
	"github.com/oneprom/oneprom/proxy/ruler"
	"github.com/oneprom/oneprom/proxy/tenant"
	"github.com/oneprom/oneprom/proxy/tracing"
	"github.com/oneprom/oneprom/proxy/unread"
	"github.com/oneprom/oneprom/servergroup"
	"github.com/oneprom/oneprom/servergroup/redact"
)

const (
	// maxSubscribers bounds the clients of /api/v1/notifications/live.
	maxSubscribers = 16
	// drainWait is how long Run lets requests finish. Kubernetes kills after 30 s.
	drainWait = 25 * time.Second
)

// Server is one oneprom. New binds and wires, Start serves, Stop drains; Run is
// all of it. Its methods may be called from any goroutine.
type Server struct {
	opts     Options
	logger   *slog.Logger
	features features
	parser   parser.Parser // of queries
	born     time.Time

	externalURL *url.URL
	routePrefix string // without a slash at the end
	corsOrigin  *regexp.Regexp

	registry        *prometheus.Registry
	metrics         *metrics
	httpMetrics     *routes.Metrics
	featureRegistry upstreamfeatures.Collector
	notifications   *notifications.Notifications
	readiness       middleware.Readiness

	gate       *gate.Gate
	identities *identity.Checker
	guard      *tenant.Guard
	queries    *queries.Queries
	queryLog   *queries.Log
	tracing    tracing.Tracing
	set        *servergroup.Set
	engine     *promqlx.Engine
	kept       *kept // nil: no answers are
	ruler      *ruler.Ruler
	listeners  []net.Listener
	router     *routes.Router
	http       *httpServers

	reloading  sync.Mutex // one reload at a time, and none beside the end of set
	steps      []step     // of a reload
	config     atomic.Pointer[config.Config]
	rules      atomic.Pointer[admission.Rules]
	tenants    atomic.Pointer[tenant.Tenants] // nil: there are none
	lastReload atomic.Pointer[reloadOutcome]

	life    context.Context // ends when Stop begins
	endLife context.CancelFunc
	quit    chan struct{} // closed once somebody asked for the end
	quitOne sync.Once
	started atomic.Bool
	stop    sync.Once
	stopErr error
	cleanup cleanup
}

// New reads the configuration, binds the listeners and wires everything, but
// serves nothing yet. Stop releases what it holds, also without Start.
//
// It is one straight function because each step needs those before it.
func New(o Options) (_ *Server, err error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Logger = slog.New(redact.LogHandler(o.Logger.Handler()))
	if o.Now == nil {
		o.Now = time.Now
	}
	if err := o.validate(); err != nil {
		return nil, err
	}
	s := &Server{opts: o, logger: o.Logger, born: o.Now(), quit: make(chan struct{})}
	s.life, s.endLife = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			s.endLife()
			err = errors.Join(err, s.cleanup.run(context.Background()))
		}
	}()
	s.features = parseFeatures(o.EnableFeatures, s.logger)
	s.parser = bounds.Parser(metricsql.Parser(parser.NewParser(s.features.parser)))

	cfg, err := config.Load(o.ConfigFile)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	s.config.Store(cfg)
	s.lastReload.Store(&reloadOutcome{})
	if s.identities, err = identity.NewChecker(o.WebConfigFile, s.logger.With("component", "web")); err != nil {
		return nil, err
	}
	ts, err := tenant.New(cfg, s.identities.Loaded(), nil)
	if err != nil {
		return nil, err
	}
	s.tenants.Store(ts)
	if s.corsOrigin, err = compileOrigin(o.CORSOrigin); err != nil {
		return nil, fmt.Errorf("--web.cors.origin: %w", err)
	}

	if o.SystemdSocket {
		if s.listeners, err = activated(o.MaxConnections); err != nil {
			return nil, fmt.Errorf("--web.systemd-socket: %w", err)
		}
	} else if s.listeners, err = listen(o.ListenAddresses, o.MaxConnections); err != nil {
		return nil, fmt.Errorf("--web.listen-address: %w", err)
	}
	s.cleanup.add("close listeners", func(context.Context) error { return closeListeners(s.listeners) })
	if s.externalURL, err = externalURL(o.ExternalURL, s.Addr()); err != nil {
		return nil, err
	}
	s.routePrefix = routePrefix(o.RoutePrefix, s.externalURL)

	s.registry = prometheus.NewRegistry()
	s.metrics, s.httpMetrics = newMetrics(s.registry), routes.NewMetrics(s.registry)
	s.featureRegistry = upstreamfeatures.NewRegistry()
	s.notifications = notifications.NewNotifications(maxSubscribers, s.registry)

	s.queryLog = queries.NewLog(s.logger.With("component", "query log"), s.registry)
	s.queries = queries.New(queries.Options{Log: s.queryLog, Logged: s.logged, Now: o.Now, Logger: s.logger})
	s.cleanup.add("close query log", func(context.Context) error { s.queryLog.Close(); return nil })
	s.cleanup.add("stop tracing", func(context.Context) error { s.tracing.Use(nil).Close(); return nil })
	s.gate = gate.New(s.gateOptions())
	s.guard = &tenant.Guard{Tenants: s.tenants.Load, Logger: s.logger}
	s.set, err = servergroup.NewSet(servergroup.Options{
		Logger: s.logger.With("component", "server groups"), Registerer: s.registry,
		MaxFetchedBytes: int64(o.MaxFetchedBytes), RegionConcurrency: o.MaxRegionConcurrency, Features: s.features.names, AuditShare: o.AuditShare, Now: o.Now, Ticks: o.Ticks,
	})
	if err != nil {
		return nil, err
	}
	s.cleanup.add("close server groups", func(context.Context) error {
		s.reloading.Lock()
		defer s.reloading.Unlock()
		s.set.Close()
		return nil
	})
	s.readiness.GroupsKnown, s.readiness.Answered = s.set.Ready, s.set.Answered
	s.readiness.When = func() config.ReadyWhen { return s.config.Load().Global.ReadyWhen }

	engine := engineOptions(o, s.features, s.config.Load)
	engine.Logger, engine.Reg, engine.FeatureRegistry = s.logger.With("component", "query engine"), s.registry, s.featureRegistry
	s.engine = promqlx.NewEngine(engine, s.set)
	storage := promqlx.NewStorage(s.set)
	if o.CacheSize > 0 {
		s.kept = newKept(int(o.CacheSize), s.registry)
		s.engine.UseCache(s.kept.cache)
		storage.UseCache(s.kept.cache)
		s.cleanup.add("close cache", func(context.Context) error {
			s.reloading.Lock()
			defer s.reloading.Unlock()
			closeShared(s.kept.shared)
			return nil
		})
	}
	s.cleanup.add("close query engine", func(context.Context) error { return s.engine.Close() })
	if s.ruler, err = s.newRuler(storage); err != nil {
		return nil, err
	}
	s.cleanup.add("stop rules", s.ruler.Stop)
	if s.router, err = s.newRouter(storage); err != nil {
		return nil, err
	}
	answers := unread.New(unread.Options{Timeout: time.Duration(o.WriteTimeout), Most: int64(o.MaxUnreadBytes), Registerer: s.registry})
	s.http = newHTTPServers(answers.Serve(s.router), len(s.listeners), time.Duration(o.ReadTimeout), o.WebConfigFile, s.logger.With("component", "web"))
	s.cleanup.add("drain HTTP servers", s.http.shutdown)
	s.steps = s.reloadSteps()
	s.cleanup.add("begin to stop rules", func(context.Context) error { s.ruler.Interrupt(); return nil })
	return s, nil
}

// Addr is the address of the first listener, as host:port.
func (s *Server) Addr() string { return s.listeners[0].Addr().String() }

// Handler serves everything, without a listener. Before Start it is not ready.
func (s *Server) Handler() http.Handler { return s.router }

// Start begins to serve and puts the configuration to use that New has read. It
// returns when requests are answered, which is bounded even if discovery finds
// nothing. After an error, Stop is still needed.
func (s *Server) Start(ctx context.Context) error {
	if s.life.Err() != nil {
		return errStopped
	}
	if !s.started.CompareAndSwap(false, true) {
		return errors.New("the server was started before")
	}
	s.http.serve(s.listeners)
	cfg := s.config.Load()
	return s.loadConfig(ctx, func() (*config.Config, error) { return cfg, nil })
}

// requestQuit has Run return. It reports whether nobody has asked for that before.
func (s *Server) requestQuit() (first bool) {
	s.quitOne.Do(func() {
		close(s.quit)
		first = true
	})
	return first
}

// Stop ends readiness, lets the requests under way finish until ctx ends, and
// then ends them, and all else. Further calls return what the first returned.
func (s *Server) Stop(ctx context.Context) error {
	s.stop.Do(func() {
		began := time.Now()
		s.readiness.End()
		s.endLife()
		s.stopErr = s.cleanup.run(ctx)
		s.logger.Info("server stopped", "duration", time.Since(began))
	})
	return s.stopErr
}

// Run starts the server, serves until ctx ends, /-/quit is called or a listener
// fails, and stops it.
func (s *Server) Run(ctx context.Context) error {
	err := s.Start(ctx)
	switch {
	case ctx.Err() != nil: // the end was asked for before the start was complete
		err = nil
	case err == nil:
		s.logger.Info("server is ready to receive web requests", "address", s.Addr(), "external_url", s.externalURL.Redacted())
		select {
		case <-ctx.Done():
		case <-s.quit:
			s.logger.Info("termination requested by HTTP")
		case err = <-s.http.failed:
		}
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainWait)
	defer cancel()
	return errors.Join(err, s.Stop(drain))
}

// cleanup is what a server has to release: in the opposite order of acquiring it,
// each step whatever became of those before.
type cleanup struct {
	steps []cleanupStep
}

type cleanupStep struct {
	name string
	do   func(context.Context) error
}

func (c *cleanup) add(name string, do func(context.Context) error) {
	c.steps = append(c.steps, cleanupStep{name, do})
}

func (c *cleanup) run(ctx context.Context) error {
	var errs []error
	for _, v := range slices.Backward(c.steps) {
		if err := v.do(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", v.name, err))
		}
	}
	return errors.Join(errs...)
}
