package e2e

import (
	"context"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/api"
	v1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"
)

// Programs that use the official Go client: exporters of SLOs, testers, promtool.

// goClient is a client of the API at baseURL.
func goClient(t *testing.T, baseURL string) v1.API {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	client, err := api.NewClient(api.Config{Address: baseURL, RoundTripper: transport})
	require.NoError(t, err)
	return v1.NewAPI(client)
}

// goClients are a client of oneprom and one of the Prometheus behind it.
func goClients(t *testing.T, flags ...string) (through, direct v1.API) {
	t.Helper()
	ref := reference(t)
	base := oneprom(t, oneBackend([]string{hostPort(t, ref)}, "replica_labels: [replica]"), flags...)
	return goClient(t, base), goClient(t, ref)
}

func TestGoClientQueries(t *testing.T) {
	shows(t, byGoClient, 1, 2, 21)
	through, direct := goClients(t)
	ctx := t.Context()
	r := v1.Range{Start: secs(0), End: secs(1800), Step: 30 * time.Second}
	for _, query := range []string{"m", "sum by (job) (m)", "rate(reqs_total[2m])", "gaps", "nh", "histogram_sum(nh)", "1e300", "nope", `{"utf8.metric"}`} {
		want, wantWarnings, err := direct.QueryRange(ctx, query, r)
		require.NoError(t, err, query)
		got, warnings, err := through.QueryRange(ctx, query, r)
		require.NoError(t, err, query)
		require.Equal(t, want, got, query)
		require.ElementsMatch(t, wantWarnings, warnings, query)

		want, _, err = direct.Query(ctx, query, secs(600))
		require.NoError(t, err, query)
		got, _, err = through.Query(ctx, query, secs(600))
		require.NoError(t, err, query)
		require.Equal(t, sortedValue(want), sortedValue(got), query)
	}
}

// sortedValue gives an instant vector an order.
func sortedValue(v model.Value) model.Value {
	if vector, ok := v.(model.Vector); ok {
		slices.SortFunc(vector, func(a, b *model.Sample) int { return strings.Compare(a.Metric.String(), b.Metric.String()) })
	}
	return v
}

func TestGoClientOptionsAndErrors(t *testing.T) {
	shows(t, byGoClient, 1, 3, 21)
	through, _ := goClients(t)
	ctx := t.Context()
	value, warnings, err := through.Query(ctx, "m", secs(600), v1.WithLimit(1), v1.WithTimeout(time.Minute), v1.WithLookbackDelta(time.Minute), v1.WithStats(v1.AllStatsValue))
	require.NoError(t, err)
	require.Len(t, value, 1)
	require.Equal(t, v1.Warnings{"results truncated due to limit"}, warnings)

	var apiError *v1.Error
	_, _, err = through.Query(ctx, "sum(", secs(600))
	require.ErrorAs(t, err, &apiError)
	require.Equal(t, v1.ErrBadData, apiError.Type)
	require.Equal(t, `invalid parameter "query": 1:5: parse error: unclosed left parenthesis`, apiError.Msg)
	_, _, err = through.Query(ctx, "m + on(job) m", secs(600))
	require.ErrorAs(t, err, &apiError)
	require.Equal(t, v1.ErrExec, apiError.Type)
	_, err = through.Snapshot(ctx, false)
	require.Error(t, err)
}

func TestGoClientLabelsSeriesAndMetadata(t *testing.T) {
	shows(t, byGoClient, 5, 6, 7, 8, 21)
	through, direct := goClients(t)
	ctx, from, to := t.Context(), secs(0), secs(3600)
	for _, matches := range [][]string{nil, {"m"}, {"m", `{"utf8.metric"}`}, {`{job=~"a|b"}`}, {"nope"}} {
		want, _, err := direct.LabelNames(ctx, matches, from, to)
		require.NoError(t, err)
		got, _, err := through.LabelNames(ctx, matches, from, to)
		require.NoError(t, err)
		require.Equal(t, want, got, matches)
		for _, label := range []string{"job", "lab el", "__name__"} {
			want, _, err := direct.LabelValues(ctx, label, matches, from, to)
			require.NoError(t, err)
			got, _, err := through.LabelValues(ctx, label, matches, from, to)
			require.NoError(t, err)
			require.Equal(t, want, got, matches)
		}
		if matches != nil {
			want, _, err := direct.Series(ctx, matches, from, to)
			require.NoError(t, err)
			got, _, err := through.Series(ctx, matches, from, to)
			require.NoError(t, err)
			require.ElementsMatch(t, want, got, matches)
		}
	}
	metadata, err := through.Metadata(ctx, "", "")
	require.NoError(t, err)
	require.Equal(t, map[string][]v1.Metadata{"reqs_total": {{Type: "counter", Help: "Requests."}}, "up": {{Type: "gauge"}}}, metadata)
	exemplars, err := through.QueryExemplars(ctx, "ex_total", from, to)
	require.NoError(t, err)
	require.Len(t, exemplars, 2)
	require.Equal(t, model.LabelSet{"trace_id": "a"}, exemplars[0].Exemplars[0].Labels)
	formatted, err := through.FormatQuery(ctx, "sum(m)by(job)")
	require.NoError(t, err)
	require.Equal(t, `"sum by (job) (m)"`, formatted) // the client leaves the quotes
}

