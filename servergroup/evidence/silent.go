package evidence

import (
	"slices"

	"github.com/oneprom/oneprom/dedup"
)

// Where no replica scraped anything, comparing them shows nothing: all were away, or one was and
// another has lost what it scraped meanwhile. Others may have copies of that. These times are found
// for a whole group: its replicas were away then, and not one of its targets.

// appendScraped appends the spans (ms) in which a run of a target's `up` shows that somebody scraped: from
// scrapes to one and a half intervals later.
func appendScraped(dst []Span, run *dedup.Samples) []Span {
	if run.Len() == 0 {
		return dst
	}
	reach := int64(0) // one scrape shows no interval
	if run.Len() > 1 {
		reach = dedup.Interval(run.T) * 3 / 2
	}
	open := Span{run.T[0], run.T[0] + reach}
	for _, t := range run.T[1:] {
		if t > open.To {
			dst = append(dst, open)
			open.From = t
		}
		open.To = t + reach
	}
	return append(dst, open)
}

// within reports whether one of some spans includes all of another one.
func within(spans []Span, s Span) bool {
	return slices.ContainsFunc(spans, func(o Span) bool { return o.From <= s.From && s.To <= o.To })
}

// addScraped adds what a target's runs show of when somebody scraped.
func (c *scrapeComparer) addScraped() {
	for _, run := range c.all {
		if n := run.Len(); n > 0 && !within(c.scraped, Span{run.T[0], run.T[n-1]}) {
			c.scraped = mergeSpans(appendScraped(c.scraped, run))
		}
	}
}

// scrapedOf returns what addScraped looks at in a run.
func scrapedOf(run *dedup.Samples) scrapedRun {
	n := run.Len()
	if n == 0 {
		return scrapedRun{all: emptySpan}
	}
	return scrapedRun{Span{run.T[0], run.T[n-1]}, appendScraped(nil, run)}
}

// addScrapedRun is addScraped for a run that was looked at before.
func (c *scrapeComparer) addScrapedRun(run scrapedRun) {
	if run.all != emptySpan && !within(c.scraped, run.all) {
		c.scraped = mergeSpans(append(c.scraped, run.spans...))
	}
}

// silent returns the spans within [from, to] (ms) in which nobody scraped.
func silent(scraped []Span, from, to int64) (list []Span) {
	for _, s := range scraped {
		if s.From > from && from <= to {
			list = append(list, Span{from, min(s.From-1, to)})
		}
		from = max(from, s.To+1)
	}
	if from <= to {
		list = append(list, Span{from, to})
	}
	return list
}

// silentIn returns the spans in [from, to] (ms) in which no replica scraped anything, as far as scrapes
// cannot come late any more.
func silentIn(list []*sliceScrapes, from, to int64) (spans []Span) {
	for _, s := range list {
		for _, one := range s.silent {
			one = Span{max(one.From, from), min(one.To, to, s.asked-settleTime)}
			if one.From <= one.To {
				spans = append(spans, one)
			}
		}
	}
	return mergeSpans(spans)
}
