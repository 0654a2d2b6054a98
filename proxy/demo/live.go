package demo

import (
	"context"
	"errors"
)

// errClock is what live returns if the clock stops ticking for good.
var errClock = errors.New("the clock of the world has stopped")

// live lets the world go on at each tick, until ctx ends. Scrapes that a tick comes
// too late for, as after the machine slept, are made up for.
func (w *world) live(ctx context.Context, c clock) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case _, ok := <-c.ticks:
			if !ok {
				return errClock
			}
			if err := w.advance(ctx, c.now()); err != nil {
				return err
			}
		}
	}
}
