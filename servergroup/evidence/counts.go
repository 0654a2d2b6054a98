package evidence

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/servergroup/guard"
	"github.com/oneprom/oneprom/servergroup/labelmap"
	"github.com/oneprom/oneprom/servergroup/replica"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// Scrapes show that a replica was there, and not that it has every series: some may have been
// deleted or lost, come from rules or clients, or have times of their own. So the replicas also
// count the series of a selector. A series that one of them lacks for long makes its counts lower
// than those of a twin.
//
// Replicas scrape at different moments, so that a series comes and goes earlier in one than in
// another. So a count is low only if it and the counts before and after it are all lower than all
// three of a twin.

const (
	// fineStep (ms) is the time between two counts, and coarseStep that for ranges longer than
	// fineRange, over which fine ones would be dearer than most queries.
	fineStep   = 60 * 1000
	coarseStep = 5 * 60 * 1000
	fineRange  = 24 * 60 * 60 * 1000
	// fineLookback (ms) is how long a series is counted after its last sample; with coarse steps,
	// that is coarseStep. A series that is scraped every five minutes is missing from two counts in
	// a row, and never from three.
	fineLookback = 3 * 60 * 1000
	// countSettle (ms) is how old what is counted must be, as it may still be written. What comes
	// later is seen when it is counted again.
	countSettle = 60 * 1000
	// ScrapeSlack (ms) is how far outside a window a missed scrape may be and still count as inside,
	// because clocks of replicas differ.
	ScrapeSlack = 60 * 1000
	// explained (ms) is how long after the last scrape that a replica missed of a target its counts
	// may be low: until the next scrape.
	explained = 3 * 60 * 1000
	// maxCounts is the most counts of one request. The server holds as many values of each series.
	maxCounts = 720
	// maxCountBytes is the most bytes of one answer, which has one series.
	maxCountBytes = 1 << 20
	// maxCounting is how many countings run at a time: each may hold maxPresentBytes of each replica.
	// maxCountTime is how long one may take.
	maxCounting  = 4
	maxCountTime = 30 * time.Second
	// keptCounts bounds what is kept of counts (bytes).
	keptCounts = 8 << 20

	// tailAge (ms) is how old the end of what was counted becomes before the counts go on.
	tailAge = 3 * 60 * 1000
	// CountAge (ms) is how long counts are believed: nothing shows that samples came late, or that
	// some were deleted that are not in a block yet.
	CountAge = 10 * 60 * 1000
	// OldCountAge (ms) is how long they are believed of a slice that ended oldSlice (ms) ago, where
	// such things are rare.
	OldCountAge = 60 * 60 * 1000
	// oldSlice (ms) is how long ago such a slice ended.
	oldSlice = 6 * 60 * 60 * 1000
)

// countedSelector is what is counted: the series of a selector, at the multiples of a step (ms).
type countedSelector struct {
	selector string
	step     int64
}

func (c countedSelector) lookback() int64 {
	if c.step == fineStep {
		return fineLookback
	}
	return c.step
}

// settled returns the first time (ms) that cannot be compared at another one.
func (c countedSelector) settled(now int64) int64 { return floorTo(now-countSettle, c.step) }

type countKey struct {
	countedSelector
	begin int64 // of a slice of lookupSlice, ms
}

// lows are what a replica lacks: sorted times, and spans (ms).
type lows struct {
	counts []int64 // at which its count is low
	series []int64 // at which it lacks single series whose targets it has scraped
	holes  []Span  // in which it lacks samples of a series that is not scraped
}

// with returns the times of both.
func (l lows) with(o lows) lows {
	join := func(a, b []int64) []int64 {
		all := slices.Concat(a, b)
		slices.Sort(all)
		return all
	}
	return lows{join(l.counts, o.counts), join(l.series, o.series), mergeSpans(slices.Concat(l.holes, o.holes))}
}

// filter returns the times that keep accepts, and the spans that begin at such times.
func (l lows) filter(keep func(t int64) bool) lows {
	of := func(list []int64) (out []int64) {
		for _, t := range list {
			if keep(t) {
				out = append(out, t)
			}
		}
		return out
	}
	return lows{of(l.counts), of(l.series), slices.DeleteFunc(slices.Clone(l.holes), func(s Span) bool { return !keep(s.From) })}
}

// countedSlice is what the counts have shown in one slice of time.
type countedSlice struct {
	from, to int64  // ms: the times in [from, to) were compared
	low      []lows // by replica
	at       int64  // when the oldest of this was counted, ms
	failed   bool   // whether a replica failed to count
	stamps   stamps // of the samples
}

func (s *countedSlice) valid(begin, now int64) bool {
	if s.failed {
		return now-s.at < replica.ProfileAge.Milliseconds()
	}
	return now-s.at < Believed(begin, now)
}

// Believed returns how long (ms) counts of samples from a time on are believed at another one (ms).
func Believed(from, now int64) int64 {
	if from+lookupSlice+oldSlice < now {
		return OldCountAge
	}
	return CountAge
}

