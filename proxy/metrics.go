package proxy

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	versioncollector "github.com/prometheus/client_golang/prometheus/collectors/version"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are those of the daemon itself. They live in a registry of their own,
// so that several servers fit into one process.
type metrics struct {
	reloadOK   prometheus.Gauge
	reloadTime prometheus.Gauge
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
			Help: "Time of the last successful load of the configuration.",
		}),
	}
}
