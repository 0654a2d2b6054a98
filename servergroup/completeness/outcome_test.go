package completeness

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestEnded_NamesWhoHadNotAnswered: that a query's time is over tells nobody whose fault it was.
func TestEnded_NamesWhoHadNotAnswered(t *testing.T) {
	over, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	slow := Outcome{Group: Group{Name: "slow"}, Asked: 1, Failed: []error{errors.New("it hangs")}}
	quick := Outcome{Group: Group{Name: "quick"}, Asked: 2, Failed: []error{errors.New("its twin is there")}}
	require.Equal(t, &UnavailableError{Lacks: []Lack{{Group: "slow", Reason: `server group "slow" did not answer: it hangs`}}, Late: true}, Ended(over, []Outcome{quick, slow}))
	require.Equal(t, context.DeadlineExceeded, Ended(over, []Outcome{quick}))

	left, leave := context.WithCancel(t.Context())
	require.NoError(t, Ended(left, []Outcome{slow}))
	leave()
	require.Equal(t, context.Canceled, Ended(left, []Outcome{slow}))
}
