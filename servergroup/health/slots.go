package health

import (
	"container/list"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Asker is for whom requests are made: a query, and the client that has asked it. Two pointers are
// two queries.
type Asker struct {
	Client string
}

// Slots limit how many requests are made at once. Further ones wait. The clients that wait take turns,
// and so do the queries of each; the requests of one query are made in the order in which they came.
// A query has no more than half of the slots, so that one of many requests leaves room for the
// others. What is asked for nobody (a nil Asker) takes turns as one client, and may have all slots.
//
// The limit is halved when a request is refused because of load, and grows back by one
// for each round of requests that succeed (additive increase, multiplicative decrease; Chiu
// and Jain, 1989, https://doi.org/10.1016/0169-7552(89)90019-6). They are safe for concurrent
// use. Nil is no limit.
type Slots struct {
	most int

	mtx     sync.Mutex // guards the fields below
	limit   float64    // at least 1
	used    int
	waiting int
	queries map[*Asker]*queryTurns // that have slots, or wait
	turns   []*clientTurns         // of those that wait, the next one first
	until   time.Time              // no request begins before
	wake    *time.Timer
}

// clientTurns are the queries of a client that wait, the next one first.
type clientTurns struct {
	client  string
	queries []*queryTurns
}

// queryTurns are the requests of a query.
type queryTurns struct {
	asker   *Asker
	used    int
	waiting list.List // of chan struct{}, which is closed when it has a slot
}

// NewSlots returns the given number of slots; nil, which is no limit, for 0.
func NewSlots(most int) *Slots {
	if most == 0 {
		return nil
	}
	return &Slots{most: most, limit: float64(most), queries: map[*Asker]*queryTurns{}}
}

// longestPause is the longest pause that a backend may ask for.
const longestPause = 30 * time.Second

// Acquire waits for a slot, which the caller releases. It fails if ctx ends first.
func (s *Slots) Acquire(ctx context.Context, a *Asker) (release func(), err error) {
	if s == nil {
		return func() {}, nil
	}
	turn := make(chan struct{})
	s.mtx.Lock()
	q, at := s.lineUp(a, turn)
	s.admit()
	s.mtx.Unlock()
	select {
	case <-turn:
		return sync.OnceFunc(func() { s.release(q) }), nil
	case <-ctx.Done():
	}
	s.mtx.Lock()
	select {
	case <-turn: // at the same moment
		s.used--
		q.used--
	default:
		s.waiting--
		if q.waiting.Remove(at); q.waiting.Len() == 0 {
			s.leave(q)
		}
	}
	s.forget(q)
	s.admit()
	s.mtx.Unlock()
	return nil, fmt.Errorf("timed out waiting for one of %d request slots: %w", s.Limit(), context.Cause(ctx))
}

// lineUp has a request wait. s.mtx is held.
func (s *Slots) lineUp(a *Asker, turn chan struct{}) (*queryTurns, *list.Element) {
	q := s.queries[a]
	if q == nil {
		q = &queryTurns{asker: a}
		s.queries[a] = q
	}
	at := q.waiting.PushBack(turn)
	s.waiting++
	if q.waiting.Len() == 1 {
		client := q.client()
		i := slices.IndexFunc(s.turns, func(c *clientTurns) bool { return c.client == client })
		if i < 0 {
			i = len(s.turns)
			s.turns = append(s.turns, &clientTurns{client: client})
		}
		s.turns[i].queries = append(s.turns[i].queries, q)
	}
	return q, at
}

// client is the name of the client; that of what is asked for nobody is "".
func (q *queryTurns) client() string {
	if q.asker == nil {
		return ""
	}
	return q.asker.Client
}

func (s *Slots) release(q *queryTurns) {
	s.mtx.Lock()
	defer s.mtx.Unlock()
	s.used--
	q.used--
	s.forget(q)
	s.admit()
}

// forget drops a query that has nothing here any more. s.mtx is held.
func (s *Slots) forget(q *queryTurns) {
	if q.used == 0 && q.waiting.Len() == 0 {
		delete(s.queries, q.asker)
	}
}

// leave takes a query out of the turns. s.mtx is held.
func (s *Slots) leave(q *queryTurns) {
	for i, c := range s.turns {
		if j := slices.Index(c.queries, q); j >= 0 {
			if c.queries = slices.Delete(c.queries, j, j+1); len(c.queries) == 0 {
				s.turns = slices.Delete(s.turns, i, i+1)
			}
			return
		}
	}
}

// admit gives free slots to requests whose turn it is. Afterwards there is none that could have one,
// so that who comes and finds a slot overtakes nobody. s.mtx is held.
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
	for s.used < int(s.limit) {
		q := s.next()
		if q == nil {
			return
		}
		s.used++
		s.waiting--
		q.used++
		close(q.waiting.Remove(q.waiting.Front()).(chan struct{}))
	}
}

// next returns the query whose turn it is, which then is the last one of its client, and its client
// the last one of all; nil if no query may have another slot. s.mtx is held.
func (s *Slots) next() *queryTurns {
	share := (int(s.limit) + 1) / 2
	for i, c := range s.turns {
		j := slices.IndexFunc(c.queries, func(q *queryTurns) bool { return q.asker == nil || q.used < share })
		if j < 0 {
			continue
		}
		q := c.queries[j]
		c.queries = slices.Delete(c.queries, j, j+1)
		if q.waiting.Len() > 1 {
			c.queries = append(c.queries, q)
		}
		s.turns = slices.Delete(s.turns, i, i+1)
		if len(c.queries) > 0 {
			s.turns = append(s.turns, c)
		}
		return q
	}
	return nil
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
func (s *Slots) Waiting() int { return s.number(func() int { return s.waiting }) }

// Limit is the number of requests that may have a slot now.
func (s *Slots) Limit() int { return s.number(func() int { return int(s.limit) }) }

func (s *Slots) number(of func() int) int {
	if s == nil {
		return 0
	}
	s.mtx.Lock()
	defer s.mtx.Unlock()
	return of()
}
