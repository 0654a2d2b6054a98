package enginetest

import "context"

// Ending is a context whose time is over when its error has been looked at so often.
type Ending struct {
	context.Context
	looks int
}

// NewEnding returns such a context.
func NewEnding(ctx context.Context, looks int) *Ending { return &Ending{ctx, looks} }

// Err implements context.Context.
func (c *Ending) Err() error {
	if c.looks--; c.looks < 0 {
		return context.DeadlineExceeded
	}
	return nil
}
