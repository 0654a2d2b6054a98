package evidence

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"math/bits"
	"slices"
	"sync/atomic"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/servergroup/labelmap"
	"github.com/oneprom/oneprom/servergroup/replica"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// Counts do not show replicas that lack different series, but equally many. So where the samples of a
// selector are few, they are read, which is cheaper for a Prometheus than to count. They show which series
// are there at each time, and what holds for counts holds for the count of each series, which is 0 or 1.
// They also show whether they have stamps of their own.

const (
	// maxPresentBytes is the most bytes of one answer.
	maxPresentBytes = 8 << 20
	// keptUntold bounds what is kept of selectors that have more samples (bytes).
	keptUntold = 1 << 20
)

// present are the series that a replica has, by the hash of their labels.
type present map[uint64]presentSeries

type presentSeries struct {
	instance string
	at       []uint64 // the times at which it is there, a bit each
	ends     []uint64 // the first times after stale markers
	// unscraped reports whether its samples are not those of scrapes of a target, though it has the labels of
	// one. Then holes are where it has none (ms): scrapes do not show them.
	unscraped bool
	noTarget  bool // whether there is no such target
	holes     []Span
}

// told is what the samples of a replica show.
type told struct {
	present present // nil: it refuses to tell
	stamps  stamps
}

// compareSeries compares which series of a selector the replicas have at the times in [from, to) (ms),
// and adds the times at which one lacks some that it has scraped to f.low. It reports false, and adds
// nothing, if that is not to be found out: the samples are too many, or a replica does not tell.
// Replicas that failed before are not asked.
func (h *history) compareSeries(ctx context.Context, f *countFetch, send []*labels.Matcher, from, to int64, before map[int]error) (tells bool, failed map[int]error, err error) {
	if h.isUntold(f.what.selector, to-from) {
		return false, nil, nil
	}
	// What is before and after the times shows which series had ended.
	lingering := f.what.lookback()/f.what.step + 1
	first := from - (1+lingering)*f.what.step
	settled := floorTo(f.at-countSettle, f.what.step)
	end := max(to, min(to+lingering*f.what.step, settled)) + f.what.step
	all := make([]told, len(h.group.Replicas))
	var tooMany, untold atomic.Bool
	failed, err = h.ask(ctx, before, func(ctx context.Context, i int, r *replica.Replica) (err error) {
		all[i], err = h.replicaPresent(ctx, r, send, first, end, f.what)
		if err != nil && ctx.Err() == nil { // whether it refuses or fails, counting shows
			untold.Store(true)
			if errors.Is(err, errUntold) {
				tooMany.Store(true)
			}
			return nil
		}
		return err
	})
	there := make([]present, len(all))
	for r, one := range all {
		there[r] = one.present
	}
	switch {
	case err != nil:
		return false, nil, err
	case untold.Load():
		if tooMany.Load() {
			h.keepUntold(f.what.selector, to-from)
		}
		return false, nil, nil
	case refused(there, failed):
		appendAll(f.low, from, to, f.what.step)
		return true, failed, nil
	case !slices.ContainsFunc(there, func(own present) bool { return own != nil }):
		return false, nil, nil
	}
	if from == f.from {
		f.stamps = stampsOfScrapes
	}
	for _, one := range all {
		if one.present != nil {
			f.stamps = f.stamps.and(one.stamps)
		}
	}
	lackedBy(there, int((end-first)/f.what.step), int(lingering), func(l lacked) {
		at := first + l.at*f.what.step
		switch {
		case at < from || at >= to:
		case f.explains(f.missed[l.replica][l.instance], at):
		case l.unless >= 0 && meetsAny(f.missed[l.unless][l.instance], f.window(at)):
		default:
			f.low[l.replica].series = append(f.low[l.replica].series, at)
		}
	})
	for r := range there {
		low := &f.low[r].series
		slices.Sort(*low)
		*low = slices.Compact(*low)
		f.low[r].holes = mergeSpans(append(f.low[r].holes, f.holes(there, r, from, to)...))
	}
	return true, failed, nil
}

