package promqlx

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/oneprom/oneprom/promqlx/explain"
	"github.com/oneprom/oneprom/promqlx/plan"
)

// Record shows the state of one query while it runs and afterwards. The caller puts it into
// the context of the query. It is safe for concurrent use.
type Record struct {
	// progress is the progress of the execution that the query waits for. Other queries may
	// share it.
	progress        atomic.Pointer[progress]
	series, samples atomic.Int64
}

// progress is how far an execution has come.
type progress struct {
	digest atomic.Pointer[string] // of the plan; nil before there is one
	cached atomic.Pointer[string] // what the cache has given; nil before that is known
	began  atomic.Pointer[time.Time]
}

type recordKey struct{}

// WithRecord returns a context with which a query that is made and executed fills a record.
func WithRecord(ctx context.Context, r *Record) context.Context {
	return context.WithValue(ctx, recordKey{}, r)
}

// recordOf returns the record in a context; nil if there is none.
func recordOf(ctx context.Context) *Record {
	r, _ := ctx.Value(recordKey{}).(*Record)
	return r
}

// Began returns when the engine began to evaluate the query, or the equal query whose
// execution it shares. It is zero before that.
func (r *Record) Began() time.Time {
	if p := r.progress.Load(); p != nil {
		if t := p.began.Load(); t != nil {
			return *t
		}
	}
	return time.Time{}
}

// PlanDigest returns the digest of the plan. It is the same for the same query at another
// time, as long as the same groups are concerned. It is "" before there is a plan.
func (r *Record) PlanDigest() string {
	if p := r.progress.Load(); p != nil {
		if d := p.digest.Load(); d != nil {
			return *d
		}
	}
	return ""
}

// Cache returns what the cache has given of the answer: hit, partial, miss, or "bypass; reason=…". It is ""
// before that is known.
func (r *Record) Cache() string {
	if p := r.progress.Load(); p != nil {
		if c := p.cached.Load(); c != nil {
			return *c
		}
	}
	return ""
}

// Result returns the number of series and samples in the result; 0 if there is none.
func (r *Record) Result() (series, samples int64) { return r.series.Load(), r.samples.Load() }

// follow makes the record show an execution.
func (r *Record) follow(p *progress) {
	if r != nil {
		r.progress.Store(p)
	}
}

// setResult records the size of a result.
func (r *Record) setResult(res *promql.Result) {
	if r == nil || res.Err != nil || res.Value == nil {
		return
	}
	series, samples := sizeOf(res.Value)
	r.series.Store(int64(series))
	r.samples.Store(int64(samples))
}

// begin records that the evaluation begins. The first of several plans counts.
func (p *progress) begin() {
	now := time.Now()
	p.began.CompareAndSwap(nil, &now)
}

// setCached records what the cache has given.
func (p *progress) setCached(what string) { p.cached.Store(&what) }

// setPlan records the digest of the plan.
func (p *progress) setPlan(r *plan.Routed) {
	digest := explain.Digest(r)
	p.digest.Store(&digest)
}

// sizeOf counts the series and samples of a result.
func sizeOf(v parser.Value) (series, samples int) {
	switch v := v.(type) {
	case promql.Matrix:
		for _, s := range v {
			samples += len(s.Floats) + len(s.Histograms)
		}
		return len(v), samples
	case promql.Vector:
		return len(v), len(v)
	}
	return 1, 1 // a scalar or a string
}
