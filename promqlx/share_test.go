package promqlx

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/request"
)

// threeSeries asks nobody and warns of its first number.
const threeSeries = `quantile(2, vector(3)) or label_replace(vector(1), "a", "x", "", "") or label_replace(vector(2), "a", "y", "", "")`

// slots count executions, and hold them at a gate.
type slots struct {
	mtx    sync.Mutex // guards the fields below
	gate   chan struct{}
	taken  int
	panics any // what the next one panics with; nil: it does not
}

func (*slots) GetMaxConcurrent() int { return 1 }
func (*slots) Delete(int)            {}
func (*slots) Close() error          { return nil }

func (s *slots) Insert(ctx context.Context, _ string) (int, error) {
	s.mtx.Lock()
	s.taken++
	gate, panics := s.gate, s.panics
	s.panics = nil
	s.mtx.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
		}
	}
	if panics != nil {
		panic(panics)
	}
	return 0, queryError(ctx.Err())
}

// hold holds whoever comes from now on, and counts anew.
func (s *slots) hold() {
	s.mtx.Lock()
	defer s.mtx.Unlock()
	s.gate, s.taken = make(chan struct{}), 0
}

// free lets in whoever comes from now on, and those that are held too if now.
func (s *slots) free(now bool) {
	s.mtx.Lock()
	defer s.mtx.Unlock()
	if now {
		close(s.gate)
	}
	s.gate = nil
}

func (s *slots) count() int {
	s.mtx.Lock()
	defer s.mtx.Unlock()
	return s.taken
}

// heldEngine is an engine over groups with slots.
func heldEngine(t *testing.T, cfgs ...config.Group) (*Engine, *slots) {
	t.Helper()
	s, o := &slots{}, executionOpts()
	o.ActiveQueryTracker = s
	e := NewEngine(o, engineOver(t, config.PartialWarn, cfgs...).groups)
	t.Cleanup(func() { require.NoError(t, e.Close()) })
	return e, s
}

// waiterFor makes a query.
func waiterFor(t testing.TB, e *Engine, text string, at times) *waiter {
	t.Helper()
	var q promql.Query
	var err error
	if at.interval == 0 {
		q, err = e.NewInstantQuery(t.Context(), nil, nil, text, at.start)
	} else {
		q, err = e.NewRangeQuery(t.Context(), nil, nil, text, at.start, at.end, at.interval)
	}
	require.NoError(t, err)
	return q.(*waiter)
}

func waitersFor(t testing.TB, n int, e *Engine, text string, at times) []*waiter {
	t.Helper()
	var ws []*waiter
	for range n {
		ws = append(ws, waiterFor(t, e, text, at))
	}
	return ws
}

// begin executes a query in the background.
func begin(ctx context.Context, w *waiter) <-chan *promql.Result {
	out := make(chan *promql.Result, 1)
	go func() { out <- w.Exec(ctx) }()
	return out
}

func beginAll(ctx context.Context, ws []*waiter) []<-chan *promql.Result {
	var out []<-chan *promql.Result
	for _, w := range ws {
		out = append(out, begin(ctx, w))
	}
	return out
}

// under is how many executions are under way that may be shared, and by how many they
// are.
func (rs *sharedRuns) under() (executions, holders int) {
	rs.mtx.Lock()
	defer rs.mtx.Unlock()
	for _, f := range rs.latest {
		holders += f.holders
	}
	return len(rs.latest), holders
}

// awaitHolders waits until so many share executions.
func awaitHolders(e *Engine, n int) {
	for {
		if _, holders := e.runs.under(); holders == n {
			return
		}
		runtime.Gosched()
	}
}

// awaitExecutions waits until so many have begun since hold.
func awaitExecutions(s *slots, n int) {
	for s.count() < n {
		runtime.Gosched()
	}
}

func requireNothingUnderWay(t *testing.T, e *Engine) {
	t.Helper()
	executions, _ := e.runs.under()
	require.Zero(t, executions)
}

// print has all that a client gets to see of a result.
func printed(text string, res *promql.Result) string {
	warnings, infos := res.Warnings.AsStrings(text, 0, 0)
	return fmt.Sprint(res.Value, res.Err, warnings, infos)
}

