package evidence

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/dedup"
)

// A query that reaches until now needs the scrapes of a moment ago, so that the last slice is fetched
// again and again. Nearly all targets have the samples then that they had before, and their chunks the
// same bytes: what these show is taken from the fetch before, and only the others are decoded.

// mostCompared is the most targets of which a slice keeps what they have shown: a few megabytes.
const mostCompared = 20_000

// comparedKey is a digest of all that comparing a target depends on, in a slice.
type comparedKey [sha256.Size]byte

// comparedTarget is what the samples of a target show in a slice.
type comparedTarget struct {
	id     uint32
	seen   bool           // it has samples in the slice
	runs   []scrapedRun   // those of the replicas
	missed [][]missedSpan // by each replica; nil: nothing was missed
}

// scrapedRun is when a run of a target's `up` shows that somebody scraped.
type scrapedRun struct {
	all   Span // from the first sample to the last; emptySpan: there are none
	spans []Span
}

// key returns the key of the target that is next. ok is false if there is none, as where it has no
// chunks, or a replica has it twice.
func (c *scrapeComparer) key(ls labels.Labels) (key comparedKey, ok bool) {
	if c.digest == nil {
		c.digest = sha256.New()
	}
	c.digest.Reset()
	c.text = ls.Bytes(c.text[:0])
	writeSized(c.digest, c.text)
	for _, list := range c.ups {
		switch {
		case list == nil: // it was not asked
			c.digest.Write([]byte{0})
			continue
		case len(list) == 0 || !labels.Equal(list[0].Labels, ls):
			c.digest.Write([]byte{1})
			continue
		case len(list) > 1 && labels.Equal(list[1].Labels, ls):
			return key, false
		}
		run, ok := list[0].Run.(dedup.Chunks)
		if !ok {
			return key, false
		}
		c.digest.Write([]byte{2})
		for _, chunk := range run {
			c.text = append(c.text[:0], 1, byte(chunk.Encoding))
			c.text = binary.BigEndian.AppendUint64(c.text, uint64(chunk.MinT))
			c.text = binary.BigEndian.AppendUint64(c.text, uint64(chunk.MaxT))
			c.digest.Write(c.text)
			writeSized(c.digest, chunk.Data)
		}
		c.digest.Write([]byte{0})
	}
	c.digest.Sum(c.sum[:0])
	return c.sum, true
}

// writeSized writes bytes after how many they are.
func writeSized(h hash.Hash, b []byte) {
	var size [8]byte
	binary.BigEndian.PutUint64(size[:], uint64(len(b)))
	h.Write(size[:])
	h.Write(b)
}

// again adds what the target that is next has shown before, and goes on to the one after it.
func (c *scrapeComparer) again(ls labels.Labels, before *comparedTarget) {
	for r, list := range c.ups {
		if len(list) > 0 && labels.Equal(list[0].Labels, ls) {
			c.ups[r] = list[1:]
		}
	}
	for _, run := range before.runs {
		c.addScrapedRun(run)
	}
	s := c.slices[0]
	if before.seen {
		s.targets.add(before.id)
	}
	for r, missed := range before.missed {
		s.missed[r] = append(s.missed[r], missed...)
	}
}

// compared returns what the target that was read and compared last has shown. had is how many spans
// the replicas had missed before it.
func (c *scrapeComparer) compared(id uint32, seen bool, had []int) *comparedTarget {
	out := &comparedTarget{id: id, seen: seen, runs: make([]scrapedRun, len(c.all))}
	for r, run := range c.all {
		out.runs[r] = scrapedOf(run)
	}
	for r, missed := range c.slices[0].missed {
		if len(missed) > had[r] {
			if out.missed == nil {
				out.missed = make([][]missedSpan, len(had))
			}
			out.missed[r] = append(out.missed[r], missed[had[r]:]...)
		}
	}
	return out
}

// compareNext reads and compares the next target, unless it is as it was before.
func (c *scrapeComparer) compareNext(ls labels.Labels, before map[comparedKey]*comparedTarget) (broken int, err error) {
	s := c.slices[0]
	var key comparedKey
	ok := false
	if before != nil {
		key, ok = c.key(ls)
	}
	if known := before[key]; ok && known != nil {
		c.again(ls, known)
		s.keep(key, known)
		return 0, nil
	}
	if r, err := c.read(ls); err != nil {
		return r, err
	}
	c.had = c.had[:0]
	for _, missed := range s.missed {
		c.had = append(c.had, len(missed))
	}
	c.addScraped()
	id, seen := c.compare(ls)
	if ok {
		s.keep(key, c.compared(id, seen, c.had))
	}
	return 0, nil
}

// keep remembers what a target has shown.
func (s *sliceScrapes) keep(key comparedKey, t *comparedTarget) {
	if len(s.compared) < mostCompared {
		s.compared[key] = t
	}
}

// comparedBefore returns what the targets have shown when a slice was fetched the last time; nil if the
// slice will not be fetched again.
func (h *history) comparedBefore(into []*sliceScrapes) map[comparedKey]*comparedTarget {
	if len(into) != 1 || h.settled(into[0]) {
		return nil
	}
	h.mtx.Lock()
	defer h.mtx.Unlock()
	if s, ok := h.slices.Get(into[0].begin); ok && s.compared != nil {
		return s.compared
	}
	return map[comparedKey]*comparedTarget{}
}
