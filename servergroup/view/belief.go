package view

import (
	"sync"
	"time"

	"github.com/oneprom/oneprom/servergroup/findings"
)

// Belief is whether something that an entry says of its data is believed: it is, until data has
// contradicted it, and again when none has for findings.Age. It is safe for concurrent use; the zero
// value is ready for use.
type Belief struct {
	mtx  sync.Mutex
	text string    // the last contradiction
	seen time.Time // when it was last seen
}

// Contradiction returns what speaks against it; "" if it is believed.
func (b *Belief) Contradiction(now time.Time) string {
	if b == nil { // of an offline view
		return ""
	}
	b.mtx.Lock()
	defer b.mtx.Unlock()
	if now.Sub(b.seen) > findings.Age {
		return ""
	}
	return b.text
}

// contradict notes a contradiction, which text describes, and returns the text of the one that was found
// first.
func (b *Belief) contradict(text func() string, now time.Time) string {
	b.mtx.Lock()
	defer b.mtx.Unlock()
	if now.Sub(b.seen) > findings.Age || b.text == "" {
		b.text = text()
	}
	b.seen = now
	return b.text
}
