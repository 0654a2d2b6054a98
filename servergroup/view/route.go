package view

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/labelmap"
	"github.com/oneprom/oneprom/servergroup/replica"
	"github.com/oneprom/oneprom/servergroup/routing"
)

// RoutedGroup is a group that is asked for a selection.
type RoutedGroup struct {
	Group
	Route routing.Route
	// Holders is how many replicas may hold a series of this group, those of other groups
	// included. It is 1 if nothing has to be merged.
	Holders int
	// AllNeeded reports whether replicas have missed samples that others have, so that the
	// answer is partial without any of them. But if one of WholeReplicas answers, which have
	// missed nothing, the others are not needed.
	AllNeeded     bool
	WholeReplicas []*replica.Replica
}

// Concerns returns a function that reports whether a group may have series of a selector.
func (v *View) Concerns(ms []*labels.Matcher) func(Group) bool {
	seen := v.seen(ms)
	heldBy := v.heldBy(seen)
	return func(g Group) bool {
		return !labelmap.Excludes(g.Config, ms) && (heldBy == nil || routing.MayHold(g.Config, seen))
	}
}

// seen adds the matchers that restrict the request.
func (v *View) seen(ms []*labels.Matcher) []*labels.Matcher {
	if !v.Request.Restricted || len(v.Request.Shown) == 0 {
		return ms
	}
	return slices.Concat(ms, v.Request.Shown)
}

// heldBy returns the group that alone holds the series of a selector; nil if there is none.
func (v *View) heldBy(ms []*labels.Matcher) *config.Group {
	for _, g := range v.holders {
		if routing.HoldsAll(g.Config, ms) {
			return g.Config
		}
	}
	return nil
}

// among returns the groups that may have series of a selector.
func (v *View) among(groups []Group, ms []*labels.Matcher) []Group {
	concerns := v.Concerns(ms)
	var out []Group
	for _, g := range groups {
		if concerns(g) {
			out = append(out, g)
		}
	}
	return out
}

// RouteLookup returns the groups that are asked for series, or names or values of labels, that
// match over [mint, maxt] (ms).
func (v *View) RouteLookup(ms []*labels.Matcher, mint, maxt int64) []RoutedGroup {
	var ts []RoutedGroup
	for _, g := range v.among(v.Groups, ms) {
		if g.Config.Portion != nil && g.Config.Portion.Rest {
			// Series that are found twice do not matter here, but leaving some out is work.
			g.Config = g.Whole
		}
		if r := v.route(g, ms, mint, maxt); r.Skipped == "" {
			ts = append(ts, RoutedGroup{Group: g, Route: r})
		}
	}
	all := slices.Clone(ts)
	return slices.DeleteFunc(ts, func(one RoutedGroup) bool {
		return one.Config.Portion != nil && slices.ContainsFunc(all, func(t RoutedGroup) bool {
			return t.Config == one.Whole && t.Route.MinT == one.Route.MinT && t.Route.MaxT == one.Route.MaxT
		})
	})
}

// RouteServers returns the groups whose servers are asked about themselves: those that may have
// series of a selector at any time.
func (v *View) RouteServers(ms []*labels.Matcher) []RoutedGroup {
	var ts []RoutedGroup
	for _, g := range v.among(v.Groups, ms) {
		if g.Whole != nil {
			g.Config = g.Whole
		}
		if n := len(ts); n > 0 && ts[n-1].Config == g.Config {
			continue
		}
		if r := routing.To(g.Config, g.With(ms), math.MinInt64, math.MaxInt64, v.Now); r.Skipped == "" {
			ts = append(ts, RoutedGroup{Group: g, Route: r})
		}
	}
	return ts
}

// routeAmong returns those of some groups that are asked for samples of a selector over
// [mint, maxt] (ms).
func (v *View) routeAmong(groups []Group, ms []*labels.Matcher, mint, maxt int64) []RoutedGroup {
	var ts []RoutedGroup
	for _, g := range groups {
		r := v.route(g, ms, mint, maxt)
		if r.Skipped == "" {
			ts = append(ts, RoutedGroup{Group: g, Route: r})
		}
	}
	countHolders(ts)
	return ts
}

