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

// PartialResponse says what becomes of an answer when a group is missing.
type PartialResponse string

// The values of partial_response.
const (
	PartialWarn  PartialResponse = "warn"  // answer from the others, with a warning
	PartialError PartialResponse = "error" // fail
)

// Set is all server groups. Queries see them through a View.
type Set struct {
	opts    Options
	current atomic.Pointer[generation]

	discovery *discovery.Manager
	life      *lifetime
	healths   *healths

	apply   sync.Mutex        // one Apply at a time
	mtx     sync.Mutex        // guards waiting
	waiting map[string]*group // groups whose targets discovery tells, by name
}

// lifetime is what runs in the background until it is ended.
type lifetime struct {
	ctx    context.Context
	cancel context.CancelFunc

	mtx     sync.Mutex // no work is begun while it is ended
	running sync.WaitGroup
}

var errClosed = errors.New("shutting down")

func newLifetime() *lifetime {
	ctx, cancel := context.WithCancel(context.Background())
	return &lifetime{ctx: ctx, cancel: cancel}
}

// run starts f, whose context ends with the lifetime. It tells whether it did:
// nothing is started any more once the lifetime has ended.
func (l *lifetime) run(f func(context.Context)) bool {
	l.mtx.Lock()
	defer l.mtx.Unlock()
	if l.ctx.Err() != nil {
		return false
	}
	l.running.Go(func() { f(l.ctx) })
	return true
}

// end ends what runs and waits for it.
func (l *lifetime) end() {
	l.mtx.Lock()
	l.cancel()
	l.mtx.Unlock()
	l.running.Wait()
}

// generation is what one configuration made. It is never changed.
type generation struct {
	groups  []*group
	partial PartialResponse
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
	life := newLifetime()
	s := &Set{opts: o, life: life, waiting: map[string]*group{}}
	s.healths = newHealths(o, life, newMetrics(o.Registerer, s))
	s.discovery = discovery.NewManager(life.ctx, o.Logger, o.Registerer, sdMetrics, discovery.Name("server_groups"))
	if s.discovery == nil {
		life.end()
		return nil, errors.New("service discovery: metrics cannot be registered")
	}
	life.run(func(context.Context) { _ = s.discovery.Run() })
	life.run(func(context.Context) { s.receiveTargets() })
	life.run(s.refreshProfiles)
	return s, nil
}

// Close ends the work in the background, probes too, waits for it and drops idle
// connections.
func (s *Set) Close() {
	s.life.end()
	if g := s.current.Load(); g != nil {
		for _, grp := range g.groups {
			grp.close()
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
	for _, g := range gen.groups {
		if slices.ContainsFunc(*g.replicas.Load(), (*replica).answered) {
			groups++
		}
	}
	return groups, len(gen.groups)
}

// Apply makes the groups of cfgs the ones that queries see, in one step. Groups
// whose configuration did not change stay as they are, with their connections
// and what was found out about their backends. It waits, for a bounded time, for
// the first targets of service discovery; until they come, a changed group has
// those of its predecessor. After an error the old groups stay.
func (s *Set) Apply(ctx context.Context, cfgs []Config, partial PartialResponse) error {
	s.apply.Lock()
	defer s.apply.Unlock()
	kept := map[string]*group{}
	if old := s.current.Load(); old != nil {
		for _, g := range old.groups {
			kept[g.cfg.Name] = g
		}
	}
	next := &generation{partial: partial}
	var fresh []*group
	for i := range cfgs {
		if g, ok := kept[cfgs[i].Name]; ok && reflect.DeepEqual(g.cfg, cfgs[i]) {
			next.groups = append(next.groups, g)
			delete(kept, g.cfg.Name)
			continue
		}
		g, err := newGroup(cfgs[i], s.healths, kept[cfgs[i].Name])
		if err != nil {
			return err
		}
		next.groups = append(next.groups, g)
		fresh = append(fresh, g)
	}
	if err := s.discover(ctx, next.groups, fresh); err != nil {
		return err
	}
	s.current.Store(next)
	for _, g := range fresh {
		g.refresh()
	}
	for _, g := range kept {
		g.close()
	}
	s.healths.keep(next)
	return nil
}

// discover tells service discovery which groups there are and waits for the
// first targets of the fresh ones.
func (s *Set) discover(ctx context.Context, all, fresh []*group) error {
	pools := map[string]discovery.Configs{}
	waiting := map[string]*group{}
	for _, g := range all {
		if cfgs := g.dynamicConfigs(); len(cfgs) > 0 {
			pools[g.cfg.Name] = cfgs
			waiting[g.cfg.Name] = g
		}
	}
	// Held over both, so that lists of the new pools do not go to the old groups.
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

// awaitTargets waits for the first targets of the groups. What does not come in
// time comes later: service discovery works by the new configuration already.
func (s *Set) awaitTargets(ctx context.Context, fresh []*group) {
	timeout := time.NewTimer(discoveryWait)
	defer timeout.Stop()
	for _, g := range fresh {
		if len(g.dynamicConfigs()) == 0 {
			continue
		}
		select {
		case <-g.discovered:
		case <-timeout.C:
			s.opts.Logger.Warn("service discovery has not told the targets of a server group in time; it is answered as they come", "group", g.cfg.Name)
			return
		case <-ctx.Done():
			return
		case <-s.life.ctx.Done():
			return
		}
	}
}

func (s *Set) receiveTargets() {
	for pools := range s.discovery.SyncCh() {
		s.mtx.Lock()
		waiting := s.waiting
		s.mtx.Unlock()
		for name, tgs := range pools {
			if g, ok := waiting[name]; ok {
				g.setTargets(tgs)
			}
		}
	}
}

// refreshProfiles probes replicas again now and then, so that a backend that has
// changed is noticed.
func (s *Set) refreshProfiles(ctx context.Context) {
	tick := time.NewTicker(profileAge / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if gen := s.current.Load(); gen != nil {
				s.healths.keep(gen)
				for _, g := range gen.groups {
					g.refresh()
				}
			}
		}
	}
}
