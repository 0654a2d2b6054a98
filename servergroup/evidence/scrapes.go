package evidence

import (
	"fmt"
	"math"
	"slices"
	"sync"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/servergroup/labelmap"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// scrapeSlice is the length (ms) of the absolute slices of time in which scrapes
// are compared: a slice begins at a multiple of it.
const scrapeSlice = 30 * 60 * 1000

// sliceBegin returns the beginning of the slice that t (ms) lies in.
func sliceBegin(t int64) int64 { return floorTo(t, scrapeSlice) }

// floorTo returns the last multiple of step that is not after t.
func floorTo(t, step int64) int64 { return t - ((t%step)+step)%step }

// Span is a stretch of time (ms, inclusive).
type Span struct{ From, To int64 }

var noTime = Span{math.MaxInt64, math.MinInt64}

func (s *Span) include(t int64) { s.From, s.To = min(s.From, t), max(s.To, t) }

// sliceScrapes is what the scrapes of a group show in one slice of time.
type sliceScrapes struct {
	begin int64 // ms
	asked int64 // when the replicas were asked, by the Set's clock, in ms

	table   *targetTable
	targets numberSet
	missed  [][]missedSpan // of each replica
	failed  map[int]error  // replicas that could not be asked
	doubled string         // a target that one replica shows twice; "" if there is none
}

// missedSpan is a stretch of time in which a replica missed every scrape of a
// target that it should have seen, inclusive, in ms since the slice began. Of most
// targets there is none.
type missedSpan struct{ target, from, to uint32 }

// bytes is about what s occupies, the table aside.
func (s *sliceScrapes) bytes() int {
	n := 256 + 8*cap(s.targets)
	for _, m := range s.missed {
		n += 24 + 12*cap(m)
	}
	return n
}

// targetTable numbers the targets of a group, so that slices need not repeat their
// labels, and the values of their label `instance`. It only grows.
type targetTable struct {
	mtx       sync.Mutex
	ids       map[uint64][]uint32 // by hash
	list      []labels.Labels     // normalised labels of `up`
	instances []uint32            // of each target
	names     map[string]uint32   // the numbers of instances, those of no target too
	bytes     int                 // about what it occupies
}

func newTargetTable() *targetTable {
	return &targetTable{ids: map[uint64][]uint32{}, names: map[string]uint32{}}
}

// number returns the number of a target.
func (t *targetTable) number(ls labels.Labels) uint32 {
	h := ls.Hash()
	t.mtx.Lock()
	defer t.mtx.Unlock()
	for _, id := range t.ids[h] {
		if labels.Equal(t.list[id], ls) {
			return id
		}
	}
	id := uint32(len(t.list))
	t.list = append(t.list, ls)
	t.instances = append(t.instances, t.name(ls.Get(labelmap.TargetLabel)))
	t.ids[h] = append(t.ids[h], id)
	t.bytes += 68 + int(ls.ByteSize())
	return id
}

// name returns the number of an instance. t.mtx is held.
func (t *targetTable) name(instance string) uint32 {
	id, known := t.names[instance]
	if !known {
		id = uint32(len(t.names))
		t.names[instance] = id
		t.bytes += 48 + len(instance)
	}
	return id
}

// addInstances adds the numbers of instances to a set.
func (t *targetTable) addInstances(set *numberSet, instances []string) {
	t.mtx.Lock()
	defer t.mtx.Unlock()
	for _, i := range instances {
		set.add(t.name(i))
	}
}

// all returns the labels of the targets by their numbers.
func (t *targetTable) all() []labels.Labels {
	t.mtx.Lock()
	defer t.mtx.Unlock()
	return t.list
}

// ofInstances returns the targets of a set of instances.
func (t *targetTable) ofInstances(instances numberSet) numberSet {
	t.mtx.Lock()
	defer t.mtx.Unlock()
	var out numberSet
	for id, i := range t.instances {
		if instances.has(i) {
			out.add(uint32(id))
		}
	}
	return out
}

func (t *targetTable) size() int {
	t.mtx.Lock()
	defer t.mtx.Unlock()
	return t.bytes
}

// numberSet is a set of numbers of targets or instances, one bit each.
type numberSet []uint64

func (s *numberSet) add(id uint32) {
	for int(id/64) >= len(*s) {
		*s = append(*s, 0)
	}
	(*s)[id/64] |= 1 << (id % 64)
}

func (s numberSet) has(id uint32) bool {
	return int(id/64) < len(s) && s[id/64]&(1<<(id%64)) != 0
}

// addAll adds the numbers of another set.
func (s *numberSet) addAll(o numberSet) {
	for len(*s) < len(o) {
		*s = append(*s, 0)
	}
	for i, w := range o {
		(*s)[i] |= w
	}
}

// keep takes out the numbers that another set does not have.
func (s numberSet) keep(o numberSet) {
	for i := range s {
		if i < len(o) {
			s[i] &= o[i]
		} else {
			s[i] = 0
		}
	}
}

// scrapeComparer fills slices with what replicas missed compared with each other.
type scrapeComparer struct {
	slices []*sliceScrapes // consecutive ones
	told   [][]transport.Series
	margin int64 // ms around the slices that the samples reach

	all, good []*dedup.Samples // of the target at hand, per replica: all scrapes, and what its series have
	column    []dedup.Samples  // memory of all and good
	merged    dedup.Samples
	order     []*dedup.Samples
	spans     []Span
}

// compareSound is compareScrapes without the replicas whose samples are broken; these
// are added to failed.
func compareSound(into []*sliceScrapes, told [][]transport.Series, failed map[int]error) {
	for {
		broken, err := compareScrapes(into, told)
		if err == nil {
			return
		}
		told[broken], failed[broken] = nil, err
	}
}

// compareScrapes fills consecutive slices with what each replica
// missed, from the series `up` that the replicas have told, sorted by labels; nil
// stands for one that was not asked. Samples should reach MarginOf the replicas,
// and another dedup.Margin before, over the slices. An error says of which replica
// (by index) the samples are broken.
func compareScrapes(into []*sliceScrapes, told [][]transport.Series) (broken int, err error) {
	n := len(told)
	c := &scrapeComparer{
		slices: into, told: slices.Clone(told), margin: dedup.MarginOf(n),
		all: make([]*dedup.Samples, n), good: make([]*dedup.Samples, n), column: make([]dedup.Samples, 2*n),
	}
	for _, s := range into {
		s.targets, s.missed, s.doubled = nil, make([][]missedSpan, n), ""
	}
	for {
		ls, found := c.next()
		if !found {
			return 0, nil
		}
		if r, err := c.read(ls); err != nil {
			return r, err
		}
		c.compare(ls)
	}
}

// next returns the first labels of the series that are left.
func (c *scrapeComparer) next() (first labels.Labels, found bool) {
	for _, list := range c.told {
		if len(list) > 0 && (!found || labels.Compare(list[0].Labels, first) < 0) {
			first, found = list[0].Labels, true
		}
	}
	return first, found
}

// read decodes the series of these labels.
func (c *scrapeComparer) read(ls labels.Labels) (broken int, err error) {
	from := c.slices[0].begin - c.margin - dedup.Margin
	to := c.slices[len(c.slices)-1].begin + scrapeSlice + c.margin
	for r := range c.told {
		all, good := &c.column[2*r], &c.column[2*r+1]
		all.Reset()
		c.all[r], c.good[r] = all, all
		for n := 0; len(c.told[r]) > 0 && labels.Equal(c.told[r][0].Labels, ls); n++ {
			if n > 0 {
				for _, s := range c.slices {
					s.doubled = ls.String()
				}
			} else if err := decode(all, c.told[r][0].Run, from, to); err != nil {
				return r, fmt.Errorf("broken samples of %s: %w", ls, err)
			}
			c.told[r] = c.told[r][1:]
		}
		c.good[r] = successes(good, all)
	}
	return 0, nil
}

// decode turns a panic into an error: upstream's iterators may panic over damaged
// chunks, and nobody else recovers here.
func decode(dst *dedup.Samples, r dedup.Run, from, to int64) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	return r.AppendTo(dst, from, to)
}

