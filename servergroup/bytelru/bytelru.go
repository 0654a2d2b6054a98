// Package bytelru is a cache of the values that were used last, bounded by their size in bytes.
package bytelru

import (
	"math"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// Cache keeps the values that were used last, up to a number of bytes in total. It is for one
// goroutine at a time.
type Cache[K comparable, V any] struct {
	limit, used int
	entries     *simplelru.LRU[K, entry[V]]
}

type entry[V any] struct {
	value V
	bytes int
}

// New returns an empty cache of at most limit bytes.
func New[K comparable, V any](limit int) *Cache[K, V] {
	c := &Cache[K, V]{limit: limit}
	entries, err := simplelru.NewLRU(math.MaxInt, func(_ K, e entry[V]) { c.used -= e.bytes })
	if err != nil {
		panic(err) // of a number of entries below 1 only
	}
	c.entries = entries
	return c
}

// Get returns the value of a key, and reports whether there is one.
func (c *Cache[K, V]) Get(key K) (value V, ok bool) {
	e, ok := c.entries.Get(key)
	return e.value, ok
}

// Add adds or replaces a value of a number of bytes. It drops those that were used least
// recently until the rest is within the limit: a value that is larger leaves none.
func (c *Cache[K, V]) Add(key K, value V, bytes int) {
	c.entries.Remove(key)
	c.entries.Add(key, entry[V]{value, bytes})
	c.used += bytes
	for c.used > c.limit {
		c.entries.RemoveOldest()
	}
}

// Len returns the number of values.
func (c *Cache[K, V]) Len() int { return c.entries.Len() }

// Bytes returns the size of all values.
func (c *Cache[K, V]) Bytes() int { return c.used }
