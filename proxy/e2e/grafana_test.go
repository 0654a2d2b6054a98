package e2e

import (
	"fmt"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/proxy/e2e/internal/grafana"
)

// dataSource points Grafana at a oneprom in front of one healthy Prometheus.
// The other result is that Prometheus itself.
func dataSource(t *testing.T, method string) (through, direct *grafana.DataSource) {
	t.Helper()
	ref := reference(t)
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	base := oneprom(t, oneBackend([]string{hostPort(t, ref)}, "replica_labels: [replica]"))
	through = &grafana.DataSource{URL: base, Method: method, Client: client}
	direct = &grafana.DataSource{URL: ref, Method: method, Client: client}
	return through, direct
}

// secs is the time t seconds after the epoch, where the history lives.
func secs(t float64) time.Time { return time.UnixMilli(int64(t * 1000)).UTC() }

func TestGrafanaOpensTheDataSource(t *testing.T) {
	shows(t, byGrafana, 1, 7, 8, 9, 21)
	for _, method := range []string{http.MethodPost, http.MethodGet} {
		t.Run(method, func(t *testing.T) {
			ds, _ := dataSource(t, method)
			h, err := ds.Check(t.Context())
			require.NoError(t, err)
			require.Equal(t, grafana.Health{OK: true, Message: "Successfully queried the Prometheus API.", Application: "Prometheus"}, h)

			s, err := ds.Start(t.Context(), time.Unix(0, 0), time.Now())
			require.NoError(t, err)
			require.True(t, s.Exemplars)
			require.Contains(t, s.Metrics, "utf8.metric")
			require.Contains(t, s.Labels, "lab el")
			require.Equal(t, map[string]string{"reqs_total": "COUNTER", "up": "GAUGE"}, s.Types)
		})
	}
}

func TestGrafanaOpensTheAlertingPages(t *testing.T) {
	shows(t, byGrafana, 9, 10, 21)
	ds, _ := dataSource(t, "")
	f := func(filter url.Values, groups ...string) {
		t.Helper()
		r, err := ds.Alerting(t.Context(), filter)
		require.NoError(t, err)
		require.Equal(t, grafana.Rules{ReadOnly: true, Groups: groups, Alerts: 1}, r)
	}
	f(url.Values{"exclude_alerts": {"false"}}, "alerts", "records")
	f(url.Values{"rule_group": {"alerts"}}, "alerts")
	f(url.Values{"rule_name": {"job:up:sum"}}, "records")
	f(url.Values{"group_limit": {"1"}, "exclude_alerts": {"true"}}, "alerts")
}

func TestGrafanaDrawsPanelsAsFromOnePrometheus(t *testing.T) {
	shows(t, byGrafana, 2, 4, 16, 21)
	through, direct := dataSource(t, "")
	for _, ds := range []*grafana.DataSource{through, direct} {
		ds.Timeout, ds.Stats = "30s", true
		ds.Custom = url.Values{"max_source_resolution": {"5m"}, "max_samples_processed_error_threshold": {"100"}}
	}
	for _, expr := range []string{
		"rate(reqs_total[1m15s])", "up", "up*0/0", "nh", "nope", "1", "m", "sum by (job) (m)", "gaps",
		`histogram_quantile(0.9, rate(lat_bucket[1m0s]))`, `{"utf8.metric"}`, "numbers", "rate(up[5m])", "sort(m)",
	} {
		t.Run(expr, func(t *testing.T) {
			graph, value, err := through.Panel(t.Context(), expr, secs(600), secs(3000.4), 15*time.Second)
			require.NoError(t, err)
			wantGraph, wantValue, err := direct.Panel(t.Context(), expr, secs(600), secs(3000.4), 15*time.Second)
			require.NoError(t, err)
			require.Equal(t, printable(wantGraph), printable(graph))
			require.Equal(t, wantValue.Type, value.Type)
			require.ElementsMatch(t, printable(wantValue), printable(value))
		})
	}
}

// printable makes results comparable where they hold NaN: one text per frame
// and notice.
func printable(r grafana.Result) []string {
	text := []string{}
	for _, n := range r.Notices {
		text = append(text, "notice "+n)
	}
	for _, f := range r.Frames {
		text = append(text, fmt.Sprint(f))
	}
	return text
}