// countFetch is a counting that is under way.
type countFetch struct {
	what     countedSelector
	from, to int64 // ms: the times in [from, to) are compared
	at       int64 // when it was started, ms

	done   chan struct{}
	known  Span                // ms: where it is known what replicas missed
	missed []map[string][]Span // there, by replica and instance
	low    []lows              // by replica, of what was compared when done is closed
	end    int64               // up to where that is, ms
	failed bool                // whether a replica failed to count
	stamps stamps              // of the samples
}

// countStep is the time between two counts over a range, ms.
func countStep(from, to int64) int64 {
	if to-from > fineRange {
		return coarseStep
	}
	return fineStep
}

// countsReach is the time in which the scrapes of replicas matter to the counts for [from, to] (ms): what
// the counts look at, and what tells where missed scrapes begin and end there.
func countsReach(from, to int64) Span {
	c := countedSelector{step: countStep(from, to)}
	reach := 2*c.step + c.lookback() + explained
	return Span{from - reach, to + reach}
}

// count compares the counts of a selector, whose matchers are those for the replicas, in [from, to]
// (ms), as far as samples cannot come late any more. missed is what the replicas missed there, and
// missedIn what they missed in known. Replicas that failed before are not asked.
func (h *history) count(send []*labels.Matcher, missed []map[string][]Span, from, to int64, before map[int]error, known Span, missedIn func() []map[string][]Span) *Counting {
	what := countedSelector{transport.Selector(send), countStep(from, to)}
	c := &Counting{countedSelector: what, missed: missed, from: from, to: to, low: make([]lows, len(missed)), last: math.MinInt64}
	now := h.now()
	first := floorTo(from-c.step, c.step)
	end := min(floorTo(to+c.lookback()+c.step, c.step)+c.step, c.settled(now))
	if first >= end || len(h.group.Replicas)-len(before) < 2 {
		return c
	}
	h.mtx.Lock()
	defer h.mtx.Unlock()
	lo, hi := h.cachedCounts(c, send, first, end, now)
	if lo >= hi {
		return c
	}
	if f := h.counting[what]; f != nil && f.from <= lo && f.to >= hi {
		c.fetch = f
		return c
	}
	f := &countFetch{what: what, from: lo, to: hi, at: now, done: make(chan struct{}), known: known, missed: missedIn(), low: make([]lows, len(missed)), end: lo}
	if h.group.Replicas[0].Run(func(ctx context.Context) { h.fetchCounts(ctx, f, send, before) }) {
		c.fetch, h.counting[what] = f, f
	}
	return c
}

// cachedCounts adds what is kept of the times in [first, end) (ms) to c, and returns the range of those
// that are not. In the tail of time, what is younger than tailAge is not asked for yet. h.mtx is held.
func (h *history) cachedCounts(c *Counting, send []*labels.Matcher, first, end, now int64) (lo, hi int64) {
	lo, hi, c.stamps = end, first, stampsOfScrapes
	lack := func(from, to int64) { lo, hi = min(lo, from), max(hi, to) }
	tail := end == c.settled(now)
	wider := sync.OnceValue(func() []string { return widerThan(send) })
	for begin := floorTo(first, lookupSlice); begin < end; begin += lookupSlice {
		from, to := max(begin, first), min(begin+lookupSlice, end)
		ends := func(s *countedSlice) bool { return to <= s.to || tail && to == end && to-s.to < tailAge }
		s := h.countedOf(countKey{c.countedSelector, begin}, wider, now, func(s *countedSlice) bool { return s.from <= from && ends(s) })
		if s == nil {
			lack(from, to)
			continue
		}
		if from < s.from {
			lack(from, s.from)
		}
		if !ends(s) {
			lack(s.to, to)
		}
		c.last, c.failed, c.stamps = max(c.last, s.to-c.step), c.failed || s.failed, c.stamps.and(s.stamps)
		for r, low := range s.low {
			c.low[r] = c.low[r].with(low)
		}
	}
	return lo, hi
}

// fetchCounts has the replicas count, and keeps what that shows. It does not end with the query that
// needs it, as other queries may wait for it too, but with ctx.
func (h *history) fetchCounts(ctx context.Context, f *countFetch, send []*labels.Matcher, before map[int]error) {
	ctx, cancel := context.WithTimeout(ctx, maxCountTime)
	defer cancel()
	select {
	case h.countSlots <- struct{}{}:
		defer func() { <-h.countSlots }()
	case <-ctx.Done():
	}
	err := guard.Call(func() error {
		for f.end < f.to && ctx.Err() == nil {
			end := min(f.to, f.end+maxCounts*f.what.step)
			tells, failed, err := h.compareSeries(ctx, f, send, f.end, end, before)
			if err == nil && !tells {
				f.stamps = stampsUnknown
				failed, err = h.compareCounts(ctx, f, send, f.end, end, before)
			}
			if err != nil {
				return err
			}
			f.failed, before, f.end = f.failed || len(failed) > len(before), failed, end
		}
		return context.Cause(ctx)
	})
	f.failed = f.failed || err != nil
	h.mtx.Lock()
	defer h.mtx.Unlock()
	if h.counting[f.what] == f {
		delete(h.counting, f.what)
	}
	if f.failed {
		f.end = f.to // nobody counts again what has failed before it is time
	}
	h.keepCounts(f)
	close(f.done)
}

