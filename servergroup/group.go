package servergroup

import (
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/findings"
	"github.com/oneprom/oneprom/servergroup/lifetime"
	"github.com/oneprom/oneprom/servergroup/targets"
)

// group is one server group with the replicas it has at the moment.
type group struct {
	cfg    config.Group
	client *http.Client
	// forwarding sends requests with a client's Authorization, where client would send the
	// group's own. Nil: it would not.
	forwarding *http.Client
	now        func() time.Time
	logger     *slog.Logger
	life       *lifetime.Lifetime

	healths  *healths
	features []string // of PromQL, enabled here
	useless  *useless

	replicas atomic.Pointer[[]*replica] // in order of preference
	found    *findings.Recent           // what answers have shown
	scrapes  evidenceCache              // what is known of targets' scrapes

	mtx       sync.Mutex // guards the field below
	different []string   // of differentExternal, that were logged
}

// newGroup makes a group of an entry, without replicas.
func newGroup(cfg config.Group, e *entry) *group {
	o := e.healths.opts
	g := &group{cfg: cfg, client: e.client, forwarding: e.forwarding, now: o.Now, logger: o.Logger.With("group", cfg.Name), life: e.healths.life, healths: e.healths, features: o.Features, useless: newUseless()}
	g.found = findings.New(g.logger)
	g.replicas.Store(&[]*replica{})
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
	known := map[string]*replica{}
	for _, r := range before {
		known[r.endpoint.Key()] = r
	}
	list := make([]*replica, len(endpoints))
	for i, e := range endpoints {
		if list[i] = known[e.Key()]; list[i] == nil {
			list[i] = newReplica(g, e)
		}
	}
	g.replicas.Store(&list)
}

// refresh probes the replicas whose last probe failed or is old, and logs what
// earlier probes have found out of them together.
func (g *group) refresh() {
	for _, r := range *g.replicas.Load() {
		r.refresh()
	}
	g.tellDifferent()
}

// tellDifferent logs that the external labels of replicas differ.
func (g *group) tellDifferent() {
	texts := differentExternal(&g.cfg, *g.replicas.Load())
	g.mtx.Lock()
	defer g.mtx.Unlock()
	for _, text := range texts {
		if !slices.Contains(g.different, text) {
			g.logger.Warn("finding", "finding", text)
		}
	}
	g.different = texts
}
