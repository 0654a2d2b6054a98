package health

import "sync"

const (
	// extraShare is how many hedges and retries there may be for each request, and
	// leastExtra how many there may be however few requests there were. What was not
	// used is kept up to mostExtra.
	extraShare = 0.15
	leastExtra = 10
	mostExtra  = 50
)

// Extra is the budget of hedges, which ask a second replica although the first may still
// answer. Retries count, too, but are made in any case: the first replica has failed, and
// without another one the answer would lack what is there. It is safe for concurrent use. The zero value is ready for use.
type Extra struct {
	mtx    sync.Mutex
	earned float64 // less what was spent; it begins with leastExtra
}

// Request earns the share of a request.
func (e *Extra) Request() {
	e.mtx.Lock()
	defer e.mtx.Unlock()
	e.earned = min(e.earned+extraShare, mostExtra-leastExtra)
}

// Owe takes one, whether one is left or not.
func (e *Extra) Owe() {
	e.mtx.Lock()
	defer e.mtx.Unlock()
	e.earned = max(e.earned-1, -mostExtra)
}

// Spend takes one, if one is left.
func (e *Extra) Spend() bool {
	e.mtx.Lock()
	defer e.mtx.Unlock()
	if e.earned+leastExtra < 1 {
		return false
	}
	e.earned--
	return true
}
