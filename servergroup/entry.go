package servergroup

import (
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	commoncfg "github.com/prometheus/common/config"
	"github.com/prometheus/prometheus/discovery/targetgroup"

	"github.com/oneprom/oneprom/servergroup/audit"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/replica"
	"github.com/oneprom/oneprom/servergroup/targets"
	"github.com/oneprom/oneprom/servergroup/transport"
	"github.com/oneprom/oneprom/servergroup/view"
)

// entry is an entry of server_groups with the groups of its targets: one, or with group_by any
// number. They share its connections.
type entry struct {
	cfg         config.Group
	client      *http.Client
	connections *connections // the transport of client
	// forwarding sends requests with the Authorization of oneprom's client, where client would
	// replace it by the entry's own; nil if client would not.
	forwarding           *http.Client
	forwardedConnections *connections // the transport of forwarding
	registry             *replica.Registry
	auditor              *audit.Auditor
	logger               *slog.Logger

	holding    view.Belief              // whether `holds` is believed
	copying    view.Belief              // whether `copies_of` is believed
	groups     atomic.Pointer[[]*group] // in the order of the values of group_by
	discovered chan struct{}            // closed once discovery has found targets

	mtx      sync.Mutex           // guards the fields below, and changes of groups
	targets  []*targetgroup.Group // the last ones of discovery
	gone     map[*group]time.Time // when groups lost their last target
	findings []string             // about targets; see GroupStatus
}

// newEntry returns an entry without groups. It does all that can fail, and changes nothing that
// is in use.
func newEntry(cfg config.Group, reg *replica.Registry, auditor *audit.Auditor) (*entry, error) {
	client, conns, err := newHTTPClient(cfg.HTTPClientConfig, cfg.Name)
	if err != nil {
		return nil, err
	}
	e := &entry{cfg: cfg, client: client, connections: conns, registry: reg, auditor: auditor, logger: reg.Options.Logger.With("group", cfg.Name), gone: map[*group]time.Time{}, discovered: make(chan struct{})}
	if cfg.ForwardsAuthorization() {
		if e.forwarding, e.forwardedConnections, err = newHTTPClient(withoutCredentials(cfg.HTTPClientConfig), cfg.Name); err != nil {
			return nil, err
		}
	}
	e.groups.Store(&[]*group{})
	return e, nil
}

// begin makes the groups. The entry has the targets of its predecessor (nil if there is none)
// until discovery has found its own.
func (e *entry) begin(predecessor *entry) {
	if predecessor != nil && targets.Discovers(&e.cfg) {
		predecessor.mtx.Lock()
		e.targets = predecessor.targets
		predecessor.mtx.Unlock()
	}
	e.regroup()
}

// resume makes the entry usable again after begin of a successor, which has replaced the probes
// of the replicas' health. Discovery starts again, too; the targets stay until it has found some.
func (e *entry) resume() {
	if targets.Discovers(&e.cfg) {
		e.discovered = make(chan struct{})
	}
	for _, g := range *e.groups.Load() {
		for _, r := range *g.replicas.Load() {
			r.Health.SetProbe(r.Alive)
		}
	}
}

// newHTTPClient returns the client for the requests of an entry.
func newHTTPClient(cfg commoncfg.HTTPClientConfig, group string) (*http.Client, *connections, error) {
	if cfg.OAuth2 != nil {
		// The client caches a function in the configuration, which would then not be equal
		// to the same configuration loaded again.
		own := *cfg.OAuth2
		cfg.OAuth2 = &own
	}
	client, err := commoncfg.NewClientFromConfig(cfg, "server_group_"+group, commoncfg.WithUserAgent("oneprom"))
	if err != nil {
		return nil, nil, fmt.Errorf("server group %q: %w", group, err)
	}
	conns := &connections{RoundTripper: client.Transport}
	client.Transport = conns
	if cfg.FollowRedirects {
		client.CheckRedirect = transport.CheckRedirect
	}
	return client, conns, nil
}

// withoutCredentials returns a client's configuration without its Authorization.
func withoutCredentials(h commoncfg.HTTPClientConfig) commoncfg.HTTPClientConfig {
	h.BasicAuth, h.Authorization, h.OAuth2 = nil, nil, nil
	return h
}

// setTargets sets the targets of service discovery. Before a provider has answered, upstream
// sends an empty list, which is therefore ignored until there were targets.
func (e *entry) setTargets(tgs []*targetgroup.Group) {
	empty := !slices.ContainsFunc(tgs, func(tg *targetgroup.Group) bool { return len(tg.Targets) > 0 })
	first := !e.isDiscovered()
	if first && empty {
		return
	}
	slices.SortFunc(tgs, func(a, b *targetgroup.Group) int { return strings.Compare(a.Source, b.Source) })
	e.mtx.Lock()
	e.targets = tgs
	e.mtx.Unlock()
	e.regroup()
	if first {
		close(e.discovered)
	}
}

