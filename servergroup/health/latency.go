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

// quantile is that of the window. It is not ok if too few are known.
func (l *latency) quantile(q float64) (d time.Duration, ok bool) {
	l.mtx.Lock()
	defer l.mtx.Unlock()
	l.turn()
	both := [2]*quantile.Stream{l.old, l.new}
	n, most := 0, 0.0
	for _, s := range both {
		if s.Count() > 0 {
			most = max(most, s.Query(q))
		}
		n += s.Count()
	}
	return time.Duration(most * float64(time.Second)), n >= enoughLatencies
}

// late is how long all but some answers take: the 95th percentile.
func (l *latency) late() time.Duration {
	p95, ok := l.quantile(0.95)
	if !ok {
		return unknownLate
	}
	return max(p95, leastLate)
}

// unusual is how long hardly any answer takes.
func (l *latency) unusual() time.Duration {
	p99, ok := l.quantile(0.99)
	if !ok {
		return leastUnusual
	}
	return max(unusualFactor*p99, leastUnusual)
}
