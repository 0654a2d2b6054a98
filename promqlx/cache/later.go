package cache

import (
	"context"
	"sync"
)

// Answers are encoded while the client gets them already. Who asks the same meanwhile waits for that, which is faster
// than to evaluate it again.

// awaited are the questions whose answers are about to be kept.
type awaited struct {
	mtx     sync.Mutex
	pending map[string]chan struct{} // by key of the question: closed when the latest answer has been kept
}

// Later returns keep, which keeps an answer to a question, to be called soon. Until it has returned, Find waits for it.
func (c *Cache) Later(f *Found, keep func()) func() {
	done := make(chan struct{})
	c.awaited.mtx.Lock()
	defer c.awaited.mtx.Unlock()
	if c.awaited.pending == nil {
		c.awaited.pending = map[string]chan struct{}{}
	}
	c.awaited.pending[f.key] = done
	return func() {
		defer func() {
			c.awaited.mtx.Lock()
			defer c.awaited.mtx.Unlock()
			if c.awaited.pending[f.key] == done {
				delete(c.awaited.pending, f.key)
			}
			close(done)
		}()
		keep()
	}
}

// await waits until the answer to a question has been kept that is about to be, or ctx ends.
func (a *awaited) await(ctx context.Context, key string) {
	a.mtx.Lock()
	done := a.pending[key]
	a.mtx.Unlock()
	if done == nil {
		return
	}
	select {
	case <-done:
	case <-ctx.Done():
	}
}
