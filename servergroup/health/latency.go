package health

import (
	"sync"
	"time"

	"github.com/beorn7/perks/quantile"
)

const (
	// latencyWindow is how long latencies are remembered: that long at the most, half of it at
	// the least.
	latencyWindow = 4 * time.Minute
	// enoughLatencies is from how many latencies on quantiles are taken.
	enoughLatencies = 20
	// unknownLate is when a response is late while there are fewer.
	unknownLate = time.Second
	// leastLate is the earliest that a response is late: another replica would not be faster.
	leastLate = 20 * time.Millisecond
	// leastUnusual is the earliest that a response takes unusually long.
	leastUnusual = time.Second
	// unusualFactor times the 99th percentile is unusually long.
	unusualFactor = 3
)

// latency is a sketch of how long recent responses took (Cormode, Korn, Muthukrishnan and
// Srivastava: Effective Computation of Biased Quantiles over Data Streams, 2005,
// https://doi.org/10.1109/ICDE.2005.55). The zero value is ready for use.
type latency struct {
	mtx      sync.Mutex // guards the fields below
	old, new *quantile.Stream
	since    time.Time // when new began

	p95, p99 time.Duration // 0: too few are known
	computed time.Time     // when p95 and p99 were
}

func newStream() *quantile.Stream {
	return quantile.NewTargeted(map[float64]float64{0.95: 0.005, 0.99: 0.001})
}

// turn begins a new half of the window once half of it is over. l.mtx is held.
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

// quantiles are the 95th and 99th percentiles of the window, 0 if too few latencies are known.
// They are up to a second old, as each attempt needs them.
func (l *latency) quantiles() (p95, p99 time.Duration) {
	l.mtx.Lock()
	defer l.mtx.Unlock()
	l.turn()
	if time.Since(l.computed) >= time.Second {
		l.computed, l.p95, l.p99 = time.Now(), l.quantile(0.95), l.quantile(0.99)
	}
	return l.p95, l.p99
}

// quantile is the greater one of the quantiles q of both halves of the window. l.mtx is held.
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

// late is the time that nearly all responses keep within.
func (l *latency) late() time.Duration {
	p95, _ := l.quantiles()
	if p95 == 0 {
		return unknownLate
	}
	return max(p95, leastLate)
}

// unusual is a time that hardly any response takes.
func (l *latency) unusual() time.Duration {
	_, p99 := l.quantiles()
	return max(unusualFactor*p99, leastUnusual)
}
