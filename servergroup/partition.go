package servergroup

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/oneprom/oneprom/servergroup/completeness"
)

// Partition is a set of groups that may hold the same series, and hold none that
// groups of other partitions may hold.
type Partition struct {
	view    *View
	members []groupView
	labels  map[string]string
}

// Labels are the injected labels that every series of the partition carries.
func (p *Partition) Labels() map[string]string { return p.labels }

// Name names the groups.
func (p *Partition) Name() string {
	names := make([]string, len(p.members))
	for i, g := range p.members {
		names[i] = g.cfg.Name
	}
	return strings.Join(names, "+")
}

// Single tells whether it is one group, so that a replica of it may know all that
// there is.
func (p *Partition) Single() bool { return len(p.members) == 1 }

// Concerns tells whether the partition may hold series of a selection.
func (p *Partition) Concerns(sel Selection) bool {
	return slices.ContainsFunc(p.members, func(g groupView) bool { return !g.cfg.excludes(sel.Matchers) })
}

// Partitions returns those that any of the selections concerns, in the order of
// the configuration. It asks nobody.
func (v *View) Partitions(sels []Selection) []*Partition {
	concerned := make([]bool, len(v.groups))
	for _, sel := range sels {
		for _, t := range v.routeMerge(sel.Matchers, sel.MinT, sel.MaxT) {
			concerned[t.rank] = true
		}
	}
	var groups []groupView
	for i, g := range v.groups {
		if concerned[i] {
			groups = append(groups, g)
		}
	}
	var out []*Partition
	for _, members := range apart(groups) {
		out = append(out, &Partition{view: v, members: members, labels: commonLabels(members)})
	}
	return out
}

// apart divides groups into sets that share no series, in their order.
func apart(groups []groupView) [][]groupView {
	set := make([]int, len(groups)) // of each group: the first group of its set
	distinct := tellApart(groups)
	for i := range groups {
		set[i] = i
		for j := 0; j < i && !distinct; j++ {
			if set[j] == set[i] || disjoint(groups[j].cfg, groups[i].cfg) {
				continue
			}
			joined, other := min(set[i], set[j]), max(set[i], set[j])
			for k := range i + 1 {
				if set[k] == other {
					set[k] = joined
				}
			}
		}
	}
	members := make([][]groupView, len(groups))
	for i, g := range groups {
		members[set[i]] = append(members[set[i]], g)
	}
	return slices.DeleteFunc(members, func(m []groupView) bool { return len(m) == 0 })
}

// tellApart tells whether all groups inject the same labels, and no two the same
// values: as a rule they do, and a thousand need not be compared with each other.
func tellApart(groups []groupView) bool {
	seen := make(map[string]bool, len(groups))
	var names []string
	var key []byte
	for i, g := range groups {
		if i == 0 {
			names = sortedKeys(g.cfg.Labels)
		}
		if len(names) == 0 || len(g.cfg.Labels) != len(names) {
			return false
		}
		key = key[:0]
		for _, name := range names {
			value, ok := g.cfg.Labels[name]
			if !ok {
				return false
			}
			key = append(append(key, value...), 0xff)
		}
		if seen[string(key)] {
			return false
		}
		seen[string(key)] = true
	}
	return true
}

// commonLabels are the labels that all of the groups inject with one value.
func commonLabels(groups []groupView) map[string]string {
	common := maps.Clone(groups[0].cfg.Labels)
	for _, g := range groups[1:] {
		maps.DeleteFunc(common, func(name, value string) bool { return g.cfg.Labels[name] != value })
	}
	return common
}

// RecordOutcome records what became of the partition in a part of a query: err is nil if it
// has answered. Of several groups that are merged, the fetches record it. The samples from
// mint to maxt (ms) were wanted.
func (p *Partition) RecordOutcome(err error, mint, maxt int64) {
	var gone *completeness.UnavailableError
	if !p.Single() || err != nil && (!errors.As(err, &gone) || len(gone.Causes) == 0) {
		return
	}
	g := p.view.about(p.members[0])
	if err == nil {
		p.view.Ledger.RecordOutcome(g, nil)
		return
	}
	p.view.Ledger.RecordOutcome(g, completeness.Join(gone.Causes))
	p.view.Ledger.AddGap(g, mint, maxt, gone.Error())
}

// Missing is the error of a partition of which the query does without all groups, nil if it
// does not.
func (p *Partition) Missing() error {
	gone := &completeness.UnavailableError{}
	for _, g := range p.members {
		err := p.view.Ledger.Without[g.cfg.Name]
		if err == nil {
			return nil
		}
		o := completeness.Outcome{Group: p.view.about(g), Asked: 1, Failed: []error{err}}
		gone.Lacks, gone.Causes = append(gone.Lacks, o.Lack()), append(gone.Causes, err)
	}
	return gone
}
