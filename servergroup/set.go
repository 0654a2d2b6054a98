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

	discovery  *discovery.Manager
	stop       context.CancelFunc
	running    sync.WaitGroup
	background context.Context

	apply   sync.Mutex        // one Apply at a time
	mtx     sync.Mutex        // guards waiting
	waiting map[string]*group // groups whose targets discovery tells, by name
}

// generation is what one configuration made. It is never changed.
type generation struct {
	groups  []*group
	partial PartialResponse
}

// discoveryWait is how long Apply waits for the first targets of a group.
const discoveryWait = 5 * time.Second

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
	ctx, cancel := context.WithCancel(context.Background())
	s := &Set{opts: o, stop: cancel, background: ctx, waiting: map[string]*group{}}
	s.discovery = discovery.NewManager(ctx, o.Logger, o.Registerer, sdMetrics, discovery.Name("server_groups"))
	if s.discovery == nil {
		cancel()
		return nil, errors.New("service discovery: metrics cannot be registered")
	}
	s.running.Go(func() { _ = s.discovery.Run() })
	s.running.Go(s.receiveTargets)
	s.running.Go(func() { s.refreshProfiles(ctx) })
	return s, nil
}

// Close ends the work in the background and drops idle connections.
func (s *Set) Close() {
	s.stop()
	s.running.Wait()
	if g := s.current.Load(); g != nil {
		for _, grp := range g.groups {
			grp.close()
		}
	}
}

// Ready tells whether the groups are known.
func (s *Set) Ready() bool { return s.current.Load() != nil }

// Apply makes the groups of cfgs the ones that queries see, in one step. Groups
// whose configuration did not change stay as they are, with their connections
// and what was found out about their backends. It waits, for a bounded time, for
// the first targets of service discovery. After an error the old groups stay.
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
		g, err := newGroup(cfgs[i], s.opts)
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
		g.refresh(s.background)
	}
	for _, g := range kept {
		g.close()
	}
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
	s.mtx.Lock()
	s.waiting = waiting
	s.mtx.Unlock()
	if err := s.discovery.ApplyConfig(pools); err != nil {
		return fmt.Errorf("service discovery: %w", err)
	}
	timeout := time.NewTimer(discoveryWait)
	defer timeout.Stop()
	for _, g := range fresh {
		if pools[g.cfg.Name] == nil {
			continue
		}
		select {
		case <-g.discovered:
		case <-timeout.C:
			s.opts.Logger.Warn("service discovery has not told the targets of a server group in time; it is answered as they come", "group", g.cfg.Name)
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
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
				for _, g := range gen.groups {
					g.refresh(ctx)
				}
			}
		}
	}
}
