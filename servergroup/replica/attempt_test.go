package replica

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/health"
	"github.com/oneprom/oneprom/servergroup/transport"
)

func TestJudge(t *testing.T) {
	f := func(err error, want health.Outcome) {
		t.Helper()
		got, _ := judge(err)
		require.Equal(t, want, got, "%v", err)
	}
	of := func(c transport.Class, status int) error {
		return &transport.Error{Class: c, Status: status, Err: errors.New("x")}
	}
	f(nil, health.Fine)
	// What the query is to blame for.
	f(of(transport.ClassUser, 400), health.Fine)
	f(of(transport.ClassUser, 422), health.Fine)
	f(of(transport.ClassEvaluation, 503), health.Fine)
	f(of(transport.ClassServer, 500), health.Fine)
	f(of(transport.ClassServer, 404), health.Fine)
	f(&transport.Error{Class: transport.ClassServer, Status: 503, ErrorType: "execution", Err: errors.New("x")}, health.Fine)
	// What the replica is.
	for _, status := range []int{401, 403, 502, 503} {
		f(of(transport.ClassServer, status), health.Failed)
	}
	f(of(transport.ClassTransport, 0), health.Failed)
	f(fmt.Errorf("wrapped: %w", of(transport.ClassTransport, 0)), health.Failed)
	f(of(transport.ClassLoad, 429), health.Loaded)
	// What may be either's doing.
	f(of(transport.ClassContent, 0), health.Unclear)
	f(of(transport.ClassServer, 504), health.Unclear)
	f(&transport.Error{Class: transport.ClassTransport, Err: &timeoutError{model.Duration(time.Second)}}, health.Unclear)
	// What nobody can be blamed for.
	f(of(transport.ClassCanceled, 0), health.Unknown)
	f(&transport.Error{Class: transport.ClassTransport, Err: completeness.ErrNearlyOver}, health.Unknown)
	f(&transport.Error{Class: transport.ClassTransport, Err: context.DeadlineExceeded}, health.Unknown)
	f(errors.New("over budget"), health.Unknown)
	f(&health.OpenError{}, health.Unknown)
	f(errors.New("broken samples"), health.Unknown)
}
