package servergroup

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/util/annotations"

	"github.com/oneprom/oneprom/servergroup/completeness"
)

// This file finds the time that nobody holds: where the time_range of a group
// ends and no other group's goes on. The configuration says what is held, so a
// hole is known without asking anyone.

// window is a stretch of time (ms, inclusive).
type window struct{ from, to int64 }

// without returns what of the windows lies outside a time_range.
func without(ws []window, r TimeRange, now time.Time) []window {
	lo, hi := r.bounds(now)
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

// A gap is a window that no group holds of the data of some groups.
type gap struct {
	groups []string // their names, in the order of the configuration
	window
}

func (g gap) String() string {
	names := make([]string, len(g.groups))
	for i, name := range g.groups {
		names[i] = strconv.Quote(name)
	}
	return fmt.Sprintf("no server group holds the data of %s from %s to %s: no time_range covers that; widen one, or add a group that has it",
		strings.Join(names, ", "), formatMS(g.from), formatMS(g.to))
}

// gaps returns what nobody holds of [mint, maxt] (ms, inclusive), in the order of
// time: for each of the groups asked, what neither its own time_range covers nor
// that of one that may hold the same series. Among all groups: where one goes on
// whose labels do not match what is selected, there is nothing more to be had.
// Groups that miss the same window share a gap. What is later than now cannot be
// missed yet.
func gaps(admitted, all []*Config, mint, maxt int64, now time.Time) []gap {
	var out []gap
	asked := window{mint, min(maxt, now.UnixMilli())}
	if asked.from > asked.to {
		return nil
	}
	for _, g := range admitted {
		missing := without([]window{asked}, g.TimeRange, now)
		for _, h := range all {
			if len(missing) == 0 {
				break
			}
			if !disjoint(g, h) {
				missing = without(missing, h.TimeRange, now)
			}
		}
		for _, w := range missing {
			i := slices.IndexFunc(out, func(o gap) bool { return o.window == w })
			if i < 0 {
				i, out = len(out), append(out, gap{window: w})
			}
			out[i].groups = append(out[i].groups, g.Name)
		}
	}
	slices.SortStableFunc(out, func(a, b gap) int {
		return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to))
	})
	return out
}

// Uncovered says what nobody holds of a selection: as warnings, or as an error
// where an answer must not be partial.
func (v *View) Uncovered(sel Selection) (annotations.Annotations, error) {
	var admitted, all []*Config
	for _, g := range v.groups {
		all = append(all, g.cfg)
		if !g.cfg.excludes(sel.Matchers) {
			admitted = append(admitted, g.cfg)
		}
	}
	var ws annotations.Annotations
	gone := &completeness.UnavailableError{}
	strict := false
	for _, g := range gaps(admitted, all, sel.MinT, sel.MaxT, v.now) {
		for _, name := range g.groups {
			i := slices.IndexFunc(admitted, func(cfg *Config) bool { return cfg.Name == name })
			strict = strict || v.strict(admitted[i])
			v.Ledger.AddUncovered(completeness.Group{Name: name, Region: admitted[i].Region}, g.from, g.to, g.String())
		}
		gone.Lacks = append(gone.Lacks, completeness.Lack{Group: g.groups[0], Reason: g.String()})
		ws.Add(&completeness.UncoveredWarning{Reason: g.String()})
	}
	if strict {
		return ws, gone
	}
	return ws, nil
}
