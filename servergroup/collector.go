package servergroup

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/oneprom/oneprom/servergroup/health"
	"github.com/oneprom/oneprom/servergroup/replica"
)

// healthCollector shows the present health of the replicas that there are.
type healthCollector struct{ set *Set }

var (
	stateDesc   = prometheus.NewDesc("oneprom_replica_breaker_open", "Whether a replica's circuit breaker is open: 1, half-open: 0.5, closed: 0.", replica.LabelNames, nil)
	usedDesc    = prometheus.NewDesc("oneprom_replica_requests_in_flight", "Attempts under way at a replica.", replica.LabelNames, nil)
	waitingDesc = prometheus.NewDesc("oneprom_replica_requests_waiting", "Attempts that wait because as many are under way at a replica as may be.", replica.LabelNames, nil)
	limitDesc   = prometheus.NewDesc("oneprom_replica_requests_limit", "How many attempts may be under way at a replica: max_concurrency, or fewer after it has refused some for load.", replica.LabelNames, nil)
	regionDesc  = prometheus.NewDesc("oneprom_region_available", "Whether some replica of each of a region's groups may be asked: 1, else 0.", []string{"region"}, nil)
)

// Describe implements prometheus.Collector.
func (c *healthCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{stateDesc, usedDesc, waitingDesc, limitDesc, regionDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *healthCollector) Collect(ch chan<- prometheus.Metric) {
	gen := c.set.current.Load()
	if gen == nil {
		return
	}
	gauge := func(d *prometheus.Desc, v float64, values ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, values...)
	}
	open := map[health.State]float64{health.Open: 1, health.HalfOpen: 0.5}
	for _, g := range gen.groups() {
		for _, r := range *g.replicas.Load() {
			slots := r.Health.Slots()
			gauge(stateDesc, open[r.Health.State()], replica.LabelValues(r)...)
			gauge(usedDesc, float64(slots.InUse()), replica.LabelValues(r)...)
			gauge(waitingDesc, float64(slots.Waiting()), replica.LabelValues(r)...)
			gauge(limitDesc, float64(slots.Limit()), replica.LabelValues(r)...)
		}
	}
	for region, available := range gen.regions() {
		v := 0.0
		if available {
			v = 1
		}
		gauge(regionDesc, v, region)
	}
}
