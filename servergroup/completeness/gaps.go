package completeness

import (
	"cmp"
	"fmt"
	"slices"
	"sync"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/servergroup/config"
)

// Gap is data that an answer lacks.
type Gap struct {
	Group  string `json:"group"`
	Region string `json:"region,omitempty"`
	// From and To bound the samples (ms, inclusive) that were wanted of the group.
	From int64 `json:"from"`
	To   int64 `json:"to"`
	// Reason is why they are missing.
	Reason string `json:"reason"`

	// uncovered reports whether no group holds the data, by their time_range: nothing failed.
	uncovered bool
	// lost are the labels that the series have which the answer lacks, as far as the series of the
	// answer have labels of those names: one map for each set of groups that share series.
	lost []map[string]string
	// server is the warning of the server whose answer was incomplete; nil if the group is
	// missing.
	server *ServerWarning
}

// String returns the text of a warning.
func (g Gap) String() string {
	return fmt.Sprintf("%s (wanted from %s to %s)", g.Reason, config.FormatTime(g.From), config.FormatTime(g.To))
}

// MayConcern reports whether the answer may lack a series with these labels because of the gap.
func (g Gap) MayConcern(ls labels.Labels) bool {
	if len(g.lost) == 0 {
		return true
	}
	return slices.ContainsFunc(g.lost, func(lost map[string]string) bool {
		for name, value := range lost {
			if has := ls.Get(name); has != "" && has != value {
				return false
			}
		}
		return true
	})
}

// Record is the gaps in the answer to a request, at most one for each group. The answer is complete
// if there are none. A Record is safe for concurrent use; the zero value is ready for use.
type Record struct {
	mtx      sync.Mutex
	reported bool           // whether Report was called
	gaps     map[string]Gap // by group
}

// Gaps returns the gaps, sorted by group.
func (r *Record) Gaps() []Gap {
	r.mtx.Lock()
	defer r.mtx.Unlock()
	out := make([]Gap, 0, len(r.gaps))
	for _, g := range r.gaps {
		out = append(out, g)
	}
	slices.SortFunc(out, func(a, b Gap) int { return cmp.Compare(a.Group, b.Group) })
	return out
}

// setLost sets what is lost with a group, if it has a gap.
func (r *Record) setLost(group string, lost []map[string]string) {
	r.mtx.Lock()
	defer r.mtx.Unlock()
	if g, ok := r.gaps[group]; ok {
		g.lost = lost
		r.gaps[group] = g
	}
}

// Reported reports whether Report was called: there is an answer that the record is about.
func (r *Record) Reported() bool {
	r.mtx.Lock()
	defer r.mtx.Unlock()
	return r.reported
}

// Report adds the gaps of an answer. A nil Record ignores them.
func (r *Record) Report(gaps []Gap) {
	if r == nil {
		return
	}
	r.mtx.Lock()
	r.reported = true
	r.mtx.Unlock()
	for _, g := range gaps {
		r.add(g)
	}
}

// add adds a gap. Several gaps of a group become one, with the first reason and a window that spans
// all of them.
func (r *Record) add(g Gap) {
	r.mtx.Lock()
	defer r.mtx.Unlock()
	if before, ok := r.gaps[g.Group]; ok {
		before.From, before.To = min(before.From, g.From), max(before.To, g.To)
		before.uncovered = before.uncovered && g.uncovered
		g = before
	}
	if r.gaps == nil {
		r.gaps = map[string]Gap{}
	}
	r.gaps[g.Group] = g
}
