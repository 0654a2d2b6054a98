package view

import (
	"sync"
	"time"

	"github.com/oneprom/oneprom/servergroup/bytelru"
)

// Unusable remembers expressions whose answers could not be used, as by the replicas of a group. It
// is safe for concurrent use.
type Unusable struct {
	mtx     sync.Mutex
	answers *bytelru.Cache[string, unusableAnswer]
}

type unusableAnswer struct {
	why string
	at  time.Time
}

const (
	// UnusableAge is how long an expression is remembered.
	UnusableAge = 10 * time.Minute
	// keptUnusable is the most that is remembered (bytes).
	keptUnusable = 1 << 20
)

// NewUnusable returns an Unusable that remembers nothing.
func NewUnusable() *Unusable {
	return &Unusable{answers: bytelru.New[string, unusableAnswer](keptUnusable)}
}

// Reason returns why the answer to an expression could not be used, and reports whether that is
// remembered.
func (u *Unusable) Reason(about string, now time.Time) (why string, ok bool) {
	u.mtx.Lock()
	defer u.mtx.Unlock()
	a, ok := u.answers.Get(about)
	return a.why, ok && now.Sub(a.at) < UnusableAge
}

// Add remembers that the answer to an expression could not be used, and why.
func (u *Unusable) Add(about, why string, now time.Time) {
	u.mtx.Lock()
	defer u.mtx.Unlock()
	u.answers.Add(about, unusableAnswer{why, now}, 64+len(about)+len(why))
}
