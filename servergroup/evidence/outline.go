package evidence

import (
	"math"
	"slices"
	"sync"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/oneprom/oneprom/dedup"
)

// Chunks tell how many samples they have, and the times of the first and the last one. Where they have as many as the
// target had scrapes meanwhile, there is no hole in them, and they need not be decoded: that would be most of the work.

// targetScrapes are the scrapes of a target.
type targetScrapes struct {
	run      dedup.Run
	several  bool  // whether several targets have its name
	interval int64 // ms, the shortest one between the first scrapes of chunks; 0: it is not known
	// times are decoded once they are needed.
	times func() (*scrapeTimes, error)
}

// scrapeTimes are the times of the scrapes of a target (ms).
type scrapeTimes struct {
	at   []int64
	gaps []Span // from one scrape to the next one, where that is more than fineLookback later
}

func newTargetScrapes(run dedup.Run) *targetScrapes {
	s := &targetScrapes{run: run}
	s.times = sync.OnceValues(func() (*scrapeTimes, error) {
		var samples dedup.Samples
		if err := decode(&samples, run, math.MinInt64, math.MaxInt64); err != nil {
			return nil, err
		}
		times := &scrapeTimes{at: samples.T}
		for i := 1; i < len(samples.T); i++ {
			if before, t := samples.T[i-1], samples.T[i]; t-before > fineLookback {
				times.gaps = append(times.gaps, Span{before, t})
			}
		}
		return times, nil
	})
	if chunksOf(run) == nil {
		if times, err := s.times(); err == nil && len(times.at) > 1 {
			s.interval = dedup.Interval(times.at)
		}
	}
	for _, c := range chunksOf(run) {
		if interval := firstInterval(c); interval > 0 && (s.interval == 0 || interval < s.interval) {
			s.interval = interval
		}
	}
	return s
}

// countIn returns how many scrapes there are from one time to another one (ms, inclusive).
func (s *scrapeTimes) countIn(from, to int64) int64 {
	i, _ := slices.BinarySearch(s.at, from)
	j, _ := slices.BinarySearch(s.at, to+1)
	return int64(j - i)
}

// pauses reports whether there are times from one to another one (ms) without a scrape for more than fineLookback.
func (s *scrapeTimes) pauses(from, to int64) bool {
	return slices.ContainsFunc(s.gaps, func(gap Span) bool { return gap.From >= from && gap.To <= to })
}

// goOn returns the time (ms) of the last scrape after t, and before another time, of those that follow each other
// without a gap; ok is false if there is none.
func (s *scrapeTimes) goOn(t, before, interval int64) (last int64, ok bool) {
	i, _ := slices.BinarySearch(s.at, t+1)
	for last = t; i < len(s.at) && s.at[i] < before && s.at[i]-last <= interval*3/2; i++ {
		last, ok = s.at[i], true
	}
	return last, ok
}

// firstInterval is the shorter one of the first two intervals of a chunk (ms); 0 if it has fewer, or is broken.
func firstInterval(c dedup.Chunk) (shortest int64) {
	defer func() {
		if recover() != nil { // as upstream's iterators may panic over damaged chunks
			shortest = 0
		}
	}()
	it := dedup.Chunks{c}.Iterator(nil, math.MinInt64, math.MaxInt64)
	var times []int64
	for len(times) < 3 && it.Next() != chunkenc.ValNone {
		times = append(times, it.AtT())
	}
	if len(times) < 3 {
		return 0
	}
	return min(times[1]-times[0], times[2]-times[1])
}

// chunksOf returns the chunks of a run; none if it is not compressed.
func chunksOf(run dedup.Run) dedup.Chunks {
	chunks, _ := run.(dedup.Chunks)
	return chunks
}

// at reports whether the target was scraped at t (ms).
func (s *targetScrapes) at(t int64) (bool, error) {
	for _, c := range chunksOf(s.run) { // series of a target often begin and end chunks together
		if c.MinT == t || c.MaxT == t {
			return true, nil
		}
	}
	times, err := s.times()
	if err != nil {
		return false, err
	}
	_, found := slices.BinarySearch(times.at, t)
	return found, nil
}

// outline is when a series is shown.
type outline struct {
	shown  []Span  // ms, sorted; those that touch are one
	stale  []int64 // ms: the times of stale markers, of those where a series ends at least
	stamps []int64 // ms: the times of some samples
	// lost are where there are no samples, and no stale marker before, though the target was scraped (ms). A series
	// that is not exposed any more has a marker at the next scrape: samples were lost, or the server was started
	// again just then.
	lost []Span
}

// show adds a sample at t (ms), which is shown until end at most.
func (o *outline) show(t, end int64) {
	if n := len(o.shown); n > 0 && o.shown[n-1].To >= t-1 {
		o.shown[n-1].To = max(o.shown[n-1].To, end-1)
		return
	}
	o.shown = append(o.shown, Span{t, end - 1})
}

