package transport

import "context"

// Evaluate returns what an expression is at the steps, a series for each label set,
// in several requests where the backend finds one too much. Of r it uses Labels,
// Charge, Warn and Inform. The backend must not be Fronted.
func (c *Client) Evaluate(ctx context.Context, text string, st Steps, r Request) ([]Series, error) {
	r.Steps = &st
	return c.queryRange(ctx, func(int64) string { return text }, r)
}
