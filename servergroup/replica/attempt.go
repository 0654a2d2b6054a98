package replica

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/guard"
	"github.com/oneprom/oneprom/servergroup/health"
	"github.com/oneprom/oneprom/servergroup/request"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// judge returns what the error of an attempt, or nil, says about the health of the replica.
//
// What the question decides is not the replica's health: otherwise queries that take longer than the
// group's timeout, or whose answers cannot be read, would open the breakers for all others. Then
// health probes the replica. The end of the query's own time counts for nothing at all.
func judge(err error) (o health.Outcome, retryAfter time.Duration) {
	var (
		e       *transport.Error
		refused credentialsError
		late    *timeoutError
	)
	switch {
	case err == nil, errors.As(err, &refused):
		return health.Fine, 0
	case !errors.As(err, &e), errors.Is(err, completeness.ErrNearlyOver), errors.Is(err, context.DeadlineExceeded):
		return health.Unknown, 0
	case errors.As(err, &late):
		return health.Unclear, 0
	}
	switch e.Class {
	case transport.ClassUser, transport.ClassEvaluation:
		return health.Fine, 0
	case transport.ClassLoad:
		return health.Loaded, e.RetryAfter()
	case transport.ClassTransport:
		return health.Failed, 0
	case transport.ClassContent:
		return health.Unclear, 0
	case transport.ClassServer:
		if e.ErrorType != "" {
			return health.Fine, 0 // the server works: it refuses this query in the form of the API
		}
		switch e.Status {
		case http.StatusUnauthorized, http.StatusForbidden, http.StatusBadGateway, http.StatusServiceUnavailable:
			return health.Failed, 0
		case http.StatusGatewayTimeout: // a proxy's timeout
			return health.Unclear, 0
		}
		return health.Fine, 0 // with 500, it may be this one query that fails
	}
	return health.Unknown, 0
}

// Attempt runs f, which sends a request of a query to the replica, within the group's timeout.
// It does not run f if the replica's breaker is open, unless with regardless.
func (r *Replica) Attempt(ctx context.Context, regardless bool, f func(context.Context) error) error {
	if !regardless && !r.Health.Usable() {
		err := r.Health.Open()
		r.Metrics.attempted(r, err, 0)
		r.logger.Debug("server not asked", "url", r.URL(), "err", err)
		return err
	}
	query := ctx
	ctx, cancel := context.WithTimeoutCause(ctx, time.Duration(r.group.Timeout), r.timeoutError())
	defer cancel()
	return r.Health.Do(ctx, request.From(query).Asker, regardless, func(ctx context.Context) error {
		began := time.Now()
		err := givenUp(query, r.markRefused(ctx, guard.Call(func() error { return f(ctx) })))
		r.failed(err)
		if r.logger.Enabled(query, slog.LevelDebug) {
			r.logger.Debug("server asked", "url", r.URL(), "duration", time.Since(began), "err", err)
		}
		r.Metrics.attempted(r, err, time.Since(began))
		return err
	})
}

// givenUp returns the error of an attempt. If the query had been canceled, so that it was not
// waiting for the attempt any more, a transport error becomes one of ClassCanceled: it is not a
// failure of the replica.
func givenUp(query context.Context, err error) error {
	var e *transport.Error
	if !errors.Is(query.Err(), context.Canceled) || !errors.As(err, &e) || e.Class != transport.ClassTransport {
		return err
	}
	end := *e
	end.Class = transport.ClassCanceled
	return &end
}

// Blame counts an error of an attempt that may have been the question's doing, once it is known that it
// was the replica's.
func (r *Replica) Blame(err error) { r.Health.Blame(err) }
