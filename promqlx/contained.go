package promqlx

import (
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/servergroup/view"
)

// contains reports whether the selection all has all samples of the selection some, as the
// requests contain the failed requests. What is contained need not be fetched.
func contains(all, some view.Selection) bool {
	switch {
	case (all.Steps == nil) != (some.Steps == nil), all.Every != some.Every, all.MinT > some.MinT, all.MaxT < some.MaxT:
		return false
	case all.Steps != nil && (*all.Steps != *some.Steps || all.MinT != some.MinT || all.MaxT != some.MaxT):
		return false
	}
	return !slices.ContainsFunc(all.Matchers, func(m *labels.Matcher) bool {
		return !slices.ContainsFunc(some.Matchers, func(o *labels.Matcher) bool { return m.String() == o.String() })
	})
}

// containers finds among selections those that contain others. A query may have thousands: each
// is found by that of its matchers that the fewest of them have.
type containers struct {
	list      []view.Selection
	byMatcher map[string][]int // indices in list, ascending
}

// newContainers returns the distinct selections of a list.
func newContainers(list []view.Selection) *containers {
	c := &containers{byMatcher: map[string][]int{}}
	seen, having := map[string]bool{}, map[string]int{}
	for _, s := range list {
		if key := selectionKey(s); !seen[key] {
			seen[key] = true
			c.list = append(c.list, s)
			for _, m := range s.Matchers {
				having[m.String()]++
			}
		}
	}
	for i, s := range c.list {
		rarest := "" // for a selection of all series, which has no matchers
		for _, m := range s.Matchers {
			if text := m.String(); rarest == "" || having[text] < having[rarest] {
				rarest = text
			}
		}
		c.byMatcher[rarest] = append(c.byMatcher[rarest], i)
	}
	return c
}

// widest returns the widest selection that contains sel; sel itself if none does.
func (c *containers) widest(sel view.Selection) view.Selection {
	if len(c.list) < 2 {
		return sel
	}
	may := slices.Clone(c.byMatcher[""])
	for _, m := range sel.Matchers {
		may = append(may, c.byMatcher[m.String()]...)
	}
	slices.Sort(may)
	for _, i := range may {
		if s := c.list[i]; contains(s, sel) && !contains(sel, s) {
			sel = s
		}
	}
	return sel
}

// filteredSet has the series of a set that satisfy matchers.
type filteredSet struct {
	storage.SeriesSet
	matchers []*labels.Matcher
}

func (s *filteredSet) Next() bool {
	for s.SeriesSet.Next() {
		at := s.At()
		if matchesAll(at.Labels(), s.matchers) {
			return true
		}
		if unread, ok := at.(*dedup.Series); ok {
			unread.Leave()
		}
	}
	return false
}

func matchesAll(ls labels.Labels, ms []*labels.Matcher) bool {
	return !slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return !m.Matches(ls.Get(m.Name)) })
}
