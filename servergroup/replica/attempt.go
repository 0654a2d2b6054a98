package replica

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/guard"
	"github.com/oneprom/oneprom/servergroup/health"
	"github.com/oneprom/oneprom/servergroup/transport"
)

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
	case !errors.As(err, &e), errors.Is(err, completeness.ErrNearlyOver), errors.Is(err, context.DeadlineExceeded):
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

// Attempt has a replica do something for a query. It ends no later than the group's
// timeout. With regardless the replica's breaker does not decide.
func (r *Replica) Attempt(ctx context.Context, regardless bool, f func(context.Context) error) error {
	if !regardless && !r.Health.Usable() {
		err := r.Health.Open()
		r.Metrics.attempted(r, err, 0)
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
	return r.Health.Do(ctx, regardless, func(ctx context.Context) error {
		began := time.Now()
		err := givenUp(query, r.asClient(ctx, guard.Call(func() error { return f(ctx) })))
		r.failed(err)
		r.Metrics.attempted(r, err, time.Since(began))
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
