package health

import (
	"sync"
	"time"

	"github.com/beorn7/perks/quantile"
)

const (
	// latencyWindow is how far back latencies are remembered, at the least half of it.
	latencyWindow = 4 * time.Minute
	// enoughLatencies is how many make a quantile.
	enoughLatencies = 20
	// unknownLate is how long an answer is waited for while there are fewer.
	unknownLate = time.Second
	// leastLate is below what nobody else is asked: it would not be faster.
	leastLate = 20 * time.Millisecond
	// leastUnusual is below what no answer takes unusually long.
	leastUnusual = time.Second
	// unusualFactor is how many times the 99th percentile is unusually long.
	unusualFactor = 3
)

// latency is a sketch of how long answers took lately (Cormode, Korn, Muthukrishnan
// and Srivastava: Effective Computation of Biased Quantiles over Data Streams). The
// zero value is ready for use.
type latency struct {
	mtx      sync.Mutex // guards the fields below
	old, new *quantile.Stream
	since    time.Time // when new began

	p95, p99 time.Duration // 0: too few are known
	computed time.Time     // when these were
}

func newStream() *quantile.Stream {
	return quantile.NewTargeted(map[float64]float64{0.95: 0.005, 0.99: 0.001})
}

// turn begins a new half of the window when it is time to. l.mtx is held.
func (l *latency) turn() {
	switch age := time.Since(l.since); {
	case l.new == nil || age >= latencyWindow:
		l.old, l.new, l.since = newStream(), newStream(), time.Now()
	case age >= latencyWindow/2:
		l.old, l.new, l.since = l.new, newStream(), time.Now()
	}
}

func (l *latency) observe(took time.Duration) {
	l.mtx.Lock()
	defer l.mtx.Unlock()
	l.turn()
	l.new.Insert(took.Seconds())
}

// quantiles are the 95th and 99th percentiles of the window, 0 if too few are known.
// They are of a moment ago, as each attempt wants them.
func (l *latency) quantiles() (p95, p99 time.Duration) {
	l.mtx.Lock()
	defer l.mtx.Unlock()
	l.turn()
	if time.Since(l.computed) >= time.Second {
		l.computed, l.p95, l.p99 = time.Now(), l.quantile(0.95), l.quantile(0.99)
	}
	return l.p95, l.p99
}

// quantile is one of both halves of the window, the greater one. l.mtx is held.
func (l *latency) quantile(q float64) time.Duration {
	n, most := 0, 0.0
	for _, s := range []*quantile.Stream{l.old, l.new} {
		if s.Count() > 0 {
			most = max(most, s.Query(q))
		}
		n += s.Count()
	}
	if n < enoughLatencies {
		return 0
	}
	return time.Duration(most * float64(time.Second))
}

// late is how long all but some answers take.
func (l *latency) late() time.Duration {
	p95, _ := l.quantiles()
	if p95 == 0 {
		return unknownLate
	}
	return max(p95, leastLate)
}

// unusual is how long hardly any answer takes.
func (l *latency) unusual() time.Duration {
	_, p99 := l.quantiles()
	return max(unusualFactor*p99, leastUnusual)
}
