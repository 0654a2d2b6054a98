package servergroup

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// budget bounds the bytes that are held for one query over all its fetches.
type budget struct {
	limit int64 // 0 is none
	used  atomic.Int64
	over  func() // is called once if it runs out; nil: nobody wants to know
	once  sync.Once
}

// charge adds to what is used and fails once that is more than the limit.
func (b *budget) charge(bytes int) error {
	if used := b.used.Add(int64(bytes)); b.limit > 0 && used > b.limit {
		if b.over != nil {
			b.once.Do(b.over)
		}
		return &BudgetError{Limit: b.limit}
	}
	return nil
}

// BudgetError is a query that needs more bytes from its backends than one query
// may hold.
type BudgetError struct {
	Limit int64 // bytes
}

func (e *BudgetError) Error() string {
	return fmt.Sprintf("query needs more than %d bytes of data from the server groups: narrow its selectors or its range, or raise --query.max-fetched-bytes", e.Limit)
}

// BudgetExceeded marks the error for the transports, which pass it on unchanged.
func (e *BudgetError) BudgetExceeded() {}
