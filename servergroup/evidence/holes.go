package evidence

import (
	"math"
	"slices"

	"github.com/oneprom/oneprom/dedup"
)

// Scrapes show nothing of single samples of a series that no scrape has brought. So its samples are compared:
// where there are none for more than one and a half intervals, and a twin has some, the replica lacks them.

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

// holesIn returns the times (ms) between samples that are more than one and a half intervals apart, where the
// series has not ended meanwhile.
func holesIn(run dedup.Run, scratch *dedup.Samples) (holes []Span, err error) {
	scratch.Reset()
	if err := decode(scratch, run, math.MinInt64, math.MaxInt64); err != nil {
		return nil, err
	}
	longest := dedup.Interval(scratch.T) * 3 / 2
	for i := 1; i < scratch.Len(); i++ {
		if before, t := scratch.T[i-1], scratch.T[i]; t-before > longest && !scratch.Stale(i-1) && !scratch.Stale(i) {
			holes = append(holes, Span{before + 1, t - 1})
		}
	}
	return holes, nil
}
