package promqlx

import (
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/servergroup"
)

// contains reports whether the series of a selection have all samples of those of
// another one, as those of all requests have those of errors: these need not be fetched.
func contains(all, some servergroup.Selection) bool {
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

// container returns the selection of a list that contains another one, and most of the
// list besides; that one itself if none does.
func container(list []servergroup.Selection, sel servergroup.Selection) servergroup.Selection {
	for _, s := range list {
		if contains(s, sel) && !contains(sel, s) {
			sel = s
		}
	}
	return sel
}

// among are the series of a set that satisfy matchers.
type among struct {
	storage.SeriesSet
	matchers []*labels.Matcher
}

func (s *among) Next() bool {
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
