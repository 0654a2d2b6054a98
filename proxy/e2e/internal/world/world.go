// Package world builds small worlds of real servers for end-to-end tests. Each server has its data from one simulated truth: that of a
// Prometheus is written into its data directory, other servers are fed by remote write. The server itself is a process, of the pinned
// Prometheus version unless its kind says otherwise.
//
// Everything is a function of fixed seeds and of an absolute clock, so that two runs see the same bytes.
package world

import (
	"slices"
	"time"
)

// Unix milliseconds and spans of milliseconds are plain int64 in this package.
const (
	second = int64(1000)
	minute = 60 * second
	hour   = 60 * minute
)

// Begin is where the history of every world begins: 2026-03-10T05:40:00Z, in unix milliseconds. It is not a multiple of the two hours
// of a TSDB block, so that worlds have uneven blocks.
const Begin = 1773121200 * second

// Span is the half-open window [From, To) of unix milliseconds.
type Span struct{ From, To int64 }

// Has reports whether t lies in the span.
func (s Span) Has(t int64) bool { return s.From <= t && t < s.To }

// near reports whether two spans touch or are closer than margin milliseconds.
func (s Span) near(o Span, margin int64) bool { return s.From < o.To+margin && o.From < s.To+margin }

func anyHas(spans []Span, t int64) bool {
	for _, s := range spans {
		if s.Has(t) {
			return true
		}
	}
	return false
}

// World is a set of servers that together saw everything, and the truth: one server that saw it alone.
type World struct {
	Name       string
	Begin, End int64 // unix ms; the newest sample is at most at End
	Truth      *Server
	Groups     []Group
}

// Group is what becomes one entry of oneprom's server_groups.
type Group struct {
	Name          string
	Region        string            // the failure domain; empty means none
	Labels        map[string]string // injected: absent from the servers' own data
	ReplicaLabels []string
	Intrinsic     []string // partition labels that the data has already
	DataEnd       int64    // unix ms up to which the group has data; 0 means to the end
	CopiesOf      []string // the names of the groups that it has copies of; none if that is not said
	Replicas      []*Server
}

// Servers lists the truth and all replicas.
func (w *World) Servers() []*Server {
	all := []*Server{w.Truth}
	for _, g := range w.Groups {
		all = append(all, g.Replicas...)
	}
	return all
}

// At is the time d after the beginning of the world, in unix ms.
func (w *World) At(d time.Duration) int64 { return w.Begin + d.Milliseconds() }

// With is the world with only the named groups. It shares the servers, so that they are started once.
func (w *World) With(groups ...string) *World {
	part := *w
	part.Groups = slices.Clone(w.Groups)
	part.Groups = slices.DeleteFunc(part.Groups, func(g Group) bool { return !slices.Contains(groups, g.Name) })
	return &part
}

// Server is one server: what it scrapes, what it missed, and what it keeps.
type Server struct {
	Name           string
	Kind           Kind // the zero value is the pinned Prometheus
	Regions        []*Region
	RegionLabel    bool // the data carries the region label
	ExternalLabels map[string]string
	Keep           Span  // samples outside are not kept
	HeadFrom       int64 // unix ms from which samples stay in the head and its WAL; what is older is in blocks
	Faults         *Faults
	Clock          Clock

	*Process // set by Start
}

// startTimes reports whether the server stores start timestamps, and with them uses the chunk encodings XOR2 and *_ST.
func (s *Server) startTimes() bool {
	return slices.ContainsFunc(s.Regions, func(r *Region) bool { return r.StartTimes })
}

// Clock gives the timestamp in unix ms of a server's scrape of a target, given the time of the common schedule.
type Clock func(target string, scheduled int64) int64

func onTime(_ string, scheduled int64) int64 { return scheduled }
