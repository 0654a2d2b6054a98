package routing

import (
	"maps"
	"slices"

	"github.com/oneprom/oneprom/servergroup/config"
)

// Disjoint reports whether two groups cannot hold series with the same labels, because they inject
// a label with different values.
func Disjoint(a, b *config.Group) bool {
	for name, v := range a.Labels {
		if w, ok := b.Labels[name]; ok && v != w {
			return true
		}
	}
	return false
}

// DisjointSets divides groups into sets that share no series, each in the order of the
// groups. It returns their indices.
func DisjointSets(groups []*config.Group) [][]int {
	set := make([]int, len(groups)) // of each group: the first group of its set
	disjoint := AllDisjoint(groups)
	for i := range groups {
		set[i] = i
		for j := 0; j < i && !disjoint; j++ {
			if set[j] == set[i] || Disjoint(groups[j], groups[i]) {
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
	members := make([][]int, len(groups))
	for i := range groups {
		members[set[i]] = append(members[set[i]], i)
	}
	return slices.DeleteFunc(members, func(m []int) bool { return len(m) == 0 })
}

// AllDisjoint reports whether all groups inject the same labels with different values, so that any
// two are disjoint. This is the common case, and a thousand groups are then not compared in pairs.
func AllDisjoint(groups []*config.Group) bool {
	seen := make(map[string]bool, len(groups))
	var names []string
	var key []byte
	for i, g := range groups {
		if i == 0 {
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
