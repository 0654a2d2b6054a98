package views

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/scrape"
	v1 "github.com/prometheus/prometheus/web/api/v1"
)

// FoldTargets makes one of the answers of /targets of replicas, which scrape the same.
//
// Active targets of one scrape pool with the same labels, whose series are the same, are
// one target: the one that is up, or else down, or else not yet known; of several such the
// one that was scraped last. Dropped ones are one if the same was discovered. The number
// of those dropped from a pool is the highest of any replica.
func FoldTargets(replicas ...v1.TargetDiscovery) v1.TargetDiscovery {
	return mergeTargets(func(a, b int) int { return max(a, b) }, replicas)
}

// JoinTargets makes one of the answers of /targets of server groups. It is FoldTargets,
// but for the numbers of dropped targets, which are summed.
func JoinTargets(groups ...v1.TargetDiscovery) v1.TargetDiscovery {
	return mergeTargets(func(a, b int) int { return a + b }, groups)
}

func mergeTargets(count func(a, b int) int, servers []v1.TargetDiscovery) v1.TargetDiscovery {
	active := map[string]*v1.Target{}
	dropped := map[string]*v1.DroppedTarget{}
	var counts map[string]int // nil if no server has any, for example because they are not asked for
	for _, s := range servers {
		for _, t := range s.ActiveTargets {
			if t == nil {
				continue
			}
			key := inPool(t.ScrapePool, t.Labels)
			if known := active[key]; known == nil || fresher(t, known) {
				active[key] = t
			}
		}
		for _, t := range s.DroppedTargets {
			if t != nil {
				dropped[inPool(t.ScrapePool, t.DiscoveredLabels)] = t
			}
		}
		if counts == nil && s.DroppedTargetCounts != nil {
			counts = map[string]int{}
		}
		for pool, n := range s.DroppedTargetCounts {
			counts[pool] = count(counts[pool], n)
		}
	}
	return v1.TargetDiscovery{ActiveTargets: sortedByKey(active), DroppedTargets: sortedByKey(dropped), DroppedTargetCounts: counts}
}

// inPool is the key of labels in a scrape pool; keys are sorted by pools first.
func inPool(pool string, ls labels.Labels) string { return pool + "\x00" + ls.String() }

// fresher reports whether a is newer information about a target than b.
func fresher(a, b *v1.Target) bool {
	known := func(t *v1.Target) int {
		return slices.Index([]scrape.TargetHealth{scrape.HealthUnknown, scrape.HealthBad, scrape.HealthGood}, t.Health)
	}
	return cmp.Or(cmp.Compare(known(a), known(b)), a.LastScrape.Compare(b.LastScrape)) > 0
}

// TargetMetadata is an element of /targets/metadata.
type TargetMetadata struct {
	Target labels.Labels `json:"target"`
	Metric string        `json:"metric,omitempty"` // unless it was asked for
	Type   string        `json:"type"`
	Help   string        `json:"help"`
	Unit   string        `json:"unit"`
}

// CompareTargetMetadata orders by target and metric. What is equal in every field is the
// same.
func CompareTargetMetadata(a, b TargetMetadata) int {
	return cmp.Or(labels.Compare(a.Target, b.Target), strings.Compare(a.Metric, b.Metric),
		strings.Compare(a.Type, b.Type), strings.Compare(a.Help, b.Help), strings.Compare(a.Unit, b.Unit))
}

// MergePools unites the names of scrape pools, sorted.
func MergePools(servers ...[]string) []string {
	all := append([]string{}, slices.Concat(servers...)...)
	slices.Sort(all)
	return slices.Compact(all)
}

// MergeAlertmanagers unites the Alertmanagers of several servers by their URLs, sorted.
func MergeAlertmanagers(servers ...v1.AlertmanagerDiscovery) v1.AlertmanagerDiscovery {
	active, dropped := map[string]*v1.AlertmanagerTarget{}, map[string]*v1.AlertmanagerTarget{}
	for _, s := range servers {
		addByURL(active, s.ActiveAlertmanagers)
		addByURL(dropped, s.DroppedAlertmanagers)
	}
	return v1.AlertmanagerDiscovery{ActiveAlertmanagers: sortedByKey(active), DroppedAlertmanagers: sortedByKey(dropped)}
}

func addByURL(known map[string]*v1.AlertmanagerTarget, list []*v1.AlertmanagerTarget) {
	for _, a := range list {
		if a != nil {
			known[a.URL] = a
		}
	}
}

// sortedByKey returns the values of a map in the order of their keys, never nil.
func sortedByKey[V any](m map[string]V) []V {
	out := make([]V, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, m[k])
	}
	return out
}
