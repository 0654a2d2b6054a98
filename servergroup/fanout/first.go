package fanout

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/guard"
	"github.com/oneprom/oneprom/servergroup/health"
	"github.com/oneprom/oneprom/servergroup/replica"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// First runs f for the candidates, one after another, until it succeeds for one. The next candidate
// is asked, too, if the one before is later than nearly all of its responses (a hedge), or if it
// has failed and retry is true for its error. Hedges and retries are charged to extra. First
// returns the index of the candidate that succeeded, or -1, and the errors of those that failed.
func First(ctx context.Context, candidates []*replica.Replica, extra *health.Extra, retry func(error) bool, f func(ctx context.Context, i int) error) (winner int, errs []error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		i   int
		err error
	}
	results := make(chan result, len(candidates))
	var failed []result
	begun, running := 0, 0
	begin := func() {
		i := begun
		begun, running = begun+1, running+1
		go func() { results <- result{i, guard.Call(func() error { return f(ctx, i) })} }()
	}
	begin()
	extra.Request()
	late := time.NewTimer(candidates[0].Health.HedgeAfter())
	defer late.Stop()
	winner = -1
	for running > 0 {
		select {
		case <-late.C:
			candidates[0].Health.Suspect()
			if begun < len(candidates) && winner < 0 && extra.Spend() {
				candidates[begun].Metrics.CountExtra(candidates[begun], "hedge")
				begin()
			}
		case r := <-results:
			running--
			switch {
			case winner >= 0:
			case r.err == nil:
				winner = r.i
				cancel()
				for _, f := range failed {
					if outdone(f.err, candidates[winner]) {
						candidates[f.i].Blame(f.err)
					}
				}
			default:
				errs, failed = append(errs, r.err), append(failed, r)
				if begun == len(candidates) || !retry(r.err) || ctx.Err() != nil {
					continue
				}
				if !notAsked(r.err) {
					extra.Owe()
				}
				candidates[begun].Metrics.CountExtra(candidates[begun], "retry")
				begin()
			}
		}
	}
	return winner, errs
}

// Retryable reports whether another replica may succeed where one failed with err. After a timeout
// it is false: another replica would take as long.
func Retryable(err error) bool {
	var (
		over *BudgetError
		gone *completeness.UnavailableError
	)
	switch {
	case errors.As(err, &over), errors.Is(err, completeness.ErrNearlyOver), errors.Is(err, context.DeadlineExceeded):
		return false
	case errors.As(err, &gone):
		return slices.ContainsFunc(gone.Causes, Retryable)
	}
	switch transport.ClassOf(err) {
	case transport.ClassUser, transport.ClassEvaluation, transport.ClassCanceled:
		return false
	}
	return true
}

// outdone is Outdone, also for the error of a group of which one replica was asked.
func outdone(err error, by *replica.Replica) bool {
	if gone, ok := errors.AsType[*completeness.UnavailableError](err); ok {
		return slices.ContainsFunc(gone.Causes, func(err error) bool { return Outdone(err, by) })
	}
	return Outdone(err, by)
}

// notAsked reports whether a replica failed because its breaker is open.
func notAsked(err error) bool {
	var (
		open *health.OpenError
		gone *completeness.UnavailableError
	)
	if errors.As(err, &gone) {
		return len(gone.Causes) > 0 && !slices.ContainsFunc(gone.Causes, func(err error) bool { return !notAsked(err) })
	}
	return errors.As(err, &open)
}

// UsableFirst returns the replicas sorted: first those whose last request succeeded, then those
// whose last request failed, then those whose breaker is open.
func UsableFirst(list []*replica.Replica) []*replica.Replica {
	out := slices.Clone(list)
	slices.SortStableFunc(out, func(a, b *replica.Replica) int { return rank(a) - rank(b) })
	return out
}

// rank orders replicas for UsableFirst.
func rank(r *replica.Replica) int {
	switch {
	case !r.Health.Usable():
		return 2
	case r.Health.Doubted():
		return 1
	}
	return 0
}
