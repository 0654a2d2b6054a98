package cache

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// The answer to a lookup is a set: series, or names or values of labels. That over a window is the union of those
// over windows that make it up: a series counts where a chunk of it overlaps the window, and a name where a block
// of the TSDB does that has it. Each chunk and each block overlaps the whole if it overlaps one of them.
//
// So sets are kept of whole hours and days (UTC). A set is a value whose numbers are: first found, made, until (ms). Its
// body is texts, after their number. It is empty if the set is left out.

const (
	hour = int64(time.Hour / time.Millisecond)
	day  = 24 * hour
	// maxMissing is how many hours and days one lookup asks for each by itself, so that they can be kept. What is
	// before these is asked for at once: the next lookups go on there.
	maxMissing = 8
	// maxSet is how large a set is at most that is kept (bytes, not compressed).
	maxSet = 4 << 20
	// maxRest is how many runs of a window are asked for that are not kept.
	maxRest = 4
	// leftFor is how long a block is not asked for by itself whose answer could not be kept (ms).
	leftFor = int64(10 * time.Minute / time.Millisecond)
	// maxWindow is how long a window is at most that is divided (ms).
	maxWindow = 400 * day
)

// FoundSets is what is kept of the answer to a lookup.
type FoundSets struct {
	Question
	// Texts are what is in the sets that were found, distinct.
	Texts []string
	// Missing are hours and days that are asked for each by itself, and then kept.
	Missing []Run
	// Rest is asked for, and not kept: what is not settled, or not a whole hour, or too much.
	Rest []Run

	stale map[Run]*set // sets that are not used any more
	// blocks is how many blocks the answer has, and found how many of them were found.
	blocks, found int
}

// set is what is kept of an hour or a day.
type set struct {
	first int64 // ms: since when the answers have been the same
	made  int64 // ms: when it was asked for
	until int64 // ms: how long it is used
	body  []byte
}

// Blocks returns the hours and days that a lookup may be divided into, in the order of time, as few as can be. There
// are none if the window is very long, or if less than half of it is settled: it is answered faster at once.
func (q Question) Blocks() (blocks []Run) {
	end := min(q.End, q.Settled)
	if q.Start > end || q.Start < end-maxWindow || end-q.Start < min(q.End, q.Now)-end {
		return nil
	}
	for start := -floorDiv(-q.Start, hour) * hour; start+hour-1 <= end; {
		size := hour
		if start%day == 0 && start+day-1 <= end {
			size = day
		}
		blocks = append(blocks, Run{start, start + size - 1})
		start += size
	}
	return blocks
}

// FindSets looks up what is kept of the answer to a lookup over some blocks, of which there is at least one. If
// nothing can be kept now, keeps is false, and no block is asked for by itself.
func (c *Cache) FindSets(ctx context.Context, q Question, blocks []Run, keeps bool) *FoundSets {
	f := &FoundSets{Question: q, stale: map[Run]*set{}, blocks: len(blocks)}
	keys := make([]string, len(blocks))
	for i, block := range blocks {
		keys[i] = hashed(f.keyOf(block))
	}
	most := 0
	if keeps {
		most = maxMissing
	}
	sets, flushes := make([]*set, len(blocks)), c.flushesOf(ctx, q)
	c.get(ctx, keys, func(i int, value []byte) bool {
		sets[i] = f.decode(blocks[i], value, flushes)
		return sets[i] != nil
	})
	have := map[string]bool{}
	f.rest(blocks[len(blocks)-1].To+1, q.End)
	i := len(blocks) - 1
	for ; i >= 0; i-- {
		s := sets[i]
		if s != nil && !s.left() && s.addTo(have) == nil {
			f.found++
			continue
		}
		if s != nil && len(f.Rest) < maxRest {
			f.rest(blocks[i].From, blocks[i].To)
			continue
		}
		if s != nil || len(f.Missing) == most {
			break
		}
		f.Missing = append(f.Missing, blocks[i])
	}
	before := blocks[0].From - 1
	if i >= 0 {
		before = blocks[i].To
	}
	f.rest(q.Start, before)
	f.Texts = slices.Collect(maps.Keys(have))
	return f
}

