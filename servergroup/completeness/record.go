package completeness

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"
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

	// uncovered says that no group holds the data, as the configuration says: nobody failed.
	uncovered bool
	// server is the warning of the server whose answer was not whole; nil if the group
	// itself is missing.
	server *ServerWarning
}

// String is the text of a warning.
func (g Gap) String() string {
	return fmt.Sprintf("%s (wanted from %s to %s)", g.Reason, FormatMS(g.From), FormatMS(g.To))
}

// Record is what the answer to a request lacks: at most one gap for each group. The answer is
// whole if there is none. A Record is safe for concurrent use; the zero value is ready for
// use.
type Record struct {
	mtx      sync.Mutex
	reported bool           // whether there is an answer that it is about
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

// Reported reports whether there is an answer that the record is about.
func (r *Record) Reported() bool {
	r.mtx.Lock()
	defer r.mtx.Unlock()
	return r.reported
}

// Report adds what an answer lacks. A nil Record takes nothing.
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

// add adds a gap. Of several gaps of a group, the first reason stays, and the windows are
// united.
func (r *Record) add(g Gap) {
	r.mtx.Lock()
	defer r.mtx.Unlock()
	if known, ok := r.gaps[g.Group]; ok {
		known.From, known.To = min(known.From, g.From), max(known.To, g.To)
		known.uncovered = known.uncovered && g.uncovered
		g = known
	}
	if r.gaps == nil {
		r.gaps = map[string]Gap{}
	}
	r.gaps[g.Group] = g
}

// minTime and maxTime (ms) bound what can be written as a date: years 1 to 9999.
const (
	minTime = -62135596800000
	maxTime = 253402300799999
)

// FormatMS writes a time (ms) for people.
func FormatMS(ms int64) string {
	if ms < minTime || ms > maxTime {
		return fmt.Sprintf("%d ms", ms)
	}
	return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z")
}
