package replica

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/oneprom/oneprom/servergroup/health"
	"github.com/oneprom/oneprom/servergroup/pushdown"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// Metrics count the requests to replicas, by group, region and URL. The series of a replica are
// removed with it.
type Metrics struct {
	attempts    *prometheus.CounterVec
	seconds     *prometheus.HistogramVec
	bytes       *prometheus.CounterVec
	samples     *prometheus.CounterVec
	extras      *prometheus.CounterVec
	transitions *prometheus.CounterVec
	// OverBudget counts queries that needed more bytes than one query may hold.
	OverBudget prometheus.Counter
	// Partial counts answers that lacked data of a group, by group and region.
	Partial *prometheus.CounterVec
	// Audits counts audits by outcome, group and region, AuditBytes what they fetched, and
	// AuditFinds the series that they found a replica to lack samples of.
	Audits, AuditBytes, AuditFinds *prometheus.CounterVec
	// Pushdown counts what servers evaluated, and what they could have evaluated.
	Pushdown *pushdown.Metrics
}

// LabelNames are the labels by which a metric names a replica.
var LabelNames = []string{"group", "region", "replica"}

// NewMetrics returns the metrics, registered.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	auto := promauto.With(reg)
	with := func(names ...string) []string { return append(names, LabelNames...) }
	return &Metrics{
		attempts: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "oneprom_replica_attempts_total",
			Help: "Requests sent to replicas, by outcome: success, open (the circuit breaker refused it), or a class of errors.",
		}, with("outcome")),
		seconds: auto.NewHistogramVec(prometheus.HistogramOpts{
			Name:                            "oneprom_replica_attempt_duration_seconds",
			Help:                            "Duration of successful requests to replicas, body included.",
			NativeHistogramBucketFactor:     1.1,
			NativeHistogramMaxBucketNumber:  100,
			NativeHistogramMinResetDuration: time.Hour,
		}, LabelNames),
		bytes: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "oneprom_replica_fetched_bytes_total",
			Help: "Bytes in memory that were made of responses of replicas to queries, by transport.",
		}, with("transport")),
		samples: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "oneprom_replica_fetched_samples_total",
			Help: "Samples in responses of replicas to queries, by transport. Where whole chunks are fetched, samples between the steps are included.",
		}, with("transport")),
		extras: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "oneprom_replica_extra_attempts_total",
			Help: "Requests sent to a replica because another one was late (hedge) or had failed (retry).",
		}, with("reason")),
		transitions: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "oneprom_replica_breaker_transitions_total",
			Help: "State changes of the circuit breakers of replicas, by new state.",
		}, with("to")),
		Partial: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "oneprom_partial_answers_total",
			Help: "Answers that lacked data of a group.",
		}, []string{"group", "region"}),
		Audits: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "oneprom_audits_total",
			Help: "Answers of single replicas that were drawn to be looked at again, by outcome: clean, found, recent (too new to be compared), busy, over_budget, too_large, failed.",
		}, []string{"outcome", "group", "region"}),
		AuditBytes: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "oneprom_audit_fetched_bytes_total",
			Help: "Bytes of responses of replicas to audits.",
		}, []string{"group", "region"}),
		AuditFinds: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "oneprom_audit_finds_total",
			Help: "Series of which an audit has found that a replica that answered alone lacks samples.",
		}, LabelNames),
		OverBudget: auto.NewCounter(prometheus.CounterOpts{
			Name: "oneprom_queries_over_budget_total",
			Help: "Queries that failed because they needed more bytes than --query.max-fetched-bytes.",
		}),
		Pushdown: pushdown.NewMetrics(reg),
	}
}

// LabelValues returns the values of LabelNames for a replica, after others.
func LabelValues(r *Replica, more ...string) []string {
	return append(more, r.group.Name, r.group.Region, r.URL())
}

// attempted counts an attempt, its outcome, and if it succeeded how long it took.
func (m *Metrics) attempted(r *Replica, err error, took time.Duration) {
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
	m.attempts.WithLabelValues(LabelValues(r, outcome)...).Inc()
	if err == nil {
		m.seconds.WithLabelValues(LabelValues(r)...).Observe(took.Seconds())
	}
}

// FetchedBytes returns the counter of the bytes of a replica's responses that are held for
// queries.
func (m *Metrics) FetchedBytes(r *Replica, by transport.Method) prometheus.Counter {
	return m.bytes.WithLabelValues(LabelValues(r, string(by))...)
}

// CountSamples counts the samples of a response of a replica.
func (m *Metrics) CountSamples(r *Replica, by transport.Method, list []transport.Series) {
	samples := 0
	for _, s := range list {
		samples += s.Run.Len()
	}
	m.samples.WithLabelValues(LabelValues(r, string(by))...).Add(float64(samples))
}

// CountExtra counts a request that was sent because another replica was late ("hedge") or had
// failed ("retry").
func (m *Metrics) CountExtra(r *Replica, reason string) {
	m.extras.WithLabelValues(LabelValues(r, reason)...).Inc()
}

// forget removes the series of a replica.
func (m *Metrics) forget(of prometheus.Labels) {
	for _, vec := range []interface {
		DeletePartialMatch(prometheus.Labels) int
	}{m.attempts, m.seconds, m.bytes, m.samples, m.extras, m.transitions, m.AuditFinds} {
		vec.DeletePartialMatch(of)
	}
}

// ForgetGroup removes the series of a group.
func (m *Metrics) ForgetGroup(name string) {
	for _, vec := range []*prometheus.CounterVec{m.Partial, m.Audits, m.AuditBytes} {
		vec.DeletePartialMatch(prometheus.Labels{"group": name})
	}
	m.Pushdown.ForgetGroup(name)
}
