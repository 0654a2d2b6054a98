package fanout

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/guard"
	"github.com/oneprom/oneprom/servergroup/health"
	"github.com/oneprom/oneprom/servergroup/lifetime"
	"github.com/oneprom/oneprom/servergroup/replica"
	"github.com/oneprom/oneprom/servergroup/targets"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// trio are three replicas of a group that is asked nothing.
func trio(t *testing.T) (*health.Extra, []*replica.Replica, *prometheus.Registry) {
	life := lifetime.New()
	t.Cleanup(life.End)
	reg := prometheus.NewRegistry()
	h := replica.NewRegistry(replica.RegistryOptions{Life: life, Now: time.Now, Logger: slog.New(slog.DiscardHandler)}, replica.NewMetrics(reg))
	cfg := config.DefaultGroup
	cfg.Name = "g"
	var list []*replica.Replica
	for _, host := range []string{"a", "b", "c"} {
		r := h.NewReplica(replica.Group{Config: &cfg, Client: http.DefaultClient, Logger: slog.New(slog.DiscardHandler)}, targets.Endpoint{URL: &url.URL{Scheme: "http", Host: host}})
		r.Health.SetProbe(func(context.Context) error { return nil })
		list = append(list, r)
	}
	return &h.Extra, list, reg
}

// extras are how many extra attempts were made at a replica for a reason.
func extras(t *testing.T, reg *prometheus.Registry, r *replica.Replica, reason string) float64 {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			is := map[string]string{}
			for _, l := range m.GetLabel() {
				is[l.GetName()] = l.GetValue()
			}
			if f.GetName() == "oneprom_replica_extra_attempts_total" && is["replica"] == r.URL() && is["reason"] == reason {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

var errUnusable = errors.New("an answer that is of no use")

// retry is what decides on a retry in these tests.
func retry(err error) bool { return !errors.Is(err, errUnusable) && Retryable(err) }

func TestFirst_RetriesElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		extra, list, reg := trio(t)
		down := &transport.Error{Class: transport.ClassTransport, Err: errors.New("down")}
		var asked []int
		winner, errs := First(t.Context(), list, extra, retry, func(_ context.Context, i int) error {
			asked = append(asked, i)
			if i < 2 {
				return down
			}
			return nil
		})
		require.Equal(t, 2, winner)
		require.Equal(t, []error{down, down}, errs)
		require.Equal(t, []int{0, 1, 2}, asked)
		require.Equal(t, 1.0, extras(t, reg, list[1], "retry"))

		// What the query is to blame for would fail elsewhere, too.
		for _, err := range []error{
			&transport.Error{Class: transport.ClassUser, Status: 422, Err: errors.New("bad")},
			&transport.Error{Class: transport.ClassEvaluation, Status: 503, Err: errors.New("late")},
			&transport.Error{Class: transport.ClassTransport, Err: completeness.ErrNearlyOver},
			&BudgetError{}, errUnusable,
			&completeness.UnavailableError{Causes: []error{&transport.Error{Class: transport.ClassUser, Err: errors.New("bad")}}},
		} {
			n := 0
			winner, errs := First(t.Context(), list, extra, retry, func(context.Context, int) error { n++; return err })
			require.Equal(t, -1, winner)
			require.Equal(t, []error{err}, errs)
			require.Equal(t, 1, n)
		}
	})
}

// TestFirst_PanicIsAFailure of one replica: nobody else recovers it, and the process would
// end.
func TestFirst_PanicIsAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		extra, list, _ := trio(t)
		winner, errs := First(t.Context(), list, extra, retry, func(_ context.Context, i int) error {
			if i == 0 {
				panic("broken")
			}
			return nil
		})
		require.Equal(t, 1, winner)
		var bug *guard.PanicError
		require.ErrorAs(t, errs[0], &bug)
	})
}

func TestFirst_HedgesWhatIsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		extra, list, reg := trio(t)
		began := time.Now()
		var lost error
		winner, _ := First(t.Context(), list, extra, retry, func(ctx context.Context, i int) error {
			if i == 0 {
				<-ctx.Done()
				lost = ctx.Err()
				return lost
			}
			return nil
		})
		require.Equal(t, 1, winner)
		require.Equal(t, list[0].Health.HedgeAfter(), time.Since(began))
		require.ErrorIs(t, lost, context.Canceled, "it is not waited for")
		require.Equal(t, 1.0, extras(t, reg, list[1], "hedge"))
		require.Zero(t, extras(t, reg, list[2], "hedge"))
	})
}

// TestFirst_RetriesAreMadeInAnyCase: else an answer would lack what a twin has.
func TestFirst_RetriesAreMadeInAnyCase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		extra, list, _ := trio(t)
		for range 200 {
			winner, _ := First(t.Context(), list[:2], extra, retry, func(_ context.Context, i int) error {
				if i == 0 {
					return &transport.Error{Class: transport.ClassTransport, Err: errors.New("down")}
				}
				return nil
			})
			require.Equal(t, 1, winner)
		}
		require.False(t, extra.Spend(), "they count")
	})
}

// TestFirst_ExtraAttemptsHaveABudget: when all replicas are slow, each is not asked
// twice.
func TestFirst_ExtraAttemptsHaveABudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		extra, list, reg := trio(t)
		const queries = 400
		for range queries {
			winner, _ := First(t.Context(), list[:2], extra, retry, func(context.Context, int) error {
				time.Sleep(2 * time.Second)
				return nil
			})
			require.Zero(t, winner)
		}
		require.Greater(t, extras(t, reg, list[1], "hedge"), 0.1*queries)
		require.Less(t, extras(t, reg, list[1], "hedge"), 0.2*queries)
	})
}

func TestCandidates_WhoFailedLastComesLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, list, _ := trio(t)
		list[0].Health.Force(health.Open)
		failing := &transport.Error{Class: transport.ClassTransport, Err: errors.New("down")}
		list[1].Health.SetProbe(func(context.Context) error { time.Sleep(time.Millisecond); return nil })
		require.Error(t, list[1].Attempt(t.Context(), false, func(context.Context) error { return failing }))
		require.Equal(t, []*replica.Replica{list[2], list[1], list[0]}, UsableFirst(list))
		time.Sleep(time.Second)
		require.Equal(t, []*replica.Replica{list[1], list[2], list[0]}, UsableFirst(list))
	})
}
