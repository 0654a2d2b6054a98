package replica

import (
	"fmt"
	"maps"
	"slices"

	"github.com/oneprom/oneprom/servergroup/config"
)

// ExternalLabelFindings returns a finding for each external label, other than the replica
// labels, that has different values at replicas of a group: they may not be replicas.
func ExternalLabelFindings(cfg *config.Group, replicas []*Replica) []string {
	var texts []string
	var first *Profile
	var firstURL string
	for _, r := range replicas {
		r.mtx.Lock()
		p := r.profile
		r.mtx.Unlock()
		if p == nil || p.configured == nil {
			continue
		}
		if first == nil {
			first, firstURL = p, r.URL()
			continue
		}
		for _, name := range differing(first.configured, p.configured) {
			if slices.Contains(cfg.ReplicaLabels, name) {
				continue
			}
			texts = append(texts, fmt.Sprintf("external label %s is %q at %s and %q at %s: if both hold the same data, add it to `replica_labels`, else make them two groups",
				name, first.configured[name], firstURL, p.configured[name], r.URL()))
		}
	}
	return texts
}

// differing returns the names of the labels whose values differ.
func differing(a, b map[string]string) []string {
	var names []string
	for _, m := range []map[string]string{a, b} {
		for _, name := range slices.Sorted(maps.Keys(m)) {
			if a[name] != b[name] && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}
