// Package lifetime ends background work together: a Lifetime runs functions, and its end waits for
// all of them.
package lifetime

import (
	"context"
	"errors"
	"sync"
)

// ErrEnded is the error of work that is not started because its lifetime has ended.
var ErrEnded = errors.New("shutting down")

// Lifetime runs functions in the background until it is ended. It is safe for concurrent use.
type Lifetime struct {
	ctx    context.Context
	cancel context.CancelFunc

	mtx     sync.Mutex // held while work is started, and while the lifetime is ended
	running sync.WaitGroup
}

// New returns a lifetime, which must be ended with End.
func New() *Lifetime {
	ctx, cancel := context.WithCancel(context.Background())
	return &Lifetime{ctx: ctx, cancel: cancel}
}

// Context is done when the lifetime has ended.
func (l *Lifetime) Context() context.Context { return l.ctx }

// Run starts f with a context that ends with the lifetime. It reports whether it did: nothing is
// started once the lifetime has ended.
func (l *Lifetime) Run(f func(context.Context)) bool {
	l.mtx.Lock()
	defer l.mtx.Unlock()
	if l.ctx.Err() != nil {
		return false
	}
	l.running.Go(func() { f(l.ctx) })
	return true
}

// End ends the context of the functions and waits until they have returned.
func (l *Lifetime) End() {
	l.mtx.Lock()
	l.cancel()
	l.mtx.Unlock()
	l.running.Wait()
}
