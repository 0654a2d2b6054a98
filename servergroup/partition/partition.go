// Package partition decides whose samples answer which step of a query. A Partition is a set
// of groups that share no series with others. It is divided into pieces: a replica that
// evidence proves whole evaluates its piece alone, or its samples are taken alone; what no
// replica has whole is merged.
package partition

import (
	"errors"
	"slices"
	"strings"

	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/labelmap"
	"github.com/oneprom/oneprom/servergroup/routing"
	"github.com/oneprom/oneprom/servergroup/view"
)

// Partition is a set of groups that may hold the same series, and hold none that
// groups of other partitions may hold.
type Partition struct {
	view    *view.View
	members []view.Group
	labels  map[string]string
}

// Labels are the injected labels that every series of the partition carries.
func (p *Partition) Labels() map[string]string { return p.labels }

// Name names the groups.
func (p *Partition) Name() string {
	names := make([]string, len(p.members))
	for i, g := range p.members {
		names[i] = g.Config.Name
	}
	return strings.Join(names, "+")
}

// Single reports whether it is one group, so that a replica of it may know all that
// there is.
func (p *Partition) Single() bool { return len(p.members) == 1 }

// Concerns reports whether the partition may hold series of a selection.
func (p *Partition) Concerns(sel view.Selection) bool {
	return slices.ContainsFunc(p.members, func(g view.Group) bool { return !labelmap.Excludes(g.Config, sel.Matchers) })
}

// Of returns those of a view that any of the selections concerns, in the order of
// the configuration. It asks nobody.
func Of(v *view.View, sels []view.Selection) []*Partition {
	concerned := make([]bool, len(v.Groups))
	for _, sel := range sels {
		for _, t := range v.RouteMerge(sel.Matchers, sel.MinT, sel.MaxT) {
			concerned[t.Rank] = true
		}
	}
	var groups []view.Group
	for i, g := range v.Groups {
		if concerned[i] {
			groups = append(groups, g)
		}
	}
	var out []*Partition
	for _, set := range routing.DisjointSets(configsOf(groups)) {
		members := make([]view.Group, len(set))
		for i, at := range set {
			members[i] = groups[at]
		}
		out = append(out, &Partition{view: v, members: members, labels: routing.CommonLabels(configsOf(members))})
	}
	return out
}

func configsOf(groups []view.Group) []*config.Group {
	cfgs := make([]*config.Group, len(groups))
	for i, g := range groups {
		cfgs[i] = g.Config
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
	g := p.view.CompletenessOf(p.members[0])
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
		err := p.view.Ledger.Without[g.Config.Name]
		if err == nil {
			return nil
		}
		o := completeness.Outcome{Group: p.view.CompletenessOf(g), Asked: 1, Failed: []error{err}}
		gone.Lacks, gone.Causes = append(gone.Lacks, o.Lack()), append(gone.Causes, err)
	}
	return gone
}
