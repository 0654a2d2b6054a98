package e2e

import (
	"time"

	"github.com/prometheus/prometheus/model/labels"
)

// topology is a way to spread one Prometheus' data over backends.
type topology struct {
	name   string
	groups [][]int // the backends of each server group, in configured order
	// ranges are the times of the groups; nil: all are asked for all times.
	ranges []timeRange
	place  placement
	// labelled has each group inject a label of its own into its series.
	labelled bool
	// levels puts a oneprom of its own between each group and the one that is asked.
	levels bool
}

// groupSpec is a server group as oneprom's configuration has it.
type groupSpec struct {
	name       string
	remoteRead string    // always or never
	targets    []string  // host:port, in order
	start, end time.Time // samples at start are the group's, those at end are not; zero: unbounded
}

// timeRange is [start, end); a zero time is no bound.
type timeRange struct{ start, end time.Time }

// tierSplit lies in the middle of most of promqltest's data.
var tierSplit = time.Unix(900, 0).UTC()

// threeTiers are ranges of which each overlaps the next, as archives overlap what they are behind.
var threeTiers = []timeRange{{end: time.Unix(900, 0).UTC()}, {time.Unix(300, 0).UTC(), time.Unix(1500, 0).UTC()}, {start: time.Unix(1200, 0).UTC()}}

// shardLabel is the label that groups inject. The data has none of this name.
const shardLabel = "shard"

var (
	wholeBackend   = topology{name: "one-backend", groups: [][]int{{0}}, place: placeEverywhere}
	tiers          = topology{name: "tiers", groups: [][]int{{0}, {1}}, ranges: []timeRange{{end: tierSplit}, {start: tierSplit}}, place: placeTiers}
	labelledShards = topology{name: "labelled-shards", groups: [][]int{{0}, {1}, {2}}, place: placeTargets, labelled: true}
)

var topologies = []topology{
	wholeBackend,
	{name: "replicas-holes", groups: [][]int{{0, 1}}, place: placeHoles},
	{name: "replicas-outages", groups: [][]int{{0, 1}}, place: placeOutages},
	{name: "shards", groups: [][]int{{0}, {1}, {2}}, place: placeShards},
	{name: "tiers-overlapping", groups: [][]int{{0}, {1}, {2}}, ranges: threeTiers, place: placeOverlapping},
	{
		name: "tiers-shards-replicas", groups: [][]int{{0, 1}, {2, 3}, {4, 5}, {6, 7}},
		ranges: []timeRange{{end: tierSplit}, {end: tierSplit}, {start: tierSplit}, {start: tierSplit}}, place: placeTieredShardsWithHoles,
	},
	{name: "levels", groups: [][]int{{0, 1}, {2, 3}}, place: placeShardsWithHoles, levels: true},
}

// pushedTopologies are those whose backends can be asked to evaluate. Their groups have one replica each: of
// several, scrapes must show which one is whole, and promqltest loads no `up`. They inject labels that tell
// them apart, or lie apart in time, so that queries that look at one side of the split are pushed.
var pushedTopologies = []topology{wholeBackend, labelledShards, tiers}

// backends is the number of backends in all groups.
func (tp topology) backends() (n int) {
	for _, g := range tp.groups {
		n += len(g)
	}
	return n
}

// specs are the topology's groups over running backends.
func (tp topology) specs(backends []*splitBackend, remoteRead string) []groupSpec {
	var specs []groupSpec
	for n, group := range tp.groups {
		spec := groupSpec{name: groupName(n), remoteRead: remoteRead}
		for _, i := range group {
			spec.targets = append(spec.targets, backends[i].address)
		}
		if tp.ranges != nil {
			spec.start, spec.end = tp.ranges[n].start, tp.ranges[n].end
		}
		specs = append(specs, spec)
	}
	return specs
}

func groupName(n int) string { return string(rune('a' + n)) }

func placeEverywhere(labels.Labels, int64) []int { return []int{0} }

// placeHoles takes single samples out of two replicas, a quarter from each and never the same from both.
func placeHoles(series labels.Labels, t int64) []int {
	switch mixBits(labels.StableHash(series)+mixBits(uint64(t))) % 4 {
	case 0:
		return []int{1}
	case 1:
		return []int{0}
	}
	return []int{0, 1}
}

// placeOutages takes two replicas away in turn, each for 7 of 28 minutes, all series at once.
func placeOutages(_ labels.Labels, t int64) []int {
	const window = 7 * 60 * 1000
	switch ((t/window)%4 + 4) % 4 {
	case 1:
		return []int{1}
	case 3:
		return []int{0}
	}
	return []int{0, 1}
}

func placeShards(series labels.Labels, _ int64) []int {
	return []int{int(mixBits(labels.StableHash(series)) % 3)}
}

// placeTargets keeps together what comes of one target, as a rule: series that differ in their names, or in
// the bucket or quantile that they are. The salt is one that puts apart what upstream's files have for this:
// the jobs of at_modifier.test, and the large values of both signs in aggregators.test and native_histograms.test.
func placeTargets(series labels.Labels, _ int64) []int {
	const salt = 10
	target := labels.NewBuilder(series).Del(labels.MetricName, labels.BucketLabel, "quantile").Labels()
	return []int{int(mixBits(labels.StableHash(target)+salt) % 3)}
}

// placeShardsWithHoles puts half of the series on the replicas 0 and 1, the others on 2 and 3.
func placeShardsWithHoles(series labels.Labels, t int64) []int {
	first := 2 * int(mixBits(labels.StableHash(series))%2)
	var out []int
	for _, i := range placeHoles(series, t) {
		out = append(out, first+i)
	}
	return out
}

func placeTiers(_ labels.Labels, t int64) []int {
	if t < tierSplit.UnixMilli() {
		return []int{0}
	}
	return []int{1}
}

// placeOverlapping puts each sample on a tier whose range has it; where two have it, on one of these, or on
// both. So their copies differ, and there are holes on both sides of a seam.
func placeOverlapping(series labels.Labels, t int64) []int {
	var there []int
	for n, r := range threeTiers {
		at := time.UnixMilli(t)
		if !at.Before(r.start) && (r.end.IsZero() || at.Before(r.end)) {
			there = append(there, n)
		}
	}
	if len(there) == 2 {
		var out []int
		for _, i := range placeHoles(series, t) {
			out = append(out, there[i])
		}
		return out
	}
	return there
}

// placeTieredShardsWithHoles puts what is older than tierSplit on the replicas 0 to 3, the rest on 4 to 7.
func placeTieredShardsWithHoles(series labels.Labels, t int64) []int {
	out := placeShardsWithHoles(series, t)
	if t >= tierSplit.UnixMilli() {
		for i := range out {
			out[i] += 4
		}
	}
	return out
}

// mixBits spreads the bits of x (the last step of splitmix64): hashes of similar series and times must not
// be similar modulo a small number.
func mixBits(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