// rest adds to Rest, from the end of the window to its start.
func (f *FoundSets) rest(from, to int64) {
	last := len(f.Rest) - 1
	switch {
	case from > to:
	case last >= 0 && f.Rest[last].From == to+1:
		f.Rest[last].From = from
	default:
		f.Rest = append(f.Rest, Run{from, to})
	}
}

// keyOf is the key of a set.
func (f *FoundSets) keyOf(block Run) string {
	return fmt.Sprintf("%d set %d %d %s", version, block.From, block.To, f.Key)
}

// decode returns the set that is encoded in the value of a block; nil if it is not to be used.
func (f *FoundSets) decode(block Run, value []byte, flushes []Flush) *set {
	s := &set{}
	var err error
	s.body, err = unseal(f.keyOf(block), value, &s.first, &s.made, &s.until)
	switch {
	case err != nil || s.made > f.Now || s.made < f.Since || flushed(flushes, s.made, block):
		return nil
	case f.Now > s.until:
		f.stale[block] = s
		return nil
	}
	return s
}

// left reports whether the set is left out.
func (s *set) left() bool { return len(s.body) == 0 }

// addTo adds the texts of the set to others.
func (s *set) addTo(texts map[string]bool) error {
	r := reader{rest: s.body}
	for n := r.number(); n > 0 && !r.failed; n-- {
		if text := r.bytes(); !texts[string(text)] && !r.failed {
			texts[string(text)] = true
		}
	}
	if r.failed {
		return errNoBlock
	}
	return nil
}

// KeepSet keeps the answer to a lookup over a block that was missing, unless it is large.
func (c *Cache) KeepSet(f *FoundSets, block Run, texts []string) {
	s := &set{first: f.Now, made: f.Now, body: binary.AppendUvarint(nil, uint64(len(texts)))}
	for _, text := range texts {
		if s.body = appendText(s.body, text); len(s.body) > maxSet {
			c.LeaveSet(f, block)
			return
		}
	}
	if stale := f.stale[block]; stale != nil && bytes.Equal(stale.body, s.body) {
		s.first = stale.first
	}
	s.until = until(s.first, s.made, block.To, f.Believed(block.From))
	c.set(f, block, s)
}

// LeaveSet has a block, whose answer cannot be kept, asked for with what is around it for some time.
func (c *Cache) LeaveSet(f *FoundSets, block Run) {
	c.set(f, block, &set{first: f.Now, made: f.Now, until: f.Now + leftFor})
}

func (c *Cache) set(f *FoundSets, block Run, s *set) {
	key := f.keyOf(block)
	c.store.Set(hashed(key), seal(key, []int64{s.first, s.made, s.until}, s.body), keptFor)
}

// CountLookup counts what was found of the answer to a lookup; nil if the cache was not asked.
func (c *Cache) CountLookup(f *FoundSets) {
	outcome := Partial
	switch {
	case f == nil:
		outcome = "bypass"
	case f.found == f.blocks:
		outcome = Hit
	case f.found == 0:
		outcome = Miss
	}
	c.metrics.lookups.WithLabelValues(string(outcome)).Inc()
}

// TextOf returns the text of a series in a set, and SeriesOf the series of a text.
func TextOf(ls labels.Labels) string {
	var text []byte
	ls.Range(func(l labels.Label) { text = appendText(appendText(text, l.Name), l.Value) })
	return string(text)
}

// SeriesOf returns the series of a text, and an error if it has none.
func SeriesOf(text string) (labels.Labels, error) {
	r := reader{rest: []byte(text)}
	b := labels.NewScratchBuilder(16)
	for len(r.rest) > 0 {
		name, value := r.bytes(), r.bytes()
		b.Add(string(name), string(value))
	}
	if r.failed {
		return labels.Labels{}, errNoBlock
	}
	return b.Labels(), nil
}
