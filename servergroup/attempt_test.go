package servergroup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/health"
	"github.com/oneprom/oneprom/servergroup/replica"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// open has the breaker of a replica opened by what it answers.
func open(t *testing.T, s *Set, e *evaluator) *replica.Replica {
	t.Helper()
	e.everywhere.Store(new(refusing(503)))
	for range 10 {
		_, _, _ = selectText(t, s, "foo", 0, hour)
	}
	r := firstReplica(s)
	require.Eventually(t, func() bool { return r.Health.State() == health.Open }, 5*time.Second, time.Millisecond)
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
	r.Health.SetProbe(func(context.Context) error {
		return &transport.Error{Class: transport.ClassTransport, Err: errors.New("x")}
	})
	require.Eventually(t, func() bool { // it is not probed for its kind more than once a second
		text, _, err := selectText(t, s, "foo", 0, hour)
		return err == nil && text != ""
	}, 5*time.Second, 10*time.Millisecond)
	require.Equal(t, health.HalfOpen, r.Health.State())
}

// TestBreaker_ClientsDoNotOpenIt: a replica that answers everything but some questions is asked again.
// One question takes longer than the group's timeout, one has an answer that is not read, and one
// takes too long for a proxy on the way.
func TestBreaker_ClientsDoNotOpenIt(t *testing.T) {
	a := newEvaluator(t, there)
	healthy := a.Config.Handler
	b := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch query := r.FormValue("query"); {
		case strings.Contains(query, "slow"):
			<-r.Context().Done()
		case strings.Contains(query, "long"):
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, matrix(`{"metric":{"a":"`+strings.Repeat("x", 2<<20)+`"},"values":[[0,"1"]]}`, ""))
		case strings.Contains(query, "proxied"):
			w.WriteHeader(http.StatusGatewayTimeout)
		default:
			healthy.ServeHTTP(w, r)
		}
	}))
	for question, says := range map[string]string{"slow": "the group's timeout", "long": "at most 1048576 bytes", "proxied": "504"} {
		cfg := groupOf("eu", b)
		cfg.RemoteRead = config.RemoteReadNever
		s := newTestSet(t, config.PartialWarn, cfg)
		_, _, err := selectText(t, s, "foo", 0, hour)
		require.NoError(t, err)
		if question == "slow" {
			cfg.Timeout = model.Duration(20 * time.Millisecond)
			require.NoError(t, s.Apply(t.Context(), []config.Group{cfg}, config.PartialWarn))
		}
		var asking sync.WaitGroup
		errs := make([]error, 10)
		for i := range errs {
			asking.Go(func() { _, _, errs[i] = selectText(t, s, fmt.Sprintf("%s%d", question, i), 0, hour) })
		}
		asking.Wait()
		for _, err := range errs {
			require.ErrorContains(t, err, says)
		}
		require.Equal(t, health.Closed, firstReplica(s).Health.State(), question)
	}
}

func TestBreaker_OutlivesAReload(t *testing.T) {
	a := newEvaluator(t, there)
	cfg := groupOf("eu", a.Server)
	s := newTestSet(t, config.PartialWarn, cfg)
	before := open(t, s, a)
	cfg.Timeout *= 2
	require.NoError(t, s.Apply(t.Context(), []config.Group{cfg}, config.PartialWarn))
	after := firstReplica(s)
	require.NotSame(t, before, after)
	require.Equal(t, health.Open, after.Health.State())
	require.Equal(t, "open", s.Status()[0].Replicas[0].Breaker)

	// What is not there any more is forgotten, in the metrics too.
	cfg.Name = "other"
	require.NoError(t, s.Apply(t.Context(), []config.Group{cfg}, config.PartialWarn))
	require.Equal(t, "closed", s.Status()[0].Replicas[0].Breaker)
	require.Equal(t, 1, s.registry.Len())
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
# HELP oneprom_replica_attempts_total Requests sent to replicas, by outcome: success, open (the circuit breaker refused it), or a class of errors.
# TYPE oneprom_replica_attempts_total counter
oneprom_replica_attempts_total{`+strings.Replace(of, `region=`, `outcome="success",region=`, 1)+`} 1
# HELP oneprom_replica_breaker_open State of the circuit breaker of a replica: 1 is open, 0.5 half-open, 0 closed.
# TYPE oneprom_replica_breaker_open gauge
oneprom_replica_breaker_open{`+of+`} 0
# HELP oneprom_region_available Whether each group of a region has a replica whose circuit breaker is not open: 1, else 0.
# TYPE oneprom_region_available gauge
oneprom_region_available{region="r"} 1
# HELP oneprom_replica_fetched_samples_total Samples in responses of replicas to queries, by transport. Where whole chunks are fetched, samples between the steps are included.
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

func TestRetryAfter(t *testing.T) {
	a := newEvaluator(t, there)
	a.replace["/query_range"] = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusTooManyRequests)
	}
	s, _ := featuredSet(t, stockFeatures, groupOf("g", a.Server))
	p := onlyPiece(t.Context(), t, s)
	_, err := p.Evaluate(t.Context(), "x", "foo", nil)
	var e *transport.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, transport.ClassLoad, e.Class)
	require.Equal(t, 7*time.Second, e.RetryAfter())
	require.Equal(t, config.DefaultGroup.MaxConcurrency/2, firstReplica(s).Health.Slots().Limit())
}

// TestAttempt_OthersFailuresAreNotItsOwn: a query that ends for another reason, with that as
// the cause, does not open the breakers of those that it was waiting for.
func TestAttempt_OthersFailuresAreNotItsOwn(t *testing.T) {
	hung := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asksEngine(r) || strings.Contains(r.URL.Path, "/status/") || strings.HasSuffix(r.URL.Path, "/stores") || strings.HasSuffix(r.URL.Path, "/read") {
			backendtest.NewHandler(backendtest.Options{Queryable: backendtest.Empty{}}).ServeHTTP(w, r)
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	s := newTestSet(t, config.PartialWarn, groupOf("g", hung))
	r := s.View(t.Context()).Groups[0].Replicas[0]
	p, err := r.Ready(t.Context())
	require.NoError(t, err)
	for _, cause := range []error{errors.New("another plan"), &transport.Error{Class: transport.ClassTransport, URL: "http://another", Err: errors.New("refused")}} {
		for range 20 {
			ctx, cancel := context.WithCancelCause(t.Context())
			err := r.Attempt(ctx, false, func(ctx context.Context) error {
				time.AfterFunc(time.Millisecond, func() { cancel(cause) })
				_, err := p.Client.Metadata(ctx, "", nil, new(map[string]any))
				return err
			})
			require.ErrorIs(t, err, cause)
			require.Equal(t, transport.ClassCanceled, transport.ClassOf(err))
		}
	}
	require.True(t, r.Health.Usable())
}
