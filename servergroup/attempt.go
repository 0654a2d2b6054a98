package servergroup

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/oneprom/oneprom/servergroup/health"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// This file makes attempts: requests to replicas on behalf of a query, which their
// health decides about and learns from.

// judge tells what the error of an attempt, nil being none, says of the replica.
//
// That the query's own time is over says nothing, however likely: who asks with short
// timeouts would else take replicas away from all others. An attempt that is slow has
// the replica probed.
func judge(err error) (o health.Outcome, retryAfter time.Duration) {
	var (
		e       *transport.Error
		refused refusedError
	)
	switch {
	case err == nil, errors.As(err, &refused):
		return health.Fine, 0
	case !errors.As(err, &e), errors.Is(err, errNearlyOver), errors.Is(err, context.DeadlineExceeded):
		return health.Unknown, 0
	}
	switch e.Class {
	case transport.ClassUser, transport.ClassEvaluation:
		return health.Fine, 0
	case transport.ClassLoad:
		return health.Loaded, e.RetryAfter()
	case transport.ClassTransport, transport.ClassContent:
		return health.Failed, 0
	case transport.ClassServer:
		if e.ErrorType != "" {
			return health.Fine, 0 // it is there, and says in the API's words what it cannot answer
		}
		switch e.Status {
		case http.StatusUnauthorized, http.StatusForbidden, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			return health.Failed, 0
		}
		return health.Fine, 0 // what fails with 500 may be this one query
	}
	return health.Unknown, 0
}

// attempt has a replica do something for a query. It ends no later than the group's
// timeout. With regardless the replica's breaker does not decide.
func (r *replica) attempt(ctx context.Context, regardless bool, f func(context.Context) error) error {
	if !regardless && !r.health.Usable() {
		err := r.health.Open()
		r.metrics.attempted(r, err, 0)
		return err
	}
	query := ctx
	ctx, cancel := context.WithTimeoutCause(ctx, time.Duration(r.group.Timeout), r.timeoutError())
	defer cancel()
	release, err := r.region.Acquire(ctx)
	if err != nil {
		return err
	}
	defer release()
	return r.health.Do(ctx, regardless, func(ctx context.Context) error {
		began := time.Now()
		err := givenUp(query, r.asClient(ctx, guarded(func() error { return f(ctx) })))
		r.failed(err)
		r.metrics.attempted(r, err, time.Since(began))
		return err
	})
}

// givenUp is the error of an attempt, which says nothing of the replica if the query
// was not waiting for it any more: with the cause of that, which is another replica's
// failure, say, the attempt has ended.
func givenUp(query context.Context, err error) error {
	var e *transport.Error
	if !errors.Is(query.Err(), context.Canceled) || !errors.As(err, &e) || e.Class != transport.ClassTransport {
		return err
	}
	end := *e
	end.Class = transport.ClassCanceled
	return &end
}

// guarded is f with a panic as its error: one replica's answer may be what is broken,
// and the others' answers still be of use.
func guarded(f func() error) (err error) {
	defer transport.Guard(&err)
	return f()
}

// regardless tells whether the breakers of all replicas of all groups are open. Then
// they are asked all the same: there is nothing to lose.
func (v *View) regardless() bool {
	return len(v.groups) > 0 && !slices.ContainsFunc(v.groups, groupView.usable)
}

// usable tells whether a replica of the group would be asked.
func (g groupView) usable() bool {
	return slices.ContainsFunc(g.replicas, func(r *replica) bool { return r.health.Usable() })
}

// elsewhere tells whether another replica may do what one has failed to do. What took
// it too long would take another one as long.
func elsewhere(err error) bool {
	var (
		over     *BudgetError
		unusable *UnusableError
		gone     *UnavailableError
	)
	switch {
	case errors.As(err, &over), errors.As(err, &unusable), errors.Is(err, errNearlyOver), errors.Is(err, context.DeadlineExceeded):
		return false
	case errors.As(err, &gone):
		return slices.ContainsFunc(gone.failed, elsewhere)
	}
	switch transport.ClassOf(err) {
	case transport.ClassUser, transport.ClassEvaluation, transport.ClassCanceled:
		return false
	}
	return true
}

// notAsked tells whether a replica failed because its breaker is open.
func notAsked(err error) bool {
	var (
		open *health.OpenError
		gone *UnavailableError
	)
	if errors.As(err, &gone) {
		return len(gone.failed) > 0 && !slices.ContainsFunc(gone.failed, func(err error) bool { return !notAsked(err) })
	}
	return errors.As(err, &open)
}

// usableFirst sorts replicas that failed last behind the others, and those whose breaker
// is open behind these.
func usableFirst(list []*replica) []*replica {
	out := slices.Clone(list)
	slices.SortStableFunc(out, func(a, b *replica) int { return rank(a) - rank(b) })
	return out
}

func rank(r *replica) int {
	switch {
	case !r.health.Usable():
		return 2
	case r.health.Doubted():
		return 1
	}
	return 0
}

// first has one of several replicas do something, each of which could: the first, or
// if that has not done it when nearly all of its answers come, or has failed, the next
// one as well. Hedges have a budget. It returns which one has done it, or the errors of
// those that were asked.
func (v *View) first(ctx context.Context, candidates []*replica, f func(ctx context.Context, i int) error) (winner int, errs []error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		i   int
		err error
	}
	results := make(chan result, len(candidates))
	begun, running := 0, 0
	begin := func() {
		i := begun
		begun, running = begun+1, running+1
		go func() { results <- result{i, guarded(func() error { return f(ctx, i) })} }()
	}
	begin()
	v.extra.Request()
	late := time.NewTimer(candidates[0].health.HedgeAfter())
	defer late.Stop()
	winner = -1
	for running > 0 {
		select {
		case <-late.C:
			candidates[0].health.Suspect()
			if begun < len(candidates) && winner < 0 && v.extra.Spend() {
				candidates[begun].metrics.extra(candidates[begun], "hedge")
				begin()
			}
		case r := <-results:
			running--
			switch {
			case winner >= 0:
			case r.err == nil:
				winner = r.i
				cancel()
			default:
				errs = append(errs, r.err)
				if begun == len(candidates) || !elsewhere(r.err) || ctx.Err() != nil {
					continue
				}
				if !notAsked(r.err) {
					v.extra.Owe()
				}
				candidates[begun].metrics.extra(candidates[begun], "retry")
				begin()
			}
		}
	}
	return winner, errs
}
