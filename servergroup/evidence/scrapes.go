package evidence

import (
	"fmt"
	"hash"
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

// Span is a span of time (ms, inclusive).
type Span struct{ From, To int64 }

var emptySpan = Span{math.MaxInt64, math.MinInt64}

func (s *Span) include(t int64) { s.From, s.To = min(s.From, t), max(s.To, t) }

// sliceScrapes is what the scrapes of a group show in one slice of time.
type sliceScrapes struct {
	begin int64 // ms
	asked int64 // when the replicas were asked, ms

	table     *targetTable
	targets   numberSet
	missed    [][]missedSpan                  // of each replica
	failed    map[int]error                   // of the replicas that could not be asked, by index
	silent    []Span                          // in which no replica scraped anything, ms
	duplicate string                          // a target that one replica has twice; "" if there is none
	compared  map[comparedKey]*comparedTarget // for the next fetch; nil if there will be none
}

// missedSpan is a span of time (inclusive, ms since the slice began) in which a replica missed
// every scrape of a target. Most targets have none.
type missedSpan struct{ target, from, to uint32 }

// bytes estimates the size of s in memory, without the table.
func (s *sliceScrapes) bytes() int {
	n := 256 + 8*cap(s.targets) + 16*cap(s.silent) + 320*len(s.compared)
	for _, m := range s.missed {
		n += 24 + 12*cap(m)
	}
	return n
}

// targetTable numbers the targets of a group, so that slices need not repeat their
// labels, and the values of their label `instance`. It only grows.
type targetTable struct {
	mtx         sync.Mutex
	ids         map[uint64][]uint32 // by hash
	list        []labels.Labels     // the labels of `up`, as oneprom shows them
	instances   []uint32            // of each target
	instanceIDs map[string]uint32   // the numbers of instances, also of those without a target
	bytes       int                 // an estimate of its size in memory
}

func newTargetTable() *targetTable {
	return &targetTable{ids: map[uint64][]uint32{}, instanceIDs: map[string]uint32{}}
}

// targetID returns the number of a target.
func (t *targetTable) targetID(ls labels.Labels) uint32 {
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
	t.instances = append(t.instances, t.instanceID(ls.Get(labelmap.TargetLabel)))
	t.ids[h] = append(t.ids[h], id)
	t.bytes += 68 + int(ls.ByteSize())
	return id
}

// instanceID returns the number of an instance. t.mtx is held.
func (t *targetTable) instanceID(instance string) uint32 {
	id, ok := t.instanceIDs[instance]
	if !ok {
		id = uint32(len(t.instanceIDs))
		t.instanceIDs[instance] = id
		t.bytes += 48 + len(instance)
	}
	return id
}

// addInstances adds the numbers of instances to a set.
func (t *targetTable) addInstances(set *numberSet, instances []string) {
	t.mtx.Lock()
	defer t.mtx.Unlock()
	for _, i := range instances {
		set.add(t.instanceID(i))
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
		if instances.contains(i) {
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

func (s numberSet) contains(id uint32) bool {
	return int(id/64) < len(s) && s[id/64]&(1<<(id%64)) != 0
}

// union adds the numbers of another set.
func (s *numberSet) union(o numberSet) {
	for len(*s) < len(o) {
		*s = append(*s, 0)
	}
	for i, w := range o {
		(*s)[i] |= w
	}
}

// intersect removes the numbers that another set does not have.
func (s numberSet) intersect(o numberSet) {
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
	ups    [][]transport.Series
	margin int64 // how far the samples reach around the slices, ms

	all, good []*dedup.Samples // of the current target, per replica: all scrapes, and those that its other series have
	column    []dedup.Samples  // what all and good point to
	merged    dedup.Samples
	order     []*dedup.Samples
	spans     []Span
	scraped   []Span // in which somebody scraped something

	// What compareNext works with.
	digest hash.Hash
	sum    comparedKey
	text   []byte
	had    []int
}

// compareDecodable is compareScrapes without the replicas whose samples are broken, which it
// adds to failed.
func compareDecodable(into []*sliceScrapes, ups [][]transport.Series, failed map[int]error, before map[comparedKey]*comparedTarget) {
	for {
		broken, err := compareScrapes(into, ups, before)
		if err == nil {
			return
		}
		ups[broken], failed[broken] = nil, err
	}
}

// compareScrapes fills consecutive slices with what each replica missed. ups are the series
// `up` of each replica, sorted by labels; nil stands for a replica that was not asked. The
// samples should reach dedup.MarginOf(replicas) beyond the slices, and another dedup.Margin
// before. An error comes with the index of the replica whose samples are broken. before is what the
// targets have shown in an earlier fetch of the same slice, which is the only one then; nil: nobody asks.
func compareScrapes(into []*sliceScrapes, ups [][]transport.Series, before map[comparedKey]*comparedTarget) (broken int, err error) {
	n := len(ups)
	c := &scrapeComparer{
		slices: into, ups: slices.Clone(ups), margin: dedup.MarginOf(n),
		all: make([]*dedup.Samples, n), good: make([]*dedup.Samples, n), column: make([]dedup.Samples, 2*n),
	}
	for _, s := range into {
		s.targets, s.missed, s.duplicate, s.compared = nil, make([][]missedSpan, n), "", nil
		if before != nil {
			s.compared = make(map[comparedKey]*comparedTarget, len(before))
		}
	}
	for {
		ls, ok := c.next()
		if !ok {
			for _, s := range c.slices {
				s.silent = silent(c.scraped, s.begin, s.begin+scrapeSlice-1)
			}
			return 0, nil
		}
		if r, err := c.compareNext(ls, before); err != nil {
			return r, err
		}
	}
}

// next returns the first labels of the series that have not been read.
func (c *scrapeComparer) next() (first labels.Labels, ok bool) {
	for _, list := range c.ups {
		if len(list) > 0 && (!ok || labels.Compare(list[0].Labels, first) < 0) {
			first, ok = list[0].Labels, true
		}
	}
	return first, ok
}

// read decodes the series that have these labels.
func (c *scrapeComparer) read(ls labels.Labels) (broken int, err error) {
	from := c.slices[0].begin - c.margin - dedup.Margin
	to := c.slices[len(c.slices)-1].begin + scrapeSlice + c.margin
	for r := range c.ups {
		all, good := &c.column[2*r], &c.column[2*r+1]
		all.Reset()
		c.all[r], c.good[r] = all, all
		for n := 0; len(c.ups[r]) > 0 && labels.Equal(c.ups[r][0].Labels, ls); n++ {
			if n > 0 {
				for _, s := range c.slices {
					s.duplicate = ls.String()
				}
			} else if err := decode(all, c.ups[r][0].Run, from, to); err != nil {
				return r, fmt.Errorf("broken samples of %s: %w", ls, err)
			}
			c.ups[r] = c.ups[r][1:]
		}
		c.good[r] = successes(good, all)
	}
	return 0, nil
}

// decode appends the samples of a run in [from, to] (ms). It turns a panic into an error:
// upstream's iterators may panic over damaged chunks, and nothing else recovers here.
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

// compare adds what each replica missed of a target to the slices. A failed scrape counts both
// as a scrape, for `up` has a sample of it, and as a gap, for the other series have none. It returns the
// number of the target, if it has samples in the slices.
func (c *scrapeComparer) compare(ls labels.Labels) (id uint32, seen bool) {
	failures := false
	for r, all := range c.all {
		failures = failures || c.good[r] != all
		for i, s := range c.slices {
			if n, _ := slices.BinarySearch(all.T, s.begin); n < all.Len() && all.T[n] < s.begin+scrapeSlice {
				if !seen {
					id, seen = s.table.targetID(ls), true
				}
				c.slices[i].targets.add(id)
			}
		}
	}
	if !seen || steady(c.all) {
		return id, seen
	}
	for r := range c.all {
		if c.ups[r] == nil {
			continue
		}
		c.spans = c.appendMissed(c.spans[:0], c.all, r)
		if failures {
			c.spans = mergeSpans(c.appendMissed(c.spans, c.good, r))
		}
		for _, s := range c.spans {
			slice := c.slices[(s.From-c.slices[0].begin)/scrapeSlice]
			slice.missed[r] = append(slice.missed[r], missedSpan{id, uint32(s.From - slice.begin), uint32(s.To - slice.begin)})
		}
	}
	return id, seen
}

const (
	// steadyScrapes is the least number of scrapes, and steadyInterval the longest interval
	// (ms), for which steady can be true: three scrapes are then within 90 s of the first
	// or the last scrape of another replica, from which the merge estimates the interval.
	steadyScrapes  = 8
	steadyInterval = 25 * 1000
)

// steady reports whether it is certain without a merge that no replica missed anything: that
// the merge would be the run that comes first in it. That is certain if all replicas scraped
// without a gap or a failure, began and ended at about the same time, and no two scraped in
// the same millisecond. If it is false, only the merge can decide.
func steady(runs []*dedup.Samples) bool {
	shortest, longest := int64(math.MaxInt64), int64(0)
	begins, ends := emptySpan, emptySpan
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

// appendMissed appends the spans within the slices that replica r missed: the samples that the
// merge has and r has not, and the stale markers of r that the merge has not.
func (c *scrapeComparer) appendMissed(dst []Span, runs []*dedup.Samples, r int) []Span {
	own := runs[r]
	c.order = append(append(append(c.order[:0], own), runs[:r]...), runs[r+1:]...)
	merged := dedup.Merge(&c.merged, c.order)
	if merged == own {
		return dst
	}
	old := len(dst)
	from, to := c.slices[0].begin, c.slices[len(c.slices)-1].begin+scrapeSlice
	agreed := false // whether r has a sample of the merge after the last one it missed
	eachMissed(own, merged, func(t int64) {
		switch n := len(dst); {
		case t < from || t >= to:
		case n > old && !agreed && sliceBegin(dst[n-1].To) == sliceBegin(t):
			dst[n-1].To = t
		default:
			dst = append(dst, Span{t, t})
		}
		agreed = false
	}, func() { agreed = true })
	return dst
}

// eachMissed compares the samples of a replica with the merge in which it came first. It calls
// missed for every time (ms) at which they differ, and same for the others.
func eachMissed(own, merged *dedup.Samples, missed func(t int64), same func()) {
	i, j := 0, 0
	for i < own.Len() || j < merged.Len() {
		switch {
		case i == own.Len() || j < merged.Len() && merged.T[j] < own.T[i]:
			missed(merged.T[j])
			j++
		case j == merged.Len() || own.T[i] < merged.T[j]:
			missed(own.T[i]) // a stale marker that is not the end of the series
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

// mergeSpans sorts spans and merges those that overlap.
func mergeSpans(list []Span) []Span {
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
