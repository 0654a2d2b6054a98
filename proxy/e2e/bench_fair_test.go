//go:build e2e

package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/proxy/e2e/internal/world"
	"github.com/oneprom/oneprom/proxy/e2e/internal/world/exam"
	"github.com/oneprom/oneprom/servergroup/backendtest"
)

// serviceTime is how long the servers of TestBenchFairness take for a request, besides their work.
const serviceTime = 10 * time.Millisecond

// TestBenchFairness has one client ask a query of 1,500 selectors again and again, and prints the times of another client of the same region
// beside those that it has alone: its 99th percentile is not to be more than three times as long. Two replicas have to be merged, so that
// each selector is a request to each. ONEPROM_BENCH=1 makes it that big.
func TestBenchFairness(t *testing.T) {
	selectors, rounds := 150, 20
	if os.Getenv("ONEPROM_BENCH") != "" {
		selectors, rounds = 1500, 500
	}
	data := promqltest.LoadedStorage(t, "load 15s\n"+fairSeries(selectors))
	t.Cleanup(func() { require.NoError(t, data.Close()) })
	answer := backendtest.NewHandler(backendtest.Options{Queryable: data})
	slow := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(serviceTime)
		answer.ServeHTTP(w, r)
	})
	var b strings.Builder
	b.WriteString("server_groups:\n")
	for _, name := range []string{"busy", "other"} {
		fmt.Fprintf(&b, "  - name: %s\n    region: r\n    labels: {from: %s}\n    static_configs: [{targets: ['%s', '%s']}]\n",
			name, name, hostPort(t, serve(t, slow)), hostPort(t, serve(t, slow)))
	}
	config := filepath.Join(t.TempDir(), "oneprom.yml")
	require.NoError(t, os.WriteFile(config, []byte(b.String()), 0o600))
	binary := onepromBinary(t)
	front := world.Run(t, binary, "--config.file="+config, "--query.client-header=X-Client")

	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4}}
	defer client.CloseIdleConnections()
	var asked atomic.Int64
	ask := func(who, text string) time.Duration {
		e := exam.Instant("fair", 10*bm.Milliseconds()+asked.Add(1)) // so that no two share an execution
		return timed(t, client, front.URL, e, exam.Query{Text: text}, map[string]string{"X-Client": who})
	}
	for _, text := range []string{`m{n="1",from="other"}`, `m{n="1",from="busy"}`} {
		ask("small", text) // connections, and what is known of the servers
		took := func() (all []time.Duration) {
			for range rounds {
				all = append(all, ask("small", text))
			}
			return all
		}
		alone := took()

		var heavy []time.Duration
		var running sync.WaitGroup
		stop := make(chan struct{})
		running.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					heavy = append(heavy, ask("big", fairQuery(selectors)))
				}
			}
		})
		time.Sleep(10 * serviceTime) // it has begun; nothing depends on that
		beside := took()
		close(stop)
		running.Wait()
		p99 := func(all []time.Duration) time.Duration {
			slices.Sort(all)
			return all[len(all)*99/100]
		}
		t.Logf("%s: p99 %s alone, %s beside a query of %d selectors that takes %s: ratio %.2f (bar: 3); medians %.1f and %.1f ms",
			text, p99(alone), p99(beside), selectors, heavy[0].Round(time.Millisecond), float64(p99(beside))/float64(p99(alone)), median(alone), median(beside))
	}
}

// fairSeries are series for each of which there is a selector.
func fairSeries(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "  m{n=\"%d\"} 1x60\n", i)
	}
	return b.String()
}

// fairQuery needs a request for each of its selectors.
func fairQuery(n int) string {
	texts := make([]string, n)
	for i := range n {
		texts[i] = fmt.Sprintf(`m{n="%d",from="busy"}`, i)
	}
	return strings.Join(texts, " or ")
}
