package evidence

import (
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/servergroup/replica"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// Where replicas were compared series by series, and lack nothing of a selector, they lack nothing of one that has
// further matchers. Nor do its series come from anywhere else than from targets if those of the wider one do not. So
// a dashboard whose variables change has nothing compared anew.

// maxFurther is how many matchers of other labels than the name a selector may have whose wider ones are looked for:
// there are two to that power.
const maxFurther = 5

// widerThan returns the selectors that have the same matchers of the name as another one, and some of its others, but
// not all; none if these are many. The matchers are sorted.
func widerThan(ms []*labels.Matcher) (selectors []string) {
	var further []*labels.Matcher
	for _, m := range ms {
		if m.Name != labels.MetricName {
			further = append(further, m)
		}
	}
	if len(further) > maxFurther {
		return nil
	}
	for left := 1; left < 1<<len(further); left++ { // a bit for each matcher that is left out
		some := slices.DeleteFunc(slices.Clone(ms), func(m *labels.Matcher) bool {
			i := slices.Index(further, m)
			return i >= 0 && left&(1<<i) != 0
		})
		if len(some) > 0 {
			selectors = append(selectors, transport.Selector(some))
		}
	}
	return selectors
}

// sorted returns matchers in an order that does not depend on who wrote them.
func sorted(ms []*labels.Matcher) []*labels.Matcher {
	return slices.SortedFunc(slices.Values(ms), func(a, b *labels.Matcher) int { return strings.Compare(a.String(), b.String()) })
}

// countedOf returns what is kept of the counts of a selector in a slice of time; nil if there is nothing. If that
// lacks nothing, but does not cover the times in question, and that of a wider selector does, it returns the latter.
// h.mtx is held.
func (h *history) countedOf(key countKey, wider func() []string, now int64, covers func(*countedSlice) bool) *countedSlice {
	own, ok := h.counts.Get(key)
	if ok && !own.valid(key.begin, now) {
		own, ok = nil, false
	}
	if ok && (covers(own) || !own.clean()) {
		return own
	}
	for _, key.selector = range wider() {
		if s, ok := h.counts.Get(key); ok && s.valid(key.begin, now) && covers(s) && s.clean() {
			return s
		}
	}
	return own
}

// clean reports whether the replicas were compared series by series, and lack nothing.
func (s *countedSlice) clean() bool {
	return !s.failed && s.stamps == stampsOfScrapes && !slices.ContainsFunc(s.low, func(l lows) bool {
		return len(l.counts) > 0 || len(l.series) > 0 || len(l.holes) > 0
	})
}

// targetsKept returns what is kept of the targets of a selector in a slice of time, or else of the first wider one
// all of whose series come from targets; nil if there is nothing. h.mtx is held.
func (h *history) targetsKept(key lookupKey, wider func() []string, now int64) *sliceTargets {
	kept := func() *sliceTargets {
		l, ok := h.lookups.Get(key)
		if !ok || !l.settled && now-l.at >= replica.ProfileAge.Milliseconds() {
			return nil
		}
		return l
	}
	if own := kept(); own != nil {
		return own
	}
	for _, key.selector = range wider() {
		if l := kept(); l != nil && l.unavailable == "" && len(l.names) == 0 {
			return l
		}
	}
	return nil
}
