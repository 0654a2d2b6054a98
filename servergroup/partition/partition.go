// Package partition decides which replicas answer which steps of a query, and has them do it. A
// Partition is a set of groups that share no series with other groups. Its answer is divided into
// pieces: a replica that has missed nothing, as evidence shows, answers a piece alone; the samples
// of all replicas are merged for the other pieces.
//
// Choose makes the pieces. Piece.Evaluate has a replica evaluate an expression, and Piece.Select
// fetches samples; Piece.Local says which of them it is to be. An Outlook says before anyone is
// asked what Choose will do.
package partition

import (
	"errors"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/routing"
	"github.com/oneprom/oneprom/servergroup/view"
)

// Partition is a set of groups that may hold the same series. Groups of different partitions
// hold no common series.
type Partition struct {
	view    *view.View
	members []view.Group
	labels  map[string]string
}

// Labels are the injected labels that every series of the partition carries.
func (p *Partition) Labels() map[string]string { return p.labels }

// Distinct returns labels of the data that tell the series of the partition apart from those of all
// others, because of `holds`; none if there are no such labels. The name of the metric is none of
// them, as most functions drop it.
func (p *Partition) Distinct() []string {
	var names []string
	for _, g := range p.members {
		if !routing.HoldsAlone(g.Config) {
			return nil
		}
		for _, m := range g.Config.Only() {
			if m.Name == labels.MetricName {
				return nil
			}
			if _, injected := g.Config.Labels[m.Name]; !injected && !slices.Contains(names, m.Name) {
				names = append(names, m.Name)
			}
		}
	}
	return names
}

// Name returns the names of the groups, joined by a plus.
func (p *Partition) Name() string { return strings.Join(p.Groups(), "+") }

// Groups returns the names of the groups.
func (p *Partition) Groups() []string {
	var names []string
	for _, g := range p.members {
		names = append(names, g.Config.Name)
	}
	return slices.Compact(names) // portions of a group are next to each other
}

// Single reports whether the partition is one group, so that one replica may have all its series.
func (p *Partition) Single() bool { return len(p.members) == 1 }

// Concerns reports whether the partition may hold series of a selection.
func (p *Partition) Concerns(sel view.Selection) bool {
	return slices.ContainsFunc(p.members, p.view.Concerns(sel.Matchers))
}

// Of returns the partitions of a view that any of the selections concerns, in the order of the
// configuration. It sends no requests.
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

// RecordOutcome records in the ledger whether the partition has answered a part of a query (err is
// nil), for which the samples from mint to maxt (ms) were wanted. It does nothing for several
// groups, whose fetches record that.
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

// Missing returns an error if the ledger takes all groups of the partition for missing.
func (p *Partition) Missing() error {
	gone := p.missing()
	if gone != nil && p.insists() {
		return p.needsCopies(always)
	}
	return gone
}

func (p *Partition) missing() error {
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
