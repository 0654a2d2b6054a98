package differential

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
)

// span is the time [from, to) in ms.
type span struct{ from, to int64 }

func within(spans []span, t int64) bool {
	return slices.ContainsFunc(spans, func(s span) bool { return t >= s.from && t < s.to })
}

// spans returns n random spans in the world's time, of lengths up to longest,
// most of them much shorter.
func (w *world) spans(r *rand.Rand, n int, longest int64) []span {
	out := make([]span, n)
	for i := range out {
		from := w.start + r.Int64N(w.end-w.start)
		length := longest >> r.IntN(7)
		out[i] = span{from, from + 1 + r.Int64N(length)}
		if w.steady {
			out[i] = span{from - from%steadyTime, out[i].to + steadyTime - out[i].to%steadyTime}
		}
	}
	return out
}

// steadyTime is how long series of a steady world are there or not, at least.
const steadyTime = 6 * minute

// target is something that is scraped.
type target struct {
	job, instance string
	interval      int64 // ms
	phase         int64 // ms
	away          []span
}

// exposed is a series of a target with how its values come about.
type exposed struct {
	labels labels.Labels
	lag    int64  // ms: its samples have stamps of their own, so much earlier than the scrape
	away   []span // when the target lives and the series is not there
	next   func(t int64) sample
}

// scrape fills the world with the series of some targets.
func (w *world) scrape(r *rand.Rand) {
	interval := []int64{15 * second, 30 * second, 60 * second}[r.IntN(3)]
	for n := range 3 + r.IntN(3) {
		t := target{job: []string{"api", "db"}[r.IntN(2)], instance: fmt.Sprintf("i%d", n), interval: interval}
		if r.IntN(4) == 0 {
			t.interval = []int64{15 * second, 30 * second, 60 * second}[r.IntN(3)]
		}
		t.phase = r.Int64N(t.interval)
		if r.IntN(3) == 0 {
			t.away = w.spans(r, 1+r.IntN(2), 40*minute)
		}
		w.scrapeTarget(r, n, t)
	}
	if w.changing {
		w.record(r, interval)
	}
	slices.SortFunc(w.series, func(a, b series) int { return labels.Compare(a.labels, b.labels) })
}

func (w *world) scrapeTarget(r *rand.Rand, n int, t target) {
	shards := w.shards()
	shard := n % shards
	failures := w.spans(r, r.IntN(4), 4*minute) // when the target is there and does not answer
	list := w.families(r, t)
	first := len(w.series)
	for _, e := range list {
		s := series{labels: e.labels, target: n, interval: t.interval, shard: shard, lag: e.lag}
		if inject := w.injected(shard); inject != "" {
			s.labels = with(e.labels, "shard", inject)
		} else if shards > 1 {
			s.shard = int(labels.StableHash(e.labels) % uint64(shards)) // nothing tells the shards apart
		}
		w.series = append(w.series, s)
	}
	at := w.start - w.start%t.interval + t.interval + t.phase
	for ; at < w.end; at += t.interval {
		for i, e := range list {
			s := &w.series[first+i]
			isUp := i == 0
			there := !within(t.away, at) && !within(e.away, at) && (isUp || !within(failures, at))
			switch {
			case there && isUp:
				up := 1.0
				if within(failures, at) {
					up = 0
				}
				s.samples = append(s.samples, sample{t: at, f: up})
			case there && at-e.lag < w.start:
			case there:
				p := e.next(at)
				p.t = at - e.lag
				s.samples = append(s.samples, p)
			case e.lag != 0: // no stale markers
			case len(s.samples) > 0 && !s.samples[len(s.samples)-1].stale():
				s.samples = append(s.samples, s.samples[len(s.samples)-1].marker(at))
			}
		}
	}
	w.series = slices.DeleteFunc(w.series, func(s series) bool { return len(s.samples) == 0 })
}

// recorded is the name of what a recording rule writes, and ruled stands for its targets.
const (
	recorded = "job:reqs:sum"
	ruled    = 100
)

