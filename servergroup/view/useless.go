package view

import (
	"sync"
	"time"

	"github.com/oneprom/oneprom/servergroup/bytelru"
)

// Useless remembers the expressions of a group whose answers were of no use.
type Useless struct {
	mtx   sync.Mutex
	known *bytelru.Cache[string, uselessAnswer]
}

type uselessAnswer struct {
	why string
	at  time.Time
}

const (
	// UselessAge is how long an answer is taken to be useless again.
	UselessAge = 10 * time.Minute
	// keptUseless bounds what is remembered of them (bytes).
	keptUseless = 1 << 20
)

// NewUseless returns one that remembers nothing.
func NewUseless() *Useless {
	return &Useless{known: bytelru.New[string, uselessAnswer](keptUseless)}
}

// Of returns why the answer to an expression is taken to be of no use, if it is known to be.
func (u *Useless) Of(about string, now time.Time) (why string, known bool) {
	u.mtx.Lock()
	defer u.mtx.Unlock()
	a, ok := u.known.Get(about)
	return a.why, ok && now.Sub(a.at) < UselessAge
}

// Add remembers that the answer to an expression was of no use, and why.
func (u *Useless) Add(about, why string, now time.Time) {
	u.mtx.Lock()
	defer u.mtx.Unlock()
	u.known.Add(about, uselessAnswer{why, now}, 64+len(about)+len(why))
}
