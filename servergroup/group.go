package servergroup

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	commoncfg "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/discovery/targetgroup"
)

// group is one server group with the replicas it has at the moment.
type group struct {
	cfg         Config
	client      *http.Client
	connections *connections // the transport of client
	// forwarding sends requests with a client's Authorization, where client would send the
	// group's own. Nil: it would not.
	forwarding           *http.Client
	forwardedConnections *connections // the transport of forwarding
	now                  func() time.Time
	logger               *slog.Logger
	life                 *lifetime

	healths  *healths
	features []string // of PromQL, enabled here
	useless  *useless

	replicas atomic.Pointer[[]*replica] // in order of preference
	found    findings                   // what answers have shown
	scrapes  evidenceCache              // what is known of targets' scrapes

	discovered     chan struct{} // closed once discovery has told targets
	discoveredOnce sync.Once

	mtx       sync.Mutex           // guards the fields below
	targets   []*targetgroup.Group // that discovery told last
	findings  []string             // about targets; see GroupStatus
	different []string             // of differentExternal, that were logged
}

// newGroup makes a group. It has the targets that discovery told its predecessor
// (nil if there is none) until discovery tells its own.
func newGroup(cfg Config, h *healths, predecessor *group) (*group, error) {
	o := h.opts
	client, conns, err := newHTTPClient(cfg.HTTPClientConfig, cfg.Name)
	if err != nil {
		return nil, err
	}
	g := &group{cfg: cfg, client: client, connections: conns, now: o.Now, logger: o.Logger.With("group", cfg.Name), life: h.life, healths: h, features: o.Features, useless: newUseless(), discovered: make(chan struct{})}
	if cfg.forwardsAuthorization() {
		if g.forwarding, g.forwardedConnections, err = newHTTPClient(withoutCredentials(cfg.HTTPClientConfig), cfg.Name); err != nil {
			return nil, err
		}
	}
	g.found.logger = g.logger
	if predecessor != nil && len(g.dynamicConfigs()) > 0 {
		predecessor.mtx.Lock()
		g.targets = predecessor.targets
		predecessor.mtx.Unlock()
	}
	g.setReplicas(g.targets)
	return g, nil
}

// newHTTPClient makes what sends the requests of a group.
func newHTTPClient(cfg commoncfg.HTTPClientConfig, group string) (*http.Client, *connections, error) {
	if cfg.OAuth2 != nil {
		// The client caches a function in it, which would make it unequal to the
		// same configuration loaded again.
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
		client.CheckRedirect = stayWithHost
	}
	return client, conns, nil
}

// dynamicConfigs returns the kinds of discovery whose targets may change.
func (g *group) dynamicConfigs() discovery.Configs {
	return slices.DeleteFunc(slices.Clone(g.cfg.ServiceDiscoveryConfigs), func(c discovery.Config) bool {
		_, static := c.(discovery.StaticConfig)
		return static
	})
}

// setTargets takes over what service discovery tells. Before a provider has
// answered, upstream tells that there are no targets; that is not believed until
// there were some.
func (g *group) setTargets(tgs []*targetgroup.Group) {
	empty := !slices.ContainsFunc(tgs, func(tg *targetgroup.Group) bool { return len(tg.Targets) > 0 })
	select {
	case <-g.discovered:
	default:
		if empty {
			return
		}
	}
	slices.SortFunc(tgs, func(a, b *targetgroup.Group) int { return strings.Compare(a.Source, b.Source) })
	g.mtx.Lock()
	g.targets = tgs
	g.mtx.Unlock()
	g.setReplicas(tgs)
	g.discoveredOnce.Do(func() { close(g.discovered) })
}

// setReplicas makes the configured and the discovered targets the replicas.
// Those that were there before are kept with what is known of them.
func (g *group) setReplicas(tgs []*targetgroup.Group) {
	known := map[string]*replica{}
	if old := g.replicas.Load(); old != nil {
		for _, r := range *old {
			known[r.url()] = r
		}
	}
	var all []*targetgroup.Group
	for _, sd := range g.cfg.ServiceDiscoveryConfigs {
		if static, ok := sd.(discovery.StaticConfig); ok {
			all = append(all, static...)
		}
	}
	var list []*replica
	var findings []string
	seen := map[string]bool{}
	for _, tg := range append(all, tgs...) {
		for _, t := range tg.Targets {
			u, err := g.cfg.targetURL(string(t[model.AddressLabel]))
			if err != nil {
				findings = append(findings, err.Error()+"; it is left out")
				continue
			}
			if seen[u.String()] {
				continue
			}
			seen[u.String()] = true
			r := known[u.String()]
			if r == nil {
				r = newReplica(g, u)
			}
			list = append(list, r)
		}
		for name := range tg.Labels {
			if !strings.HasPrefix(string(name), model.MetaLabelPrefix) && !slices.Contains(g.cfg.ReplicaLabels, string(name)) {
				findings = append(findings, fmt.Sprintf("label %q of discovered targets is not used: labels of the group go under its `labels`", name))
			}
		}
	}
	g.replicas.Store(&list)
	g.mtx.Lock()
	defer g.mtx.Unlock()
	slices.Sort(findings)
	findings = slices.Compact(findings)
	if !slices.Equal(findings, g.findings) {
		for _, f := range findings {
			g.logger.Warn("finding", "finding", f)
		}
	}
	g.findings = findings
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

func (g *group) close() {
	g.connections.close()
	if g.forwardedConnections != nil {
		g.forwardedConnections.close()
	}
}

// stayWithHost follows redirects of a backend to itself only: the group's headers
// and parameters may be secret and are not for others.
func stayWithHost(req *http.Request, via []*http.Request) error {
	switch {
	case req.URL.Host != via[0].URL.Host:
		return fmt.Errorf("redirected to another host, %s: name that one as the target", req.URL.Host)
	case len(via) >= 10:
		return errors.New("redirected ten times")
	}
	return nil
}
