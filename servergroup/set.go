// Package servergroup holds the server groups: which replicas they have, which
// of them a selector concerns, how samples are fetched from them, and what was
// whole and what was missing. It evaluates nothing.
package servergroup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/discovery"

	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/lifetime"
	"github.com/oneprom/oneprom/servergroup/targets"
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
	healths   *healths

	apply   sync.Mutex        // one Apply at a time
	mtx     sync.Mutex        // guards waiting; no groups are made while it is held elsewhere
	waiting map[string]*entry // entries whose targets discovery tells, by name
}

// generation is what one configuration made. It is never changed, but its entries have
// other groups as discovery tells other targets.
type generation struct {
	entries []*entry
	partial config.PartialResponse
}

// groups are those of the moment, in configured order.
func (gen *generation) groups() []*group {
	groups := make([]*group, 0, len(gen.entries))
	for _, e := range gen.entries {
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
	s.healths = newHealths(o, life, newMetrics(o.Registerer, s))
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

// Ready tells whether the groups are known.
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
		if slices.ContainsFunc(*g.replicas.Load(), (*replica).answered) {
			groups++
		}
	}
	return groups, len(list)
}

// Apply makes the groups of cfgs the ones that queries see, in one step. Groups
// whose configuration did not change stay as they are, with their connections
// and what was found out about their backends. It waits, for a bounded time, for
// the first targets of service discovery; until they come, a changed group has
// those of its predecessor. After an error the old groups stay.
func (s *Set) Apply(ctx context.Context, cfgs []config.Group, partial config.PartialResponse) error {
	s.apply.Lock()
	defer s.apply.Unlock()
	kept := map[string]*entry{}
	if old := s.current.Load(); old != nil {
		for _, e := range old.entries {
			kept[e.cfg.Name] = e
		}
	}
	next := &generation{partial: partial}
	var fresh []*entry
	for i := range cfgs {
		if e, ok := kept[cfgs[i].Name]; ok && reflect.DeepEqual(e.cfg, cfgs[i]) {
			next.entries = append(next.entries, e)
			delete(kept, e.cfg.Name)
			continue
		}
		e, err := newEntry(cfgs[i], s.healths, kept[cfgs[i].Name])
		if err != nil {
			return err
		}
		next.entries = append(next.entries, e)
		fresh = append(fresh, e)
	}
	if err := s.discover(ctx, next.entries, fresh); err != nil {
		return err
	}
	s.mtx.Lock()
	defer s.mtx.Unlock()
	s.current.Store(next)
	for _, e := range fresh {
		e.refresh()
	}
	for _, e := range kept {
		e.close()
	}
	s.healths.keep(next)
	return nil
}

// discover tells service discovery which entries there are and waits for the
// first targets of the fresh ones.
func (s *Set) discover(ctx context.Context, all, fresh []*entry) error {
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
	err := s.discovery.ApplyConfig(pools)
	if err == nil {
		s.waiting = waiting
	}
	s.mtx.Unlock()
	if err != nil {
		return fmt.Errorf("service discovery: %w", err)
	}
	s.awaitTargets(ctx, fresh)
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
	tick := time.NewTicker(profileAge / 2)
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

// refresh is what refreshProfiles does now and then. While a configuration is applied, it
// is put off: replicas that are to be used may not be known yet.
func (s *Set) refresh() {
	if !s.apply.TryLock() {
		return
	}
	defer s.apply.Unlock()
	gen := s.current.Load()
	if gen == nil {
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
	s.healths.keep(gen)
}
