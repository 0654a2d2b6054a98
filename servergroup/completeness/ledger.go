// Package completeness records which server groups answered a query, and what is missing from its
// answer.
//
// What happens to a group is an Outcome. The Ledger of a query collects outcomes and gaps as
// values; Verdict and Fold make the texts of warnings of them in the end. A Record collects
// the gaps of all queries of a request.
package completeness

import (
	"errors"
	"fmt"
	"maps"
	"sync"

	"github.com/prometheus/prometheus/util/annotations"
)

// Missing are groups that a query takes for missing, by name, each with the reason.
type Missing map[string]error

// Ledger records the outcomes of the groups in one query. It is safe for concurrent use; the zero
// value is ready for use.
//
// It shows whether the parts of an answer are consistent: a group that fails while a query runs
// must not be in one part and missing from another. Otherwise an average could be the sum over
// some groups divided by the count over others.
type Ledger struct {
	// Without are the groups that are taken for missing without being asked. It must be set
	// before the ledger is used.
	Without Missing

	record Record

	mtx    sync.Mutex              // guards the fields below
	late   annotations.Annotations // of LateWarnings
	states map[string]groupState   // by group
}

// groupState is whether a group has answered, and failed, in parts of the query.
type groupState struct {
	answered bool
	failed   error
}

// RecordOutcome records whether a group has answered a part of the query (err is nil), or failed.
func (l *Ledger) RecordOutcome(g Group, err error) {
	l.mtx.Lock()
	defer l.mtx.Unlock()
	if l.states == nil {
		l.states = map[string]groupState{}
	}
	s := l.states[g.Name]
	if s.answered = s.answered || err == nil; err != nil {
		s.failed = err
	}
	l.states[g.Name] = s
}

// RecordFetch records the outcome of a group, and a gap if samples are missing. Those from mint to
// maxt (ms) were wanted.
func (l *Ledger) RecordFetch(o Outcome, mint, maxt int64) {
	if o.Missing() {
		l.RecordOutcome(o.Group, o.err())
	} else {
		l.RecordOutcome(o.Group, nil)
	}
	l.RecordPartial(o, mint, maxt)
}

// RecordPartial records a gap if samples are missing from an outcome. Those from mint to maxt
// (ms) were wanted.
func (l *Ledger) RecordPartial(o Outcome, mint, maxt int64) {
	if o.Partial() {
		l.AddGap(o.Group, mint, maxt, o.String())
	}
}

// AddGap records that the answer lacks data of a group: samples from mint to maxt (ms).
func (l *Ledger) AddGap(g Group, mint, maxt int64, reason string) {
	l.addGap(g, mint, maxt, reason, nil)
}

func (l *Ledger) addGap(g Group, mint, maxt int64, reason string, server *ServerWarning) {
	l.record.add(Gap{Group: g.Name, Region: g.Region, From: mint, To: maxt, Reason: reason, server: server})
}

// AddUncovered records that no group holds the data of a group from mint to maxt (ms), by their
// time_range.
func (l *Ledger) AddUncovered(g Group, mint, maxt int64, reason string) {
	l.record.add(Gap{Group: g.Name, Region: g.Region, From: mint, To: maxt, Reason: reason, uncovered: true})
}

// Gaps returns what the answer lacks so far, sorted by group.
func (l *Ledger) Gaps() []Gap { return l.record.Gaps() }

// Inconsistent returns the groups that have answered in one part of the query and failed in
// another, with those that were missing from the beginning. There are none if all parts are of
// the same groups.
func (l *Ledger) Inconsistent() Missing {
	l.mtx.Lock()
	defer l.mtx.Unlock()
	out := Missing{}
	for name, s := range l.states {
		if s.answered && s.failed != nil {
			out[name] = s.failed
		}
	}
	if len(out) > 0 {
		maps.Copy(out, l.Without)
	}
	return out
}

// Lacking returns the groups that the answer lacks data of. It fails if no group holds some of the
// data: then there is none that could be left out.
func (l *Ledger) Lacking() (Missing, error) {
	out := Missing{}
	for _, gap := range l.Gaps() {
		if gap.uncovered {
			return nil, &UnavailableError{Lacks: []Lack{{Group: gap.Group, Reason: gap.Reason}}}
		}
		out[gap.Group] = errors.New(gap.Reason)
	}
	return out, nil
}

// Answered reports whether a group has answered any part of the query.
func (l *Ledger) Answered(group string) bool {
	l.mtx.Lock()
	defer l.mtx.Unlock()
	return l.states[group].answered
}

// SetLost records the labels of the series that the answer lacks because of a group: a map for each
// set of groups that share series. A series that has another value of one of them is not lost.
func (l *Ledger) SetLost(group string, lost []map[string]string) { l.record.setLost(group, lost) }

// Require returns an error if a group is missing for whose name concerned is true.
func (l *Ledger) Require(concerned func(group string) bool) error {
	missing := &UnavailableError{}
	for _, gap := range l.Gaps() {
		if !gap.uncovered && concerned(gap.Group) {
			missing.Lacks = append(missing.Lacks, Lack{Group: gap.Group, Reason: gap.Reason})
		}
	}
	if len(missing.Lacks) == 0 {
		return nil
	}
	missing.Lacks[0].Reason = "this query needs every server group (absent, unless, or a comparison of an aggregation): " + missing.Lacks[0].Reason
	return missing
}

// BrokenSamples records that samples of a replica cannot be decoded. That is found out only while
// a series is merged, when the warnings of its set have been read.
func (l *Ledger) BrokenSamples(err error) {
	l.mtx.Lock()
	defer l.mtx.Unlock()
	l.late.Add(fmt.Errorf("%w: samples of a replica are broken and were left out: %w", annotations.PromQLInfo, err))
}

// LostReplicas records that replicas of a group failed, in whose place others answered.
func (l *Ledger) LostReplicas(o Outcome) {
	l.mtx.Lock()
	defer l.mtx.Unlock()
	l.late.Add(&LostReplicas{o})
}

// Unproven records that a replica of a group answered alone, though its twins have not counted the
// series in time.
func (l *Ledger) Unproven(g Group) {
	l.mtx.Lock()
	defer l.mtx.Unlock()
	l.late.Add(&unprovenAnswer{g})
}

// LateWarnings returns the warnings that were found out after the series had been returned.
func (l *Ledger) LateWarnings() annotations.Annotations {
	l.mtx.Lock()
	defer l.mtx.Unlock()
	return maps.Clone(l.late)
}
