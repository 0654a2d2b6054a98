package proxy

import (
	"context"
	"errors"

	"github.com/prometheus/prometheus/promql"
)

// querySlots bounds how many queries are evaluated at once. It implements the
// engine's QueryTracker without Prometheus' file of active queries, which serves
// a crash analysis that a proxy without storage has no use for.
type querySlots chan struct{}

var _ promql.QueryTracker = querySlots(nil)

// GetMaxConcurrent implements promql.QueryTracker.
func (s querySlots) GetMaxConcurrent() int { return cap(s) }

// Insert waits for a free slot. Its errors are the engine's. A free slot is
// taken even if the time is up, so that what the query then fails with does not
// depend on chance.
func (s querySlots) Insert(ctx context.Context, _ string) (int, error) {
	select {
	case s <- struct{}{}:
		return 0, nil
	default:
	}
	select {
	case s <- struct{}{}:
		return 0, nil
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.Canceled) {
			return 0, promql.ErrQueryCanceled("query queue")
		}
		return 0, promql.ErrQueryTimeout("query queue")
	}
}

// Delete frees a slot.
func (s querySlots) Delete(int) { <-s }

// Close implements promql.QueryTracker.
func (querySlots) Close() error { return nil }
