package differential

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
)

// world is a truth, and how it is spread over the copies of server groups. It is
// a value: shrinking makes smaller ones of it.
type world struct {
	start, end int64 // ms; scrapes lie in [start, end)
	series     []series
	copies     []holder
	servers    []server
	groups     []group
	st         bool // start timestamps are stored; otherwise the samples' are nothing
	// steady: series come and go on multiples of some minutes only. What a replica
	// with another clock sees is then no more and no less than what the truth sees.
	steady bool
	// sparse: native histograms have empty buckets. Which of these are stored is up to
	// the chunk that a sample is in, or not at all by the query API, and arithmetic
	// that makes no number of them (0/0, NaN*0) would show it, as do changes(), the
	// equality of two histograms, and the counter resets of negative ones.
	sparse bool
	// early: metric names are dropped where a function drops them, so that backends
	// may evaluate.
	early bool
	// changing: servers lose samples, get others late, are restarted and become others.
	changing bool
	script   []event // what happens, one after the other, before the question that differs
	later    int64   // how long (ms) after its end the first question is asked
	lagged   bool    // some samples have stamps of their own, much earlier than the scrape
	unruled  bool    // no server has the rule that has recorded series
	blocks   []int64 // where blocks of the servers' storage end (ms)
	// blockLength (ms) is that of blocks. Their ends are multiples of it.
	blockLength int64
}

// series is one series of the truth.
type series struct {
	labels   labels.Labels // with the injected label of its shard, if there is one
	target   int
	interval int64 // ms
	shard    int
	lag      int64 // ms: its samples bear stamps that are so much earlier than the scrape
	samples  []sample
}

// sample is a scraped value: a float, or one kind of histogram.
type sample struct {
	t, st int64 // ms
	f     float64
	h     *histogram.Histogram
	fh    *histogram.FloatHistogram
	held  uint16 // the copies that have it, a bit each
	// shadow (ms), if not 0, marks what only a replica with another clock has seen,
	// so much later than the truth. The truth has all other samples.
	shadow int64
	// late is the number of the change that brings it; until then nobody has it, and the
	// truth has not. 0: it was there from the beginning.
	late int
}

// holder is one replica's copy of a group's data. Usually it has a server of its
// own; a long-term store keeps the copies of all replicas, told apart by a label.
type holder struct {
	server  int
	replica string // value of the label `replica` in its data; empty: none
	// shift is by which part of the interval it scrapes later than the truth. If it
	// is not 0, the first copy of the group has everything, and nothing of this one
	// must show.
	shift float64
}

// server is a Prometheus-compatible endpoint.
type server struct{ kind kind }

// group is a server group.
type group struct {
	name   string
	shard  int
	inject string // value of the label `shard`, which its data lacks; empty: no such label
	// from and to (ms) are its time_range, both inclusive; 0 is unbounded. It holds
	// the samples of [first, last].
	from, to    int64
	first, last int64
	copied      bool   // another group has copies of all of its samples
	copyOf      string // the name of the group that it has copies of, all of them; "" if of none
	copies      []int  // in configured order
	anchors     []anchor
}

// anchor is a time in which a copy of a group has everything.
type anchor struct {
	span
	copy int
}

// has reports whether the samples of s at t belong to the group.
func (g *group) has(s *series, t int64) bool {
	return s.shard == g.shard && t >= g.first && t <= g.last
}

// newWorld makes the world of a seed.
func newWorld(r *rand.Rand, changing bool) *world {
	w := &world{changing: changing}
	w.start = 1_700_000_000_000 + r.Int64N(600_000)
	w.end = w.start + (60+r.Int64N(120))*minute
	w.arrange(r)
	w.scrape(r)
	if w.unruled || w.lagged { // what only counts show is not seen in the last nine minutes
		w.later = max(w.later, 20*minute)
	}
	w.distribute(r)
	return w
}

const (
	second = int64(1000)
	minute = 60 * second
)

// any reports whether a server is of such a kind.
func (w *world) any(f func(kind) bool) bool {
	return slices.ContainsFunc(w.servers, func(s server) bool { return f(s.kind) })
}