// A query looks at the groups once and is planned once: its execution uses the view by
// which the query was compared with those under way.
func TestShare_OneViewAndOnePlan(t *testing.T) {
	e, _ := heldEngine(t)
	spans := tracetest.NewSpanRecorder()
	tracer := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer("")
	ctx, span := tracer.Start(t.Context(), "request")
	w := waiterFor(t, e, threeSeries, at(60, 70))
	defer w.Close()
	require.NoError(t, w.Exec(ctx).Err)
	span.End()
	require.Same(t, w.run.view, w.run.query.source.execution.plan.View)
	names := map[string]int{}
	for _, s := range spans.Ended() {
		names[s.Name()]++
	}
	require.Equal(t, map[string]int{"plan": 1, "evaluate": 1, "request": 1}, names)
}

// TestShare_OneExecution: equal queries at once are executed once, and all get what
// one alone gets.
func TestShare_OneExecution(t *testing.T) {
	const n = 10
	e, s := heldEngine(t)
	for _, text := range []string{threeSeries, `time()`, `label_replace(vector(1), "a", "x", "", "") + on () (vector(1) or label_replace(vector(1), "b", "y", "", ""))`} {
		for _, span := range []times{at(60, 70), instantAt(60)} {
			alone := waiterFor(t, e, text, span)
			want := printed(text, alone.Exec(t.Context()))
			samples := alone.Stats().Samples.TotalSamples
			alone.Close()
			synctest.Test(t, func(t *testing.T) {
				ws, shared := waitersFor(t, n, e, text, span), testutil.ToFloat64(e.runs.shared)
				s.hold()
				results := beginAll(t.Context(), ws)
				synctest.Wait()
				s.free(true)
				for i, res := range results {
					require.Equal(t, want, printed(text, <-res), text)
					require.Equal(t, text, ws[i].String())
					require.Equal(t, samples, ws[i].Stats().Samples.TotalSamples)
					require.Equal(t, ws[0].Statement().String(), ws[i].Statement().String())
					ws[i].Close()
				}
				require.Equal(t, 1, s.count())
				require.Equal(t, float64(n-1), testutil.ToFloat64(e.runs.shared)-shared)
				requireNothingUnderWay(t, e)
			})
		}
	}
}

// TestShare_Backends are asked as often by equal queries as by one.
func TestShare_Backends(t *testing.T) {
	const n, groups, text = 20, 3, `sum(rate(m_total[5m]))`
	f := newFleetOfGroups(t)
	e := engineOver(t, config.PartialError, f.groups(groups)...)
	var want string
	for range 100 { // at first replicas are probed, and looked at in the background
		f.count()
		w := waiterFor(t, e, text, at(60, 70))
		want = printed(text, w.Exec(t.Context()))
		w.Close()
		if seen, _ := f.count(); slices.Max(slices.Collect(maps.Values(seen))) == 1 {
			break
		}
	}
	gate := make(chan struct{})
	f.mtx.Lock()
	f.gate = gate
	f.mtx.Unlock()
	ws := waitersFor(t, n, e, text, at(60, 70))
	results := beginAll(t.Context(), ws)
	awaitHolders(e, n)
	close(gate)
	for i, res := range results {
		require.Equal(t, want, printed(text, <-res))
		ws[i].Close()
	}
	seen, _ := f.count()
	require.Equal(t, map[string]int{"g0": 1, "g1": 1, "g2": 1}, seen)
}

