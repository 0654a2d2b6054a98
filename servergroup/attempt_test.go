package servergroup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest"
	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/health"
	"github.com/oneprom/oneprom/servergroup/lifetime"
	"github.com/oneprom/oneprom/servergroup/targets"
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
	for _, status := range []int{401, 403, 502, 503, 504} {
		f(of(transport.ClassServer, status), health.Failed)
	}
	f(of(transport.ClassContent, 0), health.Failed)
	f(of(transport.ClassTransport, 0), health.Failed)
	f(fmt.Errorf("wrapped: %w", of(transport.ClassTransport, 0)), health.Failed)
	f(of(transport.ClassLoad, 429), health.Loaded)
	// What nobody can be blamed for.
	f(of(transport.ClassCanceled, 0), health.Unknown)
	f(&transport.Error{Class: transport.ClassTransport, Err: completeness.ErrNearlyOver}, health.Unknown)
	f(&transport.Error{Class: transport.ClassTransport, Err: context.DeadlineExceeded}, health.Unknown)
	f(&BudgetError{}, health.Unknown)
	f(&health.OpenError{}, health.Unknown)
	f(errors.New("broken samples"), health.Unknown)
}

// trio are three replicas of a group that is asked nothing.
func trio(t *testing.T) (*View, []*replica) {
	life := lifetime.New()
	t.Cleanup(life.End)
	reg := prometheus.NewRegistry()
	h := newHealths(Options{Now: time.Now, Logger: slog.New(slog.DiscardHandler), Registerer: reg}, life, newMetrics(reg, &Set{}))
	cfg := config.DefaultGroup
	cfg.Name = "g"
	e, err := newEntry(cfg, h)
	require.NoError(t, err)
	e.begin(nil)
	g := (*e.groups.Load())[0]
	var list []*replica
	for _, host := range []string{"a", "b", "c"} {
		r := newReplica(g, targets.Endpoint{URL: &url.URL{Scheme: "http", Host: host}})
		r.health.SetProbe(func(context.Context) error { return nil })
		list = append(list, r)
	}
	return &View{extra: &h.extra}, list
}

func extras(r *replica, reason string) float64 {
	return testutil.ToFloat64(r.metrics.extras.WithLabelValues(labelsOf(r, reason)...))
}

func TestFirst_RetriesElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, list := trio(t)
		down := &transport.Error{Class: transport.ClassTransport, Err: errors.New("down")}
		var asked []int
		winner, errs := First(t.Context(), list, v.extra, retryable, func(_ context.Context, i int) error {
			asked = append(asked, i)
			if i < 2 {
				return down
			}
			return nil
		})
		require.Equal(t, 2, winner)
		require.Equal(t, []error{down, down}, errs)
		require.Equal(t, []int{0, 1, 2}, asked)
		require.Equal(t, 1.0, extras(list[1], "retry"))

		// What the query is to blame for would fail elsewhere, too.
		for _, err := range []error{
			&transport.Error{Class: transport.ClassUser, Status: 422, Err: errors.New("bad")},
			&transport.Error{Class: transport.ClassEvaluation, Status: 503, Err: errors.New("late")},
			&transport.Error{Class: transport.ClassTransport, Err: completeness.ErrNearlyOver},
			&BudgetError{}, &UnusableError{},
			&completeness.UnavailableError{Causes: []error{&transport.Error{Class: transport.ClassUser, Err: errors.New("bad")}}},
		} {
			n := 0
			winner, errs := First(t.Context(), list, v.extra, retryable, func(context.Context, int) error { n++; return err })
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
		v, list := trio(t)
		winner, errs := First(t.Context(), list, v.extra, retryable, func(_ context.Context, i int) error {
			if i == 0 {
				panic("broken")
			}
			return nil
		})
		require.Equal(t, 1, winner)
		var bug *transport.PanicError
		require.ErrorAs(t, errs[0], &bug)
	})
}

func TestFirst_HedgesWhatIsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, list := trio(t)
		began := time.Now()
		var lost error
		winner, _ := First(t.Context(), list, v.extra, retryable, func(ctx context.Context, i int) error {
			if i == 0 {
				<-ctx.Done()
				lost = ctx.Err()
				return lost
			}
			return nil
		})
		require.Equal(t, 1, winner)
		require.Equal(t, list[0].health.HedgeAfter(), time.Since(began))
		require.ErrorIs(t, lost, context.Canceled, "it is not waited for")
		require.Equal(t, 1.0, extras(list[1], "hedge"))
		require.Zero(t, extras(list[2], "hedge"))
	})
}

// TestFirst_RetriesAreMadeInAnyCase: else an answer would lack what a twin has.
func TestFirst_RetriesAreMadeInAnyCase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, list := trio(t)
		for range 200 {
			winner, _ := First(t.Context(), list[:2], v.extra, retryable, func(_ context.Context, i int) error {
				if i == 0 {
					return &transport.Error{Class: transport.ClassTransport, Err: errors.New("down")}
				}
				return nil
			})
			require.Equal(t, 1, winner)
		}
		require.False(t, v.extra.Spend(), "they count")
	})
}

