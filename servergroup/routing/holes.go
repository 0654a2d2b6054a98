package routing

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/oneprom/oneprom/servergroup/config"
)

// window is a range of time (ms, inclusive).
type window struct{ from, to int64 }

// subtract returns the parts of windows that are outside a time_range.
func subtract(ws []window, r config.TimeRange, now time.Time) []window {
	lo, hi := r.Bounds(now)
	var out []window
	for _, w := range ws {
		if w.from < lo {
			out = append(out, window{w.from, min(w.to, lo-1)})
		}
		if w.to > hi {
			out = append(out, window{max(w.from, hi+1), w.to})
		}
	}
	return out
}

// A Hole is a window (ms, inclusive) in which no group holds the data of some groups.
type Hole struct {
	Groups   []string // their names, in the order of the configuration
	From, To int64
}

func (h Hole) String() string {
	names := make([]string, len(h.Groups))
	for i, name := range h.Groups {
		names[i] = strconv.Quote(name)
	}
	return fmt.Sprintf("no server group holds the data of %s from %s to %s: no time_range covers that; widen one, or add a group that has it",
		strings.Join(names, ", "), config.FormatTime(h.From), config.FormatTime(h.To))
}

// Holes returns the windows of [mint, maxt] (ms, inclusive) that no group holds, in the order of
// time. They are, for each of the groups that a selector admits, what neither its time_range nor
// that of any of all groups that may hold the same series covers. Groups without the same window
// share a hole. Times after now are no holes, as there are no samples yet.
func Holes(admitted, all []*config.Group, mint, maxt int64, now time.Time) []Hole {
	var out []Hole
	asked := window{mint, min(maxt, now.UnixMilli())}
	if asked.from > asked.to {
		return nil
	}
	for _, g := range admitted {
		missing := subtract([]window{asked}, g.TimeRange, now)
		for _, h := range all {
			if len(missing) == 0 {
				break
			}
			if h.Portion != nil && h.Portion.Held && h != g {
				continue // it goes on without a time_range for the series that it alone holds
			}
			if !Disjoint(g, h) {
				missing = subtract(missing, h.TimeRange, now)
			}
		}
		for _, w := range missing {
			i := slices.IndexFunc(out, func(o Hole) bool { return o.From == w.from && o.To == w.to })
			if i < 0 {
				i, out = len(out), append(out, Hole{From: w.from, To: w.to})
			}
			out[i].Groups = append(out[i].Groups, g.Name)
		}
	}
	slices.SortStableFunc(out, func(a, b Hole) int {
		return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To))
	})
	return out
}
