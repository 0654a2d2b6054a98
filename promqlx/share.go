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
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/prometheus/prometheus/util/stats"
	"go.opentelemetry.io/otel/trace"

	"github.com/oneprom/oneprom/servergroup"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// This file has equal queries that are executed at the same time share one execution.

// flights are the executions under way that queries may share.
type flights struct {
	logger *slog.Logger
	shared prometheus.Counter

	mtx sync.Mutex // guards newest, and the holders of all
	// newest are those that began last. They are under way, and have holders.
	newest map[equality]*flight
}

func newFlights(reg prometheus.Registerer, logger *slog.Logger) *flights {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &flights{
		logger: logger, newest: map[equality]*flight{},
		shared: promauto.With(reg).NewCounter(prometheus.CounterOpts{
			Name: "oneprom_queries_shared_total",
			Help: "Queries that waited for the execution of an equal one.",
		}),
	}
}

// equality is what queries have in common that may share an execution, as far as they
// themselves say it. See flight.suits.
type equality struct {
	// text is as it was written: warnings tell the positions in it.
	text               string
	start, end         int64 // ms
	interval, lookback time.Duration
	// subqueries are the steps (ms) of those that name none, which a reload may change.
	subqueries string
}

// flight is one execution for all queries that wait for it.
type flight struct {
	equality
	view     *servergroup.View // of when it began
	deadline time.Time
	cancel   context.CancelFunc
	holders  int // queries that wait, or have the result and are not closed

	done     chan struct{} // closed when the fields below are set for good
	query    *query        // which is executed
	result   *promql.Result
	panicked any // what the execution panicked with; nil if it did not
}

// waiter is a query that begins an execution, or shares one that an equal query has
// begun. That is cancelled when the last waiter has gone.
type waiter struct {
	engine *Engine
	own    *query          // belongs to the flight that the waiter begins, if it does
	stmt   parser.EvalStmt // as it was parsed
	stats  *stats.Statistics
	life   context.Context // ends when the query is cancelled
	cancel context.CancelFunc
	flight *flight // whose result the waiter has; nil: none
}

// shareable returns a query that may share an execution. One that wants statistics of
// each step may not: it is to show its own. Nor may those that are explained, which
// never come here.
func (e *Engine) shareable(q *query, opts promql.QueryOpts) promql.Query {
	stmt, ok := q.Statement().(*parser.EvalStmt)
	if !ok || opts != nil && opts.EnablePerStepStats() {
		return q
	}
	w := &waiter{engine: e, own: q, stmt: *stmt, stats: q.Stats()}
	w.life, w.cancel = context.WithCancel(context.Background())
	return w
}

// Statement implements promql.Query. It is what was parsed, not what is planned.
func (w *waiter) Statement() parser.Statement { return &w.stmt }

// String implements promql.Query.
func (w *waiter) String() string { return w.own.text }

// Stats implements promql.Query. They are those of the execution that was shared.
func (w *waiter) Stats() *stats.Statistics { return w.stats }

// Cancel implements promql.Query. Others that share the execution are not disturbed.
func (w *waiter) Cancel() { w.cancel() }

// Close implements promql.Query. The result's memory is given back when all who have
// it are closed.
func (w *waiter) Close() {
	if w.flight != nil {
		w.engine.flights.release(w.flight)
		w.flight = nil
	}
}

// Exec implements promql.Query.
func (w *waiter) Exec(ctx context.Context) *promql.Result {
	ctx, cancel := context.WithTimeout(ctx, w.engine.timeout)
	defer cancel()
	defer context.AfterFunc(w.life, cancel)()
	if ctx.Err() != nil {
		return &promql.Result{Err: ended(ctx)}
	}
	// Those of the own query are another's to write if it is executed.
	w.stats = &stats.Statistics{Timers: stats.NewQueryTimers(), Samples: stats.NewQuerySamples(false)}
	record, span := recordOf(ctx), trace.SpanFromContext(ctx)
	for {
		f, first := w.engine.board(ctx, w)
		record.follows(f.query.progress)
		if !first {
			span.AddEvent("shares the execution of an equal query")
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			if w.engine.flights.leave(f) {
				return &promql.Result{Err: ended(ctx)}
			}
			<-f.done // soon: it is cancelled
		}
		if !first && f.ranOut() && ctx.Err() == nil {
			w.engine.flights.release(f)
			continue
		}
		w.flight, w.stats = f, f.query.Stats()
		res := w.engine.flights.take(f)
		record.ended(res)
		servergroup.RequestOf(ctx).Record.Report(f.query.gaps)
		var canceled promql.ErrQueryCanceled
		if errors.As(res.Err, &canceled) && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			res.Err = ended(ctx) // which is why it was cancelled
		}
		return res
	}
}

