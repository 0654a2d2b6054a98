//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/proxy"
	"github.com/oneprom/oneprom/proxy/e2e/internal/world"
)

// writerTo returns a function that writes a file in a directory and returns its path.
func writerTo(t *testing.T, dir string) func(name, text string, args ...any) string {
	return func(name, text string, args ...any) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, fmt.Appendf(nil, text, args...), 0o600))
		return path
	}
}

// TestRules_AlertsAndRecordings is the life of an alert over a real Prometheus, which also takes what rules record, to a real
// Alertmanager: it waits, oneprom is started anew, it goes on to wait, fires, and is resolved.
func TestRules_AlertsAndRecordings(t *testing.T) {
	shows(t, byAlertmanager, 18)
	var open atomic.Int64
	open.Store(1)
	door := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "door_open{door=\"front\"} %d\n", open.Load())
	}))
	dir := t.TempDir()
	write := writerTo(t, dir)
	store := world.Run(t, world.Binary(t, world.PrometheusPackage),
		"--config.file="+write("store.yml", "global: {scrape_interval: 1s}\nscrape_configs: [{job_name: doors, static_configs: [{targets: ['%s']}]}]\n", hostPort(t, door)),
		"--storage.tsdb.path="+filepath.Join(dir, "store"), "--web.enable-remote-write-receiver", "--log.level=warn")
	binary, err := exec.LookPath("prometheus-alertmanager")
	require.NoError(t, err, "install Debian's package prometheus-alertmanager")
	am := world.Run(t, binary,
		"--config.file="+write("am.yml", "route: {receiver: nobody, group_wait: 1s}\nreceivers: [{name: nobody}]\n"),
		"--storage.path="+filepath.Join(dir, "am"), "--cluster.listen-address=", "--log.level=warn")

	write("rules.yml", "groups: [{name: doors, interval: 1s, rules: [{alert: DoorOpen, expr: door_open == 1, for: 12s, annotations: {summary: '{{ $labels.door }} is open'}}, {record: doors, expr: count(door_open)}]}]")
	file := write("oneprom.yml", `
global: {evaluation_interval: 1s, external_labels: {source: oneprom}}
rule_files: [rules.yml]
alerting: {alertmanagers: [{static_configs: [{targets: ['%[2]s']}]}]}
remote_write: [{url: '%[1]s/api/v1/write', queue_config: {batch_send_deadline: 100ms}}]
server_groups: [{name: store, static_configs: [{targets: ['%[3]s']}]}]
`, store.URL, hostPort(t, am.URL), hostPort(t, store.URL))
	start := func() *proxy.Server {
		var o proxy.Options
		app := kingpin.New("oneprom", "")
		proxy.AddFlags(app, &o)
		_, err := app.Parse([]string{
			"--config.file=" + file, "--web.listen-address=127.0.0.1:0", "--storage.agent.path=" + filepath.Join(dir, "agent"),
			"--rules.alert.for-grace-period=1s", "--rules.alert.resend-delay=1s",
		})
		require.NoError(t, err)
		server, err := proxy.New(o)
		require.NoError(t, err)
		require.NoError(t, server.Start(t.Context()))
		return server
	}
	stop := func(s *proxy.Server) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		require.NoError(t, s.Stop(ctx))
	}
	const soon = time.Minute
	eventually := func(what string, holds func() bool) {
		t.Helper()
		require.Eventually(t, holds, soon, 100*time.Millisecond, what)
	}

	first := start()
	eventually("what rules make is in the store", func() bool {
		return resultOf(t, store.URL, `doors{source="oneprom"} == 1`) == 1 && resultOf(t, store.URL, `ALERTS{alertname="DoorOpen", alertstate="pending", source="oneprom"}`) == 1
	})
	eventually("the alert has waited for a while", func() bool { return resultOf(t, store.URL, `time() - ALERTS_FOR_STATE > 6`) == 1 })
	require.Empty(t, activeAlerts(t, am.URL))
	stop(first)

	again := time.Now()
	second := start()
	defer stop(second)
	base := "http://" + second.Addr()
	eventually("the alert fires", func() bool { return len(activeAlerts(t, am.URL)) == 1 })
	received := activeAlerts(t, am.URL)[0]
	require.Equal(t, map[string]string{"alertname": "DoorOpen", "door": "front", "instance": hostPort(t, door), "job": "doors", "source": "oneprom"}, received.Labels)
	require.Equal(t, map[string]string{"summary": "front is open"}, received.Annotations)
	link, err := url.Parse(received.GeneratorURL)
	require.NoError(t, err)
	require.Equal(t, second.Addr()[strings.LastIndex(second.Addr(), ":"):], ":"+link.Port())
	require.Equal(t, "door_open == 1", link.Query().Get("g0.expr"))
	requirePage(t, base+link.RequestURI())
	var own struct {
		Data struct {
			Alerts []struct{ ActiveAt time.Time }
		}
	}
	ask(t, base+"/api/v1/alerts", &own)
	require.Len(t, own.Data.Alerts, 1)
	require.True(t, own.Data.Alerts[0].ActiveAt.Before(again), "it waits since before the restart")

	open.Store(0)
	eventually("the alert is resolved", func() bool { return len(activeAlerts(t, am.URL)) == 0 })
	eventually("its series ends", func() bool { return resultOf(t, base, `ALERTS{alertname="DoorOpen"}`) == 0 })
	require.Equal(t, 1, resultOf(t, base, "doors"), "oneprom answers what its rules have recorded")
}

