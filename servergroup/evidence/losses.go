package evidence

import (
	"slices"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/servergroup/replica"
)

// What an audit has found is known before scrapes or counts show it, or is nothing that they show.

// Settled returns the time (ms) before which no sample comes late any more.
func Settled(now time.Time) int64 { return now.UnixMilli() - settleTime }

const (
	// lossAge is how long a loss is remembered.
	lossAge = 24 * time.Hour
	// keptLosses is how many losses of a replica are remembered one by one, and lossSpans how many
	// spans of each.
	keptLosses = 200
	lossSpans  = 20
)

// Losses are what replicas were found to lack. They are safe for concurrent use; the zero value is
// ready for use.
type Losses struct {
	mtx sync.Mutex
	of  map[*replica.Replica]*lossesOf
}

// lossesOf are the losses of one replica in one generation.
type lossesOf struct {
	generation uint64
	byName     map[string]*loss // by metric name; "" stands for all names
}

// loss is the spans in which a replica lacks some samples of a metric.
type loss struct {
	spans []Span
	last  time.Time // when it was found
}

// Add remembers that a replica lacks some samples of a metric in the spans, until the given
// generation of the replica ends or lossAge has passed. A span may have no beginning
// (math.MinInt64) or no end (math.MaxInt64).
func (l *Losses) Add(r *replica.Replica, generation uint64, name string, spans []Span, now time.Time) {
	l.mtx.Lock()
	defer l.mtx.Unlock()
	if l.of == nil {
		l.of = map[*replica.Replica]*lossesOf{}
	}
	l.forget(now)
	of := l.of[r]
	if of == nil || of.generation != generation {
		of = &lossesOf{generation: generation, byName: map[string]*loss{}}
		l.of[r] = of
	}
	if of.byName[name] == nil && len(of.byName) >= keptLosses {
		for _, one := range of.byName {
			spans = append(spans, one.spans...)
		}
		clear(of.byName)
		name = ""
	}
	one := of.byName[name]
	if one == nil {
		one = &loss{}
		of.byName[name] = one
	}
	one.spans, one.last = bounded(mergeSpans(append(one.spans, spans...))), now
}

// bounded returns spans, or the one from the first to the last if they are too many.
func bounded(spans []Span) []Span {
	if len(spans) <= lossSpans {
		return slices.Clip(spans)
	}
	hull := emptySpan
	for _, s := range spans {
		hull.include(s.From)
		hull.include(s.To)
	}
	return []Span{hull}
}

// forget drops what is too old, or about replicas that have begun another generation. l.mtx is
// held.
func (l *Losses) forget(now time.Time) {
	for r, of := range l.of {
		for name, one := range of.byName {
			if now.Sub(one.last) > lossAge {
				delete(of.byName, name)
			}
		}
		if len(of.byName) == 0 || of.generation != r.Generation() {
			delete(l.of, r)
		}
	}
}

// addTo adds the losses in [from, to] (ms) that a selector may meet to what each of the replicas
// lacks.
func (l *Losses) addTo(lacking [][]Span, replicas []*replica.Replica, ms []*labels.Matcher, from, to int64, now time.Time) {
	l.mtx.Lock()
	defer l.mtx.Unlock()
	if len(l.of) == 0 {
		return
	}
	l.forget(now)
	for i, r := range replicas {
		of := l.of[r]
		if of == nil {
			continue
		}
		for name, one := range of.byName {
			if name != "" && !mayMatchName(ms, name) {
				continue
			}
			for _, s := range one.spans {
				if s = (Span{max(s.From, from), min(s.To, to)}); s.From <= s.To {
					lacking[i] = append(lacking[i], s)
				}
			}
		}
		lacking[i] = mergeSpans(lacking[i])
	}
}
