// Package admission decides which requests are worked on. There are slots, and
// who finds none waits in a queue that is bounded in length and time, and fair to
// clients. Query rules refuse queries for what they are, or give them slots of
// their own.
package admission

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/promql"
)

// The flags that Refusals tell to turn.
const (
	flagSlots       = "--query.max-concurrency"
	flagClientSlots = "--query.max-concurrency-per-client"
	flagMaxQueued   = "--query.max-queued"
	flagMaxWait     = "--query.queue-timeout"
)

// Options bound what is worked on, and what waits.
type Options struct {
	Slots          int           // of all requests together
	SlotsPerClient int           // of those of one client; 0 is no limit
	MaxQueued      int           // requests that wait; 0 is none
	MaxWait        time.Duration // of a request, from when it arrived
	Registerer     prometheus.Registerer
}

// Queue admits requests. Of those that wait, the clients take turns, and each
// client's are admitted in the order in which they came; one that needs a slot of
// a pool that has none free does not hold up those behind it.
type Queue struct {
	maxQueued      int
	maxWait        time.Duration
	slotsPerClient int
	metrics        *metrics

	mtx     sync.Mutex // guards the fields below, all clients, waiters and pools
	all     *Pool
	clients map[string]*client // that have slots, or wait
	turns   []*client          // that wait, the next one first
	queued  int
}

// Pool is a number of slots. A request may need one of several pools.
type Pool struct {
	kind  string // for metrics
	knob  string // what gives the slots, for people
	slots int
	used  int
}

// client is who has requests.
type client struct {
	name    string
	slots   *Pool
	waiting []*waiter // the oldest first
}

// waiter is a request in the queue.
type waiter struct {
	client *client
	pools  []*Pool       // it needs a slot of each
	done   chan struct{} // closed when it is admitted or refused, and err is set for good
	err    error
}

// Request asks for a slot.
type Request struct {
	Client  string    // to which the queue is fair
	Arrived time.Time // from when on it waits
	Pools   []*Pool   // which it needs a slot of besides
}

// Refusal is why a request was not admitted.
type Refusal struct {
	msg string
	// RetryAfter is when it may be worth to ask again.
	RetryAfter time.Duration
}

func (r *Refusal) Error() string { return r.msg }

// NewQueue returns a queue with all slots free.
func NewQueue(o Options) *Queue {
	q := &Queue{
		maxQueued: o.MaxQueued, maxWait: o.MaxWait, slotsPerClient: o.SlotsPerClient,
		all: &Pool{kind: "all", knob: flagSlots, slots: o.Slots}, clients: map[string]*client{},
	}
	if q.slotsPerClient == 0 {
		q.slotsPerClient = math.MaxInt
	}
	q.metrics = newMetrics(o.Registerer, q)
	return q
}

// NewPool returns further slots, which are used with this queue only. kind is for
// metrics, so there must be few; knob says what gives the slots.
func NewPool(kind, knob string, slots int) *Pool { return &Pool{kind: kind, knob: knob, slots: slots} }

// Enter waits for a slot, which is held until leave is called, once or more often.
// A slot that is free is taken even if the context has ended, so that what the
// request then fails with does not depend on chance. The error is a *Refusal, or
// says in the words of upstream's engine that the context has ended.
func (q *Queue) Enter(ctx context.Context, r Request) (leave func(), err error) {
	began := time.Now()
	w := q.lineUp(r)
	timeUp := time.NewTimer(time.Until(r.Arrived.Add(q.maxWait)))
	defer timeUp.Stop()
	select {
	case <-w.done:
	case <-timeUp.C:
		q.giveUp(w, q.waitedLongEnough)
	case <-ctx.Done():
		q.giveUp(w, func(p *Pool) error { return q.ended(ctx, p) })
	}
	q.metrics.wait.Observe(time.Since(began).Seconds())
	if w.err != nil {
		return nil, w.err
	}
	return sync.OnceFunc(func() { q.leave(w) }), nil
}

// lineUp admits a request, has it wait, or refuses it.
func (q *Queue) lineUp(r Request) *waiter {
	q.mtx.Lock()
	defer q.mtx.Unlock()
	c := q.clients[r.Client]
	if c == nil {
		c = &client{name: r.Client, slots: &Pool{kind: "client", knob: flagClientSlots, slots: q.slotsPerClient}}
		q.clients[r.Client] = c
	}
	w := &waiter{client: c, pools: append([]*Pool{q.all, c.slots}, r.Pools...), done: make(chan struct{})}
	short := w.short()
	switch {
	case short == nil:
		w.admit()
	case !q.makeRoom(c):
		w.settle(q.full(short))
		q.forget(c)
	default:
		if len(c.waiting) == 0 {
			q.turns = append(q.turns, c)
		}
		c.waiting = append(c.waiting, w)
		q.queued++
	}
	return w
}

