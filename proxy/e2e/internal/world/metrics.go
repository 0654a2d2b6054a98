package world

import (
	"math"
	"strconv"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
)

// gaugeStep is how long a noisy gauge keeps its noise, in ms: the scrape interval of most targets.
const gaugeStep = 15 * second

func float(f float64) (sample, bool) { return sample{f: f}, true }

// counter adds a counter that falls to zero when the target restarts; integers unless fraction.
func (b build) counter(rate float64, fraction bool, name string, pairs ...string) {
	w := newWave(b.seedOf(name, pairs), rate)
	b.add(func(t int64) (sample, bool) {
		v := w.since(b.startedAt(t), t)
		if !fraction {
			v = math.Floor(v)
		}
		return float(v)
	}, name, pairs...)
}

// gauge adds a gauge around a mean, with a tenth of noise; integers unless fraction.
func (b build) gauge(mean float64, fraction bool, name string, pairs ...string) {
	s := b.seedOf(name, pairs)
	w := newWave(s, mean)
	b.add(func(t int64) (sample, bool) {
		v := w.level(t) * (0.95 + 0.1*noise(s, t/gaugeStep))
		if !fraction {
			v = math.Floor(v)
		}
		return float(v)
	}, name, pairs...)
}

// smoothGauge adds a gauge without noise.
func (b build) smoothGauge(mean float64, name string, pairs ...string) {
	w := newWave(b.seedOf(name, pairs), mean)
	b.add(func(t int64) (sample, bool) { return float(w.level(t)) }, name, pairs...)
}

// constant adds a series that never changes.
func (b build) constant(v float64, name string, pairs ...string) {
	b.add(func(int64) (sample, bool) { return float(v) }, name, pairs...)
}

var classicBounds = []float64{0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5}

// share is the part of the observations in bucket i of n, for one of two populations: the fast and the slow requests.
func share(slow bool, i, n int) float64 {
	x := (float64(i) + 0.5) / float64(n)
	if slow {
		return 2 * x / float64(n)
	}
	return 2 * (1 - x) / float64(n)
}

// mix gives the absolute count of each of n buckets for the observations of a fast and a slow population since the start.
func mix(fast, slow float64, n int) []uint64 {
	counts := make([]uint64, n)
	for i := range counts {
		counts[i] = uint64(fast*share(false, i, n)) + uint64(slow*share(true, i, n))
	}
	return counts
}

// classic adds the series of a classic histogram.
func (b build) classic(rate float64, name string, pairs ...string) {
	s := b.seedOf(name, pairs)
	fast, slow := newWave(s, rate), newWave(s+1, rate/3)
	n := len(classicBounds) + 1
	counts := func(t int64) []uint64 {
		start := b.startedAt(t)
		return mix(fast.since(start, t), slow.since(start, t), n)
	}
	for i := range n {
		le := "+Inf"
		if i < len(classicBounds) {
			le = labels.FormatOpenMetricsFloat(classicBounds[i]) // as a Prometheus 3 stores it
		}
		b.add(func(t int64) (sample, bool) { return float(float64(sum(counts(t)[:i+1]))) }, name+"_bucket", append([]string{"le", le}, pairs...)...)
	}
	b.add(func(t int64) (sample, bool) { return float(float64(sum(counts(t)))) }, name+"_count", pairs...)
	b.add(func(t int64) (sample, bool) {
		start := b.startedAt(t)
		return float(0.05*fast.since(start, t) + 0.7*slow.since(start, t))
	}, name+"_sum", pairs...)
}

// native adds a native histogram with exponential buckets; after a restart its resolution is lower.
func (b build) native(rate float64, name string, pairs ...string) {
	s := b.seedOf(name, pairs)
	fast, slow := newWave(s, rate), newWave(s+1, rate/3)
	b.add(func(t int64) (sample, bool) {
		start := b.startedAt(t)
		f, l := fast.since(start, t), slow.since(start, t)
		schema, n := int32(2), 16
		if start > Begin {
			schema, n = 1, 8
		}
		h := exponential(schema, -3*(schema+1), mix(f, l, n), mix(f/50, 0, 3), uint64(f/200), 0.3*f+1.7*l)
		return sample{h: h}, true
	}, name, pairs...)
}

