// Package health keeps what the recent past has shown of one replica, and protects
// both sides by it: a circuit breaker with probes that find out when to close it, how
// long answers take, and how many requests are under way. It knows one replica and
// nothing of what it is asked.
package health

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// Outcome is what an attempt says of the replica's health.
type Outcome int

// The outcomes of attempts.
const (
	// Fine is an answer, be it a refusal of this one query.
	Fine Outcome = iota
	// Failed is a replica that is broken or cannot be reached.
	Failed
	// Loaded is a replica that has too much to do.
	Loaded
	// Unknown says nothing: the attempt was given up, or never made.
	Unknown
)

// Options of a Replica.
type Options struct {
	// URL names it in errors and logs.
	URL string
	// Concurrency is the most requests at a time.
	Concurrency int
	// Judge tells what the error of an attempt says, nil being none. retryAfter is how
	// long a loaded replica wants to be left alone; 0 if it does not say.
	Judge func(error) (o Outcome, retryAfter time.Duration)
	// Run runs f in the background, with a context that ends it; it reports whether it
	// will.
	Run func(f func(context.Context)) bool
	// Changed is told each change of the state. It must not call back.
	Changed func(to State)
	Logger  *slog.Logger
}

// Replica is the health of one. It is safe for concurrent use.
type Replica struct {
	opts    Options
	breaker *breaker
	slots   *Slots
	latency latency

	mtx      sync.Mutex // guards the fields below
	ask      func(context.Context) error
	attempts map[*attempt]struct{}
	checking bool
	doubted  bool  // the last attempt or probe failed
	lastErr  error // of the last attempt that failed
	gone     bool
}

// attempt is one that is under way.
type attempt struct{ cancel context.CancelCauseFunc }

// NewReplica returns one of which nothing is known. Before its first attempt, SetProbe
// says how it is probed.
func NewReplica(o Options) *Replica {
	r := &Replica{opts: o, slots: NewSlots(o.Concurrency), attempts: map[*attempt]struct{}{}}
	r.breaker = newBreaker(r.opened, o.Changed)
	return r
}

// SetProbe says how the replica is asked something cheap that a broken one cannot
// answer. The error is judged as those of attempts are.
func (r *Replica) SetProbe(ask func(context.Context) error) {
	r.mtx.Lock()
	defer r.mtx.Unlock()
	r.ask = ask
}

// Slots are those of the replica.
func (r *Replica) Slots() *Slots { return r.slots }

// Close ends the probes of a replica that is not there any more. Attempts under way
// go on.
func (r *Replica) Close() {
	r.mtx.Lock()
	defer r.mtx.Unlock()
	r.gone = true
}

func (r *Replica) isGone() bool {
	r.mtx.Lock()
	defer r.mtx.Unlock()
	return r.gone
}

// OpenError is a replica that was not asked because it failed too often.
type OpenError struct {
	URL string
	// Cause is how it failed last.
	Cause error
}

func (e *OpenError) Error() string {
	if e.Cause == nil {
		return e.URL + ": not asked, as its circuit breaker is open"
	}
	return fmt.Sprintf("%s: not asked, as its circuit breaker is open: %s", e.URL, withoutURL(e.URL, e.Cause.Error()))
}

// withoutURL drops the URL that an error of the transport begins with.
func withoutURL(url, text string) string {
	return strings.TrimPrefix(text, url+": ")
}

// errHung ends the attempts under way at a replica that does not answer its probe.
var errHung = errors.New("it does not answer the simplest query either")

// Usable reports whether the replica would be asked now. One of which nothing is kept
// (nil) would.
func (r *Replica) Usable() bool { return r == nil || r.breaker.usable() }

// State is that of the circuit breaker.
func (r *Replica) State() State { return r.breaker.state() }

// Open returns the error of not asking it.
func (r *Replica) Open() error {
	r.mtx.Lock()
	defer r.mtx.Unlock()
	return &OpenError{URL: r.opts.URL, Cause: r.lastErr}
}

// Force holds the breaker in a state, Open or Closed, until Force is called with Auto.
func (r *Replica) Force(s State) { r.breaker.force(s) }

// Do makes an attempt, unless the breaker is open: then the error is an *OpenError.
// With regardless it is made all the same, as nobody else can be asked. It waits for
// a slot. What the attempt shows is remembered.
//
// An attempt that fails or takes unusually long has the replica probed, and ends if that
// is not answered either: a slow answer is waited for, a hung replica is not.
func (r *Replica) Do(ctx context.Context, regardless bool, f func(context.Context) error) error {
	done, ok := r.breaker.allow(regardless)
	if !ok {
		return r.Open()
	}
	release, err := r.slots.Acquire(ctx)
	if err != nil {
		done(Unknown)
		return fmt.Errorf("%s: %w", r.opts.URL, err)
	}
	defer release()
	if !regardless && !r.Usable() { // it opened meanwhile
		done(Unknown)
		return r.Open()
	}
	ctx, leave := r.enter(ctx)
	defer leave()
	slow := time.AfterFunc(r.latency.unusual(), r.check)
	defer slow.Stop()
	began := time.Now()
	err = f(ctx)
	o, retryAfter := r.opts.Judge(err)
	r.learn(o, err, time.Since(began), retryAfter)
	done(o)
	if o == Fine && regardless {
		r.breaker.answered()
	}
	return err
}

