package servergroup

import (
	"context"
	"maps"
	"reflect"
	"slices"

	"github.com/oneprom/oneprom/servergroup/config"
)

// Change replaces the groups of a Set by others. Once Prepare has returned it, the configuration
// of the groups cannot make it fail any more.
//
// After Commit, whether it failed or not, either Finish or Rollback must follow. A change that is
// not committed needs neither. Changes of a set must be made one after another.
type Change struct {
	set          *Set
	before, next *generation       // before is nil if there were no groups yet
	added        []*entry          // those of next that before does not have
	removed      map[string]*entry // those of before that next does not have, by name
}

// Prepare makes the entries of cfgs, and changes nothing that is in use. Groups whose
// configuration did not change are kept, with their connections and the profiles of their
// replicas.
func (s *Set) Prepare(cfgs []config.Group, partial config.PartialResponse) (*Change, error) {
	c := &Change{set: s, before: s.current.Load(), next: &generation{partial: partial}, removed: map[string]*entry{}}
	for _, e := range c.before.all() {
		c.removed[e.cfg.Name] = e
	}
	for _, cfg := range cfgs {
		e, ok := c.removed[cfg.Name]
		if ok && reflect.DeepEqual(e.cfg, cfg) {
			delete(c.removed, cfg.Name)
		} else {
			var err error
			if e, err = newEntry(cfg, s.registry, s.auditor); err != nil {
				return nil, err
			}
			c.added = append(c.added, e)
		}
		c.next.entries = append(c.next.entries, e)
	}
	return c, nil
}

// Commit makes the groups the ones that queries see, in one step. Before that it waits, for
// discoveryWait at most, for the first targets of service discovery. Until these are found, a
// changed group has the targets of its predecessor.
func (c *Change) Commit(ctx context.Context) error {
	s := c.set
	s.apply.Lock()
	defer s.apply.Unlock()
	s.undecided = true
	for _, e := range c.added {
		e.begin(c.removed[e.cfg.Name])
	}
	if err := s.discover(c.next.entries); err != nil {
		return err
	}
	s.awaitTargets(ctx, c.added)
	s.mtx.Lock()
	defer s.mtx.Unlock()
	s.current.Store(c.next)
	for _, e := range c.added {
		e.refresh()
	}
	select {
	case s.changed <- struct{}{}:
	default: // it has not been looked at since the change before
	}
	return nil
}

// Finish closes the groups that were removed.
func (c *Change) Finish() {
	c.set.apply.Lock()
	defer c.set.apply.Unlock()
	c.decide(c.next, slices.Collect(maps.Values(c.removed)))
}

// Rollback makes the groups from before the ones that queries see again, with the profiles of
// their replicas.
func (c *Change) Rollback() error {
	s := c.set
	s.apply.Lock()
	defer s.apply.Unlock()
	s.mtx.Lock()
	s.current.Store(c.before)
	for _, e := range c.removed {
		e.resume()
	}
	s.mtx.Unlock()
	err := s.discover(c.before.all())
	c.decide(c.before, c.added)
	return err
}

// decide closes the unused entries, and drops the health of replicas that are not in use.
func (c *Change) decide(inUse *generation, unused []*entry) {
	c.set.mtx.Lock()
	defer c.set.mtx.Unlock()
	for _, e := range unused {
		e.close()
	}
	c.set.keep(inUse)
	c.set.undecided = false
}
