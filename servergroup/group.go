package servergroup

import (
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/evidence"
	"github.com/oneprom/oneprom/servergroup/findings"
	"github.com/oneprom/oneprom/servergroup/replica"
	"github.com/oneprom/oneprom/servergroup/targets"
	"github.com/oneprom/oneprom/servergroup/view"
)

// group is one server group with the replicas it has at the moment.
type group struct {
	cfg     config.Group
	entry   *entry
	logger  *slog.Logger
	useless *view.Useless

	replicas atomic.Pointer[[]*replica.Replica] // in order of preference
	found    *findings.Recent                   // what answers have shown
	scrapes  evidence.Cache                     // what is known of targets' scrapes

	mtx       sync.Mutex // guards the field below
	different []string   // of differentExternal, that were logged
}

// newGroup makes a group of an entry, without replicas.
func newGroup(cfg config.Group, e *entry) *group {
	g := &group{cfg: cfg, entry: e, logger: e.registry.Options.Logger.With("group", cfg.Name), useless: view.NewUseless()}
	g.found = findings.New(g.logger)
	g.replicas.Store(&[]*replica.Replica{})
	return g
}

// values are those of the labels of group_by.
func (g *group) values() []string {
	values := make([]string, len(g.cfg.GroupBy))
	for i, name := range g.cfg.GroupBy {
		values[i] = g.cfg.Labels[name]
	}
	return values
}

// setReplicas makes the endpoints the replicas. Those that were there before are kept
// with what is known of them.
func (g *group) setReplicas(endpoints []targets.Endpoint) {
	before := *g.replicas.Load()
	known := map[string]*replica.Replica{}
	for _, r := range before {
		known[r.Endpoint.Key()] = r
	}
	list := make([]*replica.Replica, len(endpoints))
	for i, e := range endpoints {
		if list[i] = known[e.Key()]; list[i] == nil {
			list[i] = g.newReplica(e)
		}
	}
	g.replicas.Store(&list)
}

// newReplica makes a replica of the group.
func (g *group) newReplica(e targets.Endpoint) *replica.Replica {
	return g.entry.registry.NewReplica(replica.Group{Config: &g.cfg, Client: g.entry.client, Forwarding: g.entry.forwarding, Logger: g.logger}, e)
}

// refresh probes the replicas whose last probe failed or is old, and logs what
// earlier probes have found out of them together.
func (g *group) refresh() {
	for _, r := range *g.replicas.Load() {
		r.Refresh()
	}
	g.tellDifferent()
}

// tellDifferent logs that the external labels of replicas differ.
func (g *group) tellDifferent() {
	texts := replica.DifferentExternalLabels(&g.cfg, *g.replicas.Load())
	g.mtx.Lock()
	defer g.mtx.Unlock()
	for _, text := range texts {
		if !slices.Contains(g.different, text) {
			g.logger.Warn("finding", "finding", text)
		}
	}
	g.different = texts
}
