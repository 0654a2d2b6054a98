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

// Record is what is known of one query while it runs, and afterwards, to whoever
// puts it into the query's context. It is safe for concurrent use.
type Record struct {
	// progress is that of the execution which the query waits for: others may share it.
	progress        atomic.Pointer[progress]
	series, samples atomic.Int64
}

// progress is how far an execution has come.
type progress struct {
	digest atomic.Pointer[string] // of its plan
	began  atomic.Pointer[time.Time]
}

type recordKey struct{}

// WithRecord has a query that is made and executed with the context fill a record.
func WithRecord(ctx context.Context, r *Record) context.Context {
	return context.WithValue(ctx, recordKey{}, r)
}

// recordOf returns the record of a query; nil if nobody wants one.
func recordOf(ctx context.Context) *Record {
	r, _ := ctx.Value(recordKey{}).(*Record)
	return r
}

// Began is when the engine began to evaluate the query, or the equal one that it
// shares the execution of; zero before.
func (r *Record) Began() time.Time {
	if p := r.progress.Load(); p != nil {
		if t := p.began.Load(); t != nil {
			return *t
		}
	}
	return time.Time{}
}

// PlanDigest tells plans apart: it is the same for the same query at another time,
// unless other groups are concerned by then. It is "" before there is a plan.
func (r *Record) PlanDigest() string {
	if p := r.progress.Load(); p != nil {
		if d := p.digest.Load(); d != nil {
			return *d
		}
	}
	return ""
}

// Result is how many series and samples there are in the result; 0 if there is none.
func (r *Record) Result() (series, samples int64) { return r.series.Load(), r.samples.Load() }

// follows has the record tell of an execution.
func (r *Record) follows(p *progress) {
	if r != nil {
		r.progress.Store(p)
	}
}

// ended takes a result in.
func (r *Record) ended(res *promql.Result) {
	if r == nil || res.Err != nil || res.Value == nil {
		return
	}
	series, samples := sizeOf(res.Value)
	r.series.Store(int64(series))
	r.samples.Store(int64(samples))
}

func (p *progress) begin() {
	now := time.Now()
	p.began.CompareAndSwap(nil, &now)
}

func (p *progress) planned(r *plan.Routed) {
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