// TestShare_Unequal queries are executed each for itself.
func TestShare_Unequal(t *testing.T) {
	e, s := heldEngine(t, groupOf("g", 1, nil))
	const text = `vector(time())`
	span := at(60, 70)
	type maker func(*testing.T) promql.Query
	executions := func(other maker, context func(context.Context) context.Context) (n int) {
		synctest.Test(t, func(t *testing.T) {
			a, b := waiterFor(t, e, text, span), other(t)
			s.hold()
			var done sync.WaitGroup
			done.Go(func() { a.Exec(t.Context()) })
			synctest.Wait()
			done.Go(func() { b.Exec(context(t.Context())) })
			synctest.Wait()
			n = s.count()
			s.free(true)
			done.Wait()
			a.Close()
			b.Close()
		})
		return n
	}
	with := func(change func(*times)) maker {
		span := span
		change(&span)
		return func(t *testing.T) promql.Query { return waiterFor(t, e, text, span) }
	}
	opted := func(lookback time.Duration, stats bool) maker {
		return func(t *testing.T) promql.Query {
			q, err := e.NewRangeQuery(t.Context(), nil, promql.NewPrometheusQueryOpts(stats, lookback), text, span.start, span.end, span.interval)
			require.NoError(t, err)
			return q
		}
	}
	plain := func(ctx context.Context) context.Context { return ctx }
	for name, other := range map[string]maker{
		"start":    with(func(s *times) { s.start = s.start.Add(time.Millisecond) }),
		"end":      with(func(s *times) { s.end = s.end.Add(time.Millisecond) }),
		"interval": with(func(s *times) { s.interval++ }),
		"instant":  with(func(s *times) { *s = instantAt(60) }),
		"text":     func(t *testing.T) promql.Query { return waiterFor(t, e, text+" ", span) },
		"lookback": opted(time.Minute, false),
		"stats":    opted(0, true),
		"analyze": func(t *testing.T) promql.Query {
			q, err := e.makeQuery(t.Context(), Question{Query: text, Start: span.start, End: span.end, Interval: span.interval})
			require.NoError(t, err)
			return q
		},
	} {
		require.Equal(t, 2, executions(other, plain), name)
	}
	same := with(func(*times) {})
	require.Equal(t, 1, executions(same, plain))
	require.Equal(t, 1, executions(opted(5*time.Minute, false), plain), "the default, said")
	require.Equal(t, 1, executions(with(func(s *times) { s.start = s.start.Add(time.Microsecond) }), plain), "less than a millisecond")

	for _, c := range []struct {
		want    int
		context func(context.Context) context.Context
	}{
		{2, func(ctx context.Context) context.Context {
			return request.With(ctx, func(r *request.Request) { r.Pushdown = config.PushdownOff })
		}},
		{2, func(ctx context.Context) context.Context {
			return request.With(ctx, func(r *request.Request) { r.Partial = config.PartialError })
		}},
		{1, func(ctx context.Context) context.Context {
			return request.With(ctx, func(r *request.Request) { r.Partial = config.PartialWarn }) // as configured
		}},
		{1, func(ctx context.Context) context.Context {
			return promql.NewOriginContext(ctx, map[string]any{"client": "another"})
		}},
	} {
		require.Equal(t, c.want, executions(same, c.context))
	}
}

// TestShare_SubqueryStep: the step of a subquery that names none may change by a
// reload that leaves the groups as they are.
func TestShare_SubqueryStep(t *testing.T) {
	e, s := heldEngine(t)
	var step atomic.Int64
	e.subqueryStep = func(int64) int64 { return step.Load() }
	for text, want := range map[string]int{`max_over_time(vector(1)[5m:])`: 2, `max_over_time(vector(1)[5m:1m])`: 1} {
		step.Store(60_000)
		synctest.Test(t, func(t *testing.T) {
			ws := waitersFor(t, 2, e, text, instantAt(60))
			s.hold()
			first := begin(t.Context(), ws[0])
			synctest.Wait()
			step.Store(30_000)
			second := begin(t.Context(), ws[1])
			synctest.Wait()
			require.Equal(t, want, s.count(), text)
			s.free(true)
			<-first
			<-second
		})
	}
}

// TestShare_Reload: a query that comes after a reload does not get the answer of the
// groups before.
func TestShare_Reload(t *testing.T) {
	backend := newStore(t, "\n  m 1x720")
	region := func(name string) config.Group { return groupAt("g", map[string]string{"region": name}, backend) }
	e, s := heldEngine(t, region("old"))
	reload := func(cfgs ...config.Group) {
		require.NoError(t, e.groups.Apply(t.Context(), cfgs, config.PartialWarn))
	}
	ws := waitersFor(t, 4, e, `m`, instantAt(60))
	s.hold()
	first := begin(t.Context(), ws[0])
	awaitExecutions(s, 1)
	reload(region("old"))
	second := begin(t.Context(), ws[1]) // nothing has changed
	awaitHolders(e, 2)
	reload(region("new"))
	third := begin(t.Context(), ws[2])
	awaitExecutions(s, 2)
	reload()
	fourth := begin(t.Context(), ws[3])
	awaitExecutions(s, 3)
	s.free(true)
	for i, want := range []string{"old", "old", "new"} {
		res := <-[]<-chan *promql.Result{first, second, third}[i]
		require.NoError(t, res.Err)
		require.Len(t, res.Value, 1)
		require.Equal(t, want, res.Value.(promql.Vector)[0].Metric.Get("region"))
	}
	require.Empty(t, (<-fourth).Value)
	for _, w := range ws {
		w.Close()
	}
}

