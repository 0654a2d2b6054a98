package servergroup

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/oneprom/oneprom/servergroup/health"
	"github.com/oneprom/oneprom/servergroup/replica"
)

// healthCollector collects the health of the current replicas and regions.
type healthCollector struct{ set *Set }

var (
	stateDesc   = prometheus.NewDesc("oneprom_replica_breaker_open", "State of the circuit breaker of a replica: 1 is open, 0.5 half-open, 0 closed.", replica.LabelNames, nil)
	usedDesc    = prometheus.NewDesc("oneprom_replica_requests_in_flight", "Requests to a replica that are running.", replica.LabelNames, nil)
	waitingDesc = prometheus.NewDesc("oneprom_replica_requests_waiting", "Requests to a replica that wait for a slot.", replica.LabelNames, nil)
	limitDesc   = prometheus.NewDesc("oneprom_replica_requests_limit", "Limit of running requests to a replica: max_concurrency, or less after it has refused requests because of load.", replica.LabelNames, nil)
	regionDesc  = prometheus.NewDesc("oneprom_region_available", "Whether each group of a region has a replica whose circuit breaker is not open: 1, else 0.", []string{"region"}, nil)
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
