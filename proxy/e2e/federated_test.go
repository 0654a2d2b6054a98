//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/teststorage"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/proxy/e2e/internal/world"
	"github.com/oneprom/oneprom/servergroup/backendtest"
)

// TestFederatedThroughAPrometheus has a real Prometheus scrape /federate of a oneprom, and another oneprom in front of that Prometheus: what
// comes through has the labels, timestamps and values of the data at the far end.
func TestFederatedThroughAPrometheus(t *testing.T) {
	shows(t, byPrometheus, 15)
	began := time.Now().Truncate(time.Second)
	value := func(i int, ms int64) float64 { return float64(ms%100_000) + float64(i)/10 }
	store := teststorage.New(t)
	app := store.Appender(t.Context())
	for at := began.Add(-time.Minute); at.Before(began.Add(4 * time.Minute)); at = at.Add(time.Second) { // the last ones lie in the future
		for i := range 3 {
			_, err := app.Append(0, labels.FromStrings("__name__", "foo", "i", strconv.Itoa(i), "instance", "far:80"), at.UnixMilli(), value(i, at.UnixMilli()))
			require.NoError(t, err)
		}
	}
	require.NoError(t, app.Commit())
	lower := oneprom(t, oneBackend([]string{hostPort(t, serve(t, backendtest.NewHandler(backendtest.Options{Queryable: store})))}, "labels: {region: eu}"))

	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, `
scrape_configs:
  - job_name: federate
    metrics_path: /federate
    params: {"match[]": ['{__name__="foo"}']}
    honor_labels: true
    scrape_interval: 2s
    static_configs: [{targets: ['%s']}]
`, hostPort(t, lower)), 0o644))
	p := world.Run(t, world.Binary(t, world.PrometheusPackage), "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"))
	upper := oneprom(t, oneBackend([]string{hostPort(t, p.URL)}))

	got := awaitSamples(t, upper+"/api/v1/query?"+url.Values{"query": {`foo[5m]`}}.Encode(), 3, 3)
	for _, s := range got {
		i, err := strconv.Atoi(s.Metric["i"])
		require.NoError(t, err)
		require.Equal(t, map[string]string{"__name__": "foo", "i": s.Metric["i"], "instance": "far:80", "job": "federate", "region": "eu"}, s.Metric)
		for _, v := range s.Values {
			ms := int64(v[0].(float64)*1000 + 0.5)
			require.Equal(t, strconv.FormatFloat(value(i, ms), 'f', -1, 64), v[1], "at %d", ms)
		}
	}
}

type rangeSeries struct {
	Metric map[string]string
	Values [][2]any
}

// awaitSamples asks until there are so many series with so many samples each, for a minute at most.
func awaitSamples(t *testing.T, ask string, series, samples int) []rangeSeries {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	var a struct {
		Data struct{ Result []rangeSeries }
	}
	require.Eventually(t, func() bool {
		resp, err := client.Get(ask)
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		if json.NewDecoder(resp.Body).Decode(&a) != nil || len(a.Data.Result) < series {
			return false
		}
		for _, s := range a.Data.Result {
			if len(s.Values) < samples {
				return false
			}
		}
		return true
	}, time.Minute, 100*time.Millisecond)
	return a.Data.Result
}
