package cache

import (
	"context"
	"sync/atomic"
	"time"
)

// Tiered is a store of memory, and of a store behind it that may be shared with other processes.
type Tiered struct {
	*Memory

	behind atomic.Pointer[Store]
}

// NewTiered returns a store of memory alone.
func NewTiered(m *Memory) *Tiered { return &Tiered{Memory: m} }

// Behind returns the store behind memory, nil if there is none.
func (t *Tiered) Behind() Store {
	if s := t.behind.Load(); s != nil {
		return *s
	}
	return nil
}

// Use has another store behind memory used; nil is none.
func (t *Tiered) Use(s Store) {
	if s == nil {
		t.behind.Store(nil)
		return
	}
	t.behind.Store(&s)
}

// Get implements Store. What memory lacks and the store behind it has is in memory afterwards.
func (t *Tiered) Get(ctx context.Context, keys []string) [][]byte {
	out := t.Memory.Get(ctx, keys)
	behind := t.Behind()
	if behind == nil {
		return out
	}
	var at []int
	var lacking []string
	for i, value := range out {
		if value == nil {
			at, lacking = append(at, i), append(lacking, keys[i])
		}
	}
	if len(lacking) == 0 {
		return out
	}
	for j, value := range behind.Get(ctx, lacking) {
		if value != nil {
			out[at[j]] = value
			t.Memory.Set(lacking[j], value, keptFor)
		}
	}
	return out
}

// Set implements Store.
func (t *Tiered) Set(key string, value []byte, ttl time.Duration) {
	t.Memory.Set(key, value, ttl)
	if behind := t.Behind(); behind != nil {
		behind.Set(key, value, ttl)
	}
}
