package view

import (
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/servergroup/labelmap"
)

// restrict removes the groups and series from the view that the request must not see. The
// matchers are added where those of a group are resolved, which every request to a replica goes
// through, so that no caller can forget it. The query itself is not changed: its answer is that of
// a Prometheus without the other series. For example, absent() gets no additional labels.
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

// Resolve returns the matchers for the group's replicas, those that restrict the request
// included.
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

// Restricted reports whether the request may see some series only. Texts of replicas are then
// hidden from it, as they may be about other series.
func (g Group) Restricted() bool { return len(g.shown) > 0 }

// Shows reports whether the request may see what has these labels.
func (v *View) Shows(ls labels.Labels) bool {
	return !v.Request.Restricted || len(v.Request.Shown) > 0 && labelmap.MatchesAll(ls, v.Request.Shown)
}
