package enginetest

import "context"

// Ending is a context that is over once its error has been read some number of times.
type Ending struct {
	context.Context
	looks int
}

// NewEnding returns a context that is over once its error has been read that often.
func NewEnding(ctx context.Context, looks int) *Ending { return &Ending{ctx, looks} }

// Err implements context.Context.
func (c *Ending) Err() error {
	if c.looks--; c.looks < 0 {
		return context.DeadlineExceeded
	}
	return nil
}