// shifted reports whether some copies have another clock than the truth.
func (w *world) shifted() bool {
	return slices.ContainsFunc(w.copies, func(h holder) bool { return h.shift != 0 })
}

// hasLate reports whether samples come late.
func (w *world) hasLate() bool {
	return slices.ContainsFunc(w.series, func(s series) bool {
		return slices.ContainsFunc(s.samples, func(p sample) bool { return p.late != 0 })
	})
}

// moments are the times (ms) at which series end, copies come and go, and groups
// take over from each other.
func (w *world) moments() []int64 {
	var out []int64
	for _, g := range w.groups {
		for _, t := range []int64{g.from, g.to, g.first} {
			if t != 0 && t != w.start {
				out = append(out, t)
			}
		}
	}
	for _, s := range w.series {
		for i, p := range s.samples {
			if p.stale() || i > 0 && p.held != s.samples[i-1].held {
				out = append(out, p.t)
			}
		}
	}
	return out
}

// String describes the topology and the series, and the samples if they are few.
func (w *world) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "scrapes in [%s, %s)", seconds(w.start), seconds(w.end))
	if w.st {
		b.WriteString(", with start timestamps")
	}
	b.WriteByte('\n')
	for _, g := range w.groups {
		fmt.Fprintf(&b, "group %s: holds shard %d in [%s, %s]", g.name, g.shard, seconds(g.first), seconds(g.last))
		if g.inject != "" {
			fmt.Fprintf(&b, ", injects shard=%q", g.inject)
		}
		if g.from != 0 {
			fmt.Fprintf(&b, ", time_range from %s", seconds(g.from))
		}
		if g.to != 0 {
			fmt.Fprintf(&b, ", time_range to %s", seconds(g.to))
		}
		if g.copyOf != "" {
			fmt.Fprintf(&b, ", copies of %s", g.copyOf)
		}
		b.WriteByte('\n')
		for _, c := range g.copies {
			h := w.copies[c]
			fmt.Fprintf(&b, "  copy %d: server %d, %s", c, h.server, w.servers[h.server].kind)
			if h.replica != "" {
				fmt.Fprintf(&b, ", replica=%q in its data", h.replica)
			}
			if h.shift != 0 {
				fmt.Fprintf(&b, ", scrapes %.3f intervals later", h.shift)
			}
			b.WriteByte('\n')
		}
	}
	total := 0
	for _, s := range w.series {
		total += len(s.samples)
	}
	fmt.Fprintf(&b, "%d series, %d samples\n", len(w.series), total)
	for _, s := range w.series {
		fmt.Fprintf(&b, "%s (shard %d): %d samples", s.labels, s.shard, len(s.samples))
		if s.lag != 0 {
			fmt.Fprintf(&b, ", scraped %s later", seconds(s.lag))
		}
		b.WriteByte('\n')
		if total <= 400 {
			s.print(&b, len(w.copies))
		}
	}
	if w.changing {
		fmt.Fprintf(&b, "asked %s after its end; blocks end at", seconds(w.later))
		for _, t := range w.blocks {
			b.WriteString(" " + seconds(t))
		}
		b.WriteByte('\n')
		for _, e := range w.script {
			b.WriteString(e.String())
		}
	}
	return b.String()
}

// print writes a line for each sample: time, value, copies that have it.
func (s *series) print(b *strings.Builder, copies int) {
	for _, p := range s.samples {
		fmt.Fprintf(b, "  %s  %-12s held by", seconds(p.t), p.text())
		for c := range copies {
			if p.held&(1<<c) != 0 {
				fmt.Fprintf(b, " %d", c)
			}
		}
		if p.shadow != 0 {
			b.WriteString(", not in the truth")
		}
		if p.late != 0 {
			fmt.Fprintf(b, ", comes by change %d", p.late)
		}
		b.WriteByte('\n')
	}
}

func (p *sample) text() string {
	switch {
	case p.stale():
		return "stale"
	case p.h != nil:
		return p.h.String()
	case p.fh != nil:
		return p.fh.String()
	}
	return fmt.Sprint(p.f)
}

// seconds prints ms as the API takes times.
func seconds(ms int64) string { return fmt.Sprintf("%d.%03d", ms/1000, ms%1000) }
