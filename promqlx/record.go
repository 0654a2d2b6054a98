package promqlx

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/promql"

	"github.com/oneprom/oneprom/servergroup/transport"
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

func (p *progress) planned(x *execution) {
	digest := x.digest()
	p.digest.Store(&digest)
}

// digest tells plans apart.
func (x *execution) digest() string {
	sum := sha256.New()
	x.writeShape(sum)
	return hex.EncodeToString(sum.Sum(nil)[:8])
}

// writeShape writes what is planned, but no times: a dashboard asks for others each
// time.
func (x *execution) writeShape(w io.Writer) {
	names := make([]string, len(x.plan.Leaves)) // "" if not a part
	for i, leaf := range x.plan.Leaves {
		if p := leaf.Part; p != nil {
			names[i] = "$"
			fmt.Fprintf(w, "part %s\n%s, carries %q, by target %t, by name %t\n", p.ShownText(), p.Why, p.Carries, p.ByTarget, p.ByName)
			continue
		}
		s := leaf.Selector
		fmt.Fprintf(w, "select %s, not evaluated %t, every sample %t\n", transport.Selector(s.Matchers), s.Unused, s.Steps == nil || s.Every)
		for _, r := range x.plan.View.Routes(s.Selection) {
			if r.Skipped == "" {
				fmt.Fprintf(w, "of %q\n", r.Group)
			}
		}
	}
	for _, partition := range x.plan.Partitions {
		fmt.Fprintf(w, "partition %q\n", partition.Labels())
		for _, m := range partition.Members() {
			fmt.Fprintf(w, "of %q\n", m.Name)
		}
	}
	fmt.Fprintf(w, "evaluate %s\n", x.plan.Expression(names))
}