// TestShare_FirstLeaves: the others get the answer.
func TestShare_FirstLeaves(t *testing.T) {
	e, s := heldEngine(t)
	for name, leave := range map[string]func(*waiter, context.CancelFunc){
		"its context": func(_ *waiter, cancel context.CancelFunc) { cancel() },
		"Cancel":      func(w *waiter, _ context.CancelFunc) { w.Cancel() },
	} {
		synctest.Test(t, func(t *testing.T) {
			ws := waitersFor(t, 3, e, threeSeries, at(60, 70))
			s.hold()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			first := begin(ctx, ws[0])
			synctest.Wait()
			others := beginAll(t.Context(), ws[1:])
			synctest.Wait()
			leave(ws[0], cancel)
			var canceled promql.ErrQueryCanceled
			require.ErrorAs(t, (<-first).Err, &canceled, name) // while the execution is held
			require.NotNil(t, ws[0].Stats().Timers)
			require.NotNil(t, ws[0].Stats().Samples)
			require.NotEmpty(t, ws[0].Statement().String())
			ws[0].Close()
			s.free(true)
			for i, res := range others {
				res := <-res
				require.NoError(t, res.Err)
				require.Len(t, res.Value, 3)
				ws[i+1].Close()
			}
			require.Equal(t, 1, s.count())
		})
	}
}

// TestShare_AllLeave: the execution ends, and who comes then is not given its end.
func TestShare_AllLeave(t *testing.T) {
	e, s := heldEngine(t)
	synctest.Test(t, func(t *testing.T) {
		ws := waitersFor(t, 4, e, threeSeries, at(60, 70))
		s.hold()
		ctx, cancel := context.WithCancel(t.Context())
		results := beginAll(ctx, ws[:3])
		synctest.Wait()
		cancel()
		for i, res := range results {
			var canceled promql.ErrQueryCanceled
			require.ErrorAs(t, (<-res).Err, &canceled)
			ws[i].Close()
		}
		requireNothingUnderWay(t, e)
		s.free(false)
		require.NoError(t, ws[3].Exec(t.Context()).Err)
		ws[3].Close()
		require.Equal(t, 2, s.count())
	})
}

// TestShare_EndedBefore: nothing is begun.
func TestShare_EndedBefore(t *testing.T) {
	e, s := heldEngine(t)
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	late, cancel := context.WithDeadline(t.Context(), time.Now())
	defer cancel()
	for want, ctx := range map[error]context.Context{
		promql.ErrQueryCanceled("query execution"): canceled, promql.ErrQueryTimeout("query execution"): late,
	} {
		w := waiterFor(t, e, threeSeries, at(60, 70))
		s.hold()
		require.Equal(t, want, w.Exec(ctx).Err)
		require.Zero(t, s.count())
		s.free(true)
		w.Close()
	}
}

// TestShare_Leave: the last one ends the execution at once, and nobody shares it any
// more; one whose time is over ends by itself.
func TestShare_Leave(t *testing.T) {
	for left, want := range map[time.Duration]bool{time.Hour: true, -time.Second: false} {
		rs, canceled := newSharedRuns(nil, nil), false
		f := &sharedRun{holders: 2, deadline: time.Now().Add(left), cancel: func() { canceled = true }}
		rs.latest[f.queryKey] = f
		require.True(t, rs.leave(f))
		require.False(t, canceled)
		require.Len(t, rs.latest, 1)
		require.False(t, rs.leave(f))
		require.Equal(t, want, canceled)
		require.Empty(t, rs.latest)
	}
}

// TestShare_FirstRunsOutOfTime: one with more time gets its answer.
func TestShare_FirstRunsOutOfTime(t *testing.T) {
	e, s := heldEngine(t)
	synctest.Test(t, func(t *testing.T) {
		ws := waitersFor(t, 3, e, threeSeries, at(60, 70))
		began := time.Now()
		s.hold()
		short, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		long, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		defer cancel()
		first := begin(short, ws[0])
		synctest.Wait()
		others := beginAll(long, ws[1:])
		synctest.Wait()
		require.Equal(t, 1, s.count())
		s.free(false)
		var timeout promql.ErrQueryTimeout
		require.ErrorAs(t, (<-first).Err, &timeout)
		for i, res := range others {
			require.NoError(t, (<-res).Err)
			ws[i+1].Close()
		}
		require.Equal(t, 10*time.Second, time.Since(began))
		require.LessOrEqual(t, s.count(), 3)
		ws[0].Close()
		requireNothingUnderWay(t, e)
	})
}