// compareCounts compares how many series of a selector the replicas have at the times in [from, to)
// (ms), and adds the times, by replica, at which its count is low to low. Replicas that failed before
// are not asked.
func (h *history) compareCounts(ctx context.Context, f *countFetch, send []*labels.Matcher, from, to int64, before map[int]error) (failed map[int]error, err error) {
	counts := make([][]float64, len(h.group.Replicas))
	failed, err = h.ask(ctx, before, func(ctx context.Context, i int, r *replica.Replica) (err error) {
		counts[i], err = replicaCounts(ctx, r, send, from-f.what.step, to+f.what.step, f.what)
		return err
	})
	if err != nil {
		return nil, err
	}
	if refused(counts, failed) {
		appendAll(f.low, from, to, f.what.step)
	} else {
		appendLow(f.low, counts, from, f.what.step)
	}
	return failed, nil
}

// replicaCounts returns how many series of a selector, whose matchers for replicas are send, a replica
// has at the multiples of the step in [from, to) (ms), which begins with one. The result is nil if it
// refuses to count.
func replicaCounts(ctx context.Context, r *replica.Replica, send []*labels.Matcher, from, to int64, what countedSelector) ([]float64, error) {
	p, err := r.Ready(ctx)
	if err != nil || p.Dialect.ReadOnly {
		return nil, err
	}
	left := maxCountBytes
	list, err := p.Client.AllowPartial(false).CountSeries(ctx, labelmap.Selectable(send), transport.Steps{
		Start: from, End: to - what.step, Step: what.step, Lookback: what.lookback(),
	}, func(bytes int) error {
		if left -= bytes; left < 0 {
			return fmt.Errorf("counts of more than %d bytes", maxCountBytes)
		}
		return nil
	})
	if err != nil {
		if transport.ClassOf(err) == transport.ClassUser { // any other error has nothing to do with counting
			return nil, nil
		}
		return nil, err
	}
	out := make([]float64, (to-from)/what.step)
	var samples dedup.Samples
	for _, s := range list {
		if err := s.Run.AppendTo(&samples, from, to-what.step); err != nil {
			return nil, err
		}
	}
	for i, t := range samples.T {
		out[(t-from)/what.step] = samples.F[i]
	}
	return out, nil
}

// refused reports whether some replicas have counted, and others refuse to: then nothing shows that
// one of them has all series. A Prometheus that has deleted all samples of a window refuses (422).
func refused[T []float64 | present](counts []T, failed map[int]error) bool {
	counted, refuses := false, false
	for r, own := range counts {
		counted = counted || own != nil
		refuses = refuses || own == nil && failed[r] == nil
	}
	return counted && refuses
}

// appendAll appends the multiples of step (ms) in [from, to) (ms), which begins with one, for all
// replicas.
func appendAll(low []lows, from, to, step int64) {
	for t := from; t < to; t += step {
		for r := range low {
			low[r].counts = append(low[r].counts, t)
		}
	}
}

// appendLow appends the times, by replica, at which its count is low. counts[r][1+i] is the count of
// replica r at from + i*step (ms); counts[r] is nil if it is not known.
func appendLow(low []lows, counts [][]float64, from, step int64) {
	for r, own := range counts {
		for i := 1; i+1 < len(own); i++ {
			most := max(own[i-1], own[i], own[i+1])
			if slices.ContainsFunc(counts, func(twin []float64) bool {
				return twin != nil && min(twin[i-1], twin[i], twin[i+1]) > most
			}) {
				low[r].counts = append(low[r].counts, from+int64(i-1)*step)
			}
		}
	}
}

// keepCounts caches what was counted, in slices. h.mtx is held.
func (h *history) keepCounts(f *countFetch) {
	for begin := floorTo(f.from, lookupSlice); begin < f.end; begin += lookupSlice {
		key := countKey{f.what, begin}
		next := &countedSlice{from: max(begin, f.from), to: min(begin+lookupSlice, f.end), at: f.at, failed: f.failed, stamps: f.stamps, low: make([]lows, len(f.low))}
		old, ok := h.counts.Get(key)
		if ok = ok && old.valid(begin, f.at) && old.from <= next.to && old.to >= next.from; ok {
			next.failed, next.stamps = next.failed || old.failed, next.stamps.and(old.stamps)
			if !next.failed {
				next.at = min(next.at, old.at)
			}
		}
		size := 128 + len(f.what.selector)
		for r := range next.low {
			within := func(t int64) bool { return t >= next.from && t < next.to }
			next.low[r] = f.low[r].filter(within)
			if ok {
				next.low[r] = next.low[r].with(old.low[r].filter(func(t int64) bool { return !within(t) }))
			}
			size += 72 + 8*(len(next.low[r].counts)+len(next.low[r].series)) + 16*len(next.low[r].holes)
		}
		if ok {
			next.from, next.to = min(next.from, old.from), max(next.to, old.to)
		}
		h.counts.Add(key, next, size)
	}
}
