// Package routing decides by configuration alone: which groups a selector concerns and for
// what time, which groups may hold the same series, and what time no group holds.
package routing

import (
	"fmt"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/labelmap"
)

// Route says whether a group is asked for a selector, for what, and if not, why.
type Route struct {
	Group, Region string
	// Skipped is the reason why the group is not asked; "" if it is.
	Skipped string
	// MinT and MaxT (ms, inclusive) are what the group can have of the window.
	MinT, MaxT int64

	// Resolved are the matchers, as the group's labels leave them.
	Resolved labelmap.Resolved
}

// To decides from the labels and the time_range of a group whether it is asked for
// what matches in a window (ms, inclusive).
func To(g *config.Group, ms []*labels.Matcher, mint, maxt int64, now time.Time) Route {
	r := Route{Group: g.Name, Region: g.Region, Resolved: labelmap.Resolve(g, ms)}
	if r.Resolved.None != "" {
		r.Skipped = r.Resolved.None
		return r
	}
	lo, hi := g.TimeRange.Bounds(now)
	r.MinT, r.MaxT = max(mint, lo), min(maxt, hi)
	if r.MinT > r.MaxT {
		r.Skipped = fmt.Sprintf("its time_range ends before or starts after the window [%s, %s]", config.FormatTime(mint), config.FormatTime(maxt))
	}
	return r
}