// record adds what a rule has recorded. Nothing in its labels may tell it from scraped series.
func (w *world) record(r *rand.Rand, interval int64) {
	shards, perInstance := w.shards(), r.IntN(2) == 0
	for n, job := range []string{"api", "db"} {
		l := labels.FromStrings(labels.MetricName, recorded, "job", job)
		if perInstance {
			l = with(l, "instance", fmt.Sprintf("i%d", n))
		}
		s := series{labels: l, target: ruled, interval: interval, shard: n % shards}
		if inject := w.injected(s.shard); inject != "" {
			s.labels = with(l, "shard", inject)
		}
		next, phase := gauge(r, w), r.Int64N(interval)
		for at := w.start - w.start%interval + interval + phase; at < w.end; at += interval {
			p := next(at)
			p.t = at
			s.samples = append(s.samples, p)
		}
		w.series = append(w.series, s)
	}
}

func with(l labels.Labels, name, value string) labels.Labels {
	return labels.NewBuilder(l).Set(name, value).Labels()
}

func without(l labels.Labels, name string) labels.Labels {
	return labels.NewBuilder(l).Del(name).Labels()
}

// families are the series that a target exposes, `up` first.
func (w *world) families(r *rand.Rand, t target) []exposed {
	base := []string{"job", t.job, "instance", t.instance}
	named := func(name string, more ...string) labels.Labels {
		return labels.FromStrings(slices.Concat([]string{labels.MetricName, name}, base, more)...)
	}
	list := []exposed{{labels: named("up")}}
	add := func(l labels.Labels, next func(int64) sample) {
		e := exposed{labels: l, next: next}
		if r.IntN(3) == 0 { // it comes and goes
			e.away = w.spans(r, 1+r.IntN(4), 40*minute)
		}
		list = append(list, e)
	}
	add(named("build_info", "version", "1"), func(int64) sample { return sample{f: 1} })
	if r.IntN(2) == 0 { // the target is updated
		when := w.start + r.Int64N(w.end-w.start)
		list[1].away = append(list[1].away, span{when, w.end})
		add(named("build_info", "version", "2"), func(int64) sample { return sample{f: 1} })
		list[2].away = append(list[2].away, span{w.start, when})
	}
	for z := range 1 + r.IntN(2) {
		add(named("temp", "zone", fmt.Sprintf("z%d", z)), gauge(r, w))
	}
	for _, code := range []string{"200", "404", "500"}[:1+r.IntN(3)] {
		add(named("reqs_total", "code", code), counter(r, w))
	}
	if r.IntN(3) == 0 {
		h := &classic{counter: newCounts(r, w), r: r}
		for i, le := range []string{"0.1", "0.5", "2.5", "+Inf"} {
			list = append(list, exposed{labels: named("lat_bucket", "le", le), next: h.bucket(i)})
		}
		list = append(list, exposed{labels: named("lat_count"), next: h.bucket(3)}, exposed{labels: named("lat_sum"), next: h.sum})
	}
	w.histogramFamilies(r, named, add)
	if w.changing && !w.steady && r.IntN(2) == 0 { // equal stamps would be taken for a shared clock
		lag := 1 + r.Int64N(minute/2)
		if r.IntN(2) == 0 {
			lag, w.lagged = 1+r.Int64N(8*minute), true
		}
		list = append(list, exposed{labels: named("stamped"), lag: lag, next: gauge(r, w)})
	}
	return list
}

// histogramFamilies adds native histograms of all kinds that the transports of
// the world carry.
func (w *world) histogramFamilies(r *rand.Rand, named func(string, ...string) labels.Labels, add func(labels.Labels, func(int64) sample)) {
	if r.IntN(2) == 0 {
		add(named("nat"), native(r, w, intHistogram))
	}
	if r.IntN(4) == 0 {
		add(named("nat_float"), native(r, w, floatHistogram))
	}
	// The query API carries neither the hint that a histogram is a gauge, which
	// rate() looks at, nor the bounds of custom buckets that are empty.
	if r.IntN(4) == 0 && !w.any(kind.queryAPI) {
		add(named("nat_gauge"), native(r, w, gaugeHistogram))
	}
	if r.IntN(4) == 0 && !w.any(kind.queryAPI) {
		add(named("nat_custom"), native(r, w, customHistogram))
	}
	if r.IntN(4) == 0 {
		add(named("mixed"), mixed(r, w))
	}
}

func (p *sample) stale() bool {
	switch {
	case p.h != nil:
		return value.IsStaleNaN(p.h.Sum)
	case p.fh != nil:
		return value.IsStaleNaN(p.fh.Sum)
	}
	return value.IsStaleNaN(p.f)
}
