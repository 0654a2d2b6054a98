package promqlx

import (
	"fmt"
	"net/http"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/teststorage"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest"
)

// dayOf returns 500 series of ten targets over 26 hours, scraped from a time (ms) on. lset are more labels.
func dayOf(b *testing.B, from int64, lset labels.Labels) *teststorage.TestStorage {
	b.Helper()
	db := teststorage.New(b)
	for t := from; t < 26*3600_000; t += 15_000 {
		app := db.Appender(b.Context())
		for i := range 500 {
			target := labels.NewBuilder(lset).Set("instance", fmt.Sprintf("t%d", i/50)).Set("job", "j")
			if i%50 == 0 {
				_, err := app.Append(0, target.Set("__name__", "up").Labels(), t, 1)
				require.NoError(b, err)
			}
			_, err := app.Append(0, target.Set("__name__", "x_total").Set("path", strconv.Itoa(i)).Labels(), t, float64(t/1000*int64(i%7)))
			require.NoError(b, err)
		}
		require.NoError(b, app.Commit())
	}
	return db
}

// newDay returns a pair of replicas of a day. While refuse is set, they do not count series.
func newDay(b *testing.B, refuse *atomic.Bool) []*store {
	b.Helper()
	stores := make([]*store, 2)
	for r := range stores {
		db := dayOf(b, 7000*int64(r), labels.EmptyLabels())
		s := newStoreOf(b, db)
		s.everywhere(func(w http.ResponseWriter, r *http.Request) {
			if refuse.Load() && backendtest.CountsSeries(r) {
				http.Error(w, "no", http.StatusNotFound)
				return
			}
			s.own.ServeHTTP(w, r)
		})
		stores[r] = s
	}
	return stores
}

// BenchmarkCounts is what counting costs a query over a selector that was never asked for: "x" is how
// many times as long it takes as where the replicas refuse to count. oneprom and both replicas share
// the processors of this process, so that it takes less where they are apart.
func BenchmarkCounts(b *testing.B) {
	var refuse atomic.Bool
	e, now := clockedEngine(b, groupAt("g", nil, newDay(b, &refuse)...))
	now.Store(25 * 3600_000)
	never := 0
	for _, c := range []struct {
		name    string
		minutes int64
		step    time.Duration
	}{{"instant", 0, 0}, {"1h", 60, 15 * time.Second}, {"6h", 360, time.Minute}, {"24h", 1440, 2 * time.Minute}} {
		for name, text := range map[string]string{
			"rate": `sum(rate(x_total{never!="%d"}[5m]))`,
			"sum":  `sum by (instance) (x_total{never!="%d"})`,
		} {
			b.Run(c.name+"/"+name, func(b *testing.B) {
				run := func(refused bool) time.Duration {
					refuse.Store(refused)
					never++
					began := time.Now()
					res, said := executed(b, e, fmt.Sprintf(text, never), times{time.UnixMilli(now.Load() - c.minutes*60_000), time.UnixMilli(now.Load()), c.step})
					took := time.Since(began)
					require.NoError(b, res.Err)
					if !refused {
						require.Empty(b, said)
					}
					return took
				}
				run(true) // probes, and compares the scrapes
				var counted, refused time.Duration
				for b.Loop() {
					counted += run(false)
					refused += run(true)
				}
				b.ReportMetric(float64(counted)/float64(refused), "x")
			})
		}
	}
}