// holes returns where a replica lacks samples of series that are not scraped, from one time to another one
// (ms): a twin has some there, and missed scrapes do not explain it.
func (f *countFetch) holes(there []present, r int, from, to int64) (list []Span) {
	for key, own := range there[r] {
		for _, hole := range own.holes {
			if hole.To < from || hole.From >= to || f.explainsHole(f.missed[r], own, hole) {
				continue
			}
			if slices.ContainsFunc(there, func(twins present) bool { twin, ok := twins[key]; return ok && twin.fills(hole) }) {
				list = append(list, Span{max(hole.From, from), hole.To})
			}
		}
	}
	return list
}

// explainsHole reports whether missed scrapes explain a hole: those of the target, if there is one, which may
// come later than the stamps of its samples, or of any target, if they were missed for most of the hole: the
// replica was away, and its rules with it.
func (f *countFetch) explainsHole(missed map[string][]Span, s presentSeries, hole Span) bool {
	if !s.noTarget && meetsAny(missed[s.instance], Span{hole.From - stampReach, hole.To + stampReach}) {
		return true
	}
	for _, spans := range missed {
		for away := range joined(spans) {
			if min(away.To, hole.To)-max(away.From, hole.From) >= (hole.To-hole.From)/2 {
				return true
			}
		}
	}
	return false
}

// fills reports whether a series that is not scraped has samples in a hole of a copy.
func (s presentSeries) fills(hole Span) bool {
	return s.unscraped && !slices.ContainsFunc(s.holes, func(own Span) bool {
		return min(own.To, hole.To)-max(own.From, hole.From) >= (hole.To-hole.From)/2
	})
}

// explains reports whether the scrapes of a target that a replica missed explain that it lacks the
// series of that target when one is low, at t (ms): whether they were missed for most of the time in
// which it is not there. A scrape that is missed now and then does not make it go.
func (f *countFetch) explains(missed []Span, t int64) bool {
	window := f.window(t)
	for s := range joined(missed) {
		s = f.beyondEdges(s)
		if min(s.To, window.To)-max(s.From, window.From) >= (window.To-window.From)/2 {
			return true
		}
	}
	return false
}

// window is the time of the samples that show a series, or not, when one is low at t (ms).
func (f *countFetch) window(t int64) Span {
	return Span{t - f.what.step - f.what.lookback(), t + f.what.step}
}

// joined yields spans of missed scrapes, those as one that are no further apart than counts explain.
func joined(missed []Span) iter.Seq[Span] {
	return func(yield func(Span) bool) {
		for len(missed) > 0 {
			s := missed[0]
			for missed = missed[1:]; len(missed) > 0 && missed[0].From-s.To <= explained; missed = missed[1:] {
				s.To = missed[0].To // it goes on in the next slice, say
			}
			if !yield(s) {
				return
			}
		}
	}
}

// beyondEdges returns a span of missed scrapes as it may go on where it was cut off.
func (f *countFetch) beyondEdges(s Span) Span {
	if s.From <= f.known.From+explained {
		s.From = math.MinInt64 / 2
	}
	if s.To >= f.known.To-explained {
		s.To = math.MaxInt64 / 2
	}
	return s
}

// untold is a time over which the samples of a selector are not told.
type untold struct {
	length int64 // ms; it is not tried over longer ones
	at     int64 // when that was found out, ms
}

// keepUntold remembers that the samples of a selector are not told over a time of some length (ms).
func (h *history) keepUntold(selector string, length int64) {
	now := h.now()
	h.mtx.Lock()
	defer h.mtx.Unlock()
	h.untold.Add(selector, untold{length, now}, 64+len(selector))
}

// isUntold reports whether it is known that the samples of a selector are not told over a time of some
// length (ms).
func (h *history) isUntold(selector string, length int64) bool {
	now := h.now()
	h.mtx.Lock()
	defer h.mtx.Unlock()
	known, ok := h.untold.Get(selector)
	return ok && length >= known.length && now-known.at < OldCountAge
}

