package servergroup

import (
	"fmt"
	"math"
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// Route says whether a group is asked for a selector, for what, and if not, why.
type Route struct {
	Group, Region string
	// Skipped is the reason why the group is not asked; "" if it is.
	Skipped string
	// MinT and MaxT (ms, inclusive) are what the group can have of the window.
	MinT, MaxT int64

	resolved resolved
}

// route decides from labels and time.
func (g groupView) route(ms []*labels.Matcher, mint, maxt int64, now time.Time) Route {
	r := Route{Group: g.cfg.Name, Region: g.cfg.Region, resolved: g.resolve(ms)}
	if r.resolved.none != "" {
		r.Skipped = r.resolved.none
		return r
	}
	lo, hi := g.cfg.TimeRange.bounds(now)
	r.MinT, r.MaxT = max(mint, lo), min(maxt, hi)
	if r.MinT > r.MaxT {
		r.Skipped = fmt.Sprintf("its time_range ends before or starts after the window [%s, %s]", formatMS(mint), formatMS(maxt))
	}
	return r
}

// bounds returns the range in ms, inclusive, at a given time.
func (r TimeRange) bounds(now time.Time) (lo, hi int64) {
	lo, hi = math.MinInt64, math.MaxInt64
	if !r.Start.IsZero() {
		lo = r.Start.UnixMilli()
	}
	if !r.End.IsZero() {
		hi = r.End.UnixMilli()
	}
	if r.MaxAge > 0 {
		lo = max(lo, now.Add(-time.Duration(r.MaxAge)).UnixMilli())
	}
	if r.MinAge > 0 {
		hi = min(hi, now.Add(-time.Duration(r.MinAge)).UnixMilli())
	}
	return lo, hi
}

// disjoint tells whether two groups cannot hold a series of the same labels: an
// injected label has another value in each.
func disjoint(a, b *Config) bool {
	for name, v := range a.Labels {
		if w, ok := b.Labels[name]; ok && v != w {
			return true
		}
	}
	return false
}

// minTime and maxTime (ms) bound what can be written as a date: years 1 to 9999.
const (
	minTime = -62135596800000
	maxTime = 253402300799999
)

func formatMS(ms int64) string {
	if ms < minTime || ms > maxTime {
		return fmt.Sprintf("%d ms", ms)
	}
	return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z")
}