var customBounds = []float64{0.1, 0.25, 1, 4, 10}

// custom adds a native histogram with custom buckets, some of which stay empty for long.
func (b build) custom(rate float64, name string, pairs ...string) {
	s := b.seedOf(name, pairs)
	fast, slow := newWave(s, rate), newWave(s+1, rate/4)
	b.add(func(t int64) (sample, bool) {
		start := b.startedAt(t)
		f, l := fast.since(start, t), slow.since(start, t)
		return sample{h: custom(customBounds, mix(f, l/100, len(customBounds)+1), 0.2*f+3*l)}, true
	}, name, pairs...)
}

// distribution adds a gauge histogram: its counts go up and down.
func (b build) distribution(size float64, name string, pairs ...string) {
	s := b.seedOf(name, pairs)
	w := newWave(s, size)
	b.add(func(t int64) (sample, bool) {
		n := w.level(t) * (0.5 + noise(s, t/gaugeStep))
		h := exponential(0, 0, mix(n, n/2, 8), nil, uint64(n/10), 3*n)
		h.CounterResetHint = histogram.GaugeType
		return sample{h: h}, true
	}, name, pairs...)
}

// recorded adds a float histogram as a recording rule of a rate would write it.
func (b build) recorded(size float64, name string, pairs ...string) {
	s := b.seedOf(name, pairs)
	w := newWave(s, size)
	b.add(func(t int64) (sample, bool) {
		n := w.level(t)
		fh := exponential(1, -4, mix(1000*n, 300*n, 10), nil, uint64(n), 900*n).ToFloat(nil)
		fh = fh.Mul(0.001 * (1 + noise(s, t)))
		fh.CounterResetHint = histogram.GaugeType
		return sample{fh: fh}, true
	}, name, pairs...)
}

// switching adds a counter that is a float for 40 minutes, then a native histogram for 40, and so on.
func (b build) switching(rate float64, name string, pairs ...string) {
	w := newWave(b.seedOf(name, pairs), rate)
	b.add(func(t int64) (sample, bool) {
		n := w.since(b.startedAt(t), t)
		if (t-Begin)/(40*minute)%2 == 0 {
			return float(n)
		}
		return sample{h: exponential(0, -2, mix(n, n/3, 6), nil, 0, n)}, true
	}, name, pairs...)
}

// odd adds a gauge with the values that do not survive careless hands.
func (b build) odd(name string, pairs ...string) {
	s := b.seedOf(name, pairs)
	odd := []float64{math.NaN(), math.Inf(1), math.Inf(-1), math.Copysign(0, -1), 9007199254740993, 1e-310, 1e308, 0.1}
	b.add(func(t int64) (sample, bool) {
		x := noise(s, t/minute)
		if x < 0.5 {
			return float(100 * x)
		}
		return float(odd[int(16*(x-0.5))])
	}, name, pairs...)
}

// during limits a series to the moments that shown accepts.
func during(shown func(t int64) bool, at valueFunc) valueFunc {
	return func(t int64) (sample, bool) {
		if !shown(t) {
			return sample{}, false
		}
		return at(t)
	}
}

// flapping adds a series that vanishes for four minutes in twelve, and sometimes for one scrape.
func (b build) flapping(noMarker bool, name string, pairs ...string) {
	s := b.seedOf(name, pairs)
	shown := func(t int64) bool {
		return (t/(4*minute)+int64(s%3))%3 != 0 && noise(s, t/gaugeStep) > 0.03
	}
	b.add(during(shown, func(t int64) (sample, bool) { return float(math.Floor(10 * noise(s, t/minute))) }), name, pairs...).noMarker = noMarker
}

// sessions adds short-lived counters: every seven minutes one is born, and it lives for twenty.
func (b build) sessions(life Span, name string) {
	for k := range (life.To - life.From) / (7 * minute) {
		alive := Span{life.From + k*7*minute, life.From + k*7*minute + 20*minute}
		w := newWave(b.seedOf(name, nil)+uint64(k), 3)
		b.add(during(alive.Has, func(t int64) (sample, bool) {
			return float(math.Floor(w.since(alive.From, t)))
		}), name, "session", "s"+strconv.FormatInt(k, 10))
	}
}
