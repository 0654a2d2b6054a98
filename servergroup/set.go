// Package servergroup holds the set of server groups: it applies their configuration, discovers
// their replicas, keeps both up to date, and shows queries a view of them.
//
// A query goes on from there: package view has the groups as it sees them, package partition
// decides who answers what, and package replica sends the requests.
package servergroup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/discovery"

	"github.com/oneprom/oneprom/servergroup/audit"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/fanout"
	"github.com/oneprom/oneprom/servergroup/lifetime"
	"github.com/oneprom/oneprom/servergroup/replica"
	"github.com/oneprom/oneprom/servergroup/request"
	"github.com/oneprom/oneprom/servergroup/targets"
	"github.com/oneprom/oneprom/servergroup/view"
)

// Options of a Set.
type Options struct {
	Logger     *slog.Logger
	Registerer prometheus.Registerer // for the metrics of service discovery
	// MaxFetchedBytes is the most bytes of responses that are held for one query; 0 is no
	// limit.
	MaxFetchedBytes int64
	// RegionConcurrency is the most requests to one region at a time; 0 is no limit.
	RegionConcurrency int
	// Features are the features of PromQL that are enabled in oneprom, by Prometheus' names.
	Features []string
	// AuditShare is which part of the answers that a replica gave alone is looked at again, from
	// 0 to 1.
	AuditShare float64
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// Ticks tells when to look after the profiles of replicas; nil: twice per replica.ProfileAge.
	Ticks <-chan time.Time
}

// Set holds all server groups. Queries see them through a View. It is safe for concurrent use.
type Set struct {
	opts    Options
	current atomic.Pointer[generation]

	discovery *discovery.Manager
	life      *lifetime.Lifetime
	registry  *replica.Registry
	auditor   *audit.Auditor

	apply      sync.Mutex        // held while groups are changed; guards the field below
	undecided  bool              // a Change was committed, and is neither finished nor rolled back
	mtx        sync.Mutex        // guards discovered; held while entries in use make groups
	discovered map[string]*entry // entries that have targets of discovery, by name

	changed chan struct{} // has an element after the groups were changed
}

// generation is the entries of one configuration. It is not changed, but the groups of its
// entries are, when discovery finds other targets.
type generation struct {
	entries []*entry
	partial config.PartialResponse
}

// all returns the entries; a nil generation has none.
func (gen *generation) all() []*entry {
	if gen == nil {
		return nil
	}
	return gen.entries
}

// groups returns the current groups, in the order of the configuration.
func (gen *generation) groups() []*group {
	groups := make([]*group, 0, len(gen.all()))
	for _, e := range gen.all() {
		groups = append(groups, *e.groups.Load()...)
	}
	return groups
}

// discoveryWait is how long Commit waits for the first targets of entries.
const discoveryWait = 10 * time.Second

// NewSet returns a set without groups, which must be closed.
func NewSet(o Options) (*Set, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Registerer == nil {
		o.Registerer = prometheus.NewRegistry()
	}
	sdMetrics, err := discovery.CreateAndRegisterSDMetrics(o.Registerer)
	if err != nil {
		return nil, fmt.Errorf("service discovery: %w", err)
	}
	life := lifetime.New()
	s := &Set{opts: o, life: life, discovered: map[string]*entry{}, changed: make(chan struct{}, 1)}
	s.registry = replica.NewRegistry(replica.RegistryOptions{Life: life, Logger: o.Logger, Now: o.Now, Features: o.Features, RegionConcurrency: o.RegionConcurrency}, replica.NewMetrics(o.Registerer))
	s.auditor = audit.New(audit.Options{Share: o.AuditShare, Life: life, Now: o.Now, Metrics: s.registry.Metrics, Logger: o.Logger})
	o.Registerer.MustRegister(&healthCollector{set: s})
	s.discovery = discovery.NewManager(life.Context(), o.Logger, o.Registerer, sdMetrics, discovery.Name("server_groups"))
	if s.discovery == nil {
		life.End()
		return nil, errors.New("service discovery: metrics cannot be registered")
	}
	life.Run(func(context.Context) { _ = s.discovery.Run() })
	life.Run(func(context.Context) { s.receiveTargets() })
	life.Run(s.refreshProfiles)
	life.Run(s.checkClaims)
	life.Run(s.keepValues)
	return s, nil
}

// Close ends the work in the background, which includes probes, waits for its end, and closes
// idle connections.
func (s *Set) Close() {
	s.life.End()
	if gen := s.current.Load(); gen != nil {
		for _, e := range gen.entries {
			e.close()
		}
	}
}

// Ready reports whether a configuration was applied.
func (s *Set) Ready() bool { return s.current.Load() != nil }