// TestFirst_ExtraAttemptsHaveABudget: when all replicas are slow, each is not asked
// twice.
func TestFirst_ExtraAttemptsHaveABudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, list := trio(t)
		const queries = 400
		for range queries {
			winner, _ := First(t.Context(), list[:2], v.extra, retryable, func(context.Context, int) error {
				time.Sleep(2 * time.Second)
				return nil
			})
			require.Zero(t, winner)
		}
		require.Greater(t, extras(list[1], "hedge"), 0.1*queries)
		require.Less(t, extras(list[1], "hedge"), 0.2*queries)
	})
}

func TestCandidates_WhoFailedLastComesLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, list := trio(t)
		list[0].health.Force(health.Open)
		failing := &transport.Error{Class: transport.ClassTransport, Err: errors.New("down")}
		list[1].health.SetProbe(func(context.Context) error { time.Sleep(time.Millisecond); return nil })
		require.Error(t, list[1].attempt(t.Context(), false, func(context.Context) error { return failing }))
		require.Equal(t, []*replica{list[2], list[1], list[0]}, usableFirst(list))
		time.Sleep(time.Second)
		require.Equal(t, []*replica{list[1], list[2], list[0]}, usableFirst(list))
	})
}

// open has the breaker of a replica opened by what it answers.
func open(t *testing.T, s *Set, e *evaluator) *replica {
	t.Helper()
	e.everywhere.Store(new(refusing(503)))
	for range 10 {
		_, _, _ = selectText(t, s, "foo", 0, hour)
	}
	r := (*s.current.Load().groups()[0].replicas.Load())[0]
	require.Eventually(t, func() bool { return r.health.State() == health.Open }, 5*time.Second, time.Millisecond)
	return r
}

func TestBreaker_GroupWithoutAnyReplicaIsSkipped(t *testing.T) {
	a, b := newEvaluator(t, there), newEvaluator(t, there)
	eu, us := groupOf("eu", a.Server), groupOf("us", b.Server)
	eu.Region, us.Region = "eu-west", "us-east"
	eu.Labels, us.Labels = map[string]string{"region": "eu"}, map[string]string{"region": "us"}
	s := newTestSet(t, config.PartialWarn, eu, us)
	open(t, s, a)
	require.Equal(t, map[string]bool{"eu-west": false, "us-east": true}, s.current.Load().regions())

	text, ws, err := selectText(t, s, "foo", 0, hour)
	require.NoError(t, err)
	require.Contains(t, text, `region="us"`)
	require.Contains(t, fmt.Sprint(ws), `server group "eu" (region "eu-west") did not answer: `+a.URL+`: not asked, as its circuit breaker is open: status 503`)

	// Who needs nobody else is not asked to wait either.
	_, _, err = selectText(t, s, `foo{region="eu"}`, 0, hour)
	require.ErrorContains(t, err, "circuit breaker is open")

	// It comes back by itself.
	a.everywhere.Store(nil)
	require.Eventually(t, func() bool {
		text, ws, err := selectText(t, s, `foo{region="eu"}`, 0, hour)
		return err == nil && len(ws) == 0 && text != ""
	}, 10*time.Second, 10*time.Millisecond)
}

// TestBreaker_FailsOpen: where there is nobody else, everybody is asked.
func TestBreaker_FailsOpen(t *testing.T) {
	a := newEvaluator(t, there)
	s := newTestSet(t, config.PartialWarn, groupOf("eu", a.Server))
	r := open(t, s, a)
	a.everywhere.Store(nil)
	r.health.SetProbe(func(context.Context) error {
		return &transport.Error{Class: transport.ClassTransport, Err: errors.New("x")}
	})
	require.Eventually(t, func() bool { // it is not probed for its kind more than once a second
		text, _, err := selectText(t, s, "foo", 0, hour)
		return err == nil && text != ""
	}, 5*time.Second, 10*time.Millisecond)
	require.Equal(t, health.HalfOpen, r.health.State())
}

func TestBreaker_OutlivesAReload(t *testing.T) {
	a := newEvaluator(t, there)
	cfg := groupOf("eu", a.Server)
	s := newTestSet(t, config.PartialWarn, cfg)
	before := open(t, s, a)
	cfg.Timeout *= 2
	require.NoError(t, s.Apply(t.Context(), []config.Group{cfg}, config.PartialWarn))
	after := (*s.current.Load().groups()[0].replicas.Load())[0]
	require.NotSame(t, before, after)
	require.Equal(t, health.Open, after.health.State())
	require.Equal(t, "open", s.Status()[0].Replicas[0].Breaker)

	// What is not there any more is forgotten, in the metrics too.
	cfg.Name = "other"
	require.NoError(t, s.Apply(t.Context(), []config.Group{cfg}, config.PartialWarn))
	require.Equal(t, "closed", s.Status()[0].Replicas[0].Breaker)
	require.Len(t, s.healths.known, 1)
}

