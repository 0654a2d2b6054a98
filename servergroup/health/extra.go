package health

import "sync"

const (
	// extraShare is how many hedges and retries each request allows, leastExtra how many are
	// allowed without any request. What is not used is kept, up to mostExtra.
	extraShare = 0.15
	leastExtra = 10
	mostExtra  = 50
)

// Extra is the budget of hedges, which ask a second replica although the first one may still
// respond (Dean and Barroso: The Tail at Scale, 2013, https://doi.org/10.1145/2408776.2408794).
// Retries are charged to it, too, but are always made: the first replica has failed, and
// without another one data would be missing. It is safe for concurrent use. The zero value is
// ready for use.
type Extra struct {
	mtx    sync.Mutex
	earned float64 // minus what was spent, without leastExtra
}

// Request earns the share of a request.
func (e *Extra) Request() {
	e.mtx.Lock()
	defer e.mtx.Unlock()
	e.earned = min(e.earned+extraShare, mostExtra-leastExtra)
}

// Owe takes one, even if none is left.
func (e *Extra) Owe() {
	e.mtx.Lock()
	defer e.mtx.Unlock()
	e.earned = max(e.earned-1, -mostExtra)
}

// Spend takes one if one is left, and reports whether it did.
func (e *Extra) Spend() bool {
	e.mtx.Lock()
	defer e.mtx.Unlock()
	if e.earned+leastExtra < 1 {
		return false
	}
	e.earned--
	return true
}
