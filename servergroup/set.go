// Package servergroup holds the server groups: which replicas they have, which
// of them a selector concerns, how samples are fetched from them, and what was
// whole and what was missing. It evaluates nothing.
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
	// MaxFetchedBytes bounds what is held of backends' answers for one query.
	// 0 is no bound.
	MaxFetchedBytes int64
	// RegionConcurrency is how many requests may be under way in one region. 0 is no
	// bound.
	RegionConcurrency int
	// Features are the features of PromQL that are enabled here, by the names that
	// Prometheus gives them.
	Features []string
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Set is all server groups. Queries see them through a View.
type Set struct {
	opts    Options
	current atomic.Pointer[generation]

	discovery *discovery.Manager
	life      *lifetime.Lifetime
	registry  *replica.Registry

	apply     sync.Mutex        // held while groups are changed; guards the field below
	undecided bool              // a Change was committed, and is neither finished nor rolled back
	mtx       sync.Mutex        // guards waiting; no groups are made while it is held elsewhere
	waiting   map[string]*entry // entries whose targets discovery tells, by name
}

// generation is what one configuration made. It is never changed, but its entries have
// other groups as discovery tells other targets.
type generation struct {
	entries []*entry
	partial config.PartialResponse
}

// all are the entries; none of a generation that is nil.
func (gen *generation) all() []*entry {
	if gen == nil {
		return nil
	}
	return gen.entries
}

// groups are those of the moment, in configured order.
func (gen *generation) groups() []*group {
	groups := make([]*group, 0, len(gen.all()))
	for _, e := range gen.all() {
		groups = append(groups, *e.groups.Load()...)
	}
	return groups
}

// discoveryWait is how long Apply waits for the first targets of a group.
const discoveryWait = 10 * time.Second

// NewSet returns a set without groups. Close ends it.
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
	s := &Set{opts: o, life: life, waiting: map[string]*entry{}}
	s.registry = replica.NewRegistry(replica.RegistryOptions{Life: life, Logger: o.Logger, Now: o.Now, Features: o.Features, RegionConcurrency: o.RegionConcurrency}, replica.NewMetrics(o.Registerer))
	o.Registerer.MustRegister(&healthCollector{set: s})
	s.discovery = discovery.NewManager(life.Context(), o.Logger, o.Registerer, sdMetrics, discovery.Name("server_groups"))
	if s.discovery == nil {
		life.End()
		return nil, errors.New("service discovery: metrics cannot be registered")
	}
	life.Run(func(context.Context) { _ = s.discovery.Run() })
	life.Run(func(context.Context) { s.receiveTargets() })
	life.Run(s.refreshProfiles)
	return s, nil
}

// Close ends the work in the background, probes too, waits for it and drops idle
// connections.
func (s *Set) Close() {
	s.life.End()
	if gen := s.current.Load(); gen != nil {
		for _, e := range gen.entries {
			e.close()
		}
	}
}

// Ready reports whether the groups are known.
func (s *Set) Ready() bool { return s.current.Load() != nil }

// Answered tells of how many groups a replica has answered its last probe, and how many
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

// discover tells service discovery which entries there are.
func (s *Set) discover(all []*entry) error {
	pools := map[string]discovery.Configs{}
	waiting := map[string]*entry{}
	for _, e := range all {
		if cfgs := targets.Dynamic(&e.cfg); len(cfgs) > 0 {
			pools[e.cfg.Name] = cfgs
			waiting[e.cfg.Name] = e
		}
	}
	// Held over both, so that lists of the new pools do not go to the old entries.
	s.mtx.Lock()
	defer s.mtx.Unlock()
	if err := s.discovery.ApplyConfig(pools); err != nil {
		return fmt.Errorf("service discovery: %w", err)
	}
	s.waiting = waiting
	return nil
}

// awaitTargets waits for the first targets of the entries. What does not come in
// time comes later: service discovery works by the new configuration already.
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

func (s *Set) receiveTargets() {
	for pools := range s.discovery.SyncCh() {
		s.mtx.Lock()
		for name, tgs := range pools {
			if e, ok := s.waiting[name]; ok {
				e.setTargets(tgs)
			}
		}
		s.mtx.Unlock()
	}
}

// refreshProfiles probes replicas again now and then, so that a backend that has
// changed is noticed, and forgets what has gone.
func (s *Set) refreshProfiles(ctx context.Context) {
	tick := time.NewTicker(replica.ProfileAge / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.refresh()
		}
	}
}

// refresh is what refreshProfiles does now and then. While groups are changed, it is put
// off: replicas that are to be used may not be known yet.
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

// keep forgets what is known of the replicas that a generation does not have.
func (s *Set) keep(gen *generation) {
	var replicas []*replica.Replica
	regions := map[string]bool{}
	for _, g := range gen.groups() {
		regions[g.cfg.Region] = true
		replicas = append(replicas, *g.replicas.Load()...)
	}
	s.registry.Keep(replicas, regions)
}

// View returns the groups of the moment. There are none before the first Apply.
func (s *Set) View(ctx context.Context) *view.View {
	partial := config.PartialWarn
	var groups []view.Group
	if gen := s.current.Load(); gen != nil {
		partial = gen.partial
		for _, g := range gen.groups() {
			groups = append(groups, view.Group{Config: &g.cfg, Replicas: *g.replicas.Load(), Findings: g.found, Evidence: &g.scrapes, Useless: g.useless})
		}
	}
	budget := &fanout.Budget{Limit: s.opts.MaxFetchedBytes, Exceeded: s.registry.Metrics.OverBudget.Inc}
	return view.New(request.From(ctx), s.opts.Now(), partial, groups, budget, s.registry)
}
