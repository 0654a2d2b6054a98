package promqlx

import (
	"context"
	"errors"
	"runtime"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"

	"github.com/oneprom/oneprom/promqlx/answer"
	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/fanout"
	"github.com/oneprom/oneprom/servergroup/guard"
	"github.com/oneprom/oneprom/servergroup/partition"
)

// errDivisible ends the execution of a plan: a plan whose parts can be divided by target has
// more answered by one replica.
var errDivisible = errors.New("more is answered by one replica if the part is divided by target")

// errOverlap ends the execution of a plan: the answers to a part had to be disjoint, and it shows that
// they are not, or may not be.
var errOverlap = errors.New("several partitions may answer for the same series")

// inconsistentError ends the execution of a plan: groups have failed after they had answered
// other parts. The query is planned again without them.
type inconsistentError struct{ missing completeness.Missing }

func (e *inconsistentError) Error() string { return "a group is in some parts only" }

// endsPlan reports whether the error of a part makes the query be planned again.
func endsPlan(err error) bool {
	var copies *partition.CopiesError
	return errors.Is(err, answer.ErrDoubtful) || errors.Is(err, errDivisible) || errors.As(err, &copies)
}

// partError returns the error of the query for an error of a part or stretch that was evaluated
// locally. An error of the engine about the expression becomes answer.ErrDoubtful: the query
// is then evaluated without parts, and the engine words the error for the query.
func partError(err error) error {
	var (
		unavailable *completeness.UnavailableError
		budget      *fanout.BudgetError
		canceled    promql.ErrQueryCanceled
		timeout     promql.ErrQueryTimeout
		samples     promql.ErrTooManySamples
		bug         *guard.PanicError
		copies      *partition.CopiesError
	)
	for _, cause := range []any{&unavailable, &budget, &canceled, &timeout, &samples, &bug, &copies} {
		if errors.As(err, cause) {
			return err
		}
	}
	for _, cause := range []error{errDivisible, errOverlap} { // of a part of a stretch
		if errors.Is(err, cause) {
			return cause
		}
	}
	return answer.ErrDoubtful
}

// rethrow panics if an error is a panic that upstream's engine, or a goroutine of this
// process, has recovered: it is a bug, and not a failure of the query.
func rethrow(err error) {
	var bug *guard.PanicError
	var upstreams runtime.Error
	switch {
	case errors.As(err, &bug):
		panic(bug)
	case errors.As(err, &upstreams):
		panic(err)
	}
}

// queryErrors is a series set whose error is in the engine's words (see queryError).
type queryErrors struct{ storage.SeriesSet }

func (s queryErrors) Err() error { return queryError(s.SeriesSet.Err()) }

// queryError returns the engine's error for the end of a query's time, and other errors as
// they are.
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

// contextError returns the engine's error for a context that has ended. where is what the query
// did when it ended.
func contextError(ctx context.Context, where string) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return promql.ErrQueryTimeout(where)
	}
	return promql.ErrQueryCanceled(where)
}
