// Package meter counts the memory that reading one answer takes, before it is taken, and charges it
// to a query. What is made of an answer counts, not what came: a byte may become hundreds.
//
// A meter also notices the end of its query, so that whatever counts what it makes, or what it
// passes over, ends with the query.
package meter

import "context"

const (
	// batch is how many bytes are charged at once.
	batch = 8 << 10
	// stride is how much is passed over between two looks at the context.
	stride = 4 << 10
)

// Meter counts for one answer. It is for one goroutine. A nil Meter counts nothing.
type Meter struct {
	ctx     context.Context
	charge  func(bytes int) error
	pending int // bytes that are counted and not charged
	passed  int // since the last look at ctx
}

// New returns a meter that charges by a function, whose error ends the reading, as does the end of
// ctx. A nil function charges nobody.
func New(ctx context.Context, charge func(bytes int) error) *Meter {
	return &Meter{ctx: ctx, charge: charge}
}

// Keep counts bytes that are held until the query ends.
func (m *Meter) Keep(bytes int) error {
	if m == nil {
		return nil
	}
	if m.pending += bytes; m.pending < batch {
		return nil
	}
	return m.Flush()
}

// Pass counts what costs time and no memory: bytes, or fields. It fails if the query has ended.
func (m *Meter) Pass(n int) error {
	if m == nil {
		return nil
	}
	if m.passed += n; m.passed < stride {
		return nil
	}
	m.passed = 0
	return m.ended()
}

// Flush charges what is counted and not charged yet.
func (m *Meter) Flush() error {
	if m == nil {
		return nil
	}
	bytes := m.pending
	m.pending, m.passed = 0, 0
	if err := m.ended(); err != nil || bytes == 0 || m.charge == nil {
		return err
	}
	return m.charge(bytes)
}

func (m *Meter) ended() error {
	if m.ctx.Err() != nil {
		return context.Cause(m.ctx)
	}
	return nil
}

// Scratch counts memory that is used again and again: only the most that was in use at once is charged.
type Scratch struct{ most int }

// Use counts that so many bytes are in use.
func (s *Scratch) Use(m *Meter, bytes int) error {
	if bytes <= s.most {
		return nil
	}
	more := bytes - s.most
	s.most = bytes
	return m.Keep(more)
}
