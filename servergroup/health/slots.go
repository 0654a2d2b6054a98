package health

import (
	"container/list"
	"context"
	"fmt"
	"sync"
	"time"
)

// Slots limit how many requests are made at once. Further ones wait in the order in which they
// came. The limit is halved when a request is refused because of load, and grows back by one
// for each round of requests that succeed (additive increase, multiplicative decrease; Chiu
// and Jain, 1989, https://doi.org/10.1016/0169-7552(89)90019-6). They are safe for concurrent
// use. Nil is no limit.
type Slots struct {
	most int

	mtx     sync.Mutex // guards the fields below
	limit   float64    // at least 1
	used    int
	waiting list.List // of chan struct{}, which is closed when it has a slot
	until   time.Time // no request begins before
	wake    *time.Timer
}

// NewSlots returns the given number of slots; nil, which is no limit, for 0.
func NewSlots(most int) *Slots {
	if most == 0 {
		return nil
	}
	return &Slots{most: most, limit: float64(most)}
}

// longestPause is the longest pause that a backend may ask for.
const longestPause = 30 * time.Second

// Acquire waits for a slot, which the caller releases. It fails if ctx ends first.
func (s *Slots) Acquire(ctx context.Context) (release func(), err error) {
	if s == nil {
		return func() {}, nil
	}
	s.mtx.Lock()
	turn := make(chan struct{})
	at := s.waiting.PushBack(turn)
	s.admit()
	s.mtx.Unlock()
	select {
	case <-turn:
		return sync.OnceFunc(s.release), nil
	case <-ctx.Done():
	}
	s.mtx.Lock()
	select {
	case <-turn: // at the same moment
		s.used--
	default:
		s.waiting.Remove(at)
	}
	s.admit()
	s.mtx.Unlock()
	return nil, fmt.Errorf("timed out waiting for one of %d request slots: %w", s.Limit(), context.Cause(ctx))
}

func (s *Slots) release() {
	s.mtx.Lock()
	defer s.mtx.Unlock()
	s.used--
	s.admit()
}

// admit gives free slots to the requests that have waited longest. s.mtx is held.
func (s *Slots) admit() {
	if pause := time.Until(s.until); pause > 0 {
		if s.wake == nil {
			s.wake = time.AfterFunc(pause, func() {
				s.mtx.Lock()
				defer s.mtx.Unlock()
				s.wake = nil
				s.admit()
			})
		}
		return
	}
	for s.waiting.Len() > 0 && s.used < int(s.limit) {
		s.used++
		close(s.waiting.Remove(s.waiting.Front()).(chan struct{}))
	}
}

// Succeeded raises the limit.
func (s *Slots) Succeeded() {
	if s == nil {
		return
	}
	s.mtx.Lock()
	defer s.mtx.Unlock()
	s.limit = min(s.limit+1/s.limit, float64(s.most))
}

// Refused halves the limit, and lets no request begin during the pause.
func (s *Slots) Refused(pause time.Duration) {
	if s == nil {
		return
	}
	s.mtx.Lock()
	defer s.mtx.Unlock()
	s.limit = max(1, s.limit/2)
	if until := time.Now().Add(min(pause, longestPause)); until.After(s.until) {
		s.until = until
	}
}

// InUse is the number of requests that have a slot.
func (s *Slots) InUse() int { return s.number(func() int { return s.used }) }

// Waiting is the number of requests that wait for a slot.
func (s *Slots) Waiting() int { return s.number(s.waitingNow) }

// Limit is the number of requests that may have a slot now.
func (s *Slots) Limit() int { return s.number(func() int { return int(s.limit) }) }

func (s *Slots) waitingNow() int { return s.waiting.Len() }

func (s *Slots) number(of func() int) int {
	if s == nil {
		return 0
	}
	s.mtx.Lock()
	defer s.mtx.Unlock()
	return of()
}
