package cache

import (
	"bytes"
	"context"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/promql"
)

// Cache keeps answers in a store.
type Cache struct {
	store   Store
	metrics *metrics
	flushes flushes
	awaited awaited
}

// New returns a cache over a store. Its metrics are registered with reg; nil registers none.
func New(store Store, reg prometheus.Registerer) *Cache {
	return &Cache{store: store, metrics: newMetrics(store, reg)}
}

const (
	// maxAge is how long a block is used at most.
	maxAge = 24 * time.Hour
	// keptFor is how long it is kept: what is not used any more tells whether a later one is the same.
	keptFor = 2 * maxAge
)

// Question is a range query whose answer is cached.
type Question struct {
	// Key says all that the answer depends on, but the grid.
	Key        string
	Start, End int64 // ms
	Step       int64 // ms
	// Settled is the time (ms) after which steps may still change: what is after it is not kept.
	Settled int64
	// Since is the time (ms) from which on what was evaluated is right: earlier blocks are not used.
	Since int64
	Now   int64 // ms
	// Believed returns how long (ms) what is known of samples from a time (ms) on is believed before it is found
	// out again.
	Believed func(oldest int64) int64
	// Groups are the names of the server groups that the answer comes from.
	Groups []string
	// Reach is how long before a step (ms) samples may be that it needs.
	Reach int64
}

// maxBlocks is how many blocks an answer may have: more are not looked up. It is beyond what the API
// allows, 11,000 steps.
const maxBlocks = 512

// Find looks up what is kept of an answer.
func (c *Cache) Find(ctx context.Context, q Question) *Found {
	f := newFound(q)
	c.awaited.await(ctx, f.key)
	keys := make([]string, min(len(f.blocks), maxBlocks), maxBlocks+1)
	for i := range keys {
		keys[i] = f.storeKey(f.first + int64(i))
	}
	flushes := c.flushesOf(ctx, q)
	c.get(ctx, append(keys, f.annotatedKey()), func(i int, value []byte) bool {
		if i == len(keys) {
			f.annotated = true
			return true
		}
		return f.take(i, value, flushes)
	})
	return f
}

// flushesOf returns the flushes that concern a question, also those of other processes.
func (c *Cache) flushesOf(ctx context.Context, q Question) []Flush {
	c.flushes.ask(ctx, c.shared(), q.Now)
	return c.flushes.of(q)
}

// get calls take with the values that there are of some keys, by their indexes. take reports whether a value may be
// used still: if not, it is called again with that of the shared store, as another process may have a newer one.
func (c *Cache) get(ctx context.Context, keys []string, take func(i int, value []byte) bool) {
	var old []int
	for i, value := range c.store.Get(ctx, keys) {
		if value != nil && !take(i, value) {
			old = append(old, i)
		}
	}
	if behind := c.shared(); behind != nil && len(old) > 0 {
		for j, value := range behind.Get(ctx, pick(keys, old)) {
			if value != nil {
				take(old[j], value)
			}
		}
	}
}

// pick returns the elements of a list at some indexes.
func pick(list []string, at []int) []string {
	out := make([]string, len(at))
	for j, i := range at {
		out[j] = list[i]
	}
	return out
}

// take takes a block, by index, from a value, and reports whether it may be used still.
func (f *Found) take(i int, value []byte, flushes []Flush) bool {
	b, err := decode(f.grid, f.first+int64(i), f.key, value)
	if err != nil || b.Made > f.Now || b.Made < f.Since || b.To > f.Settled || flushed(flushes, b.Made, Run{b.From - f.Reach, b.To}) {
		return false
	}
	if f.Now > b.Until {
		f.stale[i] = b
		return false
	}
	f.blocks[i] = b
	return true
}

// Keep keeps what is settled of the answer to a run, with its annotations: those of a run that has steps of
// several blocks are those of none of them, so that only the fact is kept that there are some.
func (c *Cache) Keep(f *Found, run Run, answer promql.Matrix, notes []Note) {
	first, last := f.grid.Block(run.From), f.grid.Block(run.To)
	if len(notes) > 0 && !f.annotated {
		c.store.Set(f.annotatedKey(), []byte{version}, keptFor)
	}
	for n := max(first, f.first); n <= last && n < f.first+maxBlocks; n++ {
		from := max(run.From, f.grid.Begin(n))
		to := min(run.To, f.grid.End(n), f.grid.floor(f.Settled))
		if from > to || len(notes) > 0 && to < run.To {
			return // what shows at other steps, of another block or not settled, would be a note of these
		}
		b := &Block{step: f.grid.Step, First: f.Now, Made: f.Now, From: from, To: to, notes: slices.Clone(notes)}
		b.Until = f.until(b)
		if err := b.addOld(f.blocks[n-f.first], f.grid, answer); err != nil {
			continue // it cannot be encoded, or the old one is broken
		}
		if stale := f.stale[n-f.first]; stale != nil && stale.From == b.From && stale.To == b.To && bytes.Equal(stale.body, b.body) {
			b.First = stale.First
			b.Until = f.until(b)
		}
		c.store.Set(f.storeKey(n), b.encode(f.grid, n, f.key), keptFor)
	}
}

// addOld fills a block with an answer, and with what an old block has before and after its steps.
func (b *Block) addOld(old *Block, g Grid, answer promql.Matrix) error {
	if old == nil || old.To < b.From-g.Step || old.From > b.To+g.Step || b.From <= old.From && b.To >= old.To {
		return b.fill(answer)
	}
	j := newJoined()
	if old.From < b.From {
		if err := j.addBlock(old, old.From, b.From-g.Step); err != nil {
			return err
		}
	}
	j.addMatrix(answer, b.From, b.To)
	if old.To > b.To {
		if err := j.addBlock(old, b.To+g.Step, old.To); err != nil {
			return err
		}
	}
	b.Made, b.Until = min(b.Made, old.Made), min(b.Until, old.Until)
	b.From, b.To = min(b.From, old.From), max(b.To, old.To)
	for _, note := range old.notes {
		if !slices.Contains(b.notes, note) {
			b.notes = append(b.notes, note)
		}
	}
	return b.fill(j.result())
}

// until returns how long a block is used that has just been evaluated.
func (f *Found) until(b *Block) int64 {
	return until(b.First, b.Made, b.To, f.Believed(b.From-f.Reach))
}

// until returns how long (ms) an answer about times up to one of them (ms) is used that has just been made: not longer
// than these times are old, as what late data may change is most often young. What is known of the samples may be
// wrong for as long as it is believed: an answer is used no longer, unless an earlier one that cannot come of the same
// knowledge is the same. first is when that was made.
func until(first, made, to, believed int64) int64 {
	if made-first >= believed {
		believed = maxAge.Milliseconds()
	}
	return made + min(made-to, believed)
}
