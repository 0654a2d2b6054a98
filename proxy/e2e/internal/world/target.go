package world

import (
	"hash/fnv"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
)

// Region is a failure domain with its targets.
type Region struct {
	Name       string
	StartTimes bool // its targets tell when their counters started
	Decimals   bool // its targets show floats of few decimals, see decimal
	Targets    []*Target
}

// Target is something that is scraped, or a rule group, whose results appear in the same way but without `up`.
type Target struct {
	Job, Instance string
	Interval      int64  // ms between scrapes
	Phase         int64  // ms after a multiple of the interval, from Begin
	Life          Span   // in service discovery
	Down          []Span // scrapes fail, for everybody: up is 0
	Restarts      []int64
	Rules         bool

	series []series
}

// series is one of the series of a target. Its labels do not have the region.
type series struct {
	labels   labels.Labels
	at       valueFunc
	noMarker bool // exposed with timestamps of its own: no stale marker when it vanishes
}

// startedAt is when the process that runs at t was started, in unix ms.
func (t *Target) startedAt(at int64) int64 {
	started := Begin - hour - t.Phase
	for _, r := range t.Restarts {
		if r <= at {
			started = r
		}
	}
	return started
}

// seed is a number that differs from series to series.
func seed(parts ...string) uint64 {
	h := fnv.New64a()
	for _, p := range parts {
		h.Write([]byte(p))
		h.Write([]byte{0xff})
	}
	return h.Sum64()
}

// newTarget makes a target that lives for ever; the phase follows from the names, equal in all servers that scrape it.
func newTarget(region, job, instance string, interval int64) *Target {
	return &Target{
		Job:      job,
		Instance: instance,
		Interval: interval,
		Phase:    int64(seed(region, job, instance) % uint64(interval)),
		Life:     Span{0, Begin * 2},
	}
}

// build adds series to a target.
type build struct {
	region string
	*Target
}

// add adds a series with the given name and label pairs.
func (b build) add(at valueFunc, name string, pairs ...string) *series {
	lb := labels.NewBuilder(labels.EmptyLabels())
	lb.Set(labels.MetricName, name)
	if !b.Rules {
		lb.Set("job", b.Job)
		lb.Set("instance", b.Instance)
	}
	for i := 0; i < len(pairs); i += 2 {
		lb.Set(pairs[i], pairs[i+1])
	}
	b.series = append(b.series, series{labels: lb.Labels(), at: at})
	return &b.series[len(b.series)-1]
}

// seedOf is the seed of a series of this target.
func (b build) seedOf(name string, pairs []string) uint64 {
	return seed(slices.Concat([]string{b.region, b.Job, b.Instance, name}, pairs)...)
}
