package admission

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/prometheus/promql"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// line is a queue in a test, with what became of the requests.
type line struct {
	*Queue
	t        *testing.T
	registry *prometheus.Registry

	mtx      sync.Mutex // guards the fields below
	admitted []string   // in this order
	leave    map[string]func()
	refused  map[string]error
}

func newLine(t *testing.T, o Options) *line {
	l := &line{t: t, registry: prometheus.NewRegistry(), leave: map[string]func(){}, refused: map[string]error{}}
	if o.MaxWait == 0 {
		o.MaxWait = 10 * time.Second
	}
	o.Registerer = l.registry
	l.Queue = NewQueue(o)
	return l
}

// come has requests come one after the other, each named by its client and a number.
func (l *line) come(names ...string) {
	for _, name := range names {
		l.comeWith(l.t.Context(), name)
	}
}

func (l *line) comeWith(ctx context.Context, name string, pools ...*Pool) {
	l.t.Helper()
	client := name[:1]
	go func() {
		leave, err := l.Enter(ctx, Request{Client: client, Arrived: time.Now(), Pools: pools})
		l.mtx.Lock()
		defer l.mtx.Unlock()
		if err != nil {
			l.refused[name] = err
			return
		}
		l.admitted = append(l.admitted, name)
		l.leave[name] = leave
	}()
	synctest.Wait()
}

// goes has requests that were admitted leave.
func (l *line) goes(names ...string) {
	l.t.Helper()
	for _, name := range names {
		l.mtx.Lock()
		leave := l.leave[name]
		l.mtx.Unlock()
		require.NotNil(l.t, leave, "%s was not admitted", name)
		leave()
		synctest.Wait()
	}
}

// expect compares what was admitted since it was last called.
func (l *line) expect(names ...string) {
	l.t.Helper()
	l.mtx.Lock()
	defer l.mtx.Unlock()
	require.Equal(l.t, names, l.admitted)
	l.admitted = nil
}

// end lets everything go, and nothing may be left.
func (l *line) end() {
	l.t.Helper()
	for {
		l.mtx.Lock()
		inside := l.leave
		l.leave = map[string]func(){}
		l.mtx.Unlock()
		if len(inside) == 0 {
			break
		}
		for _, leave := range inside {
			leave()
			leave() // does nothing
		}
		synctest.Wait()
	}
	require.Zero(l.t, l.all.used)
	require.Zero(l.t, l.queued)
	require.Empty(l.t, l.turns)
	require.Empty(l.t, l.clients)
}

func TestQueue_FirstComeFirstServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(t, Options{Slots: 2, MaxQueued: 10})
		l.come("a1", "a2", "a3", "a4", "a5")
		l.expect("a1", "a2")
		l.goes("a2", "a1", "a4")
		l.expect("a3", "a4", "a5")
		l.end()
	})
}

func TestQueue_ClientsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(t, Options{Slots: 1, MaxQueued: 20})
		l.come("a0", "a1", "a2", "a3", "a4", "b1", "b2", "c1")
		l.expect("a0")
		l.goes("a0", "a1", "b1", "c1", "a2", "b2", "a3")
		l.expect("a1", "b1", "c1", "a2", "b2", "a3", "a4")
		l.end()
	})
}

// A client that comes back has its turn after those that waited.
func TestQueue_TurnIsNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(t, Options{Slots: 1, MaxQueued: 20})
		l.come("x0", "a1", "b1", "b2")
		l.goes("x0", "a1")
		l.come("a2")
		l.goes("b1", "b2")
		l.expect("x0", "a1", "b1", "b2", "a2")
		l.end()
	})
}

func TestQueue_WaitIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(t, Options{Slots: 1, MaxQueued: 10, MaxWait: 3 * time.Second})
		l.come("a0")
		began := time.Now()
		_, err := l.Enter(t.Context(), Request{Client: "b", Arrived: began})
		require.Equal(t, 3*time.Second, time.Since(began))
		require.EqualError(t, err, "too many requests: no slot of the 1 that --query.max-concurrency gives became free within 3s: "+
			"ask less at once, or raise it or --query.queue-timeout")
		var refusal *Refusal
		require.ErrorAs(t, err, &refusal)
		require.Equal(t, 3*time.Second, refusal.RetryAfter)

		// What went by before, when its body was read, counts.
		_, err = l.Enter(t.Context(), Request{Client: "b", Arrived: began})
		require.ErrorAs(t, err, &refusal)
		require.Equal(t, 3*time.Second, time.Since(began))

		l.goes("a0")
		leave, err := l.Enter(t.Context(), Request{Client: "b", Arrived: began})
		require.NoError(t, err, "a free slot is taken all the same")
		leave()
		l.end()
	})
}

func TestQueue_WhoLeavesIsGoneAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(t, Options{Slots: 1, MaxQueued: 2})
		l.come("a0")
		ctx, cancel := context.WithCancel(t.Context())
		l.comeWith(ctx, "b1")
		l.come("c1")
		cancel()
		synctest.Wait()
		require.ErrorIs(t, l.refused["b1"], promql.ErrQueryCanceled("query queue"))
		require.Equal(t, 1, l.queued)
		require.NotContains(t, l.clients, "b")
		l.come("d1") // there is room again
		l.goes("a0", "c1")
		l.expect("a0", "c1", "d1")
		l.end()
	})
}

func TestQueue_OwnDeadlineBoundsTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(t, Options{Slots: 1, MaxQueued: 2})
		ended, cancel := context.WithTimeout(t.Context(), 0)
		defer cancel()
		l.comeWith(ended, "a0")
		l.expect("a0")

		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err := l.Enter(ctx, Request{Client: "b", Arrived: began})
		require.ErrorIs(t, err, promql.ErrQueryTimeout("query queue"))
		require.Equal(t, 2*time.Second, time.Since(began))
		l.end()
	})
}

func TestQueue_Full(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(t, Options{Slots: 1, MaxQueued: 2})
		l.come("a0", "a1", "a2", "a3")
		require.EqualError(t, l.refused["a3"], "too many requests: no slot of the 1 that --query.max-concurrency gives is free, and no more than 2 requests may wait: "+
			"ask less at once, or raise it or --query.max-queued")
		l.end()

		l = newLine(t, Options{Slots: 1})
		l.come("a0", "b0")
		var refusal *Refusal
		require.ErrorAs(t, l.refused["b0"], &refusal)
		l.end()
	})
}

// A client that has filled the queue makes room for others, but never for one that
// would then have as many.
func TestQueue_FloodKeepsNobodyOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(t, Options{Slots: 1, MaxQueued: 4})
		l.come("a0", "a1", "a2", "a3", "a4", "b1")
		require.Contains(t, l.refused["a4"].Error(), "--query.max-queued")
		l.come("b2")
		require.Error(t, l.refused["a3"])
		l.come("b3", "a5")
		require.Error(t, l.refused["b3"], "both have two: nothing would be won")
		require.Error(t, l.refused["a5"])
		l.come("c1")
		require.Error(t, l.refused["a2"])
		require.Len(t, l.refused, 5)
		require.Equal(t, 4, l.queued)
		l.goes("a0", "a1", "b1", "c1")
		l.expect("a0", "a1", "b1", "c1", "b2")
		l.end()
	})
}

func TestQueue_PerClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(t, Options{Slots: 3, SlotsPerClient: 2, MaxQueued: 10})
		l.come("a1", "a2", "a3", "a4", "b1")
		l.expect("a1", "a2", "b1")
		l.come("b2")
		l.goes("b1") // a has two, so it is not its turn
		l.expect("b2")
		l.goes("a1")
		l.expect("a3")

		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.EqualError(t, l.refused["a4"], "too many requests: no slot of the 2 that --query.max-concurrency-per-client gives became free within 10s: "+
			"ask less at once, or raise it or --query.queue-timeout")
		l.end()
	})
}

func TestQueue_PoolHoldsUpOnlyItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(t, Options{Slots: 3, MaxQueued: 10})
		slow, other := NewPool("rule", "slow", 1), NewPool("rule", "other", 1)
		l.comeWith(t.Context(), "a1", slow)
		l.comeWith(t.Context(), "a2", slow)
		l.comeWith(t.Context(), "b1", slow, other)
		l.come("a3", "a4", "a5")
		l.expect("a1", "a3", "a4")
		l.goes("a3") // a5 passes a2
		l.expect("a5")
		l.goes("a4") // a slot is free, but none of slow
		l.expect([]string(nil)...)
		l.comeWith(t.Context(), "c1", other)
		l.expect("c1")
		l.goes("a1")
		l.expect("a2")
		l.goes("a2") // b1 needs one of other, too
		l.expect([]string(nil)...)
		l.goes("c1")
		l.expect("b1")
		require.Equal(t, 1, slow.used)
		l.end()
		require.Zero(t, slow.used)
		require.Zero(t, other.used)
	})
}