// Answered returns how many groups have a replica that answered its last probe, and how many
// groups there are.
func (s *Set) Answered() (groups, all int) {
	gen := s.current.Load()
	if gen == nil {
		return 0, 0
	}
	list := gen.groups()
	for _, g := range list {
		if slices.ContainsFunc(*g.replicas.Load(), (*replica.Replica).Answered) {
			groups++
		}
	}
	return groups, len(list)
}

// Apply makes the groups of cfgs the ones that queries see: it prepares a Change, commits
// and finishes it. After an error the old groups stay.
func (s *Set) Apply(ctx context.Context, cfgs []config.Group, partial config.PartialResponse) error {
	c, err := s.Prepare(cfgs, partial)
	if err != nil {
		return err
	}
	if err := c.Commit(ctx); err != nil {
		return errors.Join(err, c.Rollback())
	}
	c.Finish()
	return nil
}

// discover makes service discovery find the targets of these entries.
func (s *Set) discover(all []*entry) error {
	pools := map[string]discovery.Configs{}
	discovered := map[string]*entry{}
	for _, e := range all {
		if cfgs := targets.Dynamic(&e.cfg); len(cfgs) > 0 {
			pools[e.cfg.Name] = cfgs
			discovered[e.cfg.Name] = e
		}
	}
	// Locked over both, so that targets of the new configuration do not go to old entries.
	s.mtx.Lock()
	defer s.mtx.Unlock()
	if err := s.discovery.ApplyConfig(pools); err != nil {
		return fmt.Errorf("service discovery: %w", err)
	}
	s.discovered = discovered
	return nil
}

// awaitTargets waits for the first targets of the entries, for discoveryWait at most. Targets
// that are found later are used then.
func (s *Set) awaitTargets(ctx context.Context, fresh []*entry) {
	timeout := time.NewTimer(discoveryWait)
	defer timeout.Stop()
	for _, e := range fresh {
		if !targets.Discovers(&e.cfg) {
			continue
		}
		select {
		case <-e.discovered:
		case <-timeout.C:
			s.opts.Logger.Warn("no targets discovered yet; continuing without them", "group", e.cfg.Name)
			return
		case <-ctx.Done():
			return
		case <-s.life.Context().Done():
			return
		}
	}
}

// receiveTargets passes the targets of service discovery on to their entries.
func (s *Set) receiveTargets() {
	for pools := range s.discovery.SyncCh() {
		s.mtx.Lock()
		for name, tgs := range pools {
			if e, ok := s.discovered[name]; ok {
				e.setTargets(tgs)
			}
		}
		s.mtx.Unlock()
	}
}

// refreshProfiles calls refresh at each tick.
func (s *Set) refreshProfiles(ctx context.Context) {
	ticks := s.opts.Ticks
	if ticks == nil {
		ticker := time.NewTicker(replica.ProfileAge / 2)
		defer ticker.Stop()
		ticks = ticker.C
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks:
			s.refresh()
		}
	}
}

// refresh probes replicas whose profiles are old, and drops the health of replicas that are not
// used any more. It does nothing while groups are changed: replicas that are about to be used
// may not be in the generation yet.
func (s *Set) refresh() {
	if !s.apply.TryLock() {
		return
	}
	defer s.apply.Unlock()
	gen := s.current.Load()
	if gen == nil || s.undecided {
		return
	}
	s.mtx.Lock()
	defer s.mtx.Unlock()
	for _, e := range gen.entries {
		if len(e.cfg.GroupBy) > 0 {
			e.regroup()
		}
		e.refresh()
	}
	s.keep(gen)
}

// keep drops the health of replicas that a generation does not have.
func (s *Set) keep(gen *generation) {
	var replicas []*replica.Replica
	regions := map[string]bool{}
	for _, g := range gen.groups() {
		regions[g.cfg.Region] = true
		replicas = append(replicas, *g.replicas.Load()...)
	}
	s.registry.Keep(replicas, regions)
}

// View returns the current groups, for the request of ctx. There are none before the first
// Apply.
func (s *Set) View(ctx context.Context) *view.View {
	partial := config.PartialWarn
	now := s.opts.Now()
	var groups []view.Group
	if gen := s.current.Load(); gen != nil {
		partial = gen.partial
		for _, g := range gen.groups() {
			one := view.Group{Config: &g.cfg, Entry: g.entry.cfg.Name, Replicas: *g.replicas.Load(), Findings: g.findings, Evidence: &g.evidence, Audits: g.audits, Pushdown: g.pushdown, Unusable: g.unusable, Holding: &g.entry.holding, Copying: &g.entry.copying, Intrinsic: &g.intrinsic, Values: g.intrinsic.Known(), Digests: g.digests}
			groups = append(groups, one.Divided(g.portionsAt(now))...)
		}
	}
	budget := &fanout.Budget{Limit: s.opts.MaxFetchedBytes, Exceeded: s.registry.Metrics.OverBudget.Inc}
	return view.New(request.From(ctx), now, partial, groups, budget, s.registry)
}
