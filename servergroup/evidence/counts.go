package evidence

import (
	"context"
	"math"
	"sync"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/servergroup/labelmap"
	"github.com/oneprom/oneprom/servergroup/replica"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// Scrapes show that a replica was there, and not that it has every series: some may have been
// deleted or lost, come from rules or clients, or have times of their own. So the replicas also
// count the series of a selector, minute by minute. A series that one of them lacks for long makes
// its counts lower than those of a twin.

const (
	// countStep (ms) is the time between two counts.
	countStep = 60 * 1000
	// countLookback (ms) is how long a series is counted after its last sample.
	countLookback = 5 * 60 * 1000
	// sliceCounts is the number of counts in a slice of lookupSlice.
	sliceCounts = lookupSlice / countStep
	// keptCounts bounds what is kept of counts (bytes).
	keptCounts = 8 << 20
)

// counts are how many series of a selector each replica has, at times that are countStep apart.
type counts struct {
	from, to  int64 // ms: the times that were counted are in [from, to), multiples of countStep
	byReplica [][]float64
}

// at returns the count of a replica, NaN if it is not known.
func (c *counts) at(r int, t int64) float64 {
	if t < c.from || t >= c.to {
		return math.NaN()
	}
	return c.byReplica[r][(t-c.from)/countStep]
}

// lacking returns the spans in which the counts show that a replica lacks series of a selector that
// a twin has. The spans of missed, by replica, are left out: scrapes show what is lacking there.
//
// Replicas scrape at different moments, so that a series comes and goes earlier in one than in
// another. So a replica lacks a series if the highest of three counts in a row is lower than the
// lowest of the same three of a twin.
func (c *counts) lacking(missed [][]Span) [][]Span {
	out := make([][]Span, len(c.byReplica))
	for r := range c.byReplica {
		for t := c.from + countStep; t < c.to-countStep; t += countStep {
			if meetsAny(missed[r], Span{t - countStep - countLookback, t + countStep}) {
				continue
			}
			_, most := c.around(r, t)
			for o := range c.byReplica {
				if least, _ := c.around(o, t); o != r && least > most {
					out[r] = append(out[r], Span{t - countStep - countLookback, t + countStep})
					break
				}
			}
		}
		out[r] = mergeSpans(out[r])
	}
	return out
}

// around returns the least and the most of three counts in a row, NaN if one is not known.
func (c *counts) around(r int, t int64) (least, most float64) {
	least, most = math.Inf(1), math.Inf(-1)
	for at := t - countStep; at <= t+countStep; at += countStep {
		n := c.at(r, at)
		least, most = math.Min(least, n), math.Max(most, n) // NaN stays
	}
	return least, most
}

func meetsAny(spans []Span, s Span) bool {
	for _, o := range spans {
		if o.From <= s.To && o.To >= s.From {
			return true
		}
	}
	return false
}

// countsOf returns the counts of a selector in [from, to] (ms), as far as samples cannot come late
// any more. Replicas that failed before are not asked; their counts are not known.
func (h *history) countsOf(ctx context.Context, send []*labels.Matcher, from, to int64, before map[int]error) (*counts, map[int]error, error) {
	all := &counts{from: floorTo(from, countStep) - countStep, to: floorTo(min(to+countStep, h.now()-settleTime), countStep) + countStep}
	all.byReplica = make([][]float64, len(h.group.Replicas))
	for r := range all.byReplica {
		all.byReplica[r] = make([]float64, max(0, (all.to-all.from)/countStep))
		for i := range all.byReplica[r] {
			all.byReplica[r][i] = math.NaN()
		}
	}
	if all.to <= all.from {
		return all, nil, nil
	}
	selector := transport.Selector(send)
	lo, hi := h.cachedCounts(selector, all)
	if lo >= hi {
		return all, nil, nil
	}
	var mtx sync.Mutex // guards all
	failed, err := h.ask(ctx, before, func(ctx context.Context, i int, r *replica.Replica) error {
		found, err := h.replicaCounts(ctx, r, send, lo, hi)
		if err != nil || found == nil {
			return err
		}
		mtx.Lock()
		defer mtx.Unlock()
		copy(all.byReplica[i][(lo-all.from)/countStep:], found)
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	if len(failed) == len(before) {
		h.keepCounts(selector, all)
	}
	return all, failed, nil
}

// replicaCounts asks a replica for its counts in [from, to) (ms). They are nil if it may count in
// another way.
func (h *history) replicaCounts(ctx context.Context, r *replica.Replica, send []*labels.Matcher, from, to int64) ([]float64, error) {
	p, err := r.Ready(ctx)
	if err != nil || p.Dialect.Fronted || p.Dialect.ReadOnly {
		return nil, err
	}
	out := make([]float64, (to-from)/countStep)
	list, err := p.Client.AllowPartial(false).CountSeries(ctx, labelmap.Selectable(send), transport.Steps{
		Start: from, End: to - countStep, Step: countStep, Lookback: countLookback,
	})
	if err != nil {
		if replica.Unreadable(err) {
			return nil, nil
		}
		return nil, err
	}
	var samples dedup.Samples
	for _, s := range list {
		if err := s.Run.AppendTo(&samples, from, to); err != nil {
			return nil, err
		}
	}
	for i, t := range samples.T {
		if at := (t - from) / countStep; t%countStep == 0 && at >= 0 && at < int64(len(out)) {
			out[at] = samples.F[i]
		}
	}
	return out, nil
}

// cachedCounts fills in what is cached, and returns the range of times (ms) that is not.
func (h *history) cachedCounts(selector string, all *counts) (from, to int64) {
	from, to = all.to, all.from
	h.mtx.Lock()
	defer h.mtx.Unlock()
	for begin := floorTo(all.from, lookupSlice); begin < all.to; begin += lookupSlice {
		kept, _ := h.counts.Get(lookupKey{selector, begin})
		for t := max(begin, all.from); t < min(begin+lookupSlice, all.to); t += countStep {
			if kept == nil || t < kept.from || t >= kept.to {
				from, to = min(from, t), max(to, t+countStep)
				continue
			}
			for r := range all.byReplica {
				all.byReplica[r][(t-all.from)/countStep] = kept.at(r, t)
			}
		}
	}
	return from, to
}

// keepCounts caches counts, in slices. A slice keeps what it had if that is next to what is new.
func (h *history) keepCounts(selector string, all *counts) {
	h.mtx.Lock()
	defer h.mtx.Unlock()
	for begin := floorTo(all.from, lookupSlice); begin < all.to; begin += lookupSlice {
		next := &counts{from: max(begin, all.from), to: min(begin+lookupSlice, all.to)}
		old, _ := h.counts.Get(lookupKey{selector, begin})
		if old != nil && old.from <= next.to && old.to >= next.from {
			next.from, next.to = min(next.from, old.from), max(next.to, old.to)
		} else {
			old = nil
		}
		for r := range all.byReplica {
			list := make([]float64, 0, (next.to-next.from)/countStep)
			for t := next.from; t < next.to; t += countStep {
				if t >= all.from && t < all.to {
					list = append(list, all.at(r, t))
				} else {
					list = append(list, old.at(r, t))
				}
			}
			next.byReplica = append(next.byReplica, list)
		}
		h.counts.Add(lookupKey{selector, begin}, next, 128+len(selector)+len(next.byReplica)*(24+8*sliceCounts))
	}
}
