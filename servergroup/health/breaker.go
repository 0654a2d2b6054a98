package health

import (
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sony/gobreaker/v2"
)

// State is that of a circuit breaker.
type State string

// The states. Auto is none, but takes back what was forced.
const (
	Closed   State = "closed"    // requests pass
	HalfOpen State = "half-open" // a few pass, to see whether they succeed
	Open     State = "open"      // none passes
	Auto     State = "auto"
)

const (
	// tripVolume is how many attempts within tripWindow say anything, and tripShare
	// which share of them must have failed. As many in a row do, too, however many came
	// before.
	tripVolume = 5
	tripShare  = 0.5
	tripWindow = 30 * time.Second
	tripBucket = 3 * time.Second
	// rampRequests is how many requests pass, and must succeed, before all do.
	rampRequests = 5
	// firstRest is for how long a replica is left alone after it has failed, longestRest
	// the longest of the times that double from there. Up to restJitter of it more or
	// less keeps replicas, and oneproms, from being probed at once.
	firstRest   = 500 * time.Millisecond
	longestRest = 5 * time.Second
	restJitter  = 0.2
	// calm is how long a breaker must have been closed for its next rest to be the first
	// one again.
	calm = time.Minute
)

// What gobreaker is told of outcomes.
var (
	errFailed  = errors.New("failed")
	errUnknown = errors.New("unknown")
)

// breaker is gobreaker's, with rests that grow. Counting, and the way from half-open to
// closed or back, are gobreaker's; a probe that is answered, and not the time, ends the
// state in which nothing passes.
type breaker struct {
	two *gobreaker.TwoStepCircuitBreaker[struct{}]
	// opened is called when it opens, changed on each change of the state. They must not
	// call back.
	opened  func()
	changed func(State)

	mtx      sync.Mutex // guards the fields below
	alive    bool       // a probe was answered since it opened
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
		Timeout:       time.Nanosecond, // alive says when it is over
		ReadyToTrip:   b.readyToTrip,
		IsExcluded:    func(err error) bool { return errors.Is(err, errUnknown) },
		OnStateChange: func(_ string, from, to gobreaker.State) { b.turned(from, to) },
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

// turned is told what gobreaker's state has become.
func (b *breaker) turned(from, to gobreaker.State) {
	switch to {
	case gobreaker.StateOpen:
		b.mtx.Lock()
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

// allow reports whether a request may pass; its outcome is then for done. With regardless
// it may, unless the breaker was forced open.
func (b *breaker) allow(regardless bool) (done func(Outcome), ok bool) {
	b.mtx.Lock()
	forced := b.forced
	b.mtx.Unlock()
	untold := func(Outcome) {}
	switch {
	case forced != "":
		return untold, forced == Closed
	case b.usable():
		if told, err := b.two.Allow(); err == nil {
			return func(o Outcome) { told(errorOf(o)) }, true
		}
	}
	return untold, regardless
}

// errorOf is what gobreaker is told.
func errorOf(o Outcome) error {
	switch o {
	case Fine:
		return nil
	case Failed:
		return errFailed
	}
	return errUnknown
}

// trip opens it, whatever was counted.
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

// answered is told that a probe was. It counts as the first success where some are
// needed.
func (b *breaker) answered() {
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

// rest is how long to wait before the next probe.
func (b *breaker) rest() time.Duration {
	b.mtx.Lock()
	defer b.mtx.Unlock()
	d := b.next
	b.next = min(2*d, longestRest)
	return time.Duration((1 + restJitter*(2*rand.Float64()-1)) * float64(d))
}

// force holds the breaker open or closed, until it is called with Auto.
func (b *breaker) force(s State) {
	b.mtx.Lock()
	if b.forced = s; s == Auto {
		b.forced = ""
	}
	b.mtx.Unlock()
	b.changed(b.state())
}
