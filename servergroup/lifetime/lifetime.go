// Package lifetime ends work in the background together: what one lifetime runs is over
// when the lifetime is.
package lifetime

import (
	"context"
	"errors"
	"sync"
)

// ErrEnded is why work is not begun any more.
var ErrEnded = errors.New("shutting down")

// Lifetime is what runs in the background until it is ended.
type Lifetime struct {
	ctx    context.Context
	cancel context.CancelFunc

	mtx     sync.Mutex // no work is begun while it is ended
	running sync.WaitGroup
}

// New returns a lifetime that has begun. End ends it.
func New() *Lifetime {
	ctx, cancel := context.WithCancel(context.Background())
	return &Lifetime{ctx: ctx, cancel: cancel}
}

// Context is done when the lifetime has ended.
func (l *Lifetime) Context() context.Context { return l.ctx }

// Run starts f, whose context ends with the lifetime. It reports whether it did: nothing
// is started any more once the lifetime has ended.
func (l *Lifetime) Run(f func(context.Context)) bool {
	l.mtx.Lock()
	defer l.mtx.Unlock()
	if l.ctx.Err() != nil {
		return false
	}
	l.running.Go(func() { f(l.ctx) })
	return true
}

// End ends what runs and waits for it.
func (l *Lifetime) End() {
	l.mtx.Lock()
	l.cancel()
	l.mtx.Unlock()
	l.running.Wait()
}
