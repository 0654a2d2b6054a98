package admission

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are those of a queue. None has a client's name.
type metrics struct {
	wait    prometheus.Histogram
	refused *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer, q *Queue) *metrics {
	f := promauto.With(r)
	gauge := func(name, help string, read func() int) {
		f.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
			q.mtx.Lock()
			defer q.mtx.Unlock()
			return float64(read())
		})
	}
	gauge("oneprom_admission_slots", "How many requests are worked on at once, at most.", func() int { return q.all.slots })
	gauge("oneprom_admission_slots_in_use", "How many requests are worked on.", func() int { return q.all.used })
	gauge("oneprom_admission_queued_max", "How many requests may wait for a slot.", func() int { return q.maxQueued })
	gauge("oneprom_admission_queued", "How many requests wait for a slot.", func() int { return q.queued })
	return &metrics{
		wait: f.NewHistogram(prometheus.HistogramOpts{
			Name:                            "oneprom_admission_wait_seconds",
			Help:                            "Time spent waiting for a slot, admitted or refused.",
			Buckets:                         []float64{.001, .01, .1, .5, 1, 2.5, 5, 10, 30, 60},
			NativeHistogramBucketFactor:     1.1,
			NativeHistogramMaxBucketNumber:  100,
			NativeHistogramMinResetDuration: time.Hour,
		}),
		refused: f.NewCounterVec(prometheus.CounterOpts{
			Name: "oneprom_admission_refused_total",
			Help: "Requests that got no slot, by reason (queue_full, queue_timeout, query_timeout: their own time was up) and by whose slots were missing (all, client, read, rule).",
		}, []string{"reason", "slots"}),
	}
}
