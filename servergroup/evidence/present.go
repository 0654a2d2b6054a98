package evidence

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
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
	// one. Then samples are where they are, as scrapes do not show that; nil if it has several copies.
	unscraped bool
	noTarget  bool // whether there is no such target
	samples   *samples
	shown     []Span // as in outline
	lost      []Span // as in outline; none if it is unscraped
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
	end := max(to, min(to+lingering*f.what.step, f.what.settled(f.at))) + f.what.step
	all := make([]told, len(h.group.Replicas))
	var untold, lasting atomic.Bool // lasting: it will be so for a while
	failed, err = h.ask(ctx, before, func(ctx context.Context, i int, r *replica.Replica) (err error) {
		all[i], err = h.replicaPresent(ctx, r, send, first, end, f)
		if err != nil && ctx.Err() == nil { // whether it refuses or fails, counting shows
			untold.Store(true)
			if errors.Is(err, errUntold) {
				lasting.Store(true)
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
		if lasting.Load() {
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
func (h *history) replicaPresent(ctx context.Context, r *replica.Replica, send []*labels.Matcher, from, to int64, f *countFetch) (told, error) {
	first, last := from-f.what.lookback()+1, to-f.what.step
	list, err := h.readSamples(ctx, r, send, first, last)
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
		one, stamps, err := f.presentOf(s, targets[targetKey(s.Labels)], from, to, &scratch)
		if err != nil {
			return told{}, fmt.Errorf("broken samples of %s, or of its target: %w", s.Labels, err)
		}
		out.stamps = out.stamps.and(stamps)
		key := canonical(builder, s.Labels).Hash()
		if copied, ok := out.present[key]; ok { // with another replica label
			one = one.with(copied)
		}
		out.present[key] = one
	}
	return out, nil
}

// readSamples reads the samples of a selector in [from, to] (ms) from a replica, and perhaps some before and
// after. The error is errUntold if the replica is no Prometheus, or they are too many.
func (h *history) readSamples(ctx context.Context, r *replica.Replica, send []*labels.Matcher, from, to int64) (list []transport.Series, err error) {
	err = r.UpToDate(func() error {
		p, err := r.Ready(ctx)
		if err == nil && (p.Kind != transport.Prometheus || p.Dialect.Fronted || p.Method == transport.QueryAPI) {
			err = errUntold
		}
		if err != nil {
			return err
		}
		left := maxPresentBytes
		list, err = r.Fetch(ctx, p, p.Client.AllowPartial(false), p.Method, labelmap.NewRules(h.group.Config, p.External), transport.Request{
			Matchers: labelmap.Selectable(send), MinT: from, MaxT: to, Func: "present_over_time",
			Charge: func(bytes int) error {
				if left -= bytes; left < 0 {
					return errUntold
				}
				return nil
			},
		})
		return err
	})
	return list, err
}

// presentOf returns at which of the multiples of the step in [from, to) (ms) a series of a target, nil for
// none, is there, and whose stamps its samples have.
func (f *countFetch) presentOf(s transport.Series, target *targetScrapes, from, to int64, scratch *dedup.Samples) (one presentSeries, found stamps, err error) {
	what := f.what
	shown, err := outlineOf(s.Run, target, to-what.step, what.lookback(), scratch)
	if err != nil {
		return one, found, err
	}
	if found, err = shown.stampsOf(target); err != nil {
		return one, found, err
	}
	one = presentSeries{
		instance: s.Labels.Get(labelmap.TargetLabel), at: shown.bits(from, to, what.step), ends: shown.ends(from, to, what.step),
		noTarget: target == nil, unscraped: target == nil && ofTarget(s.Labels) || found == stampsOwn, shown: shown.shown,
	}
	if !one.unscraped {
		one.lost = shown.lost
	}
	if one.unscraped {
		read := Span{from - what.lookback() + 1, to - what.step}
		if target != nil { // a scrape may still bring samples with such stamps
			read.To = min(read.To, f.at-stampReach)
		}
		one.samples, err = samplesIn(s.Run, read, scratch)
	}
	return one, found, err
}

// with returns the series together with a copy, which may have what it lacks: neither lacks single samples then.
func (s presentSeries) with(o presentSeries) presentSeries {
	for i := range s.at {
		s.at[i], s.ends[i] = s.at[i]|o.at[i], s.ends[i]|o.ends[i]
	}
	s.samples, s.lost, s.shown = nil, nil, mergeSpans(slices.Concat(s.shown, o.shown))
	return s
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