func (e *entry) isDiscovered() bool {
	select {
	case <-e.discovered:
		return true
	default:
		return false
	}
}

// regroup makes the groups of the current targets. Groups of the same names are kept.
func (e *entry) regroup() {
	e.mtx.Lock()
	defer e.mtx.Unlock()
	former := map[string]*group{} // those that have no targets so far
	for _, g := range *e.groups.Load() {
		former[g.cfg.Name] = g
	}
	shards, findings := targets.Shards(&e.cfg, append(targets.Static(&e.cfg), e.targets...))
	shards, all := targets.Limit(&e.cfg, shards, func(name string) bool { return former[name] != nil })
	list := make([]*group, 0, len(shards)+1)
	add := func(cfg config.Group, endpoints []targets.Endpoint) {
		g := former[cfg.Name]
		if g == nil {
			g = newGroup(cfg, e)
		}
		delete(former, cfg.Name)
		delete(e.gone, g)
		g.setReplicas(endpoints)
		list = append(list, g)
	}
	for _, s := range shards {
		add(targets.GroupOf(&e.cfg, s.Values), s.Endpoints)
	}
	list = append(list, e.withoutTargets(former, e.cfg.GroupLimit-len(list))...)
	slices.SortFunc(list, func(a, b *group) int { return slices.Compare(a.values(), b.values()) })
	if !all {
		findings = append(findings, fmt.Sprintf("the targets make more groups than the %d that `group_limit` allows: the others are left out, and answers are partial", e.cfg.GroupLimit))
	}
	if !all || len(list) == 0 {
		add(e.cfg, nil) // so that an answer says that there may be more
	}
	e.logChange(*e.groups.Load(), list)
	e.groups.Store(&list)
	e.setFindings(findings)
}

// withoutTargets returns the former groups, at most room, that are kept although they have lost
// their last target: the target may be restarting, and until forget_after has passed, answers
// without its data are partial. It forgets the others.
func (e *entry) withoutTargets(former map[string]*group, room int) []*group {
	var list []*group
	now := e.registry.Options.Now()
	for _, name := range slices.Sorted(maps.Keys(former)) {
		g := former[name]
		since, ok := e.gone[g]
		if !ok {
			since = now
		}
		if name == e.cfg.Name {
			continue
		}
		if len(list) >= room || now.Sub(since) >= time.Duration(e.cfg.ForgetAfter) {
			delete(e.gone, g)
			g.audits.End()
			e.registry.Metrics.ForgetGroup(name)
			continue
		}
		e.gone[g] = since
		g.setReplicas(nil)
		list = append(list, g)
	}
	return list
}

// logChange logs how many groups are new or forgotten.
func (e *entry) logChange(before, now []*group) {
	added := countNot(now, before)
	if lost := countNot(before, now); len(before) > 0 && added+lost > 0 {
		e.logger.Info("the groups of a server group have changed", "groups", len(now), "new", added, "forgotten", lost)
	}
}

// countNot returns how many groups of a are not in b.
func countNot(a, b []*group) int {
	in := make(map[*group]bool, len(b))
	for _, g := range b {
		in[g] = true
	}
	n := 0
	for _, g := range a {
		if !in[g] {
			n++
		}
	}
	return n
}

// setFindings sets the findings about targets, and logs them if they have changed.
func (e *entry) setFindings(findings []string) {
	if !slices.Equal(findings, e.findings) {
		for _, f := range findings {
			e.logger.Warn("finding", "finding", f)
		}
	}
	e.findings = findings
}

// findingsOf returns the findings about the targets of a group of the entry. The first group has
// those that are not about one group, too.
func (e *entry) findingsOf(g *group) []string {
	e.mtx.Lock()
	defer e.mtx.Unlock()
	var texts []string
	if (*e.groups.Load())[0] == g {
		texts = append(texts, e.findings...)
	}
	if since, ok := e.gone[g]; ok {
		texts = append(texts, fmt.Sprintf("its last target has gone at %s: its data is missed, until the group is forgotten after %s", config.FormatTime(since.UnixMilli()), e.cfg.ForgetAfter))
	}
	return texts
}

// refresh probes the replicas whose last probe failed or is old.
func (e *entry) refresh() {
	for _, g := range *e.groups.Load() {
		g.refresh()
	}
}

// close closes the connections of an entry that is not used any more, and ends its audits.
func (e *entry) close() {
	for _, g := range *e.groups.Load() {
		g.audits.End()
	}
	e.connections.close()
	if e.forwardedConnections != nil {
		e.forwardedConnections.close()
	}
}
