package ruler

import (
	"context"
	"errors"
	"fmt"
	"time"

	commoncfg "github.com/prometheus/common/config"
	upstream "github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/prometheus/sigv4"

	"github.com/oneprom/oneprom/proxy/config"
	"github.com/oneprom/oneprom/proxy/recorder"
)

// A configuration replaces another one in two changes: first where alerts and samples go
// to, then the rules. Preparing a change does what can fail and touches nothing that is in
// use. Upstream may refuse nevertheless, when it is committed; a rollback then restores
// what was before.

// DestinationChange changes the Alertmanagers that alerts are sent to, and where the samples
// that rules record are written to.
type DestinationChange struct {
	ruler        *Ruler
	before, next *upstream.Config
	opened       bool // the log of samples, for this change
}

// PrepareDestinations checks all that upstream does. An error names the key.
func (r *Ruler) PrepareDestinations(cfg *config.Config) (*DestinationChange, error) {
	r.mtx.Lock()
	defer r.mtx.Unlock()
	if r.ended {
		return nil, errStopped
	}
	c := &DestinationChange{ruler: r, before: r.config.Load().Upstream(), next: cfg.Upstream()}
	err := connectable(c.next)
	if err == nil && len(c.next.RemoteWriteConfigs) > 0 {
		c.opened, err = r.recorder.Open()
	}
	return c, err
}

// Commit has alerts and samples go where the configuration says.
func (c *DestinationChange) Commit(context.Context) error {
	c.opened = false // it stays open
	return c.ruler.send(c.next)
}

// Rollback has them go where they went before.
func (c *DestinationChange) Rollback() error {
	if err := c.ruler.send(c.before); !errors.Is(err, errStopped) {
		return err
	}
	return nil
}

// Discard is for a change that is not committed.
func (c *DestinationChange) Discard() {
	c.ruler.mtx.Lock()
	defer c.ruler.mtx.Unlock()
	if !c.opened {
		return
	}
	if err := c.ruler.recorder.CloseLog(); err != nil {
		c.ruler.logger.Warn("closing the log of samples failed", "err", err)
	}
}

// send applies settings of the Alertmanagers and of remote write.
func (r *Ruler) send(settings *upstream.Config) error {
	r.mtx.Lock()
	defer r.mtx.Unlock()
	if r.ended {
		return errStopped
	}
	r.start()
	found := map[string]discovery.Configs{}
	for name, am := range settings.AlertingConfig.AlertmanagerConfigs.ToMap() {
		found[name] = am.ServiceDiscoveryConfigs
	}
	defer r.courier.changing()()
	return errors.Join(r.recorder.Apply(settings), r.notifier.ApplyConfig(settings), r.finder.ApplyConfig(found))
}

// start has rules evaluated and alerts sent. Needs mtx.
func (r *Ruler) start() {
	if r.started {
		return
	}
	r.started = true
	r.running.Go(func() { _ = r.finder.Run() })
	found := make(chan map[string][]*targetgroup.Group)
	r.running.Go(func() { r.courier.pass(r.life, r.finder.SyncCh(), found) })
	r.running.Go(func() { r.notifier.Run(found) })
	r.running.Go(r.rules.Run)
}

// connectable says why upstream would refuse settings: certificates, say, are files that may
// be missing.
func connectable(c *upstream.Config) error {
	for i, am := range c.AlertingConfig.AlertmanagerConfigs {
		if err := alertmanagerClient(am); err != nil {
			return fmt.Errorf("alerting.alertmanagers[%d]: %w", i, err)
		}
	}
	return recorder.Check(c)
}

// alertmanagerClient makes the client of an Alertmanager, as the notifier will.
func alertmanagerClient(am *upstream.AlertmanagerConfig) error {
	client, err := commoncfg.NewClientFromConfig(am.HTTPClientConfig, "alertmanager")
	if err == nil && am.SigV4Config != nil {
		_, err = sigv4.NewSigV4RoundTripper(am.SigV4Config, client.Transport)
	}
	return err
}

// RuleChange changes the rules.
type RuleChange struct {
	ruler        *Ruler
	before, next ruleSet
}

// ruleSet is the rules of a configuration, and the settings that they are evaluated with.
type ruleSet struct {
	cfg   *config.Config
	files *ruleFiles
}

// PrepareRules reads the files of rules. The error joins one error for each problem.
func (r *Ruler) PrepareRules(cfg *config.Config) (*RuleChange, error) {
	files, err := loadFiles(cfg, r.opts.Parser)
	return &RuleChange{r, ruleSet{r.config.Load(), r.files.Load()}, ruleSet{cfg, files}}, err
}

// Commit has the rules evaluated. Those that did not change keep their state, as do alerts
// of changed groups.
func (c *RuleChange) Commit(context.Context) error { return c.ruler.evaluate(c.next) }

// Rollback has the rules from before evaluated.
func (c *RuleChange) Rollback() error {
	if err := c.ruler.evaluate(c.before); !errors.Is(err, errStopped) {
		return err
	}
	return nil
}

// evaluate has upstream evaluate a set of rules, and no others. Upstream refuses the whole
// of it, if at all.
func (r *Ruler) evaluate(set ruleSet) error {
	r.mtx.Lock()
	defer r.mtx.Unlock()
	if r.ended {
		return errStopped
	}
	close(*r.applying.Load())
	defer func() { r.applying.Store(new(make(chan struct{}))) }()
	r.config.Store(set.cfg)
	r.files.Store(set.files)
	r.confirmations.Anew()
	r.start()
	names := set.files.names
	if set.cfg.Rules.OwnAlerts && len(names) > 0 {
		names = append([]string{builtIn}, names...)
	}
	global := &set.cfg.Global
	err := r.rules.Update(time.Duration(global.EvaluationInterval), names, global.ExternalLabels, r.opts.ExternalURL.String(), r.iterate)
	r.failures.keep(r.rules.RuleGroups())
	r.evaluations.keep(r.rules.RuleGroups())
	for _, h := range r.Hidden() {
		r.logger.Warn("finding", "finding", h.String())
	}
	return err
}