// enter makes an attempt known, so that it can be ended.
func (r *Replica) enter(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	a := &attempt{cancel: cancel}
	r.mtx.Lock()
	r.attempts[a] = struct{}{}
	r.mtx.Unlock()
	return ctx, func() {
		r.mtx.Lock()
		delete(r.attempts, a)
		r.mtx.Unlock()
		cancel(nil)
	}
}

// learn takes over what an attempt has shown.
func (r *Replica) learn(o Outcome, err error, took, retryAfter time.Duration) {
	if o == Fine || o == Failed {
		r.doubt(o == Failed) // until it is probed
	}
	switch o {
	case Fine:
		r.slots.Succeeded()
		if err == nil {
			r.latency.observe(took)
		}
	case Loaded:
		r.slots.Refused(retryAfter)
	case Failed:
		r.mtx.Lock()
		r.lastErr = err
		r.mtx.Unlock()
		r.check()
	}
}

func (r *Replica) doubt(is bool) {
	r.mtx.Lock()
	defer r.mtx.Unlock()
	r.doubted = is
}

// Doubted reports whether what the replica was asked last has failed. Who can ask another
// one does.
func (r *Replica) Doubted() bool {
	if r == nil {
		return false
	}
	r.mtx.Lock()
	defer r.mtx.Unlock()
	return r.doubted
}

// HedgeAfter is how long to wait for an answer before somebody else is asked, too.
func (r *Replica) HedgeAfter() time.Duration { return r.latency.late() }

const (
	// probeWait is how long a probe may take.
	probeWait = time.Second
	// probesToOpen is how many probes in a row must fail before a replica that has not
	// failed otherwise is taken to be hung.
	probesToOpen = 2
)

// Suspect has the replica probed in the background: others were faster by far.
func (r *Replica) Suspect() { r.check() }

// check probes the replica in the background, and opens the breaker if it does not
// answer.
func (r *Replica) check() {
	r.mtx.Lock()
	defer r.mtx.Unlock()
	if r.checking || r.gone {
		return
	}
	r.checking = r.opts.Run(func(ctx context.Context) {
		defer func() {
			r.mtx.Lock()
			r.checking = false
			r.mtx.Unlock()
		}()
		hung := 0
		for range probesToOpen {
			err := r.probe(ctx)
			if err == nil {
				r.doubt(false)
				return
			}
			if errors.Is(err, errNoAnswer) {
				hung++
			}
		}
		if ctx.Err() != nil {
			return
		}
		r.breaker.trip()
		if hung == probesToOpen { // one that answers with an error says it to the others, too
			r.endAttempts()
		}
	})
}

// endAttempts ends those under way.
func (r *Replica) endAttempts() {
	r.mtx.Lock()
	defer r.mtx.Unlock()
	for a := range r.attempts {
		a.cancel(errHung)
	}
}

// errNoAnswer is a probe that was not answered.
var errNoAnswer = fmt.Errorf("no answer to a probe within %s", probeWait)

// probe is an error if the replica does not answer, or with a failure.
func (r *Replica) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, probeWait, errNoAnswer)
	defer cancel()
	r.mtx.Lock()
	ask := r.ask
	r.mtx.Unlock()
	err := ask(ctx)
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	} else if o, _ := r.opts.Judge(err); o != Failed {
		return nil
	}
	r.mtx.Lock()
	if r.lastErr == nil {
		r.lastErr = err
	}
	r.mtx.Unlock()
	return err
}

// opened probes the replica until it answers.
func (r *Replica) opened() {
	r.mtx.Lock()
	cause := r.lastErr
	r.mtx.Unlock()
	r.opts.Logger.Warn("circuit breaker opened", "url", r.opts.URL, "err", cause)
	r.opts.Run(r.recover)
}

// recover probes until the replica answers, less and less often.
func (r *Replica) recover(ctx context.Context) {
	for {
		wait := time.NewTimer(r.breaker.rest())
		select {
		case <-ctx.Done():
			wait.Stop()
			return
		case <-wait.C:
		}
		if r.isGone() {
			return
		}
		if r.probe(ctx) == nil {
			r.opts.Logger.Info("circuit breaker lets requests through again", "url", r.opts.URL)
			r.doubt(false)
			r.breaker.answered()
			return
		}
	}
}
