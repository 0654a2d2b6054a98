package promqlx

import (
	"context"
	"errors"
	"runtime"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"

	"github.com/oneprom/oneprom/promqlx/answer"
	"github.com/oneprom/oneprom/servergroup"
	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// What ends the execution of a plan, besides answer.ErrDoubtful, so that another plan is
// made.
var errDivisible = errors.New("more is answered by one replica if the part is divided by target")

// inconsistentError is the error of an execution during which groups have failed: they are
// in some parts only.
type inconsistentError struct{ missing completeness.Missing }

func (e *inconsistentError) Error() string { return "a group is in some parts only" }

// endsPlan reports whether the error of a part asks for another plan.
func endsPlan(err error) bool {
	return errors.Is(err, answer.ErrDoubtful) || errors.Is(err, errDivisible)
}

// partError is the error of a query that has a part with this one. What the engine
// says of an expression, it is to say of the query: there the error has other words.
func partError(err error) error {
	var (
		unavailable *completeness.UnavailableError
		budget      *servergroup.BudgetError
		canceled    promql.ErrQueryCanceled
		timeout     promql.ErrQueryTimeout
		samples     promql.ErrTooManySamples
		bug         *transport.PanicError
	)
	for _, cause := range []any{&unavailable, &budget, &canceled, &timeout, &samples, &bug} {
		if errors.As(err, cause) {
			return err
		}
	}
	return answer.ErrDoubtful
}

// rethrow panics if an error is a bug: what somebody else has recovered, upstream's
// engine for one, is no failure of the query.
func rethrow(err error) {
	var bug *transport.PanicError
	var upstreams runtime.Error
	switch {
	case errors.As(err, &bug):
		panic(bug)
	case errors.As(err, &upstreams):
		panic(err)
	}
}

// queryErrors says the end of a query's time in the engine's words.
type queryErrors struct{ storage.SeriesSet }

func (s queryErrors) Err() error { return queryError(s.SeriesSet.Err()) }

func queryError(err error) error {
	var unavailable *completeness.UnavailableError
	switch {
	case errors.As(err, &unavailable) && unavailable.Late:
		return promql.ErrQueryTimeout("fetching series: " + err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return promql.ErrQueryTimeout("fetching series")
	case errors.Is(err, context.Canceled):
		return promql.ErrQueryCanceled("fetching series")
	}
	return err
}

// ended is the engine's error for a context that has ended.
func ended(ctx context.Context) error {
	const where = "query execution"
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return promql.ErrQueryTimeout(where)
	}
	return promql.ErrQueryCanceled(where)
}
