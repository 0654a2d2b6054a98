package servergroup

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/oneprom/oneprom/servergroup/health"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// metrics are those of requests to replicas. Their labels are what the configuration
// and discovery name: the series of a replica go when it does.
type metrics struct {
	attempts    *prometheus.CounterVec
	seconds     *prometheus.HistogramVec
	bytes       *prometheus.CounterVec
	samples     *prometheus.CounterVec
	extras      *prometheus.CounterVec
	transitions *prometheus.CounterVec
	overBudget  prometheus.Counter
	partial     *prometheus.CounterVec
}

var replicaLabels = []string{"group", "region", "replica"}

func newMetrics(reg prometheus.Registerer, s *Set) *metrics {
	auto := promauto.With(reg)
	with := func(names ...string) []string { return append(names, replicaLabels...) }
	reg.MustRegister(&healthCollector{set: s})
	return &metrics{
		attempts: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "oneprom_replica_attempts_total",
			Help: "Attempts to have a replica answer, by how they ended: success, open (its circuit breaker was), or a class of errors.",
		}, with("outcome")),
		seconds: auto.NewHistogramVec(prometheus.HistogramOpts{
			Name:                            "oneprom_replica_attempt_duration_seconds",
			Help:                            "How long attempts took that a replica answered, with reading the answer.",
			NativeHistogramBucketFactor:     1.1,
			NativeHistogramMaxBucketNumber:  100,
			NativeHistogramMinResetDuration: time.Hour,
		}, replicaLabels),
		bytes: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "oneprom_replica_fetched_bytes_total",
			Help: "Bytes of replicas' answers that were held for queries, by how they were fetched.",
		}, with("transport")),
		samples: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "oneprom_replica_fetched_samples_total",
			Help: "Samples in replicas' answers to queries, those between their steps included where whole chunks are fetched, by how they were fetched.",
		}, with("transport")),
		extras: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "oneprom_replica_extra_attempts_total",
			Help: "Attempts at a replica because another one was late (hedge) or had failed (retry).",
		}, with("reason")),
		transitions: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "oneprom_replica_breaker_transitions_total",
			Help: "Changes of the state of a replica's circuit breaker.",
		}, with("to")),
		partial: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "oneprom_partial_answers_total",
			Help: "Answers that lacked data of a group.",
		}, []string{"group", "region"}),
		overBudget: auto.NewCounter(prometheus.CounterOpts{
			Name: "oneprom_queries_over_budget_total",
			Help: "Queries that failed as they needed more bytes than --query.max-fetched-bytes.",
		}),
	}
}

// labelsOf are the values of replicaLabels.
func labelsOf(r *replica, more ...string) []string {
	return append(more, r.group.Name, r.group.Region, r.url())
}

func (m *metrics) attempted(r *replica, err error, took time.Duration) {
	var open *health.OpenError
	outcome := "success"
	switch {
	case errors.As(err, &open):
		outcome = "open"
	case err != nil:
		if outcome = string(transport.ClassOf(err)); outcome == "" {
			outcome = "other"
		}
	}
	m.attempts.WithLabelValues(labelsOf(r, outcome)...).Inc()
	if err == nil {
		m.seconds.WithLabelValues(labelsOf(r)...).Observe(took.Seconds())
	}
}

func (m *metrics) fetched(r *replica, by transport.Method) prometheus.Counter {
	return m.bytes.WithLabelValues(labelsOf(r, string(by))...)
}

func (m *metrics) read(r *replica, by transport.Method, list []transport.Series) {
	samples := 0
	for _, s := range list {
		samples += s.Run.Len()
	}
	m.samples.WithLabelValues(labelsOf(r, string(by))...).Add(float64(samples))
}

func (m *metrics) extra(r *replica, reason string) {
	m.extras.WithLabelValues(labelsOf(r, reason)...).Inc()
}

// forget drops the series of a replica.
func (m *metrics) forget(of prometheus.Labels) {
	for _, vec := range []interface {
		DeletePartialMatch(prometheus.Labels) int
	}{m.attempts, m.seconds, m.bytes, m.samples, m.extras, m.transitions} {
		vec.DeletePartialMatch(of)
	}
}

// forgetGroup drops the series of a group.
func (m *metrics) forgetGroup(name string) {
	m.partial.DeletePartialMatch(prometheus.Labels{"group": name})
}

// healthCollector shows the present health of the replicas that there are.
type healthCollector struct{ set *Set }

var (
	stateDesc   = prometheus.NewDesc("oneprom_replica_breaker_open", "Whether a replica's circuit breaker is open: 1, half-open: 0.5, closed: 0.", replicaLabels, nil)
	usedDesc    = prometheus.NewDesc("oneprom_replica_requests_in_flight", "Attempts under way at a replica.", replicaLabels, nil)
	waitingDesc = prometheus.NewDesc("oneprom_replica_requests_waiting", "Attempts that wait because as many are under way at a replica as may be.", replicaLabels, nil)
	limitDesc   = prometheus.NewDesc("oneprom_replica_requests_limit", "How many attempts may be under way at a replica: max_concurrency, or fewer after it has refused some for load.", replicaLabels, nil)
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
			slots := r.health.Slots()
			gauge(stateDesc, open[r.health.State()], labelsOf(r)...)
			gauge(usedDesc, float64(slots.InUse()), labelsOf(r)...)
			gauge(waitingDesc, float64(slots.Waiting()), labelsOf(r)...)
			gauge(limitDesc, float64(slots.Limit()), labelsOf(r)...)
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
