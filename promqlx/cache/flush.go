package cache

import (
	"cmp"
	"context"
	"encoding/json"
	"math"
	"slices"
	"sync"
)

// Flush says that what was evaluated before a time may be wrong where it comes of some samples.
type Flush struct {
	Group string `json:"group"` // the name of their server group; "" is any
	From  int64  `json:"from"`  // ms: when they are
	To    int64  `json:"to"`    // ms
	At    int64  `json:"at"`    // ms
}

const (
	// maxFlushes is how many flushes are remembered. One more flushes all that was evaluated before.
	maxFlushes = 1000
	// flushAge (ms) is how long it takes at most until a flush of another process is known.
	flushAge = 10_000
)

// flushes are those of the last keptFor: earlier answers are not used any more. Processes that share a store
// tell each other by a value of it.
type flushes struct {
	mtx   sync.Mutex // guards the fields below
	list  []Flush    // by time
	asked int64      // ms: when the shared store was asked last
}

// flushKey is the key of the flushes in a shared store.
var flushKey = hashed("flushes")

// Flush has what was evaluated so far of some samples not used any more.
func (c *Cache) Flush(f Flush) {
	c.flushes.mtx.Lock()
	defer c.flushes.mtx.Unlock()
	c.flushes.add([]Flush{f}, f.At)
	c.flushes.tell(c.shared())
}

// shared returns the store that other processes have, too; nil if there is none.
func (c *Cache) shared() Store {
	if t, ok := c.store.(*Tiered); ok {
		return t.Behind()
	}
	return nil
}

// add adds flushes, and forgets those that matter no more at a time (ms). mtx is held.
func (s *flushes) add(more []Flush, now int64) {
	list := slices.Concat(s.list, more)
	list = slices.DeleteFunc(list, func(f Flush) bool { return f.At < now-keptFor.Milliseconds() || f.At > now })
	slices.SortFunc(list, func(a, b Flush) int { return cmp.Compare(a.At, b.At) })
	if len(list) > maxFlushes {
		list = []Flush{{From: math.MinInt64, To: math.MaxInt64, At: list[len(list)-1].At}}
	}
	s.list = list
}

// tell writes the flushes to a store, if there is one. mtx is held.
func (s *flushes) tell(to Store) {
	if raw, err := json.Marshal(s.list); to != nil && err == nil {
		to.Set(flushKey, raw, keptFor)
	}
}

// ask reads the flushes of other processes from a store, if there is one, at a time (ms).
func (s *flushes) ask(ctx context.Context, from Store, now int64) {
	if from == nil {
		return
	}
	s.mtx.Lock()
	due := now-s.asked >= flushAge || now < s.asked
	if due {
		s.asked = now
	}
	s.mtx.Unlock()
	if !due {
		return
	}
	var others []Flush
	if raw := from.Get(ctx, []string{flushKey})[0]; raw != nil && json.Unmarshal(raw, &others) != nil {
		others = nil
	}
	s.mtx.Lock()
	defer s.mtx.Unlock()
	known := slices.Clone(s.list)
	s.add(slices.DeleteFunc(slices.Clone(others), func(f Flush) bool { return slices.Contains(known, f) }), now)
	if slices.ContainsFunc(s.list, func(f Flush) bool { return !slices.Contains(others, f) }) {
		s.tell(from) // another process wrote its own at the same time, or the store has lost them
	}
}

// of returns the flushes that concern a question.
func (s *flushes) of(q Question) []Flush {
	s.mtx.Lock()
	defer s.mtx.Unlock()
	var out []Flush
	for _, f := range s.list {
		if f.Group == "" || slices.Contains(q.Groups, f.Group) {
			out = append(out, f)
		}
	}
	return out
}

// flushed reports whether one of some flushes concerns what was evaluated at a time (ms) of the samples of a run.
func flushed(list []Flush, made int64, of Run) bool {
	return slices.ContainsFunc(list, func(f Flush) bool { return made <= f.At && of.From <= f.To && of.To >= f.From })
}