// successes returns what the other series of a target have where run has the
// samples of its `up`: nothing for a failed scrape, but for a stale marker if the
// scrape before succeeded. The result is run itself if none failed, else dst.
func successes(dst, run *dedup.Samples) *dedup.Samples {
	if !slices.Contains(run.F, 0) {
		return run
	}
	dst.Reset()
	for i, t := range run.T {
		first := i == 0 || t-run.T[i-1] > dedup.Margin // too long ago to be known to the replica
		switch {
		case run.Stale(i):
			if first || run.F[i-1] != 0 {
				dst.Append(0, t, run.F[i])
			}
		case run.F[i] != 0:
			dst.Append(0, t, run.F[i])
		case !first && run.F[i-1] != 0 && !run.Stale(i-1):
			dst.Append(0, t, dedup.StaleNaN)
		}
	}
	return dst
}

// compare notes what each replica missed of a target. Failed scrapes count both
// as such, for `up` itself has samples of them, and as holes.
func (c *scrapeComparer) compare(ls labels.Labels) {
	id, seen := uint32(0), false
	failures := false
	for r, all := range c.all {
		failures = failures || c.good[r] != all
		for i, s := range c.slices {
			if n, _ := slices.BinarySearch(all.T, s.begin); n < all.Len() && all.T[n] < s.begin+scrapeSlice {
				if !seen {
					id, seen = s.table.number(ls), true
				}
				c.slices[i].targets.add(id)
			}
		}
	}
	if !seen || steady(c.all) {
		return
	}
	for r := range c.all {
		if c.told[r] == nil {
			continue
		}
		c.spans = c.appendMissed(c.spans[:0], c.all, r)
		if failures {
			c.spans = unite(c.appendMissed(c.spans, c.good, r))
		}
		for _, s := range c.spans {
			slice := c.slices[(s.From-c.slices[0].begin)/scrapeSlice]
			slice.missed[r] = append(slice.missed[r], missedSpan{id, uint32(s.From - slice.begin), uint32(s.To - slice.begin)})
		}
	}
}

