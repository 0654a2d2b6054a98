package servergroup

import (
	"context"
	"maps"
	"reflect"
	"slices"

	"github.com/oneprom/oneprom/servergroup/config"
)

// Change replaces the groups of a Set by others. What can fail because of their
// configuration has happened when Prepare returns it.
//
// After Commit, whether it failed or not, either Finish or Rollback has to follow. A change
// that is not committed is just dropped. Changes of a set are made one after another.
type Change struct {
	set          *Set
	before, next *generation       // before is nil if there were no groups yet
	fresh        []*entry          // of next, that before does not have
	gone         map[string]*entry // of before, that next does not have, by name
}

// Prepare makes what the groups of cfgs need, and touches nothing that is in use. Groups
// whose configuration did not change stay as they are, with their connections and what was
// found out about their backends.
func (s *Set) Prepare(cfgs []config.Group, partial config.PartialResponse) (*Change, error) {
	c := &Change{set: s, before: s.current.Load(), next: &generation{partial: partial}, gone: map[string]*entry{}}
	for _, e := range c.before.all() {
		c.gone[e.cfg.Name] = e
	}
	for _, cfg := range cfgs {
		e, known := c.gone[cfg.Name]
		if known && reflect.DeepEqual(e.cfg, cfg) {
			delete(c.gone, cfg.Name)
		} else {
			var err error
			if e, err = newEntry(cfg, s.registry); err != nil {
				return nil, err
			}
			c.fresh = append(c.fresh, e)
		}
		c.next.entries = append(c.next.entries, e)
	}
	return c, nil
}

// Commit makes the groups the ones that queries see, in one step. Before that it waits, for
// a bounded time, for the first targets of service discovery; until they come, a changed
// group has those of its predecessor.
func (c *Change) Commit(ctx context.Context) error {
	s := c.set
	s.apply.Lock()
	defer s.apply.Unlock()
	s.undecided = true
	for _, e := range c.fresh {
		e.begin(c.gone[e.cfg.Name])
	}
	if err := s.discover(c.next.entries); err != nil {
		return err
	}
	s.awaitTargets(ctx, c.fresh)
	s.mtx.Lock()
	defer s.mtx.Unlock()
	s.current.Store(c.next)
	for _, e := range c.fresh {
		e.refresh()
	}
	return nil
}

// Finish lets go of the groups that are not there any more.
func (c *Change) Finish() {
	c.set.apply.Lock()
	defer c.set.apply.Unlock()
	c.decide(c.next, slices.Collect(maps.Values(c.gone)))
}

// Rollback makes the groups from before the ones that queries see again, with all that is
// known of their backends.
func (c *Change) Rollback() error {
	s := c.set
	s.apply.Lock()
	defer s.apply.Unlock()
	s.mtx.Lock()
	s.current.Store(c.before)
	for _, e := range c.gone {
		e.resume()
	}
	s.mtx.Unlock()
	err := s.discover(c.before.all())
	c.decide(c.before, c.fresh)
	return err
}

// decide closes the entries that are not used, and forgets the health of replicas that are
// not in use.
func (c *Change) decide(inUse *generation, unused []*entry) {
	c.set.mtx.Lock()
	defer c.set.mtx.Unlock()
	for _, e := range unused {
		e.close()
	}
	c.set.keep(inUse)
	c.set.undecided = false
}