// TestShare_EngineTimeout is that of a query, however often it is executed for it.
func TestShare_EngineTimeout(t *testing.T) {
	e, s := heldEngine(t)
	synctest.Test(t, func(t *testing.T) {
		ws := waitersFor(t, 2, e, threeSeries, at(60, 70))
		s.hold()
		defer s.free(true)
		first := begin(t.Context(), ws[0])
		time.Sleep(20 * time.Second)
		began := time.Now()
		second := begin(t.Context(), ws[1])
		var timeout promql.ErrQueryTimeout
		require.ErrorAs(t, (<-first).Err, &timeout)
		require.ErrorAs(t, (<-second).Err, &timeout)
		require.Equal(t, e.timeout, time.Since(began))
		require.Equal(t, 2, s.count())
	})
}

// TestShare_LastRunsOutOfTime: it is not told that it was cancelled, but where it was
// when time was over.
func TestShare_LastRunsOutOfTime(t *testing.T) {
	e, s := heldEngine(t)
	for seconds, want := range map[int]promql.ErrQueryTimeout{10: "fetching series", 9: "query execution"} {
		synctest.Test(t, func(t *testing.T) {
			ws := waitersFor(t, 2, e, threeSeries, at(60, 70))
			s.hold()
			defer s.free(true)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			first := begin(ctx, ws[0])
			synctest.Wait()
			if seconds < 10 {
				last, cancel := context.WithTimeout(t.Context(), time.Duration(seconds)*time.Second)
				defer cancel()
				second := begin(last, ws[1])
				synctest.Wait()
				ws[0].Cancel()
				<-first
				first = second
			}
			require.Equal(t, want, (<-first).Err)
			require.Equal(t, 1, s.count())
		})
	}
}

// TestShare_TimeThatSuits: an execution that has far less time than a query, or would
// wait for longer than it, is not shared.
func TestShare_TimeThatSuits(t *testing.T) {
	e, s := heldEngine(t)
	for seconds, want := range map[int]int{1: 2, 17: 2, 19: 1, 20: 1, 21: 1, 39: 1, 41: 2, 50: 2} {
		synctest.Test(t, func(t *testing.T) {
			ws := waitersFor(t, 2, e, threeSeries, at(60, 70))
			s.hold()
			var results []<-chan *promql.Result
			for i, left := range []int{20, seconds} {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(left)*time.Second)
				defer cancel()
				results = append(results, begin(ctx, ws[i]))
				synctest.Wait()
			}
			require.Equal(t, want, s.count(), seconds)
			s.free(true)
			for i, res := range results {
				require.NoError(t, (<-res).Err)
				ws[i].Close()
			}
		})
	}
}

// TestShare_OwnResult: what one does to its result, others do not see.
func TestShare_OwnResult(t *testing.T) {
	const n = 8
	e, s := heldEngine(t)
	for _, span := range []times{at(60, 70), instantAt(60)} {
		alone := waiterFor(t, e, threeSeries, span)
		want := printed(threeSeries, alone.Exec(t.Context()))
		require.Contains(t, want, "(1:10)")
		alone.Close()
		synctest.Test(t, func(t *testing.T) {
			ws := waitersFor(t, n, e, threeSeries, span)
			s.hold()
			results := beginAll(t.Context(), ws)
			synctest.Wait()
			s.free(true)
			var done sync.WaitGroup
			for i, res := range results {
				done.Go(func() {
					defer ws[i].Close()
					res := <-res
					if printed(threeSeries, res) != want {
						t.Errorf("%d: %s", i, printed(threeSeries, res))
					}
					spoil(res)
				})
			}
			done.Wait()
		})
	}
}

// spoil does what a client may do to its result.
func spoil(res *promql.Result) {
	switch v := res.Value.(type) {
	case promql.Matrix:
		slices.Reverse(v)
		v[0].Metric, v[0].Floats = v[1].Metric, nil
		res.Value = append(v[:1], promql.Series{})
	case promql.Vector:
		slices.Reverse(v)
		v[0].Metric, v[0].F = v[1].Metric, 7
		res.Value = append(v[:1], promql.Sample{})
	}
	res.Warnings.AsStrings("another text", 0, 0)
	res.Warnings.Add(errors.New("results truncated due to limit"))
	maps.DeleteFunc(res.Warnings, func(_ string, err error) bool { return errors.Is(err, annotations.PromQLWarning) })
}

// closing counts the times that a query is closed.
type closing struct {
	promql.Query
	closed int
}

func (c *closing) Close() {
	c.closed++
	c.Query.Close()
}

