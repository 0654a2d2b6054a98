package proxy

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	versioncollector "github.com/prometheus/client_golang/prometheus/collectors/version"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/oneprom/oneprom/proxy/tracing"
)

// metrics are those of the daemon itself. They live in a registry of their own,
// so that several servers fit into one process.
type metrics struct {
	reloadOK   prometheus.Gauge
	reloadTime prometheus.Gauge

	requests  *prometheus.CounterVec
	durations *prometheus.HistogramVec
	panics    prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *metrics {
	r.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		versioncollector.NewCollector("oneprom"),
	)
	f := promauto.With(r)
	return &metrics{
		reloadOK: f.NewGauge(prometheus.GaugeOpts{
			Name: "oneprom_config_last_reload_successful",
			Help: "Whether the last attempt to load the configuration succeeded.",
		}),
		reloadTime: f.NewGauge(prometheus.GaugeOpts{
			Name: "oneprom_config_last_reload_success_timestamp_seconds",
			Help: "When the configuration was last loaded with success.",
		}),
		requests: f.NewCounterVec(prometheus.CounterOpts{
			Name: "oneprom_http_requests_total",
			Help: "HTTP requests by route and status code.",
		}, []string{"handler", "code"}),
		durations: f.NewHistogramVec(prometheus.HistogramOpts{
			Name:                            "oneprom_http_request_duration_seconds",
			Help:                            "How long HTTP requests took, by route.",
			Buckets:                         []float64{.01, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120},
			NativeHistogramBucketFactor:     1.1,
			NativeHistogramMaxBucketNumber:  100,
			NativeHistogramMinResetDuration: time.Hour,
		}, []string{"handler"}),
		panics: f.NewCounter(prometheus.CounterOpts{
			Name: "oneprom_http_panics_total",
			Help: "Requests, and evaluations of rules, that panicked.",
		}),
	}
}

// instrument counts and times the requests of a route, and names their spans after it.
func (m *metrics) instrument(route string, h http.HandlerFunc) http.HandlerFunc {
	l := prometheus.Labels{"handler": route}
	return promhttp.InstrumentHandlerCounter(m.requests.MustCurryWith(l),
		promhttp.InstrumentHandlerDuration(m.durations.MustCurryWith(l), tracing.NameSpan(route, h)))
}
