//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/proxy/e2e/internal/world"
)

// shapeConfig is of a Prometheus with something of everything: targets that are up, down and
// dropped, rules of both types, Alertmanagers that are used and dropped.
const shapeConfig = `
global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}
rule_files: [rules.yml]
alerting:
  alertmanagers:
    - static_configs: [{targets: ['127.0.0.1:1', 'dropped:1']}]
      relabel_configs: [{source_labels: [__address__], regex: 'dropped.*', action: drop}]
scrape_configs:
  - job_name: app
    static_configs: [{targets: ['%s', '127.0.0.1:1', 'dropped:1']}]
    relabel_configs: [{source_labels: [__address__], regex: 'dropped.*', action: drop}]
`

const shapeRules = `
groups:
  - {name: records, rules: [{record: 'job:up:sum', expr: sum by (job) (up), labels: {team: a}}, {record: broken, expr: 'label_replace(up, "a", "b", "job", "(")'}]}
  - name: alerts
    rules:
      - {alert: Up, expr: up == 1, keep_firing_for: 1m, labels: {severity: page}, annotations: {summary: '{{ $labels.instance }}'}}
      - {alert: Down, expr: up == 0, for: 1h}
      - {alert: Never, expr: up == 2}
`

// shapeMetrics are what the target shows: a counter with an exemplar, and with a unit.
const shapeMetrics = `# TYPE app_work_seconds counter
# UNIT app_work_seconds seconds
# HELP app_work_seconds Work.
app_work_seconds_total{path="/"} 5 # {trace_id="a"} 0.5
# EOF
`

// startShaped starts a real Prometheus with shapeConfig and a block, and waits until it has
// scraped and evaluated.
func startShaped(t *testing.T, client *http.Client) *world.Process {
	t.Helper()
	target := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/openmetrics-text; version=1.0.0; charset=utf-8")
		_, _ = w.Write([]byte(shapeMetrics))
	}))
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "prometheus.yml"), fmt.Appendf(nil, shapeConfig, hostPort(t, target)), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "rules.yml"), []byte(shapeRules), 0o644))
	old := storage.NewListSeries(labels.FromStrings("__name__", "old", "job", "app"), []chunks.Sample{shapeSample{time.Now().Add(-6 * time.Hour).UnixMilli(), 1}})
	_, err := tsdb.CreateBlock([]storage.Series{old}, filepath.Join(dir, "data"), 0, promslog.NewNopLogger())
	require.NoError(t, err)
	p := world.Run(t, world.Binary(t, world.PrometheusPackage), "--config.file="+filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--enable-feature=exemplar-storage,search-api", "--log.level=error")
	c := contractPair{client: client}
	require.Eventually(t, func() bool {
		var rules struct {
			Data struct {
				Groups []struct {
					Rules []struct{ State, Health string }
				}
			}
		}
		body := c.ask(t, p.URL, probe{path: "/api/v1/rules"}).body
		require.NoError(t, json.Unmarshal([]byte(body), &rules), body)
		return strings.Count(body, `"state":"firing"`) == 2 && strings.Count(body, `"state":"pending"`) == 2 && strings.Contains(body, `"health":"err"`) &&
			!strings.Contains(body, `"unknown"`) && strings.Contains(c.ask(t, p.URL, probe{path: "/api/v1/query_exemplars?start=0&end=99999999999&query=app_work_seconds_total"}).body, "trace_id")
	}, time.Minute, 100*time.Millisecond)
	return p
}

// TestShapes compares oneprom over a real Prometheus with that one.
func TestShapes(t *testing.T) {
	shows(t, byHTTP, 9, 10, 12)
	shows(t, byHTTP, 10, 12)
	client := &http.Client{Transport: &http.Transport{DisableCompression: true}}
	t.Cleanup(client.CloseIdleConnections)
	p := startShaped(t, client)
	u, err := url.Parse(p.URL)
	require.NoError(t, err)
	c := contractPair{client: client, direct: p.URL, oneprom: oneprom(t, oneBackend([]string{u.Host}), "--enable-feature=search-api")}
	for path, something := range map[string]string{
		"targets": `"droppedTargets":[{"`, "targets/metadata": `"unit":"seconds"`, "targets/relabel_steps?scrapePool=app&labels={}": `"keep":`, "alertmanagers": `"droppedAlertmanagers":[{"`,
		"alerts": `"activeAt":"`, "rules": `"lastError":"`, "status/tsdb": `"memoryInBytesByLabelName":[{"`, "status/tsdb/blocks": `"ulid":"`, "features": `"scrape":{"`,
		"scrape_pools/config?scrapePool=app": `"yaml":"`, "search/metric_names?search[]=app": `"name":"app_work_seconds_total"`,
	} {
		for _, base := range []string{c.direct, c.oneprom} {
			require.Contains(t, c.ask(t, base, probe{path: "/api/v1/" + path}).body, something, "%s/api/v1/%s", base, path)
		}
	}
	now := time.Now().Unix()
	c.requireShapes(t, shapeProbes("app_work_seconds_total", "app", now-60, now))
	c.requireShapes(t, []probe{
		{name: "a metric of its own", path: "/api/v1/status/self_metrics?metric_name_pattern=go_goroutines"},
		{name: "search with metadata of nothing", path: "/api/v1/search/metric_names?include_metadata=true&search[]=nope"},
	})
}

// shapeSample is a chunks.Sample of a float.
type shapeSample struct {
	t int64
	f float64
}

func (s shapeSample) T() int64                      { return s.t }
func (s shapeSample) ST() int64                     { return 0 }
func (s shapeSample) F() float64                    { return s.f }
func (s shapeSample) H() *histogram.Histogram       { return nil }
func (s shapeSample) FH() *histogram.FloatHistogram { return nil }
func (s shapeSample) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (s shapeSample) Copy() chunks.Sample           { return s }
