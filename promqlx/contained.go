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

// widest returns the widest selection of a list that contains sel; sel itself if none does.
func widest(list []view.Selection, sel view.Selection) view.Selection {
	for _, s := range list {
		if contains(s, sel) && !contains(sel, s) {
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
