// Package health keeps the health of one replica, as recent requests have shown it, and
// protects both sides: a circuit breaker whose probes find out when to close it, the time that
// responses take, and a limit of concurrent requests. It knows neither other replicas nor what
// the replica is asked.
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

// Outcome is what an attempt says about the replica's health.
type Outcome int

// The outcomes of attempts.
const (
	// Fine is a response, even if it refuses this one query.
	Fine Outcome = iota
	// Failed is a replica that is broken or cannot be reached.
	Failed
	// Unclear is a failure that may be the question's doing. A probe, whose question is always the
	// same, finds out.
	Unclear
	// Loaded is a replica that is overloaded.
	Loaded
	// Unknown says nothing: the attempt was given up or not made.
	Unknown
)

// Options of a Replica.
type Options struct {
	// URL identifies the replica in errors and logs.
	URL string
	// Concurrency is the most requests at a time; 0 is no limit.
	Concurrency int
	// Region has the slots that the replica shares with others; nil is no limit.
	Region *Slots
	// Judge returns what the error of an attempt, or nil, says about the replica. retryAfter
	// is how long a loaded replica asks to be left alone; 0 if it does not say.
	Judge func(error) (o Outcome, retryAfter time.Duration)
	// Run runs f in the background with a context that ends it, and reports whether it does.
	Run func(f func(context.Context)) bool
	// Changed is called with the new state on each change. It must not call the Replica.
	Changed func(to State)
	Logger  *slog.Logger
}

// Replica is the health of one replica. It is safe for concurrent use.
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
	lastErr  error // of the last attempt that failed, or of a probe if nothing had failed just before
	well     bool  // it has answered since lastErr
	gone     bool
}

// attempt is a running attempt.
type attempt struct{ cancel context.CancelCauseFunc }

// NewReplica returns the health of a replica about which nothing is known. SetProbe must be
// called before the first attempt.
func NewReplica(o Options) *Replica {
	r := &Replica{opts: o, slots: NewSlots(o.Concurrency), attempts: map[*attempt]struct{}{}}
	r.breaker = newBreaker(r.opened, o.Changed)
	return r
}

// SetProbe sets the probe: a cheap request that a broken replica does not answer. Its error is
// judged by Options.Judge.
func (r *Replica) SetProbe(ask func(context.Context) error) {
	r.mtx.Lock()
	defer r.mtx.Unlock()
	r.ask = ask
}

// Slots returns the slots of the replica.
func (r *Replica) Slots() *Slots { return r.slots }

// Close ends the probes of a replica that was removed. Running attempts go on.
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

// OpenError is the error of a replica that was not asked because it had failed too often.
type OpenError struct {
	URL string
	// Cause is its last failure, nil if there was none.
	Cause error
}

func (e *OpenError) Error() string {
	if e.Cause == nil {
		return e.URL + ": not asked, as its circuit breaker is open"
	}
	return fmt.Sprintf("%s: not asked, as its circuit breaker is open: %s", e.URL, withoutURL(e.URL, e.Cause.Error()))
}

// withoutURL removes the URL from the beginning of an error of the transport.
func withoutURL(url, text string) string {
	return strings.TrimPrefix(text, url+": ")
}

// errHung ends the running attempts at a replica that does not answer its probes.
var errHung = errors.New("it does not answer the simplest query either")

// Usable reports whether the replica would be asked now. A nil Replica would.
func (r *Replica) Usable() bool { return r == nil || r.breaker.usable() }

// State returns the state of the circuit breaker.
func (r *Replica) State() State { return r.breaker.state() }

// Open returns the error of not asking the replica.
func (r *Replica) Open() error {
	if r.breaker.isForced() {
		return &OpenError{URL: r.opts.URL, Cause: errForced}
	}
	r.mtx.Lock()
	defer r.mtx.Unlock()
	return &OpenError{URL: r.opts.URL, Cause: r.lastErr}
}

// errForced is why a replica is not asked whose breaker was forced open.
var errForced = errors.New("an administrator has opened it")

// Force keeps the breaker in a state, Open or Closed, until it is called with Auto.
func (r *Replica) Force(s State) { r.breaker.force(s) }

