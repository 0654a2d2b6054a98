package promqlx

import (
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/servergroup"
)

// This file finds selectors whose series are among those of another one of the same
// query, as those of errors are among all requests, so that they need not be fetched.

// contains tells whether the series of a selection have all samples of those of
// another one.
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

// together are the selections that are fetched together with those of a piece, or of
// the query itself if that is nil: what one piece merges of all replicas, at all steps,
// the pieces of other parts do as well.
func (x *execution) together(piece *servergroup.Piece) []servergroup.Selection {
	var out []servergroup.Selection
	for _, leaf := range x.plan.Leaves {
		switch {
		case piece == nil && leaf.Selector != nil && !leaf.Selector.Unused:
			out = append(out, leaf.Selector.Selection)
		case piece != nil && leaf.Part != nil && piece.Steps == leaf.Part.Steps && piece.Replica() == "" && len(piece.Narrowed()) == 0:
			for _, s := range leaf.Part.Selectors {
				out = append(out, s.Selection)
			}
		}
	}
	return out
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
