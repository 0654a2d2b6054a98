package evidence

import (
	"math"
	"slices"

	"github.com/oneprom/oneprom/dedup"
)

// A series that is scraped has a sample for each scrape of its target, or a stale marker when it ends. Where it has
// neither, samples were lost, if a twin shows it then: the server may also have been started when the series ended.
//
// Scrapes show nothing of single samples of a series that no scrape has brought. So its samples are compared:
// where there are none for more than one and a half intervals, and a twin has some, the replica lacks them.
//
// The first and the last samples may be lacking, too, as of a rule that one replica had a moment later, or no
// more a moment earlier. There is no hole then. A twin on the same clock, as rules have it, shows that single
// ones are lacking. On another clock, its samples have to go on for longer than a hole may be.

// samples are where those of a series are that no scrape has brought (ms).
type samples struct {
	holes   []Span // in which there are none for longer than longest
	longest int64
	// first and last are the times of those at either edge, from the inside out: keptEdge at most.
	first, last []int64
	// firstOpen and lastOpen report whether nothing else shows what is beyond: a stale marker, or a sample.
	firstOpen, lastOpen bool
}

const (
	// keptEdge is how many samples are kept of either edge of a series.
	keptEdge = 5
	// sameClock is how many samples at an edge have equal stamps in replicas that share a clock: two scrapers that
	// are shown the stamps of a target have few.
	sameClock = 3
)

// holes returns where a replica lacks single samples of series, from one time to another one (ms): a twin has some
// there. Of those that are not scraped, missed scrapes may explain it.
func (f *countFetch) holes(there []present, r int, from, to int64) (list []Span) {
	for key, own := range there[r] {
		for _, lost := range own.lost {
			for t, twins := range there {
				if t != r && lost.To >= from && lost.From < to && twins[key].shows(lost) {
					list = append(list, Span{max(lost.From, from), lost.To})
				}
			}
		}
		if own.samples == nil {
			continue
		}
		add := func(hole Span) {
			if hole.To >= from && hole.From < to && !f.explainsHole(f.missed[r], own, hole) {
				list = append(list, Span{max(hole.From, from), hole.To})
			}
		}
		for _, hole := range own.samples.holes {
			if slices.ContainsFunc(there, func(twins present) bool { twin, ok := twins[key]; return ok && twin.fills(hole) }) {
				add(hole)
			}
		}
		for _, twins := range there {
			if twin := twins[key].samples; twin != nil {
				f.eachEdge(own.samples, twin, add)
			}
		}
	}
	return list
}

// eachEdge calls add for the times at either edge of a series in which a replica lacks samples that a twin has.
func (f *countFetch) eachEdge(own, twin *samples, add func(Span)) {
	if t, lacks := f.lacksEdge(own.first, twin.first, own.longest, -1); lacks && own.firstOpen {
		add(Span{t, own.first[len(own.first)-1] - 1})
	}
	if t, lacks := f.lacksEdge(own.last, twin.last, own.longest, 1); lacks && own.lastOpen {
		add(Span{own.last[len(own.last)-1] + 1, t})
	}
}

// lacksEdge reports whether a replica lacks samples beyond those whose times it has at one edge of a series, and
// up to which time (ms) a twin has them. Time goes in the direction of sign. If it is for long, the times that are
// compared show it.
func (f *countFetch) lacksEdge(own, twin []int64, longest, sign int64) (t int64, lacks bool) {
	if len(own) == 0 || len(twin) == 0 {
		return 0, false
	}
	end, t := own[len(own)-1], twin[len(twin)-1]
	switch beyond := sign * (t - end); {
	case beyond <= 0 || beyond > f.what.lookback()+3*f.what.step:
		return 0, false
	case beyond > longest:
		return t, true
	}
	shared, same := slices.Index(twin, end)+1, min(sameClock, len(own))
	return t, shared >= same && slices.Equal(own[len(own)-same:], twin[shared-same:shared])
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

// shows reports whether a series is shown for most of a hole of a copy.
func (s presentSeries) shows(hole Span) bool {
	for _, shown := range s.shown {
		if min(shown.To, hole.To)-max(shown.From, hole.From) >= (hole.To-hole.From)/2 {
			return true
		}
	}
	return false
}

// fills reports whether a series that is not scraped has samples in a hole of a copy.
func (s presentSeries) fills(hole Span) bool {
	return s.unscraped && (s.samples == nil || !slices.ContainsFunc(s.samples.holes, func(own Span) bool {
		return min(own.To, hole.To)-max(own.From, hole.From) >= (hole.To-hole.From)/2
	}))
}

// samplesIn returns where the samples of a series are, and looks at its edges within a span (ms), in which no sample
// comes late any more.
func samplesIn(run dedup.Run, within Span, scratch *dedup.Samples) (*samples, error) {
	scratch.Reset()
	if err := decode(scratch, run, math.MinInt64, math.MaxInt64); err != nil {
		return nil, err
	}
	s := &samples{longest: dedup.Interval(scratch.T) * 3 / 2}
	for i := 1; i < scratch.Len(); i++ {
		if before, t := scratch.T[i-1], scratch.T[i]; t-before > s.longest && !scratch.Stale(i-1) && !scratch.Stale(i) {
			s.holes = append(s.holes, Span{before + 1, t - 1})
		}
	}
	from, _ := slices.BinarySearch(scratch.T, within.From)
	to, _ := slices.BinarySearch(scratch.T, within.To+1)
	for i := from; i < to && len(s.first) < keptEdge; i++ {
		if !scratch.Stale(i) {
			s.first = append(s.first, scratch.T[i])
		}
	}
	for i := to - 1; i >= from && len(s.last) < keptEdge; i-- {
		if !scratch.Stale(i) {
			s.last = append(s.last, scratch.T[i])
		}
	}
	slices.Reverse(s.first)
	slices.Reverse(s.last)
	s.firstOpen = from == 0 && from < to && !scratch.Stale(from)
	s.lastOpen = to == scratch.Len() && from < to && !scratch.Stale(to-1)
	return s, nil
}
