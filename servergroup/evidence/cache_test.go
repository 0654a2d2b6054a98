package evidence

import (
	"context"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	//nolint:depguard // in goroutines
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest/scraper"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/lifetime"
	"github.com/oneprom/oneprom/servergroup/replica"
	"github.com/oneprom/oneprom/servergroup/targets"
)

// pair is a group of two servers, and what is known of its scrapes at a time.
type pair struct {
	clock
	Cache
	group Group
	life  *lifetime.Lifetime
}

// pairOf returns the pair of two servers, at a time (ms).
func pairOf(t *testing.T, now int64, a, b *scraper.Scraper) *pair {
	t.Helper()
	p := &pair{life: lifetime.New()}
	p.ms.Store(now)
	t.Cleanup(p.life.End)
	cfg := config.DefaultGroup
	cfg.Name = "g"
	logger := slog.New(slog.DiscardHandler)
	registry := replica.NewRegistry(replica.RegistryOptions{Life: p.life, Now: p.now, Logger: logger}, replica.NewMetrics(prometheus.NewRegistry()))
	p.group.Config = &cfg
	for _, s := range []*scraper.Scraper{a, b} {
		base, err := url.Parse(s.URL)
		require.NoError(t, err)
		p.group.Replicas = append(p.group.Replicas, registry.NewReplica(replica.Group{Config: &cfg, Client: s.Client(), Logger: logger}, targets.Endpoint{URL: base}))
	}
	return p
}

// of is what the scrapes show for foo.
func (p *pair) of(ctx context.Context, from, to int64) (Shown, error) {
	foo := []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, labels.MetricName, "foo")}
	return p.Show(ctx, p.group, foo, from, to, p.ms.Load(), 0)
}

// TestEvidence_QueriesShareAFetch, which does not end with the query that began it.
func TestEvidence_QueriesShareAFetch(t *testing.T) {
	a, b := scraper.New(t, scraper.Away), scraper.New(t, scraper.There)
	p := pairOf(t, 3*hour, a, b)
	release := a.Hold()
	ctx, cancel := context.WithCancel(t.Context())
	var first sync.WaitGroup
	first.Go(func() {
		_, err := p.of(ctx, 10*minute, hour)
		require.ErrorIs(t, err, context.Canceled)
	})
	<-a.Arrived
	h := p.history
	waits := h.claim(make([]*sliceScrapes, 2), 0, hour-1)
	require.NotNil(t, waits[0])
	require.Same(t, waits[0], waits[1])
	cancel()
	first.Wait()

	var others sync.WaitGroup
	for range 5 {
		others.Go(func() {
			sh, err := p.of(t.Context(), 10*minute, hour-1)
			require.NoError(t, err)
			require.Len(t, sh.Missed[0], 1)
		})
	}
	release()
	others.Wait()
	require.EqualValues(t, 1, a.Ups.Load())
	require.EqualValues(t, 1, b.Ups.Load())
}

// TestEvidence_FetchUnderWayMayBeTooOld for a query that reaches further.
func TestEvidence_FetchUnderWayMayBeTooOld(t *testing.T) {
	a, b := scraper.New(t, scraper.Away), scraper.New(t, scraper.There)
	p := pairOf(t, 3*hour+minute, a, b)
	defer a.Hold()()
	h := p.historyOf(p.group, 0, 0)
	claim := func(to int64) *sliceFetch { return h.claim(make([]*sliceScrapes, 1), 3*hour, to)[0] }
	first := claim(4 * hour)
	p.ms.Add(1000)
	require.Same(t, first, claim(3*hour+minute))
	second := claim(4 * hour)
	require.NotSame(t, first, second)
	require.Same(t, second, claim(3*hour+minute))
}

// TestEvidence_QueriesShareTheNextFetch: those that come while one is under way that is
// too old for them.
func TestEvidence_QueriesShareTheNextFetch(t *testing.T) {
	a, b := scraper.New(t, scraper.Away), scraper.New(t, scraper.There)
	p := pairOf(t, 3*hour+minute, a, b)
	release := sync.OnceFunc(a.Hold())
	defer release()
	h := p.historyOf(p.group, 0, 0)
	claim := func() *sliceFetch { return h.claim(make([]*sliceScrapes, 1), 3*hour, p.ms.Load())[0] }
	first := claim()
	<-a.Arrived
	p.ms.Add(1)
	next := claim()
	for range 5 {
		p.ms.Add(1)
		require.Same(t, next, claim())
	}
	release()
	<-first.done
	<-next.done
	require.EqualValues(t, 2, a.Ups.Load())
	require.Equal(t, p.ms.Load(), next.slices[0].asked)
	_, known := h.slices.Get(3 * hour)
	require.True(t, known)
	require.Nil(t, claim(), "the newest is known")
}

// TestEvidence_NoFetchWaitsForLong: one that hangs holds up no other.
func TestEvidence_NoFetchWaitsForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hangs := &sliceFetch{done: make(chan struct{})}
		next := &sliceFetch{after: []*sliceFetch{hangs, hangs}, asked: math.MaxInt64, slices: slicesFrom(0, 1)}
		logger := slog.New(slog.DiscardHandler)
		registry := replica.NewRegistry(replica.RegistryOptions{Now: time.Now, Logger: logger}, replica.NewMetrics(prometheus.NewRegistry()))
		r := registry.NewReplica(replica.Group{Config: &config.DefaultGroup, Client: http.DefaultClient, Logger: logger}, targets.Endpoint{URL: &url.URL{Scheme: "http", Host: "a"}})
		h := newHistory(Group{Replicas: []*replica.Replica{r}}, "", 0)
		began := time.Now()
		h.awaitOlder(t.Context(), next)
		require.Equal(t, maxWait, time.Since(began))
		require.Equal(t, time.Now().UnixMilli(), next.asked)
		require.Equal(t, next.asked, next.slices[0].asked)
		require.Empty(t, next.after)
	})
}

func TestEvidence_CloseEndsAFetch(t *testing.T) {
	a, b := scraper.New(t, scraper.Away), scraper.New(t, scraper.There)
	p := pairOf(t, 3*hour, a, b)
	defer a.Hold()()
	var done sync.WaitGroup
	done.Go(func() {
		_, err := p.of(t.Context(), 0, hour)
		require.Error(t, err)
	})
	<-a.Arrived
	p.life.End()
	done.Wait()
	_, err := p.history.slicesIn(t.Context(), 0, hour)
	require.ErrorIs(t, err, lifetime.ErrEnded)
}

func TestEvidenceCache_IsOfOneSetOfReplicas(t *testing.T) {
	replicaAt := func(host string) *replica.Replica {
		return replica.Offline(&config.DefaultGroup, &url.URL{Scheme: "http", Host: host})
	}
	a, b := replicaAt("a"), replicaAt("b")
	var c Cache
	of := func(rs ...*replica.Replica) *history { return c.historyOf(Group{Replicas: rs}, 0, c.latest) }
	h := of(a, b)
	require.Same(t, h, of(a, b))
	require.NotSame(t, h, of(b, a))
	h = of(a, b)
	h.table.bytes = keptTargets + 1
	require.NotSame(t, h, of(a, b), "labels are not kept without end")
	at := func(now int64) *history { return c.historyOf(Group{Replicas: []*replica.Replica{a, b}}, 0, now) }
	h = at(hour)
	require.Same(t, h, at(hour-maxStepBack))
	require.Same(t, h, at(25*hour))
	require.NotSame(t, h, at(2*hour), "what was settled was not, where the clock was put back")
}