// TestRules_FullDisk: the disk of the log of samples has no room for some seconds, and then what rules record is
// written again. The disk is a limit on how long files may be that the process writes.
func TestRules_FullDisk(t *testing.T) {
	dir := t.TempDir()
	write := writerTo(t, dir)
	store := world.Run(t, world.Binary(t, world.PrometheusPackage),
		"--config.file="+write("store.yml", "{}"), "--storage.tsdb.path="+filepath.Join(dir, "store"), "--web.enable-remote-write-receiver", "--log.level=warn")
	// Many series, so that the log fills a page within seconds.
	var exprs []string
	for i := range 50 {
		exprs = append(exprs, fmt.Sprintf(`label_replace(vector(%d), "i", "%[1]d", "", "")`, i))
	}
	write("rules.yml", "groups: [{name: g, interval: 200ms, rules: [{record: many, expr: '%s'}, {record: one, expr: vector(1)}]}]", strings.Join(exprs, " or "))
	binary := onepromBinary(t)
	process := world.Run(t, binary, "--storage.agent.path="+filepath.Join(dir, "agent"), "--config.file="+write("oneprom.yml", `
rule_files: [rules.yml]
remote_write: [{url: '%s/api/v1/write', queue_config: {batch_send_deadline: 100ms}}]
server_groups: [{name: store, static_configs: [{targets: ['%s']}]}]
`, store.URL, hostPort(t, store.URL)))
	limit := func(fsize string) {
		out, err := exec.Command("prlimit", "--pid", strconv.Itoa(process.PID), "--fsize="+fsize).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	eventually := func(what string, holds func() bool) {
		t.Helper()
		require.Eventually(t, holds, time.Minute, 100*time.Millisecond, what)
	}
	metric := func(name string) (n float64) {
		_, body := fetched(t, process.URL+"/metrics")
		for line := range strings.Lines(string(body)) {
			if value, ok := strings.CutPrefix(line, name+" "); ok {
				n, _ = strconv.ParseFloat(strings.TrimSpace(value), 64)
			}
		}
		return n
	}
	eventually("what rules record is in the store", func() bool { return resultOf(t, store.URL, "many") == 50 })
	limit("1:")
	eventually("much is lost", func() bool { return metric("oneprom_remote_write_lost_samples_total") > 1000 })
	limit("unlimited:")
	eventually("the log goes on", func() bool { return metric("oneprom_remote_write_log_reopened_total") > 0 })
	lost, since := metric("oneprom_remote_write_lost_samples_total"), time.Now()
	eventually("what is recorded since is in the store", func() bool {
		return resultOf(t, store.URL, fmt.Sprintf("timestamp(many) > %d", since.Unix()+1)) == 50 && resultOf(t, store.URL, fmt.Sprintf("timestamp(one) > %d", since.Unix()+1)) == 1
	})
	require.InDelta(t, lost, metric("oneprom_remote_write_lost_samples_total"), 0)
}

type activeAlert struct {
	Labels       map[string]string
	Annotations  map[string]string
	GeneratorURL string
}

// requirePage follows a link, which is to lead to a page for people.
func requirePage(t *testing.T, link string) {
	t.Helper()
	resp, _ := fetched(t, link)
	require.Contains(t, resp.Header.Get("Content-Type"), "text/html", link)
	require.Equal(t, "/query", resp.Request.URL.Path)
}

// activeAlerts are those of an Alertmanager.
func activeAlerts(t *testing.T, url string) (alerts []activeAlert) {
	t.Helper()
	ask(t, url+"/api/v2/alerts", &alerts)
	return alerts
}

// resultOf is how many series a query finds now.
func resultOf(t *testing.T, url, query string) int {
	t.Helper()
	var answer struct{ Data struct{ Result []any } }
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/api/v1/query", nil)
	require.NoError(t, err)
	values := req.URL.Query()
	values.Set("query", query)
	req.URL.RawQuery = values.Encode()
	ask(t, req.URL.String(), &answer)
	return len(answer.Data.Result)
}

// ask reads JSON.
func ask(t *testing.T, url string, into any) {
	t.Helper()
	_, body := fetched(t, url)
	require.NoError(t, json.Unmarshal(body, into), string(body))
}

// fetched is a page, after all redirects, with its body.
func fetched(t *testing.T, url string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, resp.StatusCode, "%s: %s", url, body)
	return resp, body
}
