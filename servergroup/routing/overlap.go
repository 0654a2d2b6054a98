package routing

import (
	"maps"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/labelmap"
)

// Disjoint reports whether two groups, or portions of groups, cannot hold series with the same labels:
// they inject a label with different values, or `holds` tells them apart.
func Disjoint(a, b *config.Group) bool {
	for name, v := range a.Labels {
		if w, ok := b.Labels[name]; ok && v != w {
			return true
		}
	}
	if a.Portion == nil && b.Portion == nil {
		return false
	}
	return heldApart(a, b) || heldApart(b, a) || len(a.Only()) > 0 && len(b.Only()) > 0 && labelmap.Apart(a.Only(), b.Only())
}

// heldApart reports whether b cannot hold the series of a, because a's group says that it alone
// holds them.
func heldApart(a, b *config.Group) bool {
	if !HoldsAlone(a) {
		return false
	}
	if b.Portion == nil {
		return true
	}
	if len(b.Portion.Only) > 0 {
		// What b's group holds, too, is in its held portions.
		return !b.Portion.Held || labelmap.Apart(a.Portion.Only, b.Portion.Only)
	}
	return !MayHold(b, a.Portion.Only)
}

// HoldsAlone reports whether g is a portion that no other group has series of, but for those that say
// so.
func HoldsAlone(g *config.Group) bool {
	return g.Portion != nil && g.Portion.Held && !g.Portion.Denied
}

// MayHold reports whether a group says of itself that it holds series of a selector.
func MayHold(g *config.Group, ms []*labels.Matcher) bool {
	return g.Portion != nil && slices.ContainsFunc(g.Portion.Holds, func(held []*labels.Matcher) bool { return !labelmap.Apart(ms, held) })
}

// HoldsAll reports whether a group says that it holds all series of a selector, and nothing has
// contradicted it. Groups for which MayHold is false need not be asked then.
func HoldsAll(g *config.Group, ms []*labels.Matcher) bool {
	return !g.Portion.Denied && slices.ContainsFunc(g.Portion.Holds, func(held []*labels.Matcher) bool { return labelmap.Within(ms, held) })
}

// Overlaps calls f for each two groups that may hold the same series, by their indices.
func Overlaps(groups []*config.Group, f func(i, j int)) {
	var kinds [3][]int // those without `holds`, those that hold series alone, and all others
	for i, g := range groups {
		switch {
		case g.Portion == nil:
			kinds[0] = append(kinds[0], i)
		case HoldsAlone(g):
			kinds[1] = append(kinds[1], i)
		default:
			kinds[2] = append(kinds[2], i)
		}
	}
	compare := func(i, j int) {
		if i != j && !Disjoint(groups[i], groups[j]) {
			f(i, j)
		}
	}
	for _, list := range kinds {
		if allDisjoint(groups, list) {
			continue
		}
		for at, i := range list {
			for _, j := range list[:at] {
				compare(i, j)
			}
		}
	}
	for _, i := range kinds[2] {
		for _, j := range slices.Concat(kinds[0], kinds[1]) {
			compare(i, j)
		}
	}
}

// DisjointSets divides groups into sets that share no series, each in the order of the
// groups. It returns their indices.
func DisjointSets(groups []*config.Group) [][]int {
	set := make([]int, len(groups)) // of each group: the first group of its set
	for i := range set {
		set[i] = i
	}
	Overlaps(groups, func(i, j int) {
		joined, other := min(set[i], set[j]), max(set[i], set[j])
		if joined == other {
			return
		}
		for k := range set {
			if set[k] == other {
				set[k] = joined
			}
		}
	})
	members := make([][]int, len(groups))
	for i := range groups {
		members[set[i]] = append(members[set[i]], i)
	}
	return slices.DeleteFunc(members, func(m []int) bool { return len(m) == 0 })
}

// allDisjoint reports whether all groups of a list inject the same labels with different values, so
// that any two are disjoint. This is the common case, and a thousand groups are then not compared in
// pairs.
func allDisjoint(groups []*config.Group, list []int) bool {
	if len(list) < 2 {
		return true
	}
	seen := make(map[string]bool, len(list))
	var names []string
	var key []byte
	for n, i := range list {
		g := groups[i]
		if n == 0 {
			names = slices.Sorted(maps.Keys(g.Labels))
		}
		if len(names) == 0 || len(g.Labels) != len(names) {
			return false
		}
		key = key[:0]
		for _, name := range names {
			value, ok := g.Labels[name]
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

// CommonLabels returns the labels that all groups inject with the same value.
func CommonLabels(groups []*config.Group) map[string]string {
	common := maps.Clone(groups[0].Labels)
	for _, g := range groups[1:] {
		maps.DeleteFunc(common, func(name, value string) bool { return g.Labels[name] != value })
	}
	return common
}
