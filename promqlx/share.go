package promqlx

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/stats"
	"go.opentelemetry.io/otel/trace"

	"github.com/oneprom/oneprom/promqlx/answer"
	"github.com/oneprom/oneprom/servergroup/guard"
	"github.com/oneprom/oneprom/servergroup/request"
	"github.com/oneprom/oneprom/servergroup/view"
)

// maxKeepers is how many answers are kept at a time while their queries go on.
const maxKeepers = 4

// sharedRuns are the executions under way. Equal queries at the same time share one.
type sharedRuns struct {
	logger *slog.Logger
	shared prometheus.Counter
	// keeping are the calls of later, and keepers has an element for each.
	keeping sync.WaitGroup
	keepers chan struct{}

	mtx sync.Mutex // guards latest, and the holders of all runs
	// latest are the runs that began last. They are under way, and have holders.
	latest map[queryKey]*sharedRun
}

func newSharedRuns(reg prometheus.Registerer, logger *slog.Logger) *sharedRuns {
	return &sharedRuns{
		logger: logger, latest: map[queryKey]*sharedRun{}, keepers: make(chan struct{}, maxKeepers),
		shared: promauto.With(reg).NewCounter(prometheus.CounterOpts{
			Name: "oneprom_queries_shared_total",
			Help: "Queries that waited for the execution of an equal one.",
		}),
	}
}

// queryKey is what queries that share an execution have in common, as far as the queries
// themselves say it. sharedRun.suits compares the rest.
type queryKey struct {
	// text is the query as it was written: warnings name positions in it.
	text               string
	start, end         int64 // ms
	interval, lookback time.Duration
	// subqueries are the steps (ms) of the subqueries that name none. A reload may change
	// them.
	subqueries string
}

// sharedRun is one execution for all queries that wait for it.
type sharedRun struct {
	queryKey
	view     *view.View // the groups that the execution sees
	deadline time.Time
	cancel   context.CancelFunc
	holders  int // queries that wait, or have the result and are not closed; and who keeps it

	done     chan struct{} // closed when the fields below are final
	query    *query
	result   *promql.Result
	panicked any // what the execution panicked with; nil if it did not
}

// waiter is a query that begins an execution, or shares one that an equal query has
// begun. The execution is cancelled when its last waiter leaves.
type waiter struct {
	engine *Engine
	own    *query          // belongs to the run that the waiter begins, if it begins one
	stmt   parser.EvalStmt // as it was parsed
	stats  *stats.Statistics
	life   context.Context // ends when the query is cancelled
	cancel context.CancelFunc
	run    *sharedRun // whose result the waiter has; nil: none
}

// shareable returns a query that may share an execution. A query that wants statistics of
// each step may not: it shows those of its own execution. Queries that are explained do
// not share executions either: Analyze does not call shareable.
func (e *Engine) shareable(q *query, opts promql.QueryOpts) promql.Query {
	stmt, ok := q.Statement().(*parser.EvalStmt)
	if !ok || opts != nil && opts.EnablePerStepStats() {
		return q
	}
	w := &waiter{engine: e, own: q, stmt: *stmt, stats: q.Stats()}
	w.life, w.cancel = context.WithCancel(context.Background())
	return w
}

// Statement implements promql.Query. It is the statement as parsed, before planning.
func (w *waiter) Statement() parser.Statement { return &w.stmt }

// String implements promql.Query.
func (w *waiter) String() string { return w.own.text }

// Stats implements promql.Query. It returns the statistics of the shared execution.
func (w *waiter) Stats() *stats.Statistics { return w.stats }

// Cancel implements promql.Query. Other queries that share the execution go on.
func (w *waiter) Cancel() { w.cancel() }

// Close implements promql.Query. The result's memory is released when all queries that
// have it are closed.
func (w *waiter) Close() {
	if w.run != nil {
		w.engine.runs.release(w.run)
		w.run = nil
	}
}

// Exec implements promql.Query.
func (w *waiter) Exec(ctx context.Context) *promql.Result {
	ctx, cancel := context.WithTimeout(ctx, w.engine.timeout)
	defer cancel()
	defer context.AfterFunc(w.life, cancel)()
	if ctx.Err() != nil {
		return &promql.Result{Err: contextError(ctx, "query execution")}
	}
	// The execution writes the statistics of the own query, perhaps after this method has
	// returned: they must not be read before it ends.
	w.stats = &stats.Statistics{Timers: stats.NewQueryTimers(), Samples: stats.NewQuerySamples(false)}
	record, span := recordOf(ctx), trace.SpanFromContext(ctx)
	for {
		run, first := w.engine.join(ctx, w)
		record.follow(run.query.progress)
		if !first {
			span.AddEvent("shares the execution of an equal query")
		}
		select {
		case <-run.done:
		case <-ctx.Done():
			if w.engine.runs.leave(run) {
				return &promql.Result{Err: contextError(ctx, "query execution")}
			}
			<-run.done // closed soon: the execution is cancelled
		}
		if !first && run.interrupted() && ctx.Err() == nil {
			w.engine.runs.release(run)
			continue
		}
		w.run, w.stats = run, run.query.Stats()
		res := w.engine.runs.take(run)
		record.setResult(res)
		request.From(ctx).Record.Report(run.query.gaps)
		var canceled promql.ErrQueryCanceled
		if errors.As(res.Err, &canceled) && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			res.Err = contextError(ctx, "query execution") // the deadline is why it was cancelled
		}
		return res
	}
}

