// Package fanout asks several replicas: Each asks all of them at once, First one after another
// until one has answered, with hedges and retries. A Budget bounds what their answers hold.
package fanout

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/replica"
)

// Each has every replica do f at once and returns their errors by index. With regardless the
// replicas' breakers do not decide. It fails as a whole if what f fetches does not fit the
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
				cancel() // the others' answers are of no use any more
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

// QueryContext returns a context for the requests of a query. It ends a little before the
// query does, so that what the others answered can still be used when one replica hangs.
func QueryContext(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	left := time.Until(deadline)
	return context.WithTimeoutCause(ctx, left-left/10, completeness.ErrNearlyOver)
}