func TestGoClientStatus(t *testing.T) {
	shows(t, byGoClient, 9, 12)
	through, _ := goClients(t)
	ctx := t.Context()
	build, err := through.Buildinfo(ctx)
	require.NoError(t, err)
	require.Regexp(t, `^3\.\d+\.\d+`, build.Version)
	info, err := through.Runtimeinfo(ctx)
	require.NoError(t, err)
	require.False(t, info.StartTime.IsZero())
	require.Positive(t, info.GoroutineCount)
	_, err = through.Flags(ctx)
	require.NoError(t, err)
	config, err := through.Config(ctx)
	require.NoError(t, err)
	require.NotEmpty(t, config.YAML)
	_, err = through.TSDB(ctx)
	require.NoError(t, err)
	_, err = through.TSDBBlocks(ctx)
	require.NoError(t, err)
	_, err = through.WalReplay(ctx)
	require.NoError(t, err)
	targets, err := through.Targets(ctx)
	require.NoError(t, err)
	require.NotNil(t, targets.Active)
	require.NotNil(t, targets.Dropped)
	_, err = through.TargetsMetadata(ctx, "", "", "")
	require.NoError(t, err)
	_, err = through.AlertManagers(ctx)
	require.NoError(t, err)
}

func TestGoClientRulesAndAlerts(t *testing.T) {
	shows(t, byGoClient, 10)
	through, direct := goClients(t)
	want, err := direct.Rules(t.Context(), nil)
	require.NoError(t, err)
	require.Len(t, want.Groups, 2)
	rules, err := through.Rules(t.Context(), nil)
	require.NoError(t, err)
	require.Equal(t, want, rules)
	wantAlerts, err := direct.Alerts(t.Context())
	require.NoError(t, err)
	require.NotEmpty(t, wantAlerts.Alerts)
	alerts, err := through.Alerts(t.Context())
	require.NoError(t, err)
	require.Equal(t, wantAlerts, alerts)
}

func TestGoClientUnderAPrefix(t *testing.T) {
	shows(t, byGoClient, 20)
	through, _ := goClients(t, "--web.route-prefix=/prom", "--web.external-url=http://x/prom/")
	value, _, err := through.Query(t.Context(), "1+1", secs(4))
	require.NoError(t, err)
	require.Equal(t, &model.Scalar{Value: 2, Timestamp: 4000}, value)
}

// Another Prometheus, or a Thanos sidecar, reads samples with remote read.
// External labels do not count: one of both may have none.
func TestPrometheusReadsThroughOneprom(t *testing.T) {
	shows(t, byPrometheus, 14)
	ref := reference(t)
	base := oneprom(t, oneBackend([]string{hostPort(t, ref)}, "replica_labels: [replica]"))
	for way, front := range map[string]func(*testing.T, string) string{
		"streamed": func(_ *testing.T, url string) string { return url },
		"samples":  onlySamples,
	} {
		t.Run(way, func(t *testing.T) {
			for _, metric := range []string{"m", "gaps", "utf8.metric", "nope"} {
				want := readSeries(t, front(t, ref), metric)
				require.Equal(t, want, readSeries(t, front(t, base), metric), metric)
				require.Equal(t, metric == "nope", want == "")
			}
		})
	}
}

func readSeries(t *testing.T, baseURL, metric string) string {
	t.Helper()
	querier, err := remoteRead(t, hostPort(t, baseURL), model.Duration(time.Minute)).Querier(0, math.MaxInt32)
	require.NoError(t, err)
	set := querier.Select(context.WithoutCancel(t.Context()), true, nil, labels.MustNewMatcher(labels.MatchEqual, labels.MetricName, metric))
	text, err := printSeries(set)
	require.NoError(t, err)
	return strings.NewReplacer(`, replica="r0"`, "").Replace(text)
}