// join returns an execution that suits a query, to wait for; first reports whether the
// query has begun it. The groups are looked at before an execution is chosen, so that a
// query does not share one over groups that a reload has replaced since.
func (e *Engine) join(ctx context.Context, w *waiter) (run *sharedRun, first bool) {
	key, view := e.queryKey(w), e.groups.View(ctx)
	deadline, _ := ctx.Deadline()
	e.runs.mtx.Lock()
	defer e.runs.mtx.Unlock()
	if run = e.runs.latest[key]; run != nil && run.suits(view, deadline) {
		run.holders++
		e.runs.shared.Inc()
		return run, false
	}
	run = &sharedRun{queryKey: key, view: view, deadline: deadline, holders: 1, done: make(chan struct{}), query: w.own}
	ctx, run.cancel = context.WithDeadline(context.WithoutCancel(ctx), deadline)
	e.runs.latest[key] = run
	go e.runs.execute(ctx, run)
	return run, true
}

func (e *Engine) queryKey(w *waiter) queryKey {
	return queryKey{
		text: w.own.text, start: w.stmt.Start.UnixMilli(), end: w.stmt.End.UnixMilli(),
		interval: w.stmt.Interval, lookback: w.stmt.LookbackDelta, subqueries: e.subquerySteps(w.stmt.Expr),
	}
}

// subquerySteps prints the steps (ms) of the subqueries that name none.
func (e *Engine) subquerySteps(expr parser.Expr) string {
	var steps []int64
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		if n, ok := node.(*parser.SubqueryExpr); ok && n.Step == 0 {
			steps = append(steps, e.subqueryStep(n.Range.Milliseconds()))
		}
		return nil
	})
	return fmt.Sprint(steps)
}

// suits reports whether the execution has the result of an equal query over a view and
// with a deadline. The time left to the execution matters because it bounds how long a
// hanging replica is waited for. It must be about the time left to the query: at least
// half of it, and not much more.
func (run *sharedRun) suits(view *view.View, deadline time.Time) bool {
	left, own := time.Until(run.deadline), time.Until(deadline)
	return left >= own/2 && left-left/10 <= own && run.view.Alike(view)
}

// execute executes the query. A panic is kept for the queries that wait.
func (rs *sharedRuns) execute(ctx context.Context, run *sharedRun) {
	defer rs.finish(run)
	defer func() {
		if run.panicked = recover(); run.panicked != nil {
			rs.logger.Error("the execution of a query panicked", "query", run.text, "panic", run.panicked, "stack", guard.StackOf(run.panicked))
		}
	}()
	var later func()
	run.result, later = run.query.runKept(ctx, run.view)
	if later != nil {
		rs.after(run, later)
	}
	answer.Freeze(run.result.Warnings)
}

// after calls later while the queries that wait go on with the result. It holds the run, whose memory later needs.
func (rs *sharedRuns) after(run *sharedRun, later func()) {
	rs.mtx.Lock()
	run.holders++
	rs.mtx.Unlock()
	do := func() {
		defer rs.release(run)
		if err := guard.Call(func() error { later(); return nil }); err != nil {
			rs.logger.Error("the answer to a query could not be kept", "query", run.text, "err", err, "stack", guard.StackOf(err))
		}
	}
	select {
	case rs.keepers <- struct{}{}:
		rs.keeping.Go(func() {
			defer func() { <-rs.keepers }()
			do()
		})
	default: // others are about to, and memory is to be released
		do()
	}
}

// finish ends a run. From now on no query can join it.
func (rs *sharedRuns) finish(run *sharedRun) {
	rs.mtx.Lock()
	rs.remove(run)
	rs.mtx.Unlock()
	run.cancel()
	close(run.done)
}

func (rs *sharedRuns) remove(run *sharedRun) {
	if rs.latest[run.queryKey] == run {
		delete(rs.latest, run.queryKey)
	}
}

// leave reports whether other queries hold the run, so that the caller may go. If none
// does, the run is cancelled, and the caller waits for its end. A run whose deadline has
// passed is not cancelled: it ends by itself, and its error says where the time was spent.
func (rs *sharedRuns) leave(run *sharedRun) bool {
	rs.mtx.Lock()
	defer rs.mtx.Unlock()
	if run.holders > 1 {
		run.holders--
		return true
	}
	rs.remove(run)
	if time.Now().Before(run.deadline) {
		run.cancel()
	}
	return false
}

// release gives up a run that has ended. The last holder releases its memory.
func (rs *sharedRuns) release(run *sharedRun) {
	rs.mtx.Lock()
	run.holders--
	last := run.holders == 0
	rs.mtx.Unlock()
	if last {
		run.query.Close()
	}
}

// take returns the result of a run that has ended. The caller may change it.
func (rs *sharedRuns) take(run *sharedRun) *promql.Result {
	if run.panicked != nil {
		panic(run.panicked)
	}
	rs.mtx.Lock()
	alone := run.holders == 1
	rs.mtx.Unlock()
	if alone {
		return run.result
	}
	out := &promql.Result{Err: run.result.Err, Value: run.result.Value, Warnings: maps.Clone(run.result.Warnings)}
	switch v := out.Value.(type) { // samples are never written
	case promql.Matrix:
		out.Value = slices.Clone(v)
	case promql.Vector:
		out.Value = slices.Clone(v)
	}
	return out
}

// interrupted reports whether the execution failed because its own time was over, or
// because it was cancelled.
func (run *sharedRun) interrupted() bool {
	if run.panicked != nil {
		return false
	}
	var timeout promql.ErrQueryTimeout
	var canceled promql.ErrQueryCanceled
	err := queryError(run.result.Err)
	return errors.As(err, &timeout) || errors.As(err, &canceled)
}
