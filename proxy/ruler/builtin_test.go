package ruler

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/rules"
	upstreamfeatures "github.com/prometheus/prometheus/util/features"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/proxy/config"
	"github.com/oneprom/oneprom/proxy/recorder"
)

// TestRuler_RemoteWriteStalled: when a receiver takes nothing for minutes, there is an alert that says
// which, without secrets, and which ends when it takes what it was lacking.
func TestRuler_RemoteWriteStalled(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		select {
		case <-release:
		default:
			http.Error(w, "away", http.StatusServiceUnavailable)
		}
	}))
	defer receiver.Close()
	p := parser.NewParser(parser.Options{})
	r, err := New(Options{
		Flags:  Flags{MaxConcurrentEvals: 1, NotificationQueueCapacity: 1, AgentPath: t.TempDir(), FlushDeadline: model.Duration(time.Second)},
		Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(), Features: upstreamfeatures.NewRegistry(), Parser: p, ExternalURL: &url.URL{},
	})
	require.NoError(t, err)
	defer func() { require.NoError(t, r.Stop(t.Context())) }()
	cfg, err := config.Parse(fmt.Appendf(nil, `
server_groups: [{name: a, static_configs: [{targets: ['127.0.0.1:1']}]}]
remote_write: [{name: store, url: '%s/?key=hunter2', queue_config: {batch_send_deadline: 5ms, min_backoff: 5ms, max_backoff: 5ms}}]
`, receiver.URL), "oneprom.yml")
	require.NoError(t, err)
	change, err := r.PrepareDestinations(cfg)
	require.NoError(t, err)
	require.NoError(t, change.Commit(t.Context()))

	rule := builtInRules(cfg).Groups[0].Rules[1]
	expr, err := p.ParseExpr(rule.Expr)
	require.NoError(t, err)
	alert := rules.NewAlertingRule(rule.Alert, expr, 0, 0, labels.FromMap(rule.Labels), labels.FromMap(rule.Annotations), labels.EmptyLabels(), "", true, slog.New(slog.DiscardHandler))
	ctx := promql.NewOriginContext(t.Context(), map[string]any{"ruleGroup": map[string]string{"file": builtIn, "name": builtIn}})
	firing := func(at time.Time) []*rules.Alert {
		t.Helper()
		_, err := alert.Eval(ctx, 0, at, r.query, &url.URL{}, 0)
		require.NoError(t, err)
		var out []*rules.Alert
		alert.ForEachActiveAlert(func(a *rules.Alert) {
			if a.State == rules.StateFiring {
				out = append(out, a)
			}
		})
		return out
	}
	record := func(at time.Time) {
		t.Helper()
		app := r.recorder.Appender(t.Context())
		_, err := app.Append(0, labels.FromStrings(labels.MetricName, "m"), at.UnixMilli(), 1)
		require.NoError(t, err)
		require.NoError(t, app.Commit())
	}
	start := time.Unix(time.Now().Unix(), 0)
	require.Empty(t, firing(start))
	record(start.Add(90 * time.Second))
	require.Empty(t, firing(start.Add(90*time.Second)))
	late := start.Add(90*time.Second + recorder.Patience)
	alerts := firing(late)
	require.Len(t, alerts, 1)
	require.Equal(t, labels.FromStrings("alertname", "OnepromRemoteWriteStalled", "remote_name", "store", "severity", "warning", "url", receiver.URL+"/?<secret>"), alerts[0].Labels)
	require.Equal(t, "remote_write store has stalled.", alerts[0].Annotations.Get("summary"))
	require.Contains(t, alerts[0].Annotations.Get("description"), "What rules recorded more than 5m ago is not written to "+receiver.URL+"/?<secret> (store), which is 1m 30s behind: ")
	require.NotContains(t, alerts[0].Annotations.String(), "hunter2")

	close(release)
	require.Eventually(t, func() bool { record(late); late = late.Add(time.Second); return len(firing(late)) == 0 }, 30*time.Second, time.Millisecond)
}