// TestShare_Close: whoever is closed last gives the memory back.
func TestShare_Close(t *testing.T) {
	e, s := heldEngine(t)
	for _, order := range [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		synctest.Test(t, func(t *testing.T) {
			ws := waitersFor(t, 3, e, threeSeries, at(60, 70))
			closed := &closing{Query: ws[0].own.Query}
			ws[0].own.Query = closed
			s.hold()
			results := []<-chan *promql.Result{begin(t.Context(), ws[0])}
			synctest.Wait()
			results = append(results, beginAll(t.Context(), ws[1:])...)
			synctest.Wait()
			s.free(true)
			for _, res := range results {
				require.NoError(t, (<-res).Err)
			}
			for _, i := range order {
				require.Zero(t, closed.closed)
				ws[i].Close()
				ws[i].Close()
			}
			require.Equal(t, 1, closed.closed)
		})
	}
}

// TestShare_Panic is one of each query.
func TestShare_Panic(t *testing.T) {
	e, s := heldEngine(t)
	synctest.Test(t, func(t *testing.T) {
		ws := waitersFor(t, 3, e, threeSeries, at(60, 70))
		s.hold()
		s.panics = "oh"
		panics := make(chan any, len(ws))
		for _, w := range ws {
			go func() {
				defer w.Close()
				defer func() { panics <- recover() }()
				w.Exec(t.Context())
			}()
		}
		synctest.Wait()
		s.free(true)
		for range ws {
			require.Equal(t, "oh", <-panics)
		}
		synctest.Wait()
		requireNothingUnderWay(t, e)
		again := waiterFor(t, e, threeSeries, at(60, 70))
		defer again.Close()
		require.NoError(t, again.Exec(t.Context()).Err)
	})
}

// TestShare_OtherPlan: an execution whose first query has gone makes another plan.
func TestShare_OtherPlan(t *testing.T) {
	const exponential = "\n  h{job=\"a\"} {{schema:0 sum:1 count:1 buckets:[1]}}x100\n  f{job=\"a\"} 1x100"
	const custom = "\n  h{job=\"b\"} {{schema:-53 custom_values:[5 10] sum:1 count:1 buckets:[1]}}x100"
	const text = `sum(h) or sum(f)`
	e, s := heldEngine(t,
		groupAt("eu", map[string]string{"region": "eu"}, newStore(t, exponential)),
		groupAt("us", map[string]string{"region": "us"}, newStore(t, custom)),
	)
	alone := waiterFor(t, e, text, at(5, 20))
	want := printed(text, alone.Exec(t.Context()))
	alone.Close()
	ctx, cancel := context.WithCancel(t.Context())
	q, err := e.NewRangeQuery(ctx, nil, nil, text, at(5, 20).start, at(5, 20).end, at(5, 20).interval)
	require.NoError(t, err)
	w := waiterFor(t, e, text, at(5, 20))
	s.hold()
	first := begin(ctx, q.(*waiter))
	awaitHolders(e, 1)
	second := begin(t.Context(), w)
	awaitHolders(e, 2)
	cancel()
	require.Error(t, (<-first).Err)
	s.free(true)
	require.Equal(t, want, printed(text, <-second))
	w.Close()
	require.Equal(t, 3, s.count()) // an execution, a parse, another execution
}

// What is passed on of clients decides what they are shown.
func TestShare_NotBetweenClientsOfWhomOtherHeadersArePassedOn(t *testing.T) {
	cfg := groupOf("a", 1, nil)
	cfg.ForwardHeaders = []string{"X-Scope-OrgID"}
	e, s := heldEngine(t, cfg)
	waiters := waitersFor(t, 3, e, "vector(1)", instantAt(1))
	s.hold()
	var results []<-chan *promql.Result
	for i, next := range []struct {
		tenant             string
		executions, shared int
	}{{"1", 1, 0}, {"1", 1, 1}, {"2", 2, 1}} {
		ctx := request.With(t.Context(), func(r *request.Request) {
			r.Header = http.Header{"X-Scope-Orgid": {next.tenant}, "X-Other": {strconv.Itoa(i)}}
		})
		results = append(results, begin(ctx, waiters[i]))
		require.Eventually(t, func() bool {
			return s.count() == next.executions && testutil.ToFloat64(e.runs.shared) == float64(next.shared)
		}, 10*time.Second, time.Millisecond)
	}
	s.free(true)
	for _, r := range results {
		require.NoError(t, (<-r).Err)
	}
}