const (
	// steadyScrapes is the least number of scrapes, and steadyInterval the longest
	// interval (ms), of which a glance can tell anything: three are then within 90 s of
	// the first or the last scrape of another replica, from which the merge estimates.
	steadyScrapes  = 8
	steadyInterval = 25 * 1000
)

// steady tells at a glance that no replica missed anything: that the merge would be the
// run of whoever came first. So it is if all scraped without a hole or a failure, from
// about one moment to about another, and no two at the same millisecond. Where it is
// false, the merge has to tell.
func steady(runs []*dedup.Samples) bool {
	shortest, longest := int64(math.MaxInt64), int64(0)
	begins, ends := noTime, noTime
	for _, run := range runs {
		if run.Len() < steadyScrapes || slices.ContainsFunc(run.F, func(v float64) bool { return v != 1 }) {
			return false
		}
		for i := 1; i < len(run.T); i++ {
			d := run.T[i] - run.T[i-1]
			shortest, longest = min(shortest, d), max(longest, d)
		}
		begins.include(run.T[0])
		ends.include(run.T[len(run.T)-1])
	}
	if longest > steadyInterval || 2*max(longest, begins.To-begins.From, ends.To-ends.From) > 3*shortest {
		return false
	}
	for i, run := range runs {
		if slices.ContainsFunc(runs[:i], func(o *dedup.Samples) bool { return meet(o.T, run.T) }) {
			return false
		}
	}
	return true
}

// meet reports whether two sorted lists have an element in common.
func meet(a, b []int64) bool {
	for len(a) > 0 && len(b) > 0 {
		switch {
		case a[0] == b[0]:
			return true
		case a[0] < b[0]:
			a = a[1:]
		default:
			b = b[1:]
		}
	}
	return false
}

// appendMissed appends the spans within the slices that replica r missed: those
// samples that the merge has and r has not, and the markers of r that the merge has not.
func (c *scrapeComparer) appendMissed(dst []Span, runs []*dedup.Samples, r int) []Span {
	own := runs[r]
	c.order = append(append(append(c.order[:0], own), runs[:r]...), runs[r+1:]...)
	merged := dedup.Merge(&c.merged, c.order)
	if merged == own {
		return dst
	}
	old := len(dst)
	from, to := c.slices[0].begin, c.slices[len(c.slices)-1].begin+scrapeSlice
	alone := false // whether r has a sample of its own after the last one missed
	eachMissed(own, merged, func(t int64) {
		switch n := len(dst); {
		case t < from || t >= to:
		case n > old && !alone && sliceBegin(dst[n-1].To) == sliceBegin(t):
			dst[n-1].To = t
		default:
			dst = append(dst, Span{t, t})
		}
		alone = false
	}, func() { alone = true })
	return dst
}

// eachMissed walks what a replica has and the merge in which it came first: it
// calls missed for every moment (ms) at which they differ, and same where not.
func eachMissed(own, merged *dedup.Samples, missed func(t int64), same func()) {
	i, j := 0, 0
	for i < own.Len() || j < merged.Len() {
		switch {
		case i == own.Len() || j < merged.Len() && merged.T[j] < own.T[i]:
			missed(merged.T[j])
			j++
		case j == merged.Len() || own.T[i] < merged.T[j]:
			missed(own.T[i]) // a marker that is no end
			i++
		default:
			if own.Stale(i) != merged.Stale(j) {
				missed(own.T[i])
			} else {
				same()
			}
			i, j = i+1, j+1
		}
	}
}

// unite sorts spans and makes one of those that overlap.
func unite(list []Span) []Span {
	slices.SortFunc(list, func(a, b Span) int {
		switch {
		case a.From < b.From:
			return -1
		case a.From > b.From:
			return 1
		}
		return 0
	})
	out := list[:0]
	for _, s := range list {
		if n := len(out); n > 0 && s.From <= out[n-1].To {
			out[n-1].To = max(out[n-1].To, s.To)
		} else {
			out = append(out, s)
		}
	}
	return out
}
