// Package routing decides by configuration alone: which groups a selector concerns and for
// what time, which groups may hold the same series, and what time no group holds.
package routing

import (
	"cmp"
	"fmt"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/labelmap"
)

// Route is whether a group is asked for a selector, for what window, and if not, why.
type Route struct {
	Group, Region string
	// Skipped is the reason why the group is not asked; "" if it is.
	Skipped string
	// Because is why the group is asked for copies of what others may keep; "" if that is not so.
	Because string
	// MinT and MaxT (ms, inclusive) are the part of the window that the group may hold.
	MinT, MaxT int64
	// Only are matchers of the series that the group is asked for, because of its `holds`; none
	// where it is asked for all that the selector matches.
	Only []*labels.Matcher

	// Resolved is the matchers of the selector for the replicas of the group.
	Resolved labelmap.Resolved
}

// To returns the route of a selector and a window (ms, inclusive) to a group, by the group's labels
// and time_range.
func To(g *config.Group, ms []*labels.Matcher, mint, maxt int64, now time.Time) Route {
	r := Route{Group: g.Name, Region: g.Region, Resolved: labelmap.Resolve(g, ms)}
	if g.Portion != nil && g.Portion.Held && !labelmap.Within(ms, g.Portion.Only) {
		r.Only = g.Portion.Only
	}
	if r.Resolved.Excluded != "" {
		r.Skipped = r.Resolved.Excluded
		return r
	}
	lo, hi := g.TimeRange.Bounds(now)
	r.MinT, r.MaxT = max(mint, lo), min(maxt, hi)
	if r.MinT > r.MaxT {
		r.Skipped = fmt.Sprintf("its time_range ends before or starts after the window [%s, %s]", config.FormatTime(mint), config.FormatTime(maxt))
	}
	return r
}

// Join makes one route of those to two portions of a group.
func (r *Route) Join(o Route) {
	switch {
	case r.Skipped == "" && o.Skipped == "":
		r.MinT, r.MaxT, r.Only, r.Because = min(r.MinT, o.MinT), max(r.MaxT, o.MaxT), nil, cmp.Or(r.Because, o.Because)
	case r.Skipped != "":
		*r = o
	}
}
