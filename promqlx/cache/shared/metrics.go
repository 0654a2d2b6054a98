package shared

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/sony/gobreaker/v2"
)

// Metrics are those of stores. They are made once, and outlive a store that another replaces.
type Metrics struct {
	operations, bytes *prometheus.CounterVec
	seconds           *prometheus.HistogramVec
	servers           *prometheus.GaugeVec
	queued            prometheus.Gauge
}

// NewMetrics returns metrics that are registered with reg; nil registers none.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	auto := promauto.With(reg)
	m := &Metrics{
		operations: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "oneprom_cache_store_operations_total",
			Help: "Values that the shared cache was asked for (get: hit, miss, broken) or was to keep (set: stored, dropped, for want of room in the queue). Either: error, canceled, refused (the circuit breaker is open).",
		}, []string{"operation", "result"}),
		bytes: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "oneprom_cache_store_bytes_total",
			Help: "Bytes of values that came from the shared cache (get) and were written to it (set).",
		}, []string{"operation"}),
		seconds: auto.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "oneprom_cache_store_duration_seconds",
			Help:    "How long an operation of one server of the shared cache took, for all values together.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1},
		}, []string{"operation"}),
		servers: auto.NewGaugeVec(prometheus.GaugeOpts{
			Name: "oneprom_cache_store_servers",
			Help: "Servers of the shared cache by the state of their circuit breakers: closed (they are asked), half-open, open (they have failed, and are left alone).",
		}, []string{"state"}),
		queued: auto.NewGauge(prometheus.GaugeOpts{
			Name: "oneprom_cache_store_queued_bytes",
			Help: "Bytes that wait to be written to the shared cache.",
		}),
	}
	for _, state := range []gobreaker.State{gobreaker.StateClosed, gobreaker.StateHalfOpen, gobreaker.StateOpen} {
		m.servers.WithLabelValues(state.String())
	}
	return m
}

func (m *Metrics) count(operation, result string, n int) {
	if n > 0 {
		m.operations.WithLabelValues(operation, result).Add(float64(n))
	}
}

// resultOf is what became of an operation with this error.
func resultOf(err error, none string) string {
	switch {
	case err == nil:
		return none
	case errors.Is(err, gobreaker.ErrOpenState), errors.Is(err, gobreaker.ErrTooManyRequests):
		return "refused"
	case errors.Is(err, errGivenUp):
		return "canceled"
	}
	return "error"
}