// replicaPresent returns which series of a selector, whose matchers for replicas are send, a replica has
// at the multiples of the step in [from, to) (ms), which begins with one.
func (h *history) replicaPresent(ctx context.Context, r *replica.Replica, send []*labels.Matcher, from, to int64, what countedSelector) (told, error) {
	var list []transport.Series
	first, last := from-what.lookback()+1, to-what.step
	err := r.UpToDate(func() error {
		p, err := r.Ready(ctx)
		if err == nil && (p.Kind != transport.Prometheus || p.Dialect.Fronted || p.Method == transport.QueryAPI) {
			err = errUntold
		}
		if err != nil {
			return err
		}
		left := maxPresentBytes
		list, err = r.Fetch(ctx, p, p.Client.AllowPartial(false), p.Method, labelmap.NewRules(h.group.Config, p.External), transport.Request{
			Matchers: labelmap.Selectable(send), MinT: first, MaxT: last, Func: "present_over_time",
			Charge: func(bytes int) error {
				if left -= bytes; left < 0 {
					return errUntold
				}
				return nil
			},
		})
		return err
	})
	if err != nil {
		if transport.ClassOf(err) == transport.ClassUser && !errors.Is(err, errUntold) {
			return told{}, nil
		}
		return told{}, err
	}
	targets, err := h.scrapesOf(ctx, r, first, last)
	if err != nil {
		return told{}, err
	}
	out := told{present: make(present, len(list)), stamps: stampsOfScrapes}
	builder := labels.NewBuilder(labels.EmptyLabels())
	var scratch dedup.Samples
	for _, s := range list {
		target := targets[targetKey(s.Labels)]
		shown, err := outlineOf(s.Run, last, what.lookback(), intervalOf(target), &scratch)
		if err != nil {
			return told{}, fmt.Errorf("broken samples of %s: %w", s.Labels, err)
		}
		stamps, err := shown.stampsOf(target)
		if err != nil {
			return told{}, fmt.Errorf("broken samples of up: %w", err)
		}
		out.stamps = out.stamps.and(stamps)
		key := canonical(builder, s.Labels).Hash()
		one := presentSeries{
			instance: s.Labels.Get(labelmap.TargetLabel), unscraped: target == nil && ofTarget(s.Labels) || stamps == stampsOwn, noTarget: target == nil,
			at: shown.bits(from, to, what.step), ends: shown.ends(from, to, what.step),
		}
		if copied, ok := out.present[key]; ok { // with another replica label
			for i := range one.at {
				one.at[i], one.ends[i] = one.at[i]|copied.at[i], one.ends[i]|copied.ends[i]
			}
		} else if one.unscraped {
			if one.holes, err = holesIn(s.Run, &scratch); err != nil {
				return told{}, fmt.Errorf("broken samples of %s: %w", s.Labels, err)
			}
		}
		out.present[key] = one
	}
	return out, nil
}

// canonical returns labels with their numbers as Prometheus 3 spells them: releases differ in that.
func canonical(b *labels.Builder, ls labels.Labels) labels.Labels {
	b.Reset(ls)
	for _, name := range labelmap.NumberLabels {
		if value, odd := labelmap.Canonical(ls.Get(name)); odd {
			b.Set(name, value)
		}
	}
	return b.Labels()
}

// errUntold says that the series of a selector can only be counted: their samples are too many, or the
// server is no Prometheus.
var errUntold = errors.New("which series there are is not told")

// lacked is a time, by its number, at which a replica lacks a series, or the stale marker that ends it.
type lacked struct {
	replica  int
	instance string
	at       int64
	// unless is the replica, by index, whose missed scrapes of the target would explain this as well; -1: none.
	unless int
}

