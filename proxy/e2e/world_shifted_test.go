//go:build e2e

package e2e

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/proxy/e2e/internal/world"
	"github.com/oneprom/oneprom/proxy/e2e/internal/world/exam"
	"github.com/oneprom/oneprom/proxy/verify"
)

// spike is how many times the truth a value has to be before it is taken for the work of a false reset.
const spike = 2

// shiftedQuantities are what is measured in the shifted world. Above, in the table, means more than factor times the truth.
var shiftedQuantities = []struct {
	name    string
	factor  float64
	queries []string
}{
	{"rate[5m]", spike, []string{
		`rate(http_requests_total[5m])`, `rate(process_cpu_seconds_total[5m])`, `rate(node_network_receive_bytes_total[5m])`,
		`rate(http_request_duration_seconds_count[5m])`, `histogram_count(rate(http_latency_seconds[5m]))`,
	}},
	{"rate[1m]", spike, []string{
		`rate(http_requests_total[1m])`, `rate(process_cpu_seconds_total[1m])`, `rate(node_network_receive_bytes_total[1m])`,
		`histogram_count(rate(http_latency_seconds[1m]))`,
	}},
	{"increase[10m]", spike, []string{`increase(http_requests_total[10m])`, `increase(http_request_duration_seconds_sum[10m])`}},
	{"increase[1h]", spike, []string{`increase(http_requests_total[1h])`}},
	{"sum(rate[5m])", spike, []string{`sum(rate(http_requests_total[5m]))`, `sum by (region, code) (rate(http_requests_total[5m]))`}},
	{"irate[1m]", spike, []string{`irate(http_requests_total{code="200"}[1m])`}},
	{"gauge", spike, []string{`process_resident_memory_bytes`, `inflight_requests`}},
	{"avg_over_time[5m]", spike, []string{`avg_over_time(inflight_requests[5m])`, `avg by (region) (avg_over_time(process_resident_memory_bytes[5m]))`}},
	{"quantile", spike, []string{
		`histogram_quantile(0.9, sum by (le, region) (rate(http_request_duration_seconds_bucket[5m])))`,
		`histogram_quantile(0.9, sum by (region) (rate(http_latency_seconds[5m])))`,
	}},
	{"count_over_time[5m]", spike, []string{`count_over_time(up[5m])`}},
	{"up", spike, []string{`up`, `count by (region) (up)`}},
	{"resets[10m]", 1, []string{`resets(http_requests_total[10m])`, `resets(process_cpu_seconds_total[10m])`, `resets(http_latency_seconds[10m])`}},
}

// In the shifted world the answers may differ from the truth by what half a scrape interval makes, and no more: a counter never falls by
// a change of replica, and nothing is missing or invented.
//
// A window of one minute holds four scrapes, and where one of them is half an interval off, rate() may take a series to begin or to end
// there: about every second change of replica makes one such step. How many there are is up to the faults, so that the 99th percentile
// of rate[1m] is only promised for the ordinary day; the stormy one, on which every target loses a scrape each 20 minutes, shows it.
func TestWorldShifted(t *testing.T) {
	for _, day := range []struct {
		name   string
		faults int
	}{{"ordinary", 4}, {"stormy", 16}} {
		t.Run(day.name, func(t *testing.T) {
			w := world.Shifted(day.faults)
			w.Start(t, t.TempDir())
			t.Run("the truth equals itself", func(t *testing.T) {
				for _, d := range measureShifted(t, w, w.Truth.URL) {
					require.Equal(t, d.Points, d.Equal, d.Name)
					require.Zero(t, d.Missing+d.Extra+d.Above, d.Name)
				}
			})
			bothWays(t, w, func(t *testing.T, base string) {
				all := measureShifted(t, w, base)
				t.Log(exam.Deviations(all))
				for _, d := range all {
					requireNear(t, d, day.name == "ordinary")
				}
			})
		})
	}
}

func requireNear(t *testing.T, d *exam.Deviation, ordinary bool) {
	t.Helper()
	require.Greater(t, d.Points, 100, d.Name)
	require.Zero(t, d.Missing, "missing points in %s", d.Name)
	require.Zero(t, d.Extra, "invented points in %s", d.Name)
	require.Zero(t, d.Above, "false resets in %s", d.Name)
	switch d.Name {
	case "rate[5m]":
		require.LessOrEqual(t, d.Quantile(0.99), 0.01, d.Name)
		require.LessOrEqual(t, d.Quantile(0.999), 0.05, d.Name)
	case "rate[1m]":
		if ordinary {
			require.LessOrEqual(t, d.Quantile(0.99), 0.02, d.Name)
		}
	}
}

// measureShifted compares the candidate at base with the truth over nearly all of the history.
func measureShifted(t *testing.T, w *world.World, base string) []*exam.Deviation {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 2}}
	defer client.CloseIdleConnections()
	var out []*exam.Deviation
	for _, quantity := range shiftedQuantities {
		d := &exam.Deviation{Name: quantity.name}
		for _, text := range quantity.queries {
			for _, step := range []time.Duration{15 * time.Second, time.Minute, 7 * time.Minute} {
				e := exam.Range("all", w.At(11*time.Minute), w.End-world.Slot, step)
				form := e.Form(exam.Query{Text: text})
				want, err := verify.Ask(t.Context(), client, w.Truth.URL, e.Path(), form)
				require.NoError(t, err)
				got, err := verify.Ask(t.Context(), client, base, e.Path(), form)
				require.NoError(t, err)
				require.NoError(t, d.Add(want, got, quantity.factor), text)
			}
		}
		out = append(out, d)
	}
	return out
}
