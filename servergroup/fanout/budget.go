package fanout

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/oneprom/oneprom/servergroup/replica"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// Budget bounds the bytes that are held for one query in all its fetches. It is safe for
// concurrent use; the zero value has no limit.
//
// Where it is exceeded, and one replica has more than its share, that is the replica's doing rather than the
// query's: its answers are cut off, and its twins stand in.
type Budget struct {
	// Limit is the most bytes; 0 is no limit.
	Limit int64
	// Exceeded, unless it is nil, is called once if the query needs more.
	Exceeded func()

	used atomic.Int64
	once sync.Once

	mtx     sync.Mutex // guards answers
	answers []*Answer
}

// Charge adds bytes to those that are used, and fails if these are more than the limit.
func (b *Budget) Charge(bytes int) error {
	if used := b.used.Add(int64(bytes)); b.Limit > 0 && used > b.Limit {
		return b.exceeded("")
	}
	return nil
}

func (b *Budget) exceeded(most string) error {
	if b.Exceeded != nil {
		b.once.Do(b.Exceeded)
	}
	return &BudgetError{Limit: b.Limit, Most: most}
}

// Used returns how many bytes were charged.
func (b *Budget) Used() int64 { return b.used.Load() }

// Answer is the answer of a replica to a question of a query. It is charged from one goroutine at a time.
type Answer struct {
	budget   *Budget
	server   string // its URL
	name     string // how errors about the query name it
	replicas int64  // of its group, each of which has an equal share

	used       atomic.Int64
	cut, ended atomic.Bool
}

// Answer begins the answer of a replica of a group of some replicas. name is how errors about the query
// name the replica.
func (b *Budget) Answer(server, name string, replicas int) *Answer {
	a := &Answer{budget: b, server: server, name: name, replicas: int64(replicas)}
	b.mtx.Lock()
	defer b.mtx.Unlock()
	b.answers = append(b.answers, a)
	return a
}

// End says that the answer is read, or given up.
func (a *Answer) End() { a.ended.Store(true) }

// Charge adds bytes to those that the budget holds. It fails with a *BudgetError if they are too many, and
// with a *ShareError if only this replica has sent too many.
func (a *Answer) Charge(bytes int) error {
	b := a.budget
	if a.cut.Load() {
		return a.shareError()
	}
	a.used.Add(int64(bytes))
	if used := b.used.Add(int64(bytes)); b.Limit == 0 || used <= b.Limit {
		return nil
	}
	return b.over(a)
}

// over cuts off the answers that are under way of the replica with most, if that is more than its share,
// and returns the error of an answer after that.
func (b *Budget) over(a *Answer) error {
	b.mtx.Lock()
	defer b.mtx.Unlock()
	held, most := map[string]int64{}, a
	for _, other := range b.answers {
		if !other.cut.Load() {
			if held[other.server] += other.used.Load(); held[other.server] > held[most.server] {
				most = other
			}
		}
	}
	if most.replicas > 1 && held[most.server] > b.Limit/most.replicas {
		for _, other := range b.answers {
			if other.server == most.server && !other.ended.Load() && !other.cut.Swap(true) {
				b.used.Add(-other.used.Load())
			}
		}
	}
	switch {
	case a.cut.Load():
		return a.shareError()
	case b.used.Load() <= b.Limit:
		return nil
	}
	return b.exceeded(most.name)
}

// Outdone reports whether the replica whose answer was cut off has sent much more than a twin that has
// answered: then that is its own doing, not the question's.
func Outdone(err error, by *replica.Replica) bool {
	e, ok := errors.AsType[*ShareError](err)
	if !ok {
		return false
	}
	e.budget.mtx.Lock()
	defer e.budget.mtx.Unlock()
	sent := map[string]int64{}
	for _, a := range e.budget.answers {
		sent[a.server] += a.used.Load()
	}
	return sent[e.err.URL] > muchMore*sent[by.URL()]
}

// muchMore is how many times as much as a twin a replica sends that is at fault itself: replicas have
// different gaps, but the same targets.
const muchMore = 4

// BudgetError is the error of a query that needs more bytes from its replicas than one query may
// hold.
type BudgetError struct {
	Limit int64  // bytes
	Most  string // who has sent most; "" if that is not known
}

func (e *BudgetError) Error() string {
	most := ""
	if e.Most != "" {
		most = ", most of it from " + e.Most
	}
	return fmt.Sprintf("query needs more than %d bytes of data from the server groups%s: narrow its selectors or its range, or raise --query.max-fetched-bytes", e.Limit, most)
}

// BudgetExceeded marks the error for the transports, which pass it on unchanged.
func (e *BudgetError) BudgetExceeded() {}

// ShareError is the error of an answer that does not leave room for those of other replicas.
type ShareError struct {
	budget *Budget
	name   string
	err    *transport.Error
}

func (a *Answer) shareError() error {
	return &ShareError{a.budget, a.name, &transport.Error{
		Class: transport.ClassContent, URL: a.server,
		Err: fmt.Errorf("answer cut off, as the query would hold more than %d bytes with it (--query.max-fetched-bytes)", a.budget.Limit),
	}}
}

func (e *ShareError) Error() string { return e.err.Error() }

// Unwrap returns the error as one of the transport.
func (e *ShareError) Unwrap() error { return e.err }

// BudgetExceeded marks the error for the transports, which pass it on unchanged.
func (e *ShareError) BudgetExceeded() {}

// AllOver returns the error of a query for which the answer of each replica was cut off; nil if another
// one failed otherwise.
func AllOver(errs []error) error {
	var last *ShareError
	for _, err := range errs {
		if !errors.As(err, &last) {
			return nil
		}
	}
	if last == nil {
		return nil
	}
	return last.budget.exceeded(last.name)
}
