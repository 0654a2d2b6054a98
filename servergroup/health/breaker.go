package health

import (
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sony/gobreaker/v2"
)

// State is the state of a circuit breaker.
type State string

// The states. Auto is not one of them, but ends a forced one.
const (
	Closed   State = "closed"    // requests pass
	HalfOpen State = "half-open" // a few pass, to see whether they succeed
	Open     State = "open"      // none passes
	Auto     State = "auto"
)

const (
	// tripVolume attempts within tripWindow, of which tripShare have failed, open a breaker.
	// So do tripVolume failures in a row, however many attempts came before.
	tripVolume = 5
	tripShare  = 0.5
	tripWindow = 30 * time.Second
	tripBucket = 3 * time.Second
	// rampRequests is how many requests pass a half-open breaker, and must succeed to close it.
	rampRequests = 5
	// firstRest is how long a replica is left alone after it has failed. The time doubles up
	// to longestRest. A jitter of up to restJitter of it prevents that replicas are probed at
	// once, or by several oneproms at once.
	firstRest   = 500 * time.Millisecond
	longestRest = 5 * time.Second
	restJitter  = 0.2
	// calm is how long a breaker must have been closed for the next rest to be firstRest again.
	calm = time.Minute
)

// The errors that stand for outcomes in gobreaker.
var (
	errFailed  = errors.New("failed")
	errUnknown = errors.New("unknown")
)

// breaker is a gobreaker.TwoStepCircuitBreaker that a successful probe, not a timeout, turns
// from open to half-open, and with rests between probes that grow. Counting, and the way from
// half-open to closed or back, are gobreaker's.
type breaker struct {
	two *gobreaker.TwoStepCircuitBreaker[struct{}]
	// opened is called when the breaker opens, changed on each change of the state. They must
	// not call the breaker.
	opened  func()
	changed func(State)

	mtx      sync.Mutex // guards the fields below
	alive    bool       // a probe has succeeded since it opened
	tripping bool       // the next failure opens it
	forced   State      // "" is none
	next     time.Duration
	closedAt time.Time
}

func newBreaker(opened func(), changed func(State)) *breaker {
	b := &breaker{opened: opened, changed: changed, next: firstRest}
	b.two = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests:   rampRequests,
		Interval:      tripWindow,
		BucketPeriod:  tripBucket,
		Timeout:       time.Nanosecond, // alive decides instead
		ReadyToTrip:   b.readyToTrip,
		IsExcluded:    func(err error) bool { return errors.Is(err, errUnknown) },
		OnStateChange: func(_ string, from, to gobreaker.State) { b.stateChanged(from, to) },
	})
	return b
}

func (b *breaker) readyToTrip(c gobreaker.Counts) bool {
	b.mtx.Lock()
	defer b.mtx.Unlock()
	known := c.TotalFailures + c.TotalSuccesses
	return b.tripping || c.ConsecutiveFailures >= tripVolume ||
		known >= tripVolume && float64(c.TotalFailures) >= tripShare*float64(known)
}

// stateChanged follows a change of gobreaker's state.
func (b *breaker) stateChanged(from, to gobreaker.State) {
	switch to {
	case gobreaker.StateOpen:
		b.mtx.Lock()
		if from == gobreaker.StateHalfOpen && !b.alive { // half-open by its timeout alone: it has been open all the time
			b.mtx.Unlock()
			return
		}
		b.alive = false
		if from == gobreaker.StateClosed && time.Since(b.closedAt) > calm {
			b.next = firstRest
		}
		b.mtx.Unlock()
		b.changed(Open)
		b.opened()
	case gobreaker.StateClosed:
		b.mtx.Lock()
		b.closedAt = time.Now()
		b.mtx.Unlock()
		b.changed(Closed)
	}
}

func (b *breaker) state() State {
	now := b.two.State()
	b.mtx.Lock()
	defer b.mtx.Unlock()
	switch {
	case b.forced != "":
		return b.forced
	case now == gobreaker.StateClosed:
		return Closed
	case b.alive:
		return HalfOpen
	}
	return Open
}

func (b *breaker) usable() bool { return b.state() != Open }

// allow reports whether a request may pass; done must then be called with its outcome. With
// regardless, every request may pass, unless the breaker was forced open.
func (b *breaker) allow(regardless bool) (done func(Outcome), ok bool) {
	b.mtx.Lock()
	forced := b.forced
	b.mtx.Unlock()
	uncounted := func(Outcome) {}
	switch {
	case forced != "":
		return uncounted, forced == Closed
	case b.usable():
		if count, err := b.two.Allow(); err == nil {
			return func(o Outcome) { count(errorOf(o)) }, true
		}
	}
	return uncounted, regardless
}

// errorOf returns the error that stands for an outcome in gobreaker.
func errorOf(o Outcome) error {
	switch o {
	case Fine:
		return nil
	case Failed:
		return errFailed
	}
	return errUnknown
}

// isForced reports whether the breaker is kept open, whatever the replica answers.
func (b *breaker) isForced() bool {
	b.mtx.Lock()
	defer b.mtx.Unlock()
	return b.forced == Open
}

// trip opens the breaker, whatever was counted.
func (b *breaker) trip() {
	b.setTripping(true)
	defer b.setTripping(false)
	if done, err := b.two.Allow(); err == nil {
		done(errFailed)
	}
}

func (b *breaker) setTripping(is bool) {
	b.mtx.Lock()
	defer b.mtx.Unlock()
	b.tripping = is
}

// probeSucceeded makes an open breaker half-open. The probe counts as the first of the
// successes that close it.
func (b *breaker) probeSucceeded() {
	if b.two.State() == gobreaker.StateClosed {
		return
	}
	b.mtx.Lock()
	first := !b.alive
	b.alive = true
	b.mtx.Unlock()
	if !first {
		return
	}
	b.changed(HalfOpen)
	if done, err := b.two.Allow(); err == nil {
		done(nil)
	}
}

// rest is how long to wait before the next probe. It doubles from call to call.
func (b *breaker) rest() time.Duration {
	b.mtx.Lock()
	defer b.mtx.Unlock()
	d := b.next
	b.next = min(2*d, longestRest)
	return time.Duration((1 + restJitter*(2*rand.Float64()-1)) * float64(d))
}

// force keeps the breaker open or closed until it is called with Auto.
func (b *breaker) force(s State) {
	b.mtx.Lock()
	if b.forced = s; s == Auto {
		b.forced = ""
	}
	b.mtx.Unlock()
	b.changed(b.state())
}
