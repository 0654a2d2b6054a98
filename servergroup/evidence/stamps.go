package evidence

import (
	"context"
	"slices"
	"sync/atomic"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/servergroup/fanout"
	"github.com/oneprom/oneprom/servergroup/labelmap"
	"github.com/oneprom/oneprom/servergroup/replica"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// Samples may have stamps of their own (honor_timestamps), which are earlier than their scrapes. Then a
// scrape that was missed shows nothing of when a sample is lacking, but that it is earlier. Nothing
// tells by how much, once it is stored.

const (
	// stampReach (ms) is how much earlier than their scrapes samples may be.
	stampReach = 10 * 60 * 1000
	// stampStep (ms) is how often a query looks at the stamps.
	stampStep = 5 * 60 * 1000
	// keptStamps bounds what is kept of whether selectors have such samples (bytes).
	keptStamps = 1 << 20
)

// stamps is whether samples have the stamps of the scrapes.
type stamps int8

const (
	stampsUnknown stamps = iota
	stampsOfScrapes
	stampsOwn // some have their own
)

// and returns what two findings show together.
func (s stamps) and(o stamps) stamps {
	switch {
	case s == stampsOwn || o == stampsOwn:
		return stampsOwn
	case s == stampsUnknown || o == stampsUnknown:
		return stampsUnknown
	}
	return stampsOfScrapes
}

// targetKey names a target by what its series have of its labels. Several may have one name.
func targetKey(ls labels.Labels) string {
	return ls.Get(targetLabels[0]) + "\xff" + ls.Get(targetLabels[1])
}

// ofTarget reports whether a series has the labels of a target. Others are known by their names.
func ofTarget(ls labels.Labels) bool {
	return !slices.ContainsFunc(targetLabels, func(name string) bool { return ls.Get(name) == "" })
}

// keptUps are the scrapes of a replica in a range of time, as they were a moment ago: the panels of a dashboard, which
// are compared at once, need the same.
type keptUps struct {
	Span
	at      int64 // when they were fetched, ms
	targets map[string]*targetScrapes
}

const (
	// keptUpBytes is the most bytes of an answer with scrapes that are kept. Decoded times take five times as many.
	keptUpBytes = 2 << 20
	// upsFrom (ms) is of what the times are multiples from which on they are fetched.
	upsFrom = 10 * 60 * 1000
)

// scrapesOf returns the scrapes of a replica in [from, to] (ms), and perhaps some before and after, by
// targetKey. They are settled.
func (h *history) scrapesOf(ctx context.Context, r *replica.Replica, from, to int64) (map[string]*targetScrapes, error) {
	now := h.now()
	h.mtx.Lock()
	kept := h.ups[r]
	h.mtx.Unlock()
	if kept.targets != nil && kept.From <= from && to <= kept.To && now-kept.at < replica.ProfileAge.Milliseconds() {
		return kept.targets, nil
	}
	from = floorTo(from, upsFrom) // for those whose windows begin a few minutes earlier
	held := &fanout.Budget{Limit: h.limit}
	ups, err := h.fetchUp(ctx, r, from, to, "timestamp", held)
	if err != nil {
		return nil, err
	}
	out := make(map[string]*targetScrapes, len(ups))
	for _, up := range ups {
		key := targetKey(up.Labels)
		if before := out[key]; before != nil {
			before.several = true
			continue
		}
		out[key] = newTargetScrapes(up.Run)
	}
	if held.Used() <= keptUpBytes {
		h.mtx.Lock()
		defer h.mtx.Unlock()
		h.ups[r] = keptUps{Span{from, to}, now, out}
	}
	return out, nil
}

// sliceStamps is whether some series of a selector have stamps of their own in a slice of time.
type sliceStamps struct {
	own bool
	at  int64 // when that was found out, ms
}

// beforeScrapes makes the spans that the replicas missed begin earlier, if the selector may have series
// with stamps of their own in [from, to] (ms), as its counts show. Its matchers for the replicas are send.
// Replicas that failed before are not asked; if nothing was missed, nobody is.
func (h *history) beforeScrapes(ctx context.Context, counting *Counting, missed []map[string][]Span, send []*labels.Matcher, from, to int64, before map[int]error) error {
	if !slices.ContainsFunc(missed, func(byInstance map[string][]Span) bool { return len(byInstance) > 0 }) {
		return nil
	}
	known := counting.awaitStamps(ctx)
	own := known == stampsOwn
	if known == stampsUnknown {
		var err error
		if own, err = h.stamped(ctx, send, from, to, before); err != nil {
			return err
		}
	}
	for _, byInstance := range missed {
		for instance, spans := range byInstance {
			var cut []Span
			for _, s := range spans {
				if own {
					s.From -= stampReach
				}
				if s.From, s.To = max(s.From, from), min(s.To, to); s.From <= s.To {
					cut = append(cut, s)
				}
			}
			if byInstance[instance] = mergeSpans(cut); len(cut) == 0 {
				delete(byInstance, instance)
			}
		}
	}
	return nil
}

// stamped reports whether some series of a selector may have stamps of their own in [from, to] (ms).
func (h *history) stamped(ctx context.Context, send []*labels.Matcher, from, to int64, before map[int]error) (bool, error) {
	selector, now := transport.Selector(send), h.now()
	first, last := floorTo(from, lookupSlice), floorTo(min(to, now), lookupSlice)
	lo, hi := last+lookupSlice, last
	h.mtx.Lock()
	for begin := first; begin <= last; begin += lookupSlice {
		s, ok := h.stamps.Get(lookupKey{selector, begin})
		age := int64(CountAge)
		if begin+lookupSlice+settleTime < s.at {
			age = OldCountAge
		}
		switch {
		case !ok || now-s.at >= age:
			lo, hi = min(lo, begin), begin
		case s.own:
			h.mtx.Unlock()
			return true, nil
		}
	}
	h.mtx.Unlock()
	if lo > hi {
		return false, nil
	}
	var own atomic.Bool
	failed, err := h.ask(ctx, before, func(ctx context.Context, _ int, r *replica.Replica) error {
		does, err := replicaStamps(ctx, r, send, lo, min(hi+lookupSlice, now))
		if does {
			own.Store(true)
		}
		return err
	})
	if err != nil || len(failed) > len(before) {
		return true, err
	}
	h.mtx.Lock()
	defer h.mtx.Unlock()
	for begin := lo; begin <= hi; begin += lookupSlice {
		h.stamps.Add(lookupKey{selector, begin}, sliceStamps{own.Load(), now}, 96+len(selector))
	}
	return own.Load(), nil
}

// replicaStamps reports whether some series of a selector, whose matchers for replicas are send, do not
// have the stamps of the scrapes in [from, to] (ms), or a replica does not tell.
func replicaStamps(ctx context.Context, r *replica.Replica, send []*labels.Matcher, from, to int64) (bool, error) {
	p, err := r.Ready(ctx)
	if err != nil {
		return true, err
	}
	list, err := p.Client.AllowPartial(false).CountOwnStamps(ctx, labelmap.Selectable(send), transport.Steps{
		Start: floorTo(from, stampStep), End: floorTo(to, stampStep), Step: stampStep, Lookback: stampStep,
	}, func(int) error { return nil })
	if err != nil {
		if transport.ClassOf(err) == transport.ClassUser {
			return true, nil
		}
		return true, err
	}
	var samples dedup.Samples
	for _, s := range list {
		if err := s.Run.AppendTo(&samples, from-stampStep, to); err != nil {
			return true, err
		}
	}
	return samples.Len() > 0, nil
}
