package fanout

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// Budget bounds the bytes that are held for one query in all its fetches. It is safe for
// concurrent use; the zero value has no limit.
type Budget struct {
	// Limit is the most bytes; 0 is no limit.
	Limit int64
	// Exceeded, unless it is nil, is called once if the query needs more.
	Exceeded func()

	used atomic.Int64
	once sync.Once
}

// Charge adds bytes to those that are used, and fails if these are more than the limit.
func (b *Budget) Charge(bytes int) error {
	if used := b.used.Add(int64(bytes)); b.Limit > 0 && used > b.Limit {
		if b.Exceeded != nil {
			b.once.Do(b.Exceeded)
		}
		return &BudgetError{Limit: b.Limit}
	}
	return nil
}

// Used returns how many bytes were charged.
func (b *Budget) Used() int64 { return b.used.Load() }

// BudgetError is the error of a query that needs more bytes from its replicas than one query may
// hold.
type BudgetError struct {
	Limit int64 // bytes
}

func (e *BudgetError) Error() string {
	return fmt.Sprintf("query needs more than %d bytes of data from the server groups: narrow its selectors or its range, or raise --query.max-fetched-bytes", e.Limit)
}

// BudgetExceeded marks the error for the transports, which pass it on unchanged.
func (e *BudgetError) BudgetExceeded() {}