func TestMetrics_OfReplicas(t *testing.T) {
	a := newEvaluator(t, there)
	reg := prometheus.NewRegistry()
	s, err := NewSet(Options{Registerer: reg})
	require.NoError(t, err)
	t.Cleanup(s.Close)
	cfg := groupOf("g", a.Server)
	cfg.Region = "r"
	require.NoError(t, s.Apply(t.Context(), []config.Group{cfg}, config.PartialWarn))
	_, _, err = selectText(t, s, "foo", 0, hour)
	require.NoError(t, err)
	of := fmt.Sprintf(`group="g",region="r",replica="%s"`, a.URL)
	require.NoError(t, testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP oneprom_replica_attempts_total Attempts to have a replica answer, by how they ended: success, open (its circuit breaker was), or a class of errors.
# TYPE oneprom_replica_attempts_total counter
oneprom_replica_attempts_total{`+strings.Replace(of, `region=`, `outcome="success",region=`, 1)+`} 1
# HELP oneprom_replica_breaker_open Whether a replica's circuit breaker is open: 1, half-open: 0.5, closed: 0.
# TYPE oneprom_replica_breaker_open gauge
oneprom_replica_breaker_open{`+of+`} 0
# HELP oneprom_region_available Whether some replica of each of a region's groups may be asked: 1, else 0.
# TYPE oneprom_region_available gauge
oneprom_region_available{region="r"} 1
# HELP oneprom_replica_fetched_samples_total Samples in replicas' answers to queries, those between their steps included where whole chunks are fetched, by how they were fetched.
# TYPE oneprom_replica_fetched_samples_total counter
oneprom_replica_fetched_samples_total{`+of+`,transport="remote_read_streamed"} 482
`), "oneprom_replica_fetched_samples_total", "oneprom_replica_attempts_total", "oneprom_replica_breaker_open", "oneprom_region_available"))
	problems, err := testutil.GatherAndLint(reg)
	require.NoError(t, err)
	for _, p := range problems {
		require.NotContains(t, p.Metric, "oneprom_", p.Text)
	}
	require.NoError(t, s.Apply(t.Context(), nil, config.PartialWarn))
	n, err := testutil.GatherAndCount(reg, "oneprom_replica_attempts_total", "oneprom_replica_breaker_open", "oneprom_replica_fetched_bytes_total", "oneprom_replica_fetched_samples_total")
	require.NoError(t, err)
	require.Zero(t, n)
}

// TestAttempt_RegionsHaveSlots: those of one region do not take those of another.
func TestAttempt_RegionsHaveSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, list := trio(t)
		list[0].region, list[1].region = health.NewSlots(1), health.NewSlots(1)
		list[2].region = list[0].region
		go func() {
			_ = list[0].attempt(t.Context(), false, func(context.Context) error { time.Sleep(10 * time.Second); return nil })
		}()
		synctest.Wait()
		began := time.Now()
		require.NoError(t, list[1].attempt(t.Context(), false, func(context.Context) error { return nil }))
		require.Zero(t, time.Since(began))
		require.NoError(t, list[2].attempt(t.Context(), false, func(context.Context) error { return nil }))
		require.Equal(t, 10*time.Second, time.Since(began))
	})
}

func TestRetryAfter(t *testing.T) {
	a := newEvaluator(t, there)
	a.replace["/query_range"] = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusTooManyRequests)
	}
	s, _ := featuredSet(t, stockFeatures, groupOf("g", a.Server))
	p := onlyPiece(t.Context(), t, s)
	_, err := p.Evaluate(t.Context(), "x", "foo", nil)
	o, after := judge(err)
	require.Equal(t, health.Loaded, o)
	require.Equal(t, 7*time.Second, after)
	require.Equal(t, p.alone.group.MaxConcurrency/2, p.alone.health.Slots().Limit())
}

// TestAttempt_OthersFailuresAreNotItsOwn: a query that ends for another reason, with that as
// the cause, does not open the breakers of those that it was waiting for.
func TestAttempt_OthersFailuresAreNotItsOwn(t *testing.T) {
	hung := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/status/") || strings.HasSuffix(r.URL.Path, "/read") {
			backendtest.NewHandler(backendtest.Options{Queryable: backendtest.Empty{}}).ServeHTTP(w, r)
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	s := newTestSet(t, config.PartialWarn, groupOf("g", hung))
	r := s.View(t.Context()).groups[0].replicas[0]
	p, err := r.ready(t.Context())
	require.NoError(t, err)
	for _, cause := range []error{errors.New("another plan"), &transport.Error{Class: transport.ClassTransport, URL: "http://another", Err: errors.New("refused")}} {
		for range 20 {
			ctx, cancel := context.WithCancelCause(t.Context())
			err := r.attempt(ctx, false, func(ctx context.Context) error {
				time.AfterFunc(time.Millisecond, func() { cancel(cause) })
				_, err := p.client.Metadata(ctx, "", nil, new(map[string]any))
				return err
			})
			require.ErrorIs(t, err, cause)
			require.Equal(t, transport.ClassCanceled, transport.ClassOf(err))
		}
	}
	require.True(t, r.health.Usable())
}
