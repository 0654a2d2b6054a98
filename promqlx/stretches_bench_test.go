package promqlx

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/config"
)

// BenchmarkStretches is what an archive costs: "x" is how many times as much processor time six hours take
// as without it, of oneprom and all servers together. By its time_range, it has the samples of the first
// steps; by copies_of, it has copies of all.
func BenchmarkStretches(b *testing.B) {
	var refuse atomic.Bool
	region := map[string]string{"region": "eu"}
	pair := groupAt("eu", region, newDay(b, &refuse)...)
	store := newStoreOf(b, dayOf(b, 0, labels.FromMap(region)))
	old := groupAt("archive", nil, store)
	old.TimeRange = age("6h", "")
	engine := func(cfgs ...config.Group) *Engine {
		e, now := clockedEngine(b, cfgs...)
		now.Store(25 * 3600_000)
		return e
	}
	alone := engine(pair)
	for by, beside := range map[string]*Engine{"time_range": engine(pair, old), "copies_of": engine(pair, copying(store, "eu"))} {
		for name, text := range map[string]string{
			"rate": `sum by (instance) (rate(x_total[5m]))`,
			"topk": `topk(5, rate(x_total[5m]))`,
			"raw":  `x_total`,
		} {
			b.Run(by+"/"+name, func(b *testing.B) {
				run := func(e *Engine) time.Duration {
					began := processorTime(b)
					res, said := executed(b, e, text, times{time.UnixMilli(19 * 3600_000), time.UnixMilli(25 * 3600_000), 30 * time.Second})
					require.NoError(b, res.Err)
					require.Empty(b, said)
					return processorTime(b) - began
				}
				run(alone)
				run(beside)
				var one, two time.Duration
				for b.Loop() {
					one += run(alone)
					two += run(beside)
				}
				b.ReportMetric(float64(two)/float64(one), "x")
			})
		}
	}
}
