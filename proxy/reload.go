package proxy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/util/notifications"

	"github.com/oneprom/oneprom/proxy/admission"
	"github.com/oneprom/oneprom/proxy/config"
	"github.com/oneprom/oneprom/proxy/queries"
	"github.com/oneprom/oneprom/proxy/tenant"
	"github.com/oneprom/oneprom/proxy/tracing"
	groupconfig "github.com/oneprom/oneprom/servergroup/config"
)

// reloadOutcome is what came of loading the configuration.
type reloadOutcome struct {
	ok      bool      // of the last attempt
	success time.Time // of the last attempt that succeeded
}

var errStopped = errors.New("the server has stopped")

// step is a part of the configuration, which replaces that of the one before.
type step struct {
	name string
	// prepare does all that can fail because of the configuration, and touches nothing that
	// is in use.
	prepare func(*config.Config) (change, error)
}

// change is what a step has prepared. What is nil has nothing to do.
type change struct {
	commit   func(context.Context) error // puts it to use
	rollback func() error                // has what was before used again, also after a commit that failed
	finish   func()                      // lets go of what was before
	discard  func()                      // lets go of what is not put to use
}

// reloadSteps are prepared, and then committed, in this order. The components of Prometheus,
// which may fail once more while they are committed, are at both ends: where rules send to
// costs most to take back, and rules are evaluated over all the others. In between, what
// requests see changes in one go.
func (s *Server) reloadSteps() []step {
	return []step{
		{"remote write and Alertmanagers", func(cfg *config.Config) (change, error) {
			c, err := s.ruler.PrepareDestinations(cfg)
			return change{commit: c.Commit, rollback: c.Rollback, discard: c.Discard}, err
		}},
		{"server groups", func(cfg *config.Config) (change, error) {
			c, err := s.set.Prepare(cfg.Groups(), groupconfig.PartialResponse(cfg.Global.PartialResponse))
			return change{commit: c.Commit, rollback: c.Rollback, finish: c.Finish}, err
		}},
		{"cache", s.prepareCache},
		{"query rules", func(cfg *config.Config) (change, error) {
			rules, err := admission.NewRules(cfg.QueryRules, s.rules.Load())
			return swap(&s.rules, rules), err
		}},
		{"tenants and the web configuration", s.prepareTenants},
		{"query log", s.prepareQueryLog},
		{"tracing", s.prepareTracing},
		{"configuration", func(cfg *config.Config) (change, error) { return swap(&s.config, cfg), nil }},
		{"rules", func(cfg *config.Config) (change, error) {
			c, err := s.ruler.PrepareRules(cfg)
			return change{commit: c.Commit, rollback: c.Rollback}, err
		}},
	}
}

// swap changes what a pointer leads to.
func swap[T any](p *atomic.Pointer[T], next *T) change {
	before := p.Load()
	return change{
		commit:   func(context.Context) error { p.Store(next); return nil },
		rollback: func() error { p.Store(before); return nil },
	}
}

// prepareTenants also loads the web configuration file, which checks who they are.
func (s *Server) prepareTenants(cfg *config.Config) (change, error) {
	webBefore, before := s.identities.Loaded(), s.tenants.Load()
	web, err := s.identities.Load()
	if err != nil {
		return change{}, err
	}
	next, err := tenant.New(cfg, web, before)
	if err != nil {
		return change{}, err
	}
	return change{
		commit: func(context.Context) error {
			s.identities.Use(web)
			s.tenants.Store(next)
			return nil
		},
		rollback: func() error {
			s.tenants.Store(before)
			s.identities.Use(webBefore)
			return nil
		},
	}, nil
}

func (s *Server) prepareQueryLog(cfg *config.Config) (change, error) {
	next, err := queries.OpenLog(cfg.Global.QueryLogFile)
	if err != nil {
		return change{}, err
	}
	var before *queries.File
	return change{
		commit:   func(context.Context) error { before = s.queryLog.Use(next); return nil },
		rollback: func() error { s.queryLog.Use(before); return nil },
		finish:   func() { s.queryLog.CloseFile(before) },
		discard:  func() { s.queryLog.CloseFile(next) },
	}, nil
}

func (s *Server) prepareTracing(cfg *config.Config) (change, error) {
	before := s.tracing.Current()
	if before.Serves(cfg.Tracing) {
		return change{}, nil
	}
	next, err := tracing.New(cfg.Tracing, s.logger.With("component", "tracing"))
	if err != nil {
		return change{}, err
	}
	return change{
		commit:   func(context.Context) error { s.tracing.Use(next); return nil },
		rollback: func() error { s.tracing.Use(before); return nil },
		finish:   before.Close,
		discard:  next.Close,
	}, nil
}

// apply puts a configuration to use, or nothing of it: everything that can fail because of it
// happens before anything live is touched, and what fails nevertheless is rolled back.
func (s *Server) apply(ctx context.Context, cfg *config.Config) error {
	var changes []change
	for _, step := range s.steps {
		c, err := step.prepare(cfg)
		if err != nil {
			discard(changes)
			return err
		}
		changes = append(changes, c)
	}
	for i, c := range changes {
		if c.commit == nil {
			continue
		}
		if err := c.commit(ctx); err != nil {
			err = errors.Join(fmt.Errorf("%s: %w", s.steps[i].name, err), s.rollback(changes[:i+1]))
			discard(changes)
			return err
		}
	}
	for _, c := range changes {
		if c.finish != nil {
			c.finish()
		}
	}
	return nil
}

// rollback takes back the first changes of all, the last one first.
func (s *Server) rollback(committed []change) error {
	var errs []error
	for i, c := range slices.Backward(committed) {
		if c.rollback == nil {
			continue
		}
		if err := c.rollback(); err != nil {
			errs = append(errs, fmt.Errorf("%s: not as before the reload, restart oneprom: %w", s.steps[i].name, err))
		}
	}
	return errors.Join(errs...)
}

func discard(changes []change) {
	for _, c := range slices.Backward(changes) {
		if c.discard != nil {
			c.discard()
		}
	}
}

// Reload loads the configuration file anew and waits for the outcome. After an
// error the old configuration stays in use, all of it.
func (s *Server) Reload(ctx context.Context) error {
	return s.loadConfig(ctx, func() (*config.Config, error) { return config.Load(s.opts.ConfigFile) })
}

// loadConfig puts a configuration to use, and makes the outcome known.
func (s *Server) loadConfig(ctx context.Context, load func() (*config.Config, error)) error {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.life, cancel)()
	if s.life.Err() != nil {
		return errStopped
	}

	began := time.Now()
	cfg, err := load()
	if err == nil {
		err = s.apply(ctx, cfg)
	}
	if err != nil {
		s.reloadFailed(err)
		return err
	}
	s.reloadSucceeded()
	s.logger.Info("configuration loaded", "file", s.opts.ConfigFile, "groups", len(cfg.ServerGroups), "duration", time.Since(began))
	return nil
}

func (s *Server) reloadFailed(err error) {
	s.lastReload.Store(&reloadOutcome{success: s.lastReload.Load().success})
	s.metrics.reloadOK.Set(0)
	s.notifications.AddNotification(notifications.ConfigurationUnsuccessful)
	s.logger.Error("loading the configuration failed", "file", s.opts.ConfigFile, "err", err)
}

func (s *Server) reloadSucceeded() {
	now := time.Now()
	s.lastReload.Store(&reloadOutcome{ok: true, success: now})
	s.metrics.reloadOK.Set(1)
	s.metrics.reloadTime.Set(float64(now.UnixMilli()) / 1000)
	s.notifications.DeleteNotification(notifications.ConfigurationUnsuccessful)
}
