package view

import (
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/servergroup/labelmap"
)

// restrict leaves those groups in the view, and of each the series, that the request may
// be shown. That is done where matchers become those of a group, which is on the way of
// everything that is asked of a replica: what is asked in another way cannot forget it. The
// query is not touched, so that its answer is the one of a Prometheus that does not have the
// other series at all; absent() of one has no labels that nobody wrote.
func (v *View) restrict() {
	if !v.Request.Restricted {
		return
	}
	var seen []Group
	for _, g := range v.Groups {
		if len(v.Request.Shown) > 0 && !labelmap.Excludes(g.Config, v.Request.Shown) {
			g.shown, g.Rank = v.Request.Shown, len(seen)
			seen = append(seen, g)
		}
	}
	v.Groups = seen
}

// Resolve decides what a selector is for the group's replicas, of what the request may
// be shown.
func (g Group) Resolve(ms []*labels.Matcher) labelmap.Resolved {
	return labelmap.Resolve(g.Config, g.With(ms))
}

// With adds the matchers that restrict the request.
func (g Group) With(ms []*labels.Matcher) []*labels.Matcher {
	if len(g.shown) == 0 {
		return ms
	}
	return slices.Concat(ms, g.shown)
}

// Restricted reports whether the request is not shown everything. Then it is not told,
// either, what replicas say in words of their own, which may be of what it is not shown.
func (g Group) Restricted() bool { return len(g.shown) > 0 }

// Shows reports whether the request may be shown what has these labels.
func (v *View) Shows(ls labels.Labels) bool {
	return !v.Request.Restricted || len(v.Request.Shown) > 0 && labelmap.MatchesAll(ls, v.Request.Shown)
}
