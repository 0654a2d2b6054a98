package cache

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oneprom/oneprom/servergroup/bytelru"
)

// Store keeps values by key. It may lose any of them at any time, and is safe for concurrent use.
type Store interface {
	// Get returns the values of keys, nil where there is none. They are not changed. It does not fail: a
	// store that cannot be reached in time has nothing.
	Get(ctx context.Context, keys []string) [][]byte
	// Set keeps a value for up to some time. It does not wait, and may do nothing. The value is not changed
	// afterwards.
	Set(key string, value []byte, ttl time.Duration)
}

// Memory is a store in this process, bounded by the bytes that it keeps.
type Memory struct {
	limit   int           // bytes
	evicted atomic.Uint64 // values that were dropped for others

	mtx     sync.Mutex // guards the field below
	entries *bytelru.Cache[string, []byte]
}

// entryOverhead is about what an entry takes beyond its key and value (bytes).
const entryOverhead = 200

// NewMemory returns a store that keeps up to limit bytes, of which a value may take a quarter.
func NewMemory(limit int) *Memory {
	return &Memory{limit: limit, entries: bytelru.New[string, []byte](limit)}
}

// Get implements Store.
func (m *Memory) Get(_ context.Context, keys []string) [][]byte {
	m.mtx.Lock()
	defer m.mtx.Unlock()
	out := make([][]byte, len(keys))
	for i, key := range keys {
		out[i], _ = m.entries.Get(key)
	}
	return out
}

// Set implements Store. It keeps a value until others need the room: those who read it know its age.
func (m *Memory) Set(key string, value []byte, _ time.Duration) {
	size := len(key) + cap(value) + entryOverhead
	if size > m.limit/4 {
		return
	}
	m.mtx.Lock()
	defer m.mtx.Unlock()
	before := m.entries.Len()
	if _, replaced := m.entries.Get(key); !replaced {
		before++
	}
	m.entries.Add(key, value, size)
	m.evicted.Add(uint64(before - m.entries.Len()))
}

// Bytes returns how many bytes are kept, and Len how many values.
func (m *Memory) Bytes() int {
	m.mtx.Lock()
	defer m.mtx.Unlock()
	return m.entries.Bytes()
}

// Len returns how many values are kept.
func (m *Memory) Len() int {
	m.mtx.Lock()
	defer m.mtx.Unlock()
	return m.entries.Len()
}
