package routes

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/oneprom/oneprom/proxy/tracing"
)

// Metrics are those of requests.
type Metrics struct {
	requests  *prometheus.CounterVec
	durations *prometheus.HistogramVec
	// Panics counts requests that panicked, and evaluations of rules.
	Panics prometheus.Counter
}

// NewMetrics registers them.
func NewMetrics(r prometheus.Registerer) *Metrics {
	f := promauto.With(r)
	return &Metrics{
		requests: f.NewCounterVec(prometheus.CounterOpts{
			Name: "oneprom_http_requests_total",
			Help: "HTTP requests by route and status code.",
		}, []string{"handler", "code"}),
		durations: f.NewHistogramVec(prometheus.HistogramOpts{
			Name:                            "oneprom_http_request_duration_seconds",
			Help:                            "Duration of HTTP requests, by route.",
			Buckets:                         []float64{.01, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120},
			NativeHistogramBucketFactor:     1.1,
			NativeHistogramMaxBucketNumber:  100,
			NativeHistogramMinResetDuration: time.Hour,
		}, []string{"handler"}),
		Panics: f.NewCounter(prometheus.CounterOpts{
			Name: "oneprom_http_panics_total",
			Help: "Requests, and evaluations of rules, that panicked.",
		}),
	}
}

// instrument counts and times the requests of a route, and names their spans after it.
func (m *Metrics) instrument(route string, h http.HandlerFunc) http.HandlerFunc {
	l := prometheus.Labels{"handler": route}
	return promhttp.InstrumentHandlerCounter(m.requests.MustCurryWith(l),
		promhttp.InstrumentHandlerDuration(m.durations.MustCurryWith(l), tracing.NameSpan(route, h)))
}
