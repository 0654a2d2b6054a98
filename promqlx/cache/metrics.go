package cache

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are those of a cache.
type metrics struct {
	queries, lookups, bypasses, unkept *prometheus.CounterVec
	age                                prometheus.Histogram
}

func newMetrics(store Store, reg prometheus.Registerer) *metrics {
	auto := promauto.With(reg)
	m := &metrics{
		queries: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "oneprom_cache_queries_total",
			Help: "Range queries by what the cache had of their answers: hit (all), partial, miss (nothing), bypass (it was not asked).",
		}, []string{"outcome"}),
		lookups: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "oneprom_cache_lookups_total",
			Help: "Lookups of series, and of names and values of labels, by what the cache had of the hours and days that could be kept: hit (all), partial, miss (nothing), bypass (it was not asked).",
		}, []string{"outcome"}),
		bypasses: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "oneprom_cache_bypasses_total",
			Help: "Range queries that the cache was not asked for, by reason.",
		}, []string{"reason"}),
		unkept: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "oneprom_cache_unkept_total",
			Help: "Range queries whose evaluated steps were not kept, by reason.",
		}, []string{"reason"}),
		age: auto.NewHistogram(prometheus.HistogramOpts{
			Name:                        "oneprom_cache_age_seconds",
			Help:                        "How long ago the oldest part of an answer was evaluated, of the answers that are made of kept ones.",
			NativeHistogramBucketFactor: 1.1,
			Buckets:                     []float64{1, 10, 60, 300, 1800, 3600, 6 * 3600, 24 * 3600},
		}),
	}
	if tiered, ok := store.(*Tiered); ok {
		store = tiered.Memory
	}
	if memory, ok := store.(*Memory); ok {
		memory.register(auto)
	}
	return m
}

// register registers the metrics of the store.
func (m *Memory) register(auto promauto.Factory) {
	auto.NewGaugeFunc(prometheus.GaugeOpts{Name: "oneprom_cache_memory_bytes", Help: "Bytes that the cache keeps in memory."}, func() float64 { return float64(m.Bytes()) })
	auto.NewGaugeFunc(prometheus.GaugeOpts{Name: "oneprom_cache_memory_limit_bytes", Help: "Bytes that the cache keeps in memory at most (--cache.size)."}, func() float64 { return float64(m.limit) })
	auto.NewGaugeFunc(prometheus.GaugeOpts{Name: "oneprom_cache_memory_values", Help: "Values that the cache keeps in memory."}, func() float64 { return float64(m.Len()) })
	auto.NewCounterFunc(prometheus.CounterOpts{Name: "oneprom_cache_memory_evictions_total", Help: "Values that the cache dropped from memory to make room for others."}, func() float64 { return float64(m.evicted.Load()) })
}

// Count counts what was found of an answer.
func (c *Cache) Count(f *Found, o Outcome) {
	c.metrics.queries.WithLabelValues(string(o)).Inc()
	if oldest, _ := f.Made(); oldest != 0 {
		c.metrics.age.Observe(float64(f.Now-oldest) / 1000)
	}
}

// Bypassed counts a query that the cache is not asked for. There are few reasons.
func (c *Cache) Bypassed(reason string) {
	c.metrics.queries.WithLabelValues("bypass").Inc()
	c.metrics.bypasses.WithLabelValues(reason).Inc()
}

// Unkept counts a query whose evaluated steps are not kept. There are few reasons.
func (c *Cache) Unkept(reason string) { c.metrics.unkept.WithLabelValues(reason).Inc() }
