package evidence

import (
	"context"
	"maps"
	"slices"
)

// Counting compares how many series of a selector the replicas have.
type Counting struct {
	countedSelector
	missed   []map[string][]Span
	from, to int64       // ms: the range that evidence is wanted of
	low      []lows      // by replica, of what was kept
	last     int64       // the last time that was compared, ms
	failed   bool        // whether a replica failed to count for what was kept
	stamps   stamps      // of the samples for which it was
	fetch    *countFetch // of the rest; nil if there is none
}

// Await waits for the counts and returns what the replicas missed and lack by them. Its results are
// as Shown.Missed and Shown.Lacking. counted reports whether all replicas have counted before ctx
// ended.
func (c *Counting) Await(ctx context.Context) (missed []map[string][]Span, lacking [][]Span, counted bool) {
	low, last := c.low, c.last
	counted = !c.failed
	if f := c.fetch; f != nil {
		select {
		case <-f.done:
			counted = counted && !f.failed
			low, last = make([]lows, len(c.low)), max(c.last, f.end-c.step)
			for r := range low {
				low[r] = c.low[r].with(f.low[r])
			}
		case <-ctx.Done():
			counted = false
		}
	}
	missed, lacking = make([]map[string][]Span, len(low)), make([][]Span, len(low))
	for r := range low {
		missed[r], lacking[r] = c.attribute(c.missed[r], low[r], last)
	}
	return missed, lacking, counted
}

// Done reports whether Await does not wait.
func (c *Counting) Done() bool {
	if c.fetch == nil {
		return true
	}
	select {
	case <-c.fetch.done:
		return true
	default:
		return false
	}
}

// awaitStamps waits for the counts, and returns what is known of the stamps of the samples.
func (c *Counting) awaitStamps(ctx context.Context) stamps {
	if c.fetch == nil {
		return c.stamps
	}
	select {
	case <-c.fetch.done:
		return c.stamps.and(c.fetch.stamps)
	case <-ctx.Done():
		return stampsUnknown
	}
}

// span returns the time in which series are lacking if the count at t is low: they have no sample as
// far back as the count before looks, and none until the count after it.
func (c *Counting) span(t int64) Span {
	slack := c.step - fineStep // what the next counts would show with fine steps
	return Span{t - c.step - c.lookback() - slack, t + c.step + slack}
}

// attribute divides the times at which a replica lacks something into spans in which targets were
// missed, and others. Where it missed scrapes, its counts are low because of these targets. What was
// lacking in the end (last, ms) is taken to be so until counts show otherwise.
func (c *Counting) attribute(missed map[string][]Span, low lows, last int64) (map[string][]Span, []Span) {
	if len(low.counts) == 0 && len(low.series) == 0 && len(low.holes) == 0 {
		return missed, nil
	}
	hull := mergeSpans(slices.Concat(slices.Collect(maps.Values(missed))...))
	wider := make(map[string][]Span, len(missed))
	for instance, spans := range missed {
		wider[instance] = mergeSpans(append(c.beyond(spans, low.counts), spans...))
	}
	unexplained := slices.DeleteFunc(slices.Clone(low.counts), func(t int64) bool { return meetsAny(hull, Span{t - explained, t + c.step}) })
	var lacking []Span
	for _, t := range append(unexplained, low.series...) {
		s := c.span(t)
		if t == last {
			s.To = c.to
		}
		lacking = c.appendCut(lacking, s)
	}
	for _, s := range low.holes {
		lacking = c.appendCut(lacking, s)
	}
	return wider, mergeSpans(lacking)
}

// beyond returns what low counts near the spans of a target show of it beyond these: samples are also
// lacking more than ScrapeSlack before the first scrape that was missed if series have times of their
// own.
func (c *Counting) beyond(spans []Span, low []int64) (list []Span) {
	for s := range joined(spans) {
		i, _ := slices.BinarySearch(low, s.From-c.step)
		j, _ := slices.BinarySearch(low, s.To+explained+1)
		for _, t := range low[i:j] {
			if t < s.From+c.lookback()+c.step-ScrapeSlack || t > s.To {
				list = c.appendCut(list, c.span(t))
			}
		}
	}
	return list
}

// appendCut appends a span, cut to the range.
func (c *Counting) appendCut(list []Span, s Span) []Span {
	if s.From, s.To = max(s.From, c.from), min(s.To, c.to); s.From > s.To {
		return list
	}
	return append(list, s)
}

// meetsAny reports whether a span meets one of others, which are sorted and do not overlap.
func meetsAny(spans []Span, s Span) bool {
	i, _ := slices.BinarySearchFunc(spans, s.From, func(o Span, from int64) int {
		if o.To < from {
			return -1
		}
		return 1
	})
	return i < len(spans) && spans[i].From <= s.To
}
