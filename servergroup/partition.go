package servergroup

import (
	"maps"
	"slices"
	"strings"
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
