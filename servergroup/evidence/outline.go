package evidence

import (
	"math"
	"slices"
	"sync"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/oneprom/oneprom/dedup"
)

// Chunks tell how many samples they have, and the times of the first and the last one. Where they have as
// many as the target had scrapes meanwhile, there is no hole in them that matters, and they need not be
// decoded: that would be most of the work.

// targetScrapes are the scrapes of a target.
type targetScrapes struct {
	run      dedup.Run
	several  bool                    // whether several targets have its name
	interval int64                   // ms, the shortest one between the first scrapes of chunks; 0: it is not known
	times    func() ([]int64, error) // ms; they are decoded once they are needed
}

func newTargetScrapes(run dedup.Run) *targetScrapes {
	s := &targetScrapes{run: run}
	s.times = sync.OnceValues(func() ([]int64, error) {
		var samples dedup.Samples
		err := decode(&samples, run, math.MinInt64, math.MaxInt64)
		return samples.T, err
	})
	for _, c := range chunksOf(run) {
		if interval := firstInterval(c); interval > 0 && (s.interval == 0 || interval < s.interval) {
			s.interval = interval
		}
	}
	return s
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
	_, found := slices.BinarySearch(times, t)
	return found, err
}

// outline is when a series is shown.
type outline struct {
	shown  []Span  // ms, sorted; those that touch are one
	stale  []int64 // ms: the times of stale markers, of those where a series ends at least
	stamps []int64 // ms: the times of some samples
}

// show adds a sample at t (ms), which is shown until end at most.
func (o *outline) show(t, end int64) {
	if n := len(o.shown); n > 0 && o.shown[n-1].To >= t-1 {
		o.shown[n-1].To = max(o.shown[n-1].To, end-1)
		return
	}
	o.shown = append(o.shown, Span{t, end - 1})
}

// outlineOf outlines a run of a series of a target, nil for none, until last (ms). A sample is shown for
// lookback (ms). Holes that are shorter may not be seen. What chunks say of their times is believed, unlike
// where samples are merged: only a Prometheus is asked, and the outline is compared with those of its twins.
func outlineOf(run dedup.Run, target *targetScrapes, last, lookback int64, scratch *dedup.Samples) (o outline, err error) {
	interval := int64(0)
	if target != nil {
		interval = target.interval
	}
	chunks := chunksOf(run)
	if chunks == nil {
		err := o.decode(run, math.MaxInt64, lookback, scratch)
		if n := scratch.Len(); n > 0 {
			o.stamps = []int64{scratch.T[n/2], scratch.T[n-1]}
		}
		return o, err
	}
	for i, c := range chunks {
		next, goesOn := int64(math.MaxInt64), c.MaxT+2*interval > last
		if i+1 < len(chunks) {
			next = chunks[i+1].MinT
			goesOn = goesOn || next < c.MaxT+lookback
		}
		// Where the series does not go on, its last sample may be a stale marker.
		if n := int64(chunks[i : i+1].Len()); interval > 0 && n > 1 && goesOn && c.MaxT-c.MinT-(n-2)*interval < lookback {
			o.show(c.MinT, min(c.MaxT+lookback, next))
		} else if err := o.decode(chunks[i:i+1], next, lookback, scratch); err != nil {
			return o, err
		}
		if i > 0 { // the first sample of all may be one that tells when a counter was started
			o.stamps = append(o.stamps, c.MinT)
		}
		o.stamps = append(o.stamps, c.MaxT)
	}
	return o, nil
}

// decode adds the samples of a run, which is followed by a sample at next (ms).
func (o *outline) decode(run dedup.Run, next, lookback int64, scratch *dedup.Samples) error {
	scratch.Reset()
	if err := decode(scratch, run, math.MinInt64, math.MaxInt64); err != nil {
		return err
	}
	for i, t := range scratch.T {
		end := next
		if i+1 < scratch.Len() {
			end = scratch.T[i+1]
		}
		if scratch.Stale(i) {
			o.stale = append(o.stale, t)
			continue
		}
		o.show(t, min(end, t+lookback))
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
