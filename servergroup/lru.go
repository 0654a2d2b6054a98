package servergroup

import "container/list"

// byteLRU keeps what was used last, as long as it is not more than a number of
// bytes. It is for one goroutine at a time.
type byteLRU[K comparable, V any] struct {
	limit, used int
	order       list.List // of *lruEntry[K, V], the one used last in front
	entries     map[K]*list.Element
}

type lruEntry[K comparable, V any] struct {
	key   K
	value V
	bytes int
}

func newByteLRU[K comparable, V any](limit int) *byteLRU[K, V] {
	return &byteLRU[K, V]{limit: limit, entries: map[K]*list.Element{}}
}

func (l *byteLRU[K, V]) get(key K) (value V, ok bool) {
	e, ok := l.entries[key]
	if !ok {
		return value, false
	}
	l.order.MoveToFront(e)
	return e.Value.(*lruEntry[K, V]).value, true
}

// put adds or replaces a value of a number of bytes.
func (l *byteLRU[K, V]) put(key K, value V, bytes int) {
	if e, ok := l.entries[key]; ok {
		l.remove(e)
	}
	l.entries[key] = l.order.PushFront(&lruEntry[K, V]{key, value, bytes})
	l.used += bytes
	for l.used > l.limit {
		l.remove(l.order.Back())
	}
}

func (l *byteLRU[K, V]) remove(e *list.Element) {
	entry := l.order.Remove(e).(*lruEntry[K, V])
	delete(l.entries, entry.key)
	l.used -= entry.bytes
}
