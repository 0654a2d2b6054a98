package servergroup

import (
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oneprom/oneprom/servergroup/audit"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/evidence"
	"github.com/oneprom/oneprom/servergroup/findings"
	"github.com/oneprom/oneprom/servergroup/pushdown"
	"github.com/oneprom/oneprom/servergroup/replica"
	"github.com/oneprom/oneprom/servergroup/targets"
	"github.com/oneprom/oneprom/servergroup/view"
)

// group is one server group with the replicas that it has now.
type group struct {
	cfg       config.Group
	entry     *entry
	logger    *slog.Logger
	findings  *findings.Recent  // what answers have shown
	evidence  evidence.Cache    // what scrapes have shown
	audits    *audit.Group      // looks again at answers of one replica
	pushdown  *pushdown.Account // what its replicas evaluated, and what they could have evaluated
	unusable  *view.Unusable    // expressions whose answers could not be used
	intrinsic view.Intrinsic    // what is known of its intrinsic labels
	// portions are what `holds` divides the group into, where it is believed, and where it is not.
	portions, denied []*config.Group
	digests          map[*config.Group]string // of the configuration, and of the portions

	replicas atomic.Pointer[[]*replica.Replica] // in order of preference

	mtx    sync.Mutex // guards the field below
	logged []string   // the last findings of logLabelFindings
}

// newGroup makes a group of an entry, without replicas.
func newGroup(cfg config.Group, e *entry) *group {
	g := &group{cfg: cfg, entry: e, logger: e.registry.Options.Logger.With("group", cfg.Name), unusable: view.NewUnusable()}
	g.findings = findings.New(g.logger)
	g.audits = e.auditor.NewGroup(&g.cfg, &g.evidence.Losses, g.logger)
	g.pushdown = e.registry.Metrics.Pushdown.NewAccount(cfg.Name, cfg.Region, g.logger)
	g.portions, g.denied = g.cfg.Portions(false), g.cfg.Portions(true)
	g.digests = map[*config.Group]string{&g.cfg: g.cfg.Digest()}
	for _, portion := range slices.Concat(g.portions, g.denied) {
		g.digests[portion] = portion.Digest()
	}
	g.replicas.Store(&[]*replica.Replica{})
	return g
}

// portionsAt returns what `holds` divides the group into: the same values each time, unless the belief
// in it has changed.
func (g *group) portionsAt(now time.Time) []*config.Group {
	if g.entry.holding.Contradiction(now) != "" {
		return g.denied
	}
	return g.portions
}

// values are the values of the group_by labels.
func (g *group) values() []string {
	values := make([]string, len(g.cfg.GroupBy))
	for i, name := range g.cfg.GroupBy {
		values[i] = g.cfg.Labels[name]
	}
	return values
}

// setReplicas makes the endpoints the replicas. Replicas of endpoints that the group had before
// are kept.
func (g *group) setReplicas(endpoints []targets.Endpoint) {
	before := *g.replicas.Load()
	byKey := map[string]*replica.Replica{}
	for _, r := range before {
		byKey[r.Endpoint.Key()] = r
	}
	list := make([]*replica.Replica, len(endpoints))
	for i, e := range endpoints {
		if list[i] = byKey[e.Key()]; list[i] == nil {
			list[i] = g.newReplica(e)
		}
	}
	g.replicas.Store(&list)
}

// newReplica makes a replica of the group.
func (g *group) newReplica(e targets.Endpoint) *replica.Replica {
	return g.entry.registry.NewReplica(replica.Group{Config: &g.cfg, Client: g.entry.client, Forwarding: g.entry.forwarding, Logger: g.logger}, e)
}

// refresh probes the replicas whose last probe failed or is old, and logs what earlier probes
// have shown about them together.
func (g *group) refresh() {
	for _, r := range *g.replicas.Load() {
		r.Refresh()
	}
	g.logLabelFindings()
}

// logLabelFindings logs the new findings about external labels that differ between replicas.
func (g *group) logLabelFindings() {
	texts := replica.ExternalLabelFindings(&g.cfg, *g.replicas.Load())
	g.mtx.Lock()
	defer g.mtx.Unlock()
	for _, text := range texts {
		if !slices.Contains(g.logged, text) {
			g.logger.Warn("finding", "finding", text)
		}
	}
	g.logged = texts
}