// board has a query wait for an execution that suits it. first tells that it is a new
// one. The view is taken before that of the execution, so that nobody shares one of
// groups that had been replaced before.
func (e *Engine) board(ctx context.Context, w *waiter) (f *flight, first bool) {
	key, view := e.equality(w), e.groups.View(ctx)
	deadline, _ := ctx.Deadline()
	e.flights.mtx.Lock()
	defer e.flights.mtx.Unlock()
	if f = e.flights.newest[key]; f != nil && f.suits(view, deadline) {
		f.holders++
		e.flights.shared.Inc()
		return f, false
	}
	f = &flight{equality: key, view: view, deadline: deadline, holders: 1, done: make(chan struct{}), query: w.own}
	ctx, f.cancel = context.WithDeadline(context.WithoutCancel(ctx), deadline)
	e.flights.newest[key] = f
	go e.flights.fly(ctx, f)
	return f, true
}

func (e *Engine) equality(w *waiter) equality {
	return equality{
		text: w.own.text, start: w.stmt.Start.UnixMilli(), end: w.stmt.End.UnixMilli(),
		interval: w.stmt.Interval, lookback: w.stmt.LookbackDelta, subqueries: e.subquerySteps(w.stmt.Expr),
	}
}

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

// suits tells whether the execution gives the answer to an equal query of a view and
// with a deadline. The time that is left matters because it bounds how long a replica
// that hangs is waited for: about as long as the query itself would, and at least half
// of that.
func (f *flight) suits(view *servergroup.View, deadline time.Time) bool {
	left, own := time.Until(f.deadline), time.Until(deadline)
	return left >= own/2 && left-left/10 <= own && f.view.Alike(view)
}

// fly executes the query. A panic is that of the queries that wait.
func (fs *flights) fly(ctx context.Context, f *flight) {
	defer fs.land(f)
	defer func() {
		if f.panicked = recover(); f.panicked != nil {
			fs.logger.Error("the execution of a query panicked", "query", f.text, "panic", f.panicked, "stack", transport.StackOf(f.panicked))
		}
	}()
	f.result = f.query.run(ctx)
	settle(f.result.Warnings)
}

// land ends a flight. It is shared by nobody else any more.
func (fs *flights) land(f *flight) {
	fs.mtx.Lock()
	fs.remove(f)
	fs.mtx.Unlock()
	f.cancel()
	close(f.done)
}

func (fs *flights) remove(f *flight) {
	if fs.newest[f.equality] == f {
		delete(fs.newest, f.equality)
	}
}

// leave tells whether others hold the flight, so that the query may go. Else the query
// has it for itself, and it is cancelled, unless it ends by itself now: then it says
// where its time was spent.
func (fs *flights) leave(f *flight) bool {
	fs.mtx.Lock()
	defer fs.mtx.Unlock()
	if f.holders > 1 {
		f.holders--
		return true
	}
	fs.remove(f)
	if time.Now().Before(f.deadline) {
		f.cancel()
	}
	return false
}

// release gives up a flight that has landed. The last one gives its memory back.
func (fs *flights) release(f *flight) {
	fs.mtx.Lock()
	f.holders--
	last := f.holders == 0
	fs.mtx.Unlock()
	if last {
		f.query.Close()
	}
}

// take returns the result of a flight that has landed, which the caller may change.
func (fs *flights) take(f *flight) *promql.Result {
	if f.panicked != nil {
		panic(f.panicked)
	}
	fs.mtx.Lock()
	alone := f.holders == 1
	fs.mtx.Unlock()
	if alone {
		return f.result
	}
	out := &promql.Result{Err: f.result.Err, Value: f.result.Value, Warnings: maps.Clone(f.result.Warnings)}
	switch v := out.Value.(type) { // samples are never written
	case promql.Matrix:
		out.Value = slices.Clone(v)
	case promql.Vector:
		out.Value = slices.Clone(v)
	}
	return out
}

// ranOut tells whether the execution failed because its own time was over, or because
// it was cancelled.
func (f *flight) ranOut() bool {
	if f.panicked != nil {
		return false
	}
	var timeout promql.ErrQueryTimeout
	var canceled promql.ErrQueryCanceled
	err := queryError(f.result.Err)
	return errors.As(err, &timeout) || errors.As(err, &canceled)
}

// ended is the engine's error for a context that has ended.
func ended(ctx context.Context) error {
	const where = "query execution"
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return promql.ErrQueryTimeout(where)
	}
	return promql.ErrQueryCanceled(where)
}

// settle makes annotations what they say by now. Upstream's are told the query by
// whoever prints them, and several would do that at once.
func settle(ws annotations.Annotations) {
	for key, err := range ws {
		if told, ok := errors.AsType[interface {
			SetQuery(query string)
			error
		}](err); ok {
			ws[key] = &note{text: err.Error(), kind: errors.Unwrap(told), shown: true}
		}
	}
}