// What leaves may free several that waited for different things.
func TestQueue_OneLeavesTwoCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(t, Options{Slots: 5, MaxQueued: 10})
		x, y := NewPool("rule", "x", 1), NewPool("rule", "y", 1)
		l.comeWith(t.Context(), "a1", x, y)
		l.comeWith(t.Context(), "b1", x)
		l.comeWith(t.Context(), "c1", y)
		l.expect("a1")
		l.goes("a1")
		slices.Sort(l.admitted)
		l.expect("b1", "c1")
		l.end()
	})
}

func TestQueue_Metrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(t, Options{Slots: 1, SlotsPerClient: 1, MaxQueued: 2, MaxWait: time.Second})
		l.come("a0", "a1")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		l.comeWith(ctx, "b1")
		l.come("c1")
		const head = `
# HELP oneprom_admission_queued How many requests wait for a slot.
# TYPE oneprom_admission_queued gauge
# HELP oneprom_admission_queued_max How many requests may wait for a slot.
# TYPE oneprom_admission_queued_max gauge
# HELP oneprom_admission_slots How many requests are worked on at once, at most.
# TYPE oneprom_admission_slots gauge
# HELP oneprom_admission_slots_in_use How many requests are worked on.
# TYPE oneprom_admission_slots_in_use gauge
# HELP oneprom_admission_refused_total Requests that got no slot, by reason (queue_full, queue_timeout, query_timeout: their own time was up) and by whose slots were missing (all, client, read, rule).
# TYPE oneprom_admission_refused_total counter
oneprom_admission_queued_max 2
oneprom_admission_slots 1
`
		names := []string{"oneprom_admission_queued", "oneprom_admission_queued_max", "oneprom_admission_slots", "oneprom_admission_slots_in_use", "oneprom_admission_refused_total"}
		require.NoError(t, testutil.GatherAndCompare(l.registry, strings.NewReader(head+`
oneprom_admission_queued 2
oneprom_admission_slots_in_use 1
oneprom_admission_refused_total{reason="queue_full",slots="all"} 1
`), names...))
		time.Sleep(time.Second)
		synctest.Wait()
		require.NoError(t, testutil.GatherAndCompare(l.registry, strings.NewReader(head+`
oneprom_admission_queued 0
oneprom_admission_slots_in_use 1
oneprom_admission_refused_total{reason="queue_full",slots="all"} 1
oneprom_admission_refused_total{reason="queue_timeout",slots="client"} 1
oneprom_admission_refused_total{reason="query_timeout",slots="all"} 1
`), names...))
		var waits dto.Metric
		require.NoError(t, l.metrics.wait.Write(&waits))
		require.EqualValues(t, 4, waits.Histogram.GetSampleCount())
		require.Equal(t, 1.5, waits.Histogram.GetSampleSum())
		require.NotNil(t, waits.Histogram.ZeroThreshold, "it is native, too")
		problems, err := testutil.GatherAndLint(l.registry)
		require.NoError(t, err)
		require.Empty(t, problems)
		l.end()
	})
}

// Many clients at once, coming, waiting, leaving: the limits hold at each moment,
// and in the end nothing is left.
func TestQueue_LimitsHoldAlways(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(t, Options{Slots: 5, SlotsPerClient: 2, MaxQueued: 40, MaxWait: 50 * time.Millisecond})
		rule := NewPool("rule", "rule", 1)
		var wg sync.WaitGroup
		var admitted, refused, canceled int
		for i := range 400 {
			wg.Go(func() {
				time.Sleep(time.Duration(i%40) * 7 * time.Millisecond)
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+i%7)*20*time.Millisecond)
				defer cancel()
				r := Request{Client: strconv.Itoa(i % 9), Arrived: time.Now()}
				if i%5 == 0 {
					r.Pools = []*Pool{rule}
				}
				leave, err := l.Enter(ctx, r)
				var refusal *Refusal
				l.mtx.Lock()
				switch {
				case err == nil:
					admitted++
				case errors.As(err, &refusal):
					refused++
				default:
					canceled++
				}
				l.mtx.Unlock()
				l.Queue.mtx.Lock()
				for _, p := range append([]*Pool{l.all, rule}, clientPools(l.Queue)...) {
					require.LessOrEqual(t, p.used, p.slots)
				}
				require.LessOrEqual(t, l.queued, 40)
				l.Queue.mtx.Unlock()
				if err == nil {
					time.Sleep(time.Duration(1+i%11) * time.Millisecond)
					leave()
				}
			})
		}
		wg.Wait()
		require.Equal(t, 400, admitted+refused+canceled)
		require.Greater(t, admitted, 100)
		require.Positive(t, refused)
		require.Positive(t, canceled)
		l.end()
	})
}

func clientPools(q *Queue) (pools []*Pool) {
	for _, c := range q.clients {
		pools = append(pools, c.slots)
	}
	return pools
}