// RouteMerge returns the groups that are asked for samples of a selector over [mint, maxt] (ms). It
// adds the groups whose time_range does not overlap the window, but the margin around it that the
// merge looks at: otherwise the samples of a window would depend on how long a range they are
// fetched with.
func (v *View) RouteMerge(ms []*labels.Matcher, mint, maxt int64) []RoutedGroup {
	return v.RouteMergeAmong(v.Groups, ms, mint, maxt)
}

// RouteMergeAmong is RouteMerge for some of the groups.
func (v *View) RouteMergeAmong(groups []Group, ms []*labels.Matcher, mint, maxt int64) []RoutedGroup {
	concerned := v.among(groups, ms)
	ts := v.routeAmong(concerned, ms, mint, maxt)
	if v.noMargin {
		return ts
	}
	routed := ts // those of concerned that are left
	for _, g := range concerned {
		if len(routed) > 0 && routed[0].Config == g.Config {
			routed = routed[1:]
			continue
		}
		with := append(slices.Clone(ts), RoutedGroup{Group: g})
		countHolders(with)
		last := &with[len(ts)]
		lo, hi := around(mint, maxt, last.Holders)
		last.Route = v.route(g, ms, lo, hi)
		if last.Route.Skipped == "" && last.Holders > g.Runs() {
			ts = with
		}
	}
	if !slices.IsSortedFunc(ts, byRank) {
		slices.SortStableFunc(ts, byRank)
	}
	return ts
}

// byRank orders groups as the configuration does.
func byRank(a, b RoutedGroup) int { return cmp.Compare(a.Rank, b.Rank) }

// around widens a window (ms) by the margin that the merge of so many holders looks at.
func around(mint, maxt int64, holders int) (lo, hi int64) {
	margin := dedup.MarginOf(holders)
	return max(mint, math.MinInt64+margin) - margin, min(maxt, math.MaxInt64-margin) + margin
}

// countHolders sets the Holders of routed groups.
func countHolders(ts []RoutedGroup) {
	cfgs := make([]*config.Group, len(ts))
	for i, t := range ts {
		cfgs[i] = t.Config
	}
	for i := range ts {
		ts[i].Holders = ts[i].Runs()
	}
	routing.Overlaps(cfgs, func(i, j int) {
		ts[i].Holders += ts[j].Runs()
		ts[j].Holders += ts[i].Runs()
	})
	for i := range ts {
		ts[i].Holders = min(ts[i].Holders, maxHolders)
	}
}

// maxHolders bounds the margin that is fetched for the merge: hardly ever do more replicas hold
// one series, even if many groups have no labels that rule it out.
const maxHolders = 6

// Runs returns how many runs of one series the replicas of the group may deliver: one each, but a
// single store with replica labels keeps the samples that two replicas have written.
func (g Group) Runs() int {
	if len(g.Replicas) == 1 && len(g.Config.ReplicaLabels) > 0 {
		return 2
	}
	return len(g.Replicas)
}

// Routes returns for each group, in the order of the configuration, whether it is asked for
// samples of the selection, and if not, why.
func (v *View) Routes(sel Selection) []routing.Route {
	asked := map[*config.Group]bool{}
	for _, t := range v.RouteMerge(sel.Matchers, sel.MinT, sel.MaxT) {
		asked[t.Config] = true
	}
	seen := v.seen(sel.Matchers)
	heldBy := v.heldBy(seen)
	var out []routing.Route
	for _, g := range v.Groups {
		r := v.route(g, sel.Matchers, sel.MinT, sel.MaxT)
		switch {
		case asked[g.Config]:
			r.Skipped, r.Because = "", v.becauseOf(g, sel)
		case heldBy != nil && !routing.MayHold(g.Config, seen):
			r.Skipped = fmt.Sprintf("`holds` of server group %q says that others do not have such series", heldBy.Name)
			if g.Restricted() { // perhaps it may not even see the holder
				r.Skipped = completeness.Withheld
			}
		}
		if g.Restricted() {
			r.Only, r.Because = nil, "" // they may name others' series and servers
		}
		if n := len(out); n > 0 && g.Whole != nil && out[n-1].Group == r.Group {
			out[n-1].Join(r)
			continue
		}
		out = append(out, r)
	}
	return out
}
