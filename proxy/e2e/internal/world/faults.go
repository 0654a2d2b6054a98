package world

import (
	"math/rand/v2"
	"time"
)

// margin is the time in ms that the faults of two replicas keep from each other, so that at any moment one of them has
// seen a target's last scrapes. Without it a series' end could be lost for good, and there would be no right answer.
const margin = 2 * minute

// Faults is what one replica missed.
type Faults struct {
	Outages   []Span            // the whole replica was away; it wrote nothing, no stale markers either
	Lost      map[string][]Span // per target: unreachable, nothing written
	Forgotten map[string][]Span // per target: not in this replica's service discovery, so its series got stale markers
}

// away reports whether the replica missed the scrape of a target that is due at t.
func (f *Faults) away(target string, t int64) bool {
	return f != nil && anyHas(f.Lost[target], t)
}

// down reports whether the whole replica was away at t.
func (f *Faults) down(t int64) bool { return f != nil && anyHas(f.Outages, t) }

// forgot reports whether the replica did not know the target at t.
func (f *Faults) forgot(target string, t int64) bool {
	return f != nil && anyHas(f.Forgotten[target], t)
}

// all lists the spans in which the replica missed something of the target.
func (f *Faults) all(target string) []Span {
	spans := append([]Span(nil), f.Outages...)
	spans = append(spans, f.Lost[target]...)
	return append(spans, f.Forgotten[target]...)
}

// key names a target within one region.
func (t *Target) key() string { return t.Job + "/" + t.Instance }

// spans turns pairs of minutes after the beginning into spans; shift is in minutes.
func spans(shift int64, minutes ...int64) []Span {
	var out []Span
	for i := 0; i < len(minutes); i += 2 {
		out = append(out, Span{Begin + (minutes[i]+shift)*minute + 7*second, Begin + (minutes[i+1]+shift)*minute + 7*second})
	}
	return out
}

// scatter adds faults of single targets to an HA pair, anywhere in window: minutes of absence and single missing scrapes,
// in either replica, but never in both at once. forget adds absences with stale markers.
func scatter(r *Region, pair [2]*Faults, window Span, faults int, forget bool) {
	rng := rand.New(rand.NewPCG(seed(r.Name), 7))
	for _, f := range pair {
		f.Lost, f.Forgotten = map[string][]Span{}, map[string][]Span{}
	}
	for _, t := range r.Targets {
		for n := range faults {
			length := t.Interval // a single scrape
			if n < faults/4 {
				length = (1 + rng.Int64N(7)) * minute
			}
			from := window.From + rng.Int64N(window.To-window.From)
			s := Span{from, from + length}
			me, other := pair[n%2], pair[1-n%2]
			if clashes(s, other.all(t.key())) || s.To > window.To {
				continue
			}
			if forget && n < 2 && !t.Rules {
				me.Forgotten[t.key()] = append(me.Forgotten[t.key()], s)
				continue
			}
			me.Lost[t.key()] = append(me.Lost[t.key()], s)
		}
	}
}

func clashes(s Span, others []Span) bool {
	for _, o := range others {
		if s.near(o, margin) {
			return true
		}
	}
	return false
}

// jitter is a clock that is late by a fixed time and by up to a few milliseconds more, differently for every scrape.
func jitter(name string, late time.Duration) Clock {
	return func(target string, scheduled int64) int64 {
		return scheduled + late.Milliseconds() + int64(7*noise(seed(name, target), scheduled)) - 3
	}
}