// Do makes the attempt f once it has its slots, and remembers the outcome. If the breaker is
// open, it returns an *OpenError instead. With regardless it makes the attempt nevertheless,
// for callers that have no other replica.
//
// Who waits for the replica holds no slot of the region: others would wait for those, who ask replicas
// that have nothing to do.
//
// An attempt that fails or takes unusually long starts probes of the replica, and ends if those
// are not answered either: a slow response is waited for, a hung replica is not.
func (r *Replica) Do(ctx context.Context, by *Asker, regardless bool, f func(context.Context) error) error {
	done, ok := r.breaker.allow(regardless)
	if !ok {
		return r.Open()
	}
	for _, slots := range []*Slots{r.slots, r.opts.Region} {
		release, err := slots.Acquire(ctx, by)
		if err != nil {
			done(Unknown)
			return fmt.Errorf("%s: %w", r.opts.URL, err)
		}
		defer release()
	}
	if !regardless && !r.Usable() { // the breaker opened meanwhile
		done(Unknown)
		return r.Open()
	}
	ctx, leave := r.enter(ctx)
	defer leave()
	slow := time.AfterFunc(r.latency.unusual(), r.check)
	defer slow.Stop()
	began := time.Now()
	err := f(ctx)
	o, retryAfter := r.opts.Judge(err)
	r.learn(o, err, time.Since(began), retryAfter)
	done(o)
	if o == Fine && regardless {
		r.breaker.probeSucceeded()
	}
	return err
}

// Blame counts a failure of an attempt whose outcome was Unclear.
func (r *Replica) Blame(err error) {
	if done, ok := r.breaker.allow(false); ok {
		r.learn(Failed, err, 0, 0)
		done(Failed)
	}
}

// enter registers an attempt, so that endAttempts ends it.
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

// learn remembers the outcome of an attempt.
func (r *Replica) learn(o Outcome, err error, took, retryAfter time.Duration) {
	switch o {
	case Fine, Failed, Unclear:
		r.setDoubted(o != Fine) // until the next probe
	}
	switch o {
	case Fine:
		r.slots.Succeeded()
		if err == nil {
			r.latency.observe(took)
		}
	case Loaded:
		r.slots.Refused(retryAfter)
	case Failed, Unclear:
		r.mtx.Lock()
		r.lastErr, r.well = err, false
		r.mtx.Unlock()
		r.check()
	}
}

func (r *Replica) setDoubted(is bool) {
	r.mtx.Lock()
	defer r.mtx.Unlock()
	if r.doubted = is; !is {
		r.well = true
	}
}

// Doubted reports whether the last attempt or probe has failed, so that another replica is
// preferred.
func (r *Replica) Doubted() bool {
	if r == nil {
		return false
	}
	r.mtx.Lock()
	defer r.mtx.Unlock()
	return r.doubted
}

// HedgeAfter is how long to wait for a response before another replica is asked, too.
func (r *Replica) HedgeAfter() time.Duration { return r.latency.late() }

const (
	// probeWait is how long a probe may take.
	probeWait = time.Second
	// probesToOpen is how many probes in a row must fail to open the breaker.
	probesToOpen = 2
)

// Suspect probes the replica in the background, because others were much faster.
func (r *Replica) Suspect() { r.check() }

// check probes the replica in the background, and opens the breaker if the probes fail.
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
				r.setDoubted(false)
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
		if hung == probesToOpen { // a replica that responds with errors ends the attempts itself
			r.endAttempts()
		}
	})
}

// endAttempts ends the running attempts.
func (r *Replica) endAttempts() {
	r.mtx.Lock()
	defer r.mtx.Unlock()
	for a := range r.attempts {
		a.cancel(errHung)
	}
}

// errNoAnswer is the error of a probe without a response.
var errNoAnswer = fmt.Errorf("no answer to a probe within %s", probeWait)

// probe fails if the replica does not answer, or with a failure.
func (r *Replica) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, probeWait, errNoAnswer)
	defer cancel()
	r.mtx.Lock()
	ask := r.ask
	r.mtx.Unlock()
	err := ask(ctx)
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	} else if o, _ := r.opts.Judge(err); o != Failed && o != Unclear {
		return nil
	}
	usable := r.breaker.usable() // before r.mtx, which opened locks under the locks of the breaker
	r.mtx.Lock()
	if r.lastErr == nil || r.well || !usable { // an error of an attempt says more, unless it is an old one
		r.lastErr, r.well = err, false
	}
	r.mtx.Unlock()
	r.opts.Logger.Debug("probe failed", "url", r.opts.URL, "err", err)
	return err
}

// opened starts the probes that end when the replica answers.
func (r *Replica) opened() {
	r.mtx.Lock()
	cause := r.lastErr
	r.mtx.Unlock()
	r.opts.Logger.Warn("circuit breaker opened", "url", r.opts.URL, "err", cause)
	r.opts.Run(r.recover)
}

// recover probes the replica at growing intervals until it answers.
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
			r.setDoubted(false)
			r.breaker.probeSucceeded()
			return
		}
	}
}
