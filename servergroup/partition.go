package servergroup

import (
	"slices"
	"strings"

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
