package servergroup

import (
	"errors"
	"slices"
	"strings"

	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/labelmap"
	"github.com/oneprom/oneprom/servergroup/routing"
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
	return slices.ContainsFunc(p.members, func(g groupView) bool { return !labelmap.Excludes(g.cfg, sel.Matchers) })
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
	for _, set := range routing.DisjointSets(configsOf(groups)) {
		members := make([]groupView, len(set))
		for i, at := range set {
			members[i] = groups[at]
		}
		out = append(out, &Partition{view: v, members: members, labels: routing.CommonLabels(configsOf(members))})
	}
	return out
}

func configsOf(groups []groupView) []*config.Group {
	cfgs := make([]*config.Group, len(groups))
	for i, g := range groups {
		cfgs[i] = g.cfg
	}
	return cfgs
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
