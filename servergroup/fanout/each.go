// Package fanout asks several replicas, either all at once or one after another until one has
// answered, with hedges and retries. A Budget bounds the bytes of their responses.
//
// Each makes an attempt of every request itself (replica.Replica.Attempt, with circuit breaker and
// slots). First leaves that to the function that it calls.
package fanout

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/replica"
)

// Each runs f concurrently for every replica and returns their errors by index. With regardless,
// replicas are asked even if their breakers are open. Each fails if the responses exceed the
// budget of the query.
func Each(ctx context.Context, replicas []*replica.Replica, regardless bool, f func(ctx context.Context, i int) error) ([]error, error) {
	ctx, cancel := QueryContext(ctx)
	defer cancel()
	errs := make([]error, len(replicas))
	var wg sync.WaitGroup
	for i, r := range replicas {
		wg.Go(func() {
			errs[i] = r.Attempt(ctx, regardless, func(ctx context.Context) error { return f(ctx, i) })
			if _, ok := errors.AsType[*BudgetError](errs[i]); ok {
				cancel() // the other answers cannot be used any more
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if over, ok := errors.AsType[*BudgetError](err); ok {
			return nil, over
		}
	}
	return errs, nil
}

// QueryContext returns a context for the requests of a query. It ends when 90 % of the query's
// remaining time have passed, so that the other answers can still be used if one replica hangs.
func QueryContext(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	left := time.Until(deadline)
	return context.WithTimeoutCause(ctx, left-left/10, completeness.ErrNearlyOver)
}