// short returns a pool that has no slot for the request, that of the fewest
// requests if there are several; nil if it can be admitted.
func (w *waiter) short() *Pool {
	for _, p := range slices.Backward(w.pools) {
		if p.used >= p.slots {
			return p
		}
	}
	return nil
}

func (w *waiter) admit() {
	for _, p := range w.pools {
		p.used++
	}
	w.settle(nil)
}

func (w *waiter) settle(err error) {
	w.err = err
	close(w.done)
}

// makeRoom reports whether one more request of a client may wait. In a full queue,
// the newest of the client that has the most gives way to one of a client that has
// fewer: else a client that floods would keep the others out.
func (q *Queue) makeRoom(c *client) bool {
	if q.queued < q.maxQueued {
		return true
	}
	most := c
	for _, other := range q.turns {
		if len(other.waiting) > len(most.waiting) {
			most = other
		}
	}
	if len(most.waiting) <= len(c.waiting)+1 {
		return false
	}
	last := most.waiting[len(most.waiting)-1]
	q.remove(last)
	last.settle(q.full(last.short()))
	return true
}

// remove takes a request out of the queue.
func (q *Queue) remove(w *waiter) {
	c := w.client
	i := slices.Index(c.waiting, w)
	c.waiting = slices.Delete(c.waiting, i, i+1)
	q.queued--
	if len(c.waiting) == 0 {
		q.turns = slices.DeleteFunc(q.turns, func(other *client) bool { return other == c })
	}
}

// forget drops a client that has nothing here any more.
func (q *Queue) forget(c *client) {
	if c.slots.used == 0 && len(c.waiting) == 0 {
		delete(q.clients, c.name)
	}
}

// giveUp ends the wait of a request, unless it has just been admitted or refused.
func (q *Queue) giveUp(w *waiter, why func(short *Pool) error) {
	q.mtx.Lock()
	defer q.mtx.Unlock()
	select {
	case <-w.done:
		return
	default:
	}
	q.remove(w)
	w.settle(why(w.short()))
	q.forget(w.client)
}

// leave gives the slots of a request to those that wait.
func (q *Queue) leave(w *waiter) {
	q.mtx.Lock()
	defer q.mtx.Unlock()
	for _, p := range w.pools {
		p.used--
	}
	q.admitNext()
	q.forget(w.client)
}

// admitNext admits all that can be admitted. Afterwards there is none, so that who
// comes and finds a slot overtakes nobody who could have it.
func (q *Queue) admitNext() {
	for i := 0; i < len(q.turns) && q.all.used < q.all.slots; {
		c := q.turns[i]
		next := slices.IndexFunc(c.waiting, func(w *waiter) bool { return w.short() == nil })
		if next < 0 {
			i++
			continue
		}
		w := c.waiting[next]
		q.remove(w)
		if len(c.waiting) > 0 { // it had its turn
			q.turns = append(slices.Delete(q.turns, i, i+1), c)
		}
		w.admit()
	}
}

// waitedLongEnough refuses a request that waited for a slot of a pool in vain.
func (q *Queue) waitedLongEnough(short *Pool) error {
	return q.refuse("queue_timeout", short, "no slot of the %d that %s gives became free within %s: ask less at once, or raise it or %s",
		short.slots, short.knob, q.maxWait, flagMaxWait)
}

// full refuses a request that cannot even wait for a slot of a pool.
func (q *Queue) full(short *Pool) error {
	return q.refuse("queue_full", short, "no slot of the %d that %s gives is free, and no more than %d requests may wait: ask less at once, or raise it or %s",
		short.slots, short.knob, q.maxQueued, flagMaxQueued)
}

func (q *Queue) refuse(reason string, short *Pool, format string, args ...any) *Refusal {
	q.metrics.refused.WithLabelValues(reason, short.kind).Inc()
	return &Refusal{msg: "too many requests: " + fmt.Sprintf(format, args...), RetryAfter: q.maxWait}
}

// ended is the error of a request whose context has ended while it waited.
func (q *Queue) ended(ctx context.Context, short *Pool) error {
	const where = "query queue"
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		q.metrics.refused.WithLabelValues("query_timeout", short.kind).Inc()
		return promql.ErrQueryTimeout(where)
	}
	return promql.ErrQueryCanceled(where)
}
