package health

import (
	"container/list"
	"context"
	"fmt"
	"sync"
	"time"
)

// Slots bound how many requests are under way at once. Further ones wait in turn. The
// bound is halved when a request is refused for load, and grows back by one for each
// round of requests that succeed (additive increase, multiplicative decrease; Chiu and
// Jain, 1989). It is safe for concurrent use. Nil does not bound.
type Slots struct {
	most int

	mtx     sync.Mutex // guards the fields below
	limit   float64    // at least 1
	used    int
	waiting list.List // of chan struct{}, closed when it is that one's turn
	until   time.Time // nobody begins before
	wake    *time.Timer
}

// NewSlots returns so many slots, nil if there are to be no bounds (0).
func NewSlots(most int) *Slots {
	if most == 0 {
		return nil
	}
	return &Slots{most: most, limit: float64(most)}
}

// longestPause bounds how long a backend may ask to be left alone.
const longestPause = 30 * time.Second

// Acquire waits for a slot. It fails when ctx ends.
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
	return nil, fmt.Errorf("no answer, as %d requests are under way already and this one waited: %w", s.InUse(), context.Cause(ctx))
}

func (s *Slots) release() {
	s.mtx.Lock()
	defer s.mtx.Unlock()
	s.used--
	s.admit()
}

// admit lets those begin whose turn it is. s.mtx is held.
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

// Succeeded lets the bound grow.
func (s *Slots) Succeeded() {
	if s == nil {
		return
	}
	s.mtx.Lock()
	defer s.mtx.Unlock()
	s.limit = min(s.limit+1/s.limit, float64(s.most))
}

// Refused halves the bound, and lets nobody begin for a while.
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

// InUse is how many are under way, Waiting how many wait, Limit how many may be under
// way now.
func (s *Slots) InUse() int { return s.number(func() int { return s.used }) }

// Waiting is described at InUse.
func (s *Slots) Waiting() int { return s.number(s.waitingNow) }

// Limit is described at InUse.
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