// lackedBy calls lacks for each of some times at which a replica lacks a series that a twin has, and for
// those at which it shows one that has ended by a twin. lingering is at how many times a series may be there
// that has ended: until the lookback has passed, and one more, as clocks of replicas differ.
func lackedBy(there []present, times, lingering int, lacks func(lacked)) {
	for t, twins := range there {
		for key, twin := range twins {
			for r, own := range there {
				if r == t || own == nil || slices.Equal(own[key].at, twin.at) {
					continue
				}
				for i := range twin.at {
					for low := lowBits(own[key].at, twin.at, i); low != 0; low &= low - 1 {
						at := 64*i + bits.TrailingZeros64(low)
						switch may, either := lingers(own[key], twin.at, at, times, lingering); {
						case !may:
							lacks(lacked{r, twin.instance, int64(at), -1})
						case either:
							lacks(lacked{r, twin.instance, int64(at), t})
						}
					}
				}
				for at := range unended(own[key], twin.at, times, lingering) {
					lacks(lacked{t, twin.instance, int64(at), r})
				}
			}
		}
	}
}

// lingers reports whether a series that a twin has at a time, and a replica lacks, may have ended for
// both. A replica that was scraping then has a stale marker. A twin that missed that one scrape, or lost
// the marker, has none, and shows the series until its lookback is over, and no longer. Nothing else shows
// that it has none: the target may have gone. The replica may not have the series at any time, as it was
// there for less than a step, or because it lacks all of it: it is either.
func lingers(own presentSeries, twin []uint64, at, times, lingering int) (may, either bool) {
	last := at - 1 // at which the replica has it, or the one before the twin has it
	for last >= 0 && has(twin, last) && !has(own.at, last) {
		last--
	}
	if last < 0 {
		return false, false // it was there long before
	}
	for i := at + 1; i <= last+lingering+1; i++ {
		switch {
		case i >= times: // what comes then is not known, and a replica with a marker may be right
			return anyOf(own.ends, last+1, at), false
		case !has(twin, i):
			return true, !has(own.at, last)
		}
	}
	return false, false
}

// ended is at how many times in a row nobody has a series that has ended. One that is scraped every
// five minutes is there again after two.
const ended = 4

// unended yields the times at which a twin has a series that has ended, as the stale marker of a replica
// shows that does not have it any more: then the twin has no marker. Two times in a row show it, as clocks of
// replicas differ by less than that. A replica without a marker was away, or has lost what came then.
func unended(own presentSeries, twin []uint64, times, lingering int) iter.Seq[int] {
	return func(yield func(int) bool) {
		for last := 0; last+ended < times; last++ {
			if !has(twin, last) || has(own.at, last) || !gone(own.at, last) || !gone(twin, last) {
				continue
			}
			first := last
			for first > 0 && has(twin, first-1) && !has(own.at, first-1) {
				first--
			}
			if n := last + 1 - first; first == 0 || n < 2 || n > lingering || !anyOf(own.ends, first, last) {
				continue
			}
			for at := first; at <= last; at++ {
				if !yield(at) {
					return
				}
			}
		}
	}
}

// gone reports whether a series is not there after a time, so that it has ended.
func gone(list []uint64, t int) bool {
	for i := range ended {
		if has(list, t+1+i) {
			return false
		}
	}
	return true
}

// has reports whether a bit of a list is set.
func has(list []uint64, i int) bool {
	return i/64 < len(list) && list[i/64]&(1<<(i%64)) != 0
}

// anyOf reports whether a bit of a list is set from first to last.
func anyOf(list []uint64, first, last int) bool {
	for i := first; i <= last; i++ {
		if has(list, i) {
			return true
		}
	}
	return false
}

// lowBits returns the times of element i at which a series is low: it is not there then, nor at the
// times before and after, and a twin's is at all three of them. own is nil if it is never there.
func lowBits(own, twin []uint64, i int) uint64 {
	before, at, after := around(twin, i)
	low := before & at & after
	if own != nil {
		before, at, after = around(own, i)
		low &^= before | at | after
	}
	return low
}

// around returns an element of a list of bits, and what its bits have before and after them.
func around(list []uint64, i int) (before, at, after uint64) {
	before, at, after = list[i]<<1, list[i], list[i]>>1
	if i > 0 {
		before |= list[i-1] >> 63
	}
	if i+1 < len(list) {
		after |= list[i+1] << 63
	}
	return before, at, after
}
