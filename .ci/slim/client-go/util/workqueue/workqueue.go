// Package workqueue stands for that of the client of Kubernetes in the build of the demo.
package workqueue

// The kinds of metrics of queues, of which there are none.
type (
	GaugeMetric interface {
		Inc()
		Dec()
	}
	SettableGaugeMetric interface{ Set(float64) }
	CounterMetric       interface{ Inc() }
	HistogramMetric     interface{ Observe(float64) }
)

// MetricsProvider makes them.
type MetricsProvider interface {
	NewDepthMetric(name string) GaugeMetric
}

// SetProvider does nothing.
func SetProvider(MetricsProvider) {}
