package audit

import (
	"context"
	"math"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/servergroup/evidence"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// clockSlack (ms) is how far the clocks of two replicas may be apart. It matters where a series
// begins or ends: within a series, all samples of a replica have one clock.
const clockSlack = 60 * 1000

// fewSamples is how many samples show a scrape interval.
const fewSamples = 4

// lacking is what a replica lacks of a selection.
type lacking struct {
	series  int // how many series are concerned
	byName  map[string][]evidence.Span
	example labels.Labels // one of the series
	first   evidence.Span // where it has samples that are lacking
}

// compareSeries returns what a replica (own) lacks that its twin has. The lists are sorted by labels.
// Values are not compared: a twin has other ones, as it scrapes at other moments.
func compareSeries(ctx context.Context, own, twin []transport.Series, w window) (lacking, error) {
	l := lacking{byName: map[string][]evidence.Span{}}
	c := &comparer{window: w}
	for len(twin) > 0 {
		if err := ctx.Err(); err != nil {
			return lacking{}, err
		}
		ls := twin[0].Labels
		for len(own) > 0 && labels.Compare(own[0].Labels, ls) < 0 {
			own = own[1:]
		}
		var err error
		if twin, err = take(&c.twin, twin, ls, w.fetched); err == nil {
			own, err = take(&c.own, own, ls, w.fetched)
		}
		if err != nil {
			return lacking{}, err
		}
		c.compare()
		if len(c.lost) == 0 {
			continue
		}
		if l.series == 0 {
			l.example, l.first = ls, c.first
		}
		l.series++
		name := ls.Get(labels.MetricName)
		l.byName[name] = append(l.byName[name], c.lost...)
	}
	return l, nil
}

// take decodes the series at the beginning of a list that have some labels, and returns the rest.
// A store that has the samples of several replicas has several.
func take(dst *dedup.Samples, list []transport.Series, ls labels.Labels, s evidence.Span) ([]transport.Series, error) {
	*dst = dedup.Samples{}
	var runs []*dedup.Samples
	for len(list) > 0 && labels.Equal(list[0].Labels, ls) {
		run := &dedup.Samples{}
		if err := list[0].Run.AppendTo(run, s.From, s.To); err != nil {
			return nil, err
		}
		runs, list = append(runs, run), list[1:]
	}
	if len(runs) > 0 {
		*dst = *dedup.Merge(&dedup.Samples{}, runs)
	}
	return list, nil
}

// comparer compares the samples of one series.
type comparer struct {
	window
	own, twin dedup.Samples

	lost  []evidence.Span // where the replica lacks samples; an end may be open
	first evidence.Span   // the samples of the twin in the first of lost
}

// compare sets lost.
//
// Within a series, a gap is one of more than one and a half scrape intervals, as it is for the
// merge. Where a replica saw a series end, by a stale marker, or does not have it at all, it may have
// come and gone between two scrapes. So the twin must have it there for two intervals, and as long
// as clocks may be apart.
func (c *comparer) compare() {
	c.lost, c.first = c.lost[:0], evidence.Span{}
	interval := int64(0)
	for _, s := range []*dedup.Samples{&c.own, &c.twin} {
		if s.Len() >= fewSamples {
			interval = max(interval, dedup.Interval(s.T))
		}
	}
	if interval == 0 {
		return
	}
	next := 0 // in the twin
	for i := 0; i <= c.own.Len(); i++ {
		from, to := int64(math.MinInt64), int64(math.MaxInt64)
		open := true // whether the series may have begun or ended in between
		if i > 0 {
			from = c.own.T[i-1]
		}
		if i < c.own.Len() {
			to = c.own.T[i]
			open = i == 0 || c.own.Stale(i-1) || c.own.Stale(i)
		}
		for next < c.twin.Len() && c.twin.T[next] < to {
			var s evidence.Span
			if s, next = c.stretch(next, to, interval); s.From > s.To || s.To < c.From || s.From > c.To {
				continue
			}
			if !open && to-from > interval*3/2 && s.To > from+interval*2/5 && s.From < to-interval*2/5 || open && within(s, from, to) >= 2*interval+clockSlack {
				c.add(s, from, to, interval)
			}
		}
	}
}

// within is the length of the part of a stretch in (from, to).
func within(s evidence.Span, from, to int64) int64 { return min(s.To, to) - max(s.From, from) }

// stretch returns the span of the twin's samples from index i on that follow each other without a
// gap or an end before a time (ms), and the index behind them. Their span is empty if there are none.
func (c *comparer) stretch(i int, to, interval int64) (s evidence.Span, next int) {
	s = evidence.Span{From: c.twin.T[i], To: c.twin.T[i] - 1}
	for ; i < c.twin.Len() && c.twin.T[i] < to; i++ {
		if c.twin.Stale(i) {
			return s, i + 1
		}
		if s.To >= s.From && c.twin.T[i]-s.To > interval*3/2 {
			return s, i
		}
		s.To = c.twin.T[i]
	}
	return s, i
}

// add adds the gap between two samples of the replica in which the twin has the samples of s. What
// reaches the edge of what was fetched may go on behind it.
func (c *comparer) add(s evidence.Span, from, to, interval int64) {
	if len(c.lost) == 0 {
		c.first = s
	}
	lost := evidence.Span{From: max(s.From-interval, from), To: min(s.To+interval, to)}
	if from == math.MinInt64 && s.From-c.fetched.From <= interval+clockSlack {
		lost.From = math.MinInt64
	}
	if to == math.MaxInt64 && c.fetched.To-s.To <= interval+clockSlack {
		lost.To = math.MaxInt64
	}
	c.lost = append(c.lost, lost)
}
