package evidence

import (
	"iter"
	"math/bits"
	"slices"
)

// A replica lacks a series at times at which a twin has it, unless it has just ended: a replica that has no
// stale marker shows it for the lookback. Then that replica lacks the end.

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
