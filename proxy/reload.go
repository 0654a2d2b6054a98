package proxy

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/prometheus/util/notifications"

	"github.com/oneprom/oneprom/proxy/admission"
	"github.com/oneprom/oneprom/proxy/config"
	"github.com/oneprom/oneprom/proxy/tenant"
	"github.com/oneprom/oneprom/servergroup"
)

// reloadOutcome is what came of loading the configuration.
type reloadOutcome struct {
	ok      bool      // of the last attempt
	success time.Time // of the last attempt that succeeded
}

var errStopped = errors.New("the server has stopped")

// Reload loads the configuration file anew and waits for the outcome. After an
// error the old configuration stays in use, all of it.
func (s *Server) Reload(ctx context.Context) error {
	return s.loadConfig(ctx, func() (*config.Config, error) { return config.Load(s.opts.ConfigFile) })
}

// loadConfig puts a configuration to use. Everything that can fail happens
// before anything live is touched.
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
	var rules *admission.Rules
	var ts *tenant.Tenants
	var o *observers
	if err == nil {
		rules, err = admission.NewRules(cfg.QueryRules, s.rules.Load())
	}
	if err == nil {
		ts, err = tenant.New(cfg, s.opts.WebConfigFile, s.tenants.Load())
	}
	if err == nil {
		o, err = s.newObservers(cfg)
	}
	if err == nil {
		err = s.ruler.Prepare(cfg)
	}
	if err == nil {
		err = s.set.Apply(ctx, cfg.Groups(), servergroup.PartialResponse(cfg.Global.PartialResponse))
	}
	if err != nil {
		o.discard(s)
		s.reloadFailed(err)
		return err
	}
	s.config.Store(cfg)
	s.rules.Store(rules)
	s.tenants.Store(ts)
	o.install(s)
	if err := s.ruler.Apply(cfg); err != nil {
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