func TestGrafanaShowsEveryKindOfInstantAnswer(t *testing.T) {
	shows(t, byGrafana, 1, 21)
	ds, _ := dataSource(t, "")
	at := secs(600.4)
	for expr, want := range map[string]string{"1e300": "scalar", `"abc"`: "string", "up[2m]": "matrix", "nh": "vector"} {
		r, err := ds.Instant(t.Context(), expr, at)
		require.NoError(t, err, expr)
		require.Equal(t, want, r.Type, expr)
	}
	r, err := ds.Instant(t.Context(), "1e300", at)
	require.NoError(t, err)
	require.Equal(t, []grafana.Frame{{Times: []int64{600_400}, Values: []float64{1e300}}}, r.Frames)
	r, err = ds.Instant(t.Context(), "nh", at)
	require.NoError(t, err)
	require.Len(t, r.Frames[0].Cells, 4)
	require.Equal(t, grafana.Cell{Time: 600_400, Layout: 1, Lower: -1, Upper: -0.5, Num: 2}, r.Frames[0].Cells[0])
}

func TestGrafanaShowsExemplars(t *testing.T) {
	shows(t, byGrafana, 8, 21)
	ds, _ := dataSource(t, "")
	r, err := ds.Exemplars(t.Context(), "rate(ex_total[5m])", secs(0), secs(900), time.Minute)
	require.NoError(t, err)
	require.Equal(t, []grafana.Frame{
		{Labels: map[string]string{"__name__": "ex_total", "job": "a"}, Times: []int64{600_500}, Values: []float64{0.5}},
		{Labels: map[string]string{"__name__": "ex_total", "job": "b"}, Times: []int64{600_500}, Values: []float64{1.5}},
	}, r.Frames)
}

func TestGrafanaTellsWhatIsWrongWithAQuery(t *testing.T) {
	shows(t, byGrafana, 3, 21)
	ds, _ := dataSource(t, "")
	_, err := ds.Range(t.Context(), "up{", secs(0), secs(600), time.Minute)
	require.EqualError(t, err, `bad_data: invalid parameter "query": 1:4: parse error: unexpected end of input inside braces`)
	_, err = ds.Instant(t.Context(), "m + on(x) group_left m", secs(600))
	require.ErrorContains(t, err, "execution: ")
}

func TestGrafanaListsLabelsAndSeries(t *testing.T) {
	shows(t, byGrafana, 5, 6, 7, 21)
	ds, _ := dataSource(t, "")
	ctx, from, to := t.Context(), secs(0), secs(3600)
	labels, err := ds.LabelNames(ctx, []string{"up", `{"utf8.metric"}`}, from, to)
	require.NoError(t, err)
	require.Equal(t, []string{"__name__", "instance", "job", "lab el"}, labels)
	values, err := ds.LabelValues(ctx, "lab el", nil, from, to)
	require.NoError(t, err)
	require.Equal(t, []string{"x", "y"}, values)
	values, err = ds.LabelValues(ctx, "nope", nil, from, to)
	require.NoError(t, err)
	require.Empty(t, values)
	series, err := ds.Series(ctx, []string{`gaps`}, from, to)
	require.NoError(t, err)
	require.Equal(t, []map[string]string{{"__name__": "gaps", "job": "a"}}, series)
	series, err = ds.Series(ctx, []string{`{__name__!=""}`}, from, to)
	require.NoError(t, err)
	require.Len(t, series, 26)
}

// Grafana's ad-hoc filters send POST, which Prometheus itself refuses.
func TestGrafanaSuggestsValuesForFilters(t *testing.T) {
	shows(t, byGrafana, 5, 21)
	ds, direct := dataSource(t, "")
	_, err := direct.Suggestions(t.Context(), "job", []string{"up"}, 10)
	require.ErrorContains(t, err, "status 405")
	values, err := ds.Suggestions(t.Context(), "job", []string{`up{job="a"}`, `m{job="b"}`}, 10)
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b"}, values)
}

// A panel that refreshes in pieces must end up with what one request gives.
func TestGrafanaRefreshesWithoutASeam(t *testing.T) {
	shows(t, byGrafana, 2, 21)
	ds, _ := dataSource(t, "")
	for _, expr := range []string{"m", "rate(reqs_total[1m])", "gaps", "sum by (job) (m)"} {
		p := grafana.Incremental{DataSource: ds, Expr: expr, Step: 30 * time.Second}
		var last []grafana.Frame
		for end := 1500.0; end <= 3300; end += 330 {
			var err error
			last, err = p.Refresh(t.Context(), secs(end-1200), secs(end))
			require.NoError(t, err, expr)
		}
		whole := grafana.Incremental{DataSource: ds, Expr: expr, Step: 30 * time.Second}
		want, err := whole.Refresh(t.Context(), secs(3150-1200), secs(3150))
		require.NoError(t, err, expr)
		require.Equal(t, want, last, expr)
	}
}