// outliner outlines the series of a target.
type outliner struct {
	target   *targetScrapes // nil: none
	times    *scrapeTimes   // of the target; nil if they are not known
	last     int64          // ms: up to where the samples are
	lookback int64          // ms: how long a sample is shown
	scratch  *dedup.Samples
}

// outlineOf outlines a run of a series of a target, nil for none, until last (ms). A sample is shown for
// lookback (ms). What chunks say of their times is believed, unlike where samples are merged: only a Prometheus is
// asked, and the outline is compared with those of its twins.
func outlineOf(run dedup.Run, target *targetScrapes, last, lookback int64, scratch *dedup.Samples) (o outline, err error) {
	of := outliner{target: target, last: last, lookback: lookback, scratch: scratch}
	if target != nil && !target.several && target.interval > 0 {
		if of.times, err = target.times(); err != nil {
			return o, err
		}
	}
	chunks := chunksOf(run)
	if chunks == nil {
		err := of.decode(&o, run, math.MaxInt64)
		if n := scratch.Len(); n > 0 {
			o.stamps = []int64{scratch.T[n/2], scratch.T[n-1]}
		}
		return o, err
	}
	for i, c := range chunks {
		next := int64(math.MaxInt64)
		if i+1 < len(chunks) {
			next = chunks[i+1].MinT
		}
		if of.whole(chunks[i:i+1], next) {
			o.show(c.MinT, min(c.MaxT+lookback, next))
		} else if err := of.decode(&o, chunks[i:i+1], next); err != nil {
			return o, err
		}
		if i > 0 { // the first sample of all may be one that tells when a counter was started
			o.stamps = append(o.stamps, c.MinT)
		}
		o.stamps = append(o.stamps, c.MaxT)
	}
	return o, nil
}

// whole reports whether a chunk, which is followed by a sample at next (ms), has a sample for each scrape of the target,
// and the series goes on after it. Stale markers that it may have show that the series was away for a moment, and no
// more: while the server is away, and where the series ends, they matter.
func (of *outliner) whole(c dedup.Chunks, next int64) bool {
	if of.times == nil {
		return false
	}
	from, to := c[0].MinT, c[0].MaxT
	goesOn := to+2*of.target.interval > of.last || next < to+of.lookback
	return goesOn && !of.times.pauses(from, to) && int64(c.Len()) == of.times.countIn(from, to) && of.times.countIn(to+1, min(next-1, of.last)) == 0
}

// decode adds the samples of a run, which is followed by a sample at next (ms).
func (of *outliner) decode(o *outline, run dedup.Run, next int64) error {
	of.scratch.Reset()
	if err := decode(of.scratch, run, math.MinInt64, math.MaxInt64); err != nil {
		return err
	}
	for i, t := range of.scratch.T {
		end := next
		if i+1 < of.scratch.Len() {
			end = of.scratch.T[i+1]
		}
		if of.scratch.Stale(i) {
			o.stale = append(o.stale, t)
			continue
		}
		o.show(t, min(end, t+of.lookback))
		if of.times == nil {
			continue
		}
		if last, lost := of.times.goOn(t, min(end, of.last+1), of.target.interval); lost {
			o.lost = append(o.lost, Span{t + 1, last})
		}
	}
	return nil
}

// bits returns a bit for each of the multiples of step in [from, to) (ms): whether the series is shown then.
func (o *outline) bits(from, to, step int64) []uint64 {
	at := newBits(from, to, step)
	for _, s := range o.shown {
		for n := max(0, (s.From-from+step-1)/step); from+n*step <= min(s.To, to-1); n++ {
			at[n/64] |= 1 << (n % 64)
		}
	}
	return at
}

// ends returns a bit for the first of the multiples of step in [from, to) (ms) at or after each stale marker.
func (o *outline) ends(from, to, step int64) []uint64 {
	at := newBits(from, to, step)
	for _, t := range o.stale {
		if n := (t - from + step - 1) / step; t > from-step && from+n*step < to {
			at[n/64] |= 1 << (n % 64)
		}
	}
	return at
}

// newBits returns a bit for each of the multiples of step in [from, to) (ms).
func newBits(from, to, step int64) []uint64 { return make([]uint64, ((to-from)/step+63)/64) }

// stampsOf reports whether the samples of a series have the times of the scrapes of its target.
func (o *outline) stampsOf(target *targetScrapes) (stamps, error) {
	switch {
	case target == nil || len(o.stamps) == 0:
		return stampsOfScrapes, nil
	case target.several: // nothing tells which one it is of
		return stampsOwn, nil
	}
	for _, t := range o.stamps {
		if scraped, err := target.at(t); err != nil || !scraped {
			return stampsOwn, err
		}
	}
	return stampsOfScrapes, nil
}
