package proxy

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	upstream "github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest"
	"github.com/oneprom/oneprom/servergroup/backendtest/fault"
)

// soon is how long a test waits for what happens within a few evaluations, or when a
// breaker closes again.
const soon = 30 * time.Second

// ruleBackend is a Prometheus of this process that takes remote write.
type ruleBackend struct {
	*fault.Proxy
	db *tsdb.DB
}

func newRuleBackend(t *testing.T) *ruleBackend {
	t.Helper()
	db, err := backendtest.OpenDB(t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	mux := http.NewServeMux()
	mux.Handle("/", backendtest.NewHandler(backendtest.Options{Queryable: db}))
	mux.Handle("/api/v1/write", upstream.NewWriteHandler(promslog.NewNopLogger(), prometheus.NewRegistry(), db, remote.MessageTypes{remote.WriteV1MessageType}, false, false, false))
	p, err := fault.New(mux)
	require.NoError(t, err)
	t.Cleanup(p.Close)
	return &ruleBackend{p, db}
}

// add adds samples of a series: one each 15 s, from the age until some time to come.
func (b *ruleBackend) add(t *testing.T, age, until time.Duration, value float64, series ...string) {
	t.Helper()
	app := b.db.Appender(t.Context())
	for at := -age; at <= until; at += 15 * time.Second {
		_, err := app.Append(0, labels.FromStrings(series...), time.Now().Add(at).UnixMilli(), value)
		require.NoError(t, err)
	}
	require.NoError(t, app.Commit())
}

// receivedAlert is what an Alertmanager is told.
type receivedAlert struct {
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	StartsAt    time.Time         `json:"startsAt"`
	EndsAt      time.Time         `json:"endsAt"`

	resolved bool // when it came
}

// alertmanager knows the last that it was told of each alert.
type alertmanager struct {
	addr string

	mtx    sync.Mutex
	alerts map[string]receivedAlert // by labels
}

func newAlertmanager(t *testing.T) *alertmanager {
	am := &alertmanager{alerts: map[string]receivedAlert{}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var alerts []receivedAlert
		if err := json.NewDecoder(r.Body).Decode(&alerts); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		am.mtx.Lock()
		defer am.mtx.Unlock()
		for _, a := range alerts {
			a.resolved = a.EndsAt.Before(time.Now())
			am.alerts[labels.FromMap(a.Labels).String()] = a
		}
	}))
	t.Cleanup(server.Close)
	am.addr = strings.TrimPrefix(server.URL, "http://")
	return am
}

// state is what was last said of the alert with these labels: "firing", "resolved" or "".
func (am *alertmanager) state(ls ...string) string {
	am.mtx.Lock()
	defer am.mtx.Unlock()
	a, ok := am.alerts[labels.FromStrings(ls...).String()]
	switch {
	case !ok:
		return ""
	case a.resolved:
		return "resolved"
	}
	return "firing"
}

// rulesConfig evaluates rules.yml each 100 ms over groups named after their backends.
func rulesConfig(am *alertmanager, more string, groups map[string]*ruleBackend) string {
	text := "global: {evaluation_interval: 100ms, external_labels: {site: here}}\nrule_files: [rules.yml]\n"
	if am != nil {
		text += fmt.Sprintf("alerting: {alertmanagers: [{static_configs: [{targets: ['%s']}]}]}\n", am.addr)
	}
	text += more + "server_groups:\n"
	for name, b := range groups {
		text += fmt.Sprintf("  - {name: %s, static_configs: [{targets: ['%s']}]}\n", name, b.Addr())
	}
	return text
}

// startRules starts a server with a file of rules.
func startRules(t *testing.T, config, rules string, flags ...string) (s *Server, file string) {
	t.Helper()
	dir := t.TempDir()
	file = filepath.Join(dir, "oneprom.yml")
	writeConfig(t, file, config)
	writeConfig(t, filepath.Join(dir, "rules.yml"), rules)
	s, err := New(options(t, append([]string{
		"--config.file=" + file, "--web.listen-address=127.0.0.1:0", "--storage.agent.path=" + filepath.Join(dir, "agent"), "--rules.alert.resend-delay=1s",
	}, flags...)...))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Stop(context.Background())) })
	require.NoError(t, s.Start(t.Context()))
	return s, file
}

// valueOf is the value of the only series that a query finds; "" if there is none.
func valueOf(t *testing.T, s *Server, query string) string {
	t.Helper()
	w := get(s.Handler(), "/api/v1/query?query="+query)
	var answer struct {
		Data struct {
			Result []struct{ Value [2]any }
		}
	}
	if w.Code != http.StatusOK || json.Unmarshal(w.Body.Bytes(), &answer) != nil || len(answer.Data.Result) != 1 {
		return ""
	}
	return answer.Data.Result[0].Value[1].(string)
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	require.Eventually(t, holds, soon, 20*time.Millisecond, what)
}

const partialRules = `
groups:
  - name: alerts
    rules:
      - {alert: Down, expr: m == 0}
  - name: dashboards
    rules:
      - {record: zeros, expr: count(m)}
`

// A group that does not answer is not taken for one that has nothing to say: its alerts
// stay as they are, and somebody hears of it. Who asks for it gets what is there.
func TestRules_MissingGroupIsNoFalseTruth(t *testing.T) {
	am := newAlertmanager(t)
	eu, us := newRuleBackend(t), newRuleBackend(t)
	eu.add(t, time.Minute, 5*time.Minute, 0, "__name__", "m", "zone", "eu")
	us.add(t, time.Minute, 5*time.Minute, 0, "__name__", "m", "zone", "us")
	more := fmt.Sprintf("rules: {groups: {dashboards: {partial_response: warn}}}\nremote_write: [{url: 'http://%s/api/v1/write', queue_config: {batch_send_deadline: 50ms}}]\n", eu.Addr())
	s, file := startRules(t, rulesConfig(am, "", map[string]*ruleBackend{"eu": eu, "us": us}), strings.Split(partialRules, "  - name: dash")[0])
	writeConfig(t, filepath.Join(filepath.Dir(file), "rules.yml"), partialRules)
	require.ErrorContains(t, s.Reload(t.Context()), `rules.yml: group "dashboards" records zeros, but there is nowhere to write it`)
	writeConfig(t, file, rulesConfig(am, more, map[string]*ruleBackend{"eu": eu, "us": us}))
	require.NoError(t, s.Reload(t.Context()))

	down := func(zone string) string { return am.state("alertname", "Down", "zone", zone, "site", "here") }
	own := func() string {
		return am.state("alertname", "OnepromRuleNotEvaluated", "rule", "Down", "rule_group", "alerts",
			"rule_file", filepath.Join(filepath.Dir(file), "rules.yml"), "severity", "warning", "site", "here")
	}
	eventually(t, "both alerts fire", func() bool { return down("eu") == "firing" && down("us") == "firing" })
	eventually(t, "a recording of both", func() bool { return valueOf(t, s, `zeros{site="here"}`) == "2" })
	require.Empty(t, own())

	require.NoError(t, us.Set(fault.Refuse()))
	eventually(t, "the alert of our own fires", func() bool { return own() == "firing" })
	eventually(t, "a recording of what is there", func() bool { return valueOf(t, s, `zeros{site="here"}`) == "1" })
	until := am.until("us")
	eventually(t, "the alert is repeated, so that nobody takes it for resolved", func() bool { return am.until("us").After(until) })
	require.Equal(t, "firing", down("us"), "nobody has said that it is over")
	body := get(s.Handler(), "/api/v1/rules?type=alert").Body.String()
	require.Contains(t, body, `"health":"err"`)
	require.Contains(t, body, `server group \"us\"`)
	require.Contains(t, get(s.Handler(), "/api/v1/alerts").Body.String(), `"zone":"us"`)
	require.Contains(t, get(s.Handler(), "/api/v1/alertmanagers").Body.String(), am.addr)
	require.Contains(t, am.description("OnepromRuleNotEvaluated"), `server group "us"`)

	require.NoError(t, us.Set(fault.Fault{}))
	eventually(t, "the alert of our own is resolved", func() bool { return own() == "resolved" })
	eventually(t, "the alert fires", func() bool { return down("us") == "firing" })
	eventually(t, "a recording of both", func() bool { return valueOf(t, s, `zeros{site="here"}`) == "2" })

	writeConfig(t, file, rulesConfig(am, more, map[string]*ruleBackend{"eu": eu, "us": us})+"\n")
	writeConfig(t, filepath.Join(filepath.Dir(file), "rules.yml"), strings.ReplaceAll(partialRules, "Down", "Gone"))
	require.NoError(t, s.Reload(t.Context()))
	eventually(t, "the alert of the new rule", func() bool { return am.state("alertname", "Gone", "zone", "us", "site", "here") == "firing" })
	// A replica that has just come back takes a few requests only, so that an evaluation may
	// still have failed, and our own alert names the rule until it is evaluated again.
	eventually(t, "nothing of the old rule is left", func() bool {
		return !strings.Contains(get(s.Handler(), "/api/v1/rules").Body.String(), "Down")
	})
}

// until is how long the alert of a zone is to be taken for firing if nobody repeats it.
func (am *alertmanager) until(zone string) time.Time {
	am.mtx.Lock()
	defer am.mtx.Unlock()
	return am.alerts[labels.FromStrings("alertname", "Down", "zone", zone, "site", "here").String()].EndsAt
}

func (am *alertmanager) description(name string) string {
	am.mtx.Lock()
	defer am.mtx.Unlock()
	for _, a := range am.alerts {
		if a.Labels["alertname"] == name {
			return a.Annotations["description"]
		}
	}
	return ""
}

// An invalid file of rules changes nothing, and the error says where it is wrong.
func TestRules_BadFilesChangeNothing(t *testing.T) {
	b := newRuleBackend(t)
	groups := map[string]*ruleBackend{"a": b}
	s, file := startRules(t, rulesConfig(nil, "", groups), "groups: [{name: g, rules: [{alert: A, expr: up == 0}]}]")
	path := filepath.Join(filepath.Dir(file), "rules.yml")
	for _, tc := range []struct{ rules, more, want string }{
		{"groups:\n  - name: g\n    rules:\n      - {alert: A, expr: 'sum('}", "", path + `: 4:26: group "g", rule 1, "A": could not parse expression: 1:5: parse error: unclosed left parenthesis`},
		{"groups:\n  - name: g\n    rulez: []", "", "line 3: field rulez not found"},
		{"groups: []", "rules: {groups: {h: {partial_response: warn}}}\n", file + ":3: rules.groups.h: no file of rule_files has such a group"},
		{"groups: []", "rules: {}\nremote_write: [{url: 'http://a', tls_config: {ca_file: none.pem}}]\n", "remote_write[0]: unable to read CA cert"},
	} {
		writeConfig(t, path, tc.rules)
		writeConfig(t, file, rulesConfig(nil, tc.more, groups))
		require.ErrorContains(t, s.Reload(t.Context()), tc.want)
		require.Contains(t, get(s.Handler(), "/api/v1/rules").Body.String(), `"name":"A"`)
		require.NotContains(t, shownConfig(t, s), "none.pem")
	}
	writeConfig(t, file, strings.Replace(rulesConfig(nil, "", groups), "rules.yml", "none.yml", 1))
	require.ErrorContains(t, s.Reload(t.Context()), file+":2: rule_files[0]: stat "+filepath.Join(filepath.Dir(file), "none.yml")+": ")
	require.NoError(t, os.Remove(path))
	writeConfig(t, file, strings.Replace(rulesConfig(nil, "", groups), "rules.yml", "'*.none'", 1))
	require.NoError(t, s.Reload(t.Context()))
	require.Contains(t, get(s.Handler(), "/api/v1/rules").Body.String(), `"groups":[]`)
}

// An alert goes on to wait where it was before the restart, also if its data cannot be
// had at first.
func TestRules_ForStateOutlivesARestart(t *testing.T) {
	for name, away := range map[string]bool{"with its data": false, "without its data at first": true} {
		t.Run(name, func(t *testing.T) {
			data, store := newRuleBackend(t), newRuleBackend(t)
			data.add(t, time.Minute, 5*time.Minute, 0, "__name__", "m", "zone", "eu")
			since := time.Now().Add(-30 * time.Minute)
			store.add(t, 2*time.Minute, -time.Minute, float64(since.Unix()), "__name__", "ALERTS_FOR_STATE", "alertname", "Down", "zone", "eu", "site", "here")
			if away {
				require.NoError(t, data.Set(fault.Refuse()))
			}
			s, _ := startRules(t, rulesConfig(nil, "", map[string]*ruleBackend{"data": data, "store": store}), "groups: [{name: g, rules: [{alert: Down, expr: m == 0, for: 2h}]}]")
			if away {
				eventually(t, "the rule fails", func() bool {
					return strings.Contains(get(s.Handler(), "/api/v1/rules").Body.String(), `"health":"err"`)
				})
				failed := metricOf(t, s, "prometheus_rule_evaluation_failures_total")
				eventually(t, "the rule fails again and again", func() bool {
					return metricOf(t, s, "prometheus_rule_evaluation_failures_total") > failed+3
				})
				require.NoError(t, data.Set(fault.Fault{}))
			}
			eventually(t, "the alert waits since long ago", func() bool {
				var answer struct {
					Data struct {
						Alerts []struct{ ActiveAt time.Time }
					}
				}
				require.NoError(t, json.Unmarshal(get(s.Handler(), "/api/v1/alerts").Body.Bytes(), &answer))
				alerts := answer.Data.Alerts
				// The time without samples does not count.
				return len(alerts) == 1 && alerts[0].ActiveAt.Sub(since.Add(time.Minute)).Abs() < 20*time.Second
			})
		})
	}
}

// metricOf adds up the series of one of the server's own metrics.
func metricOf(t *testing.T, s *Server, name string) (sum float64) {
	t.Helper()
	for line := range strings.Lines(get(s.Handler(), "/metrics").Body.String()) {
		if strings.HasPrefix(line, name+"{") {
			value, err := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndexByte(line, ' '):]), 64)
			require.NoError(t, err)
			sum += value
		}
	}
	return sum
}

// Queries of rules are logged with the group that they are of, and need no slot.
func TestRules_QueriesAreLogged(t *testing.T) {
	b := newRuleBackend(t)
	b.add(t, time.Minute, 5*time.Minute, 0, "__name__", "m")
	config := strings.Replace(rulesConfig(nil, "", map[string]*ruleBackend{"a": b}), "global: {", "global: {query_log_file: queries.log, ", 1)
	s, file := startRules(t, config, "groups: [{name: g, rules: [{alert: A, expr: m == 0}]}]")
	log := filepath.Join(filepath.Dir(file), "queries.log")
	eventually(t, "a line", func() bool {
		data, err := os.ReadFile(log)
		return err == nil && strings.Count(string(data), "\n") > 1
	})
	line := loggedIn(t, s, log)[0]
	require.Equal(t, "rule", line["api"])
	require.Equal(t, "m == 0", line["query"])
	require.Equal(t, "whole", line["completeness"])
	require.Equal(t, json.Number("1"), line["series"])
	require.Equal(t, map[string]any{"file": filepath.Join(filepath.Dir(file), "rules.yml"), "name": "g"}, line["ruleGroup"])
}

func TestCheckRules(t *testing.T) {
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "good.yml"), filepath.Join(dir, "bad.yml")
	writeConfig(t, good, "groups: [{name: g, rules: [{alert: A, expr: up == 0}, {record: a, expr: 'mad_over_time(m[5m])'}]}]")
	writeConfig(t, bad, "groups:\n  - name: g\n    rules:\n      - {alert: A, expr: 'sum('}\n      - {record: a, expr: m, for: 1m}")
	o := options(t, "--enable-feature=promql-experimental-functions")
	var out strings.Builder
	require.NoError(t, CheckRules(o, &out, []string{good}))
	require.Equal(t, "Checking "+good+"\n  SUCCESS: 2 rules found\n\n", out.String())
	out.Reset()
	require.Error(t, CheckRules(o, &out, []string{bad, good}))
	require.Equal(t, "Checking "+bad+"\n  FAILED:\n"+
		bad+`: 4:26: group "g", rule 1, "A": could not parse expression: 1:5: parse error: unclosed left parenthesis`+"\n"+
		bad+`: 5:18: group "g", rule 2, "a": invalid field 'for' in recording rule`+"\n\n"+
		"Checking "+good+"\n  SUCCESS: 2 rules found\n\n", out.String())
	require.Error(t, CheckRules(options(t), &out, []string{good}), "experimental functions are a feature")

	file := filepath.Join(dir, "oneprom.yml")
	writeConfig(t, file, "rule_files: [good.yml]\nremote_write: [{url: 'http://a'}]"+oneGroup)
	require.NoError(t, CheckConfig(o, io.Discard, file, false))
	require.ErrorContains(t, CheckConfig(options(t), io.Discard, file, false), "good.yml: ")
	writeConfig(t, file, "rule_files: [good.yml]"+oneGroup)
	require.ErrorContains(t, CheckConfig(o, io.Discard, file, false), "records a, but there is nowhere to write it")
}

// hidingConfig has rules written to an archive that is not asked for young samples.
func hidingConfig(archive *ruleBackend, more string) string {
	return fmt.Sprintf(`
global: {evaluation_interval: 100ms, external_labels: {source: oneprom}}
rule_files: [rules.yml]
remote_write: [{url: 'http://%s/api/v1/write', queue_config: {batch_send_deadline: 50ms}}]
server_groups:
  - name: archive
    time_range: {min_age: 6h}
    static_configs: [{targets: ['%s']}]
%s`, archive.Addr(), archive.Addr(), more)
}

// What rules write into an archive that alone holds it is seen at once, and an alert goes on to wait
// after a restart.
func TestRules_ArchiveThatHoldsThem(t *testing.T) {
	data, archive := newRuleBackend(t), newRuleBackend(t)
	data.add(t, time.Minute, 5*time.Minute, 0, "__name__", "m", "zone", "eu")
	since := time.Now().Add(-30 * time.Minute)
	archive.add(t, 2*time.Minute, -time.Minute, float64(since.Unix()), "__name__", "ALERTS_FOR_STATE", "alertname", "Down", "zone", "eu", "source", "oneprom")
	more := fmt.Sprintf("    holds: ['{source=\"oneprom\"}']\n  - {name: data, labels: {region: eu}, static_configs: [{targets: ['%s']}]}\n", data.Addr())
	s, _ := startRules(t, hidingConfig(archive, more), "groups: [{name: g, rules: [{alert: Down, expr: 'm == 0', for: 2h, labels: {region: ''}}, {record: 'zone:m:count', expr: count by (zone) (m)}]}]")
	eventually(t, "the recording is seen", func() bool { return valueOf(t, s, `zone:m:count`) == "1" })
	require.Equal(t, "2", valueOf(t, s, `sum(zone:m:count{source="oneprom"})%2Bcount(m)`))
	eventually(t, "the alert waits since long ago", func() bool {
		var answer struct {
			Data struct {
				Alerts []struct{ ActiveAt time.Time }
			}
		}
		require.NoError(t, json.Unmarshal(get(s.Handler(), "/api/v1/alerts").Body.Bytes(), &answer))
		alerts := answer.Data.Alerts
		return len(alerts) == 1 && alerts[0].ActiveAt.Sub(since.Add(time.Minute)).Abs() < 20*time.Second
	})
	require.NotContains(t, get(s.Handler(), "/api/v1/status/groups").Body.String(), `"findings"`)
}

// What rules write and nobody can read back is a finding.
func TestRules_HiddenFromThemselves(t *testing.T) {
	archive := newRuleBackend(t)
	const rules = "groups: [{name: g, rules: [{record: 'a:b', expr: vector(1)}]}]"
	s, file := startRules(t, hidingConfig(archive, ""), rules)
	const want = "remote_write[0]: rules write a:b, but server group \"archive\" is not asked for samples that young, because of its time_range: add holds: ['{source=\"oneprom\"}'] to that group, if no other one has series with that label"
	status := func() string {
		var answer struct {
			Data []struct{ Findings []string }
		}
		require.NoError(t, json.Unmarshal(get(s.Handler(), "/api/v1/status/groups").Body.Bytes(), &answer))
		return strings.Join(answer.Data[0].Findings, "\n")
	}
	require.Equal(t, want, status())
	require.EqualError(t, CheckConfig(options(t), io.Discard, file, false), file+":4: "+want)

	for holds, ok := range map[string]bool{
		`{source="oneprom"}`:                      true,
		`{source=~".+",__name__=~"a:b|ALERTS"}`:   true,
		`{source="oneprom",__name__=~"ALERTS.*"}`: false,
		`{source="other"}`:                        false,
	} {
		writeConfig(t, file, hidingConfig(archive, "    holds: ['"+holds+"']\n"))
		if err := CheckConfig(options(t), io.Discard, file, false); ok {
			require.NoError(t, err, holds)
		} else {
			require.EqualError(t, err, file+":4: "+want, holds)
		}
	}
	require.NoError(t, s.Reload(t.Context()))
	writeConfig(t, file, hidingConfig(archive, fmt.Sprintf("  - {name: same, static_configs: [{targets: ['%s'], labels: {__param_a: b}}]}\n", archive.Addr())))
	require.NoError(t, CheckConfig(options(t), io.Discard, file, false), "another group shows them")
	copies := strings.Replace(hidingConfig(archive, "    copies_of: [eu]\nHOLDS  - {name: eu, static_configs: [{targets: ['127.0.0.1:1']}]}\n"), "    time_range: {min_age: 6h}\n", "", 1)
	writeConfig(t, file, strings.Replace(copies, "HOLDS", "", 1))
	require.EqualError(t, CheckConfig(options(t), io.Discard, file, false), file+":4: "+strings.Replace(want, "time_range", "copies_of", 1))
	writeConfig(t, file, strings.Replace(copies, "HOLDS", "    holds: ['{source=\"oneprom\"}']\n", 1))
	require.NoError(t, CheckConfig(options(t), io.Discard, file, false))
	writeConfig(t, file, strings.Replace(hidingConfig(archive, ""), "external_labels: {source: oneprom}", "", 1))
	require.ErrorContains(t, CheckConfig(options(t), io.Discard, file, false), "add a label to them, as by global.external_labels: {source: oneprom}, and holds")
	writeConfig(t, file, strings.Replace(hidingConfig(archive, ""), "queue_config", "write_relabel_configs: [{target_label: a, replacement: b}], queue_config", 1))
	require.NoError(t, CheckConfig(options(t), io.Discard, file, false), "what is written cannot be told")
}

// end ends a series.
func (b *ruleBackend) end(t *testing.T, series ...string) {
	t.Helper()
	app := b.db.Appender(t.Context())
	_, err := app.Append(0, labels.FromStrings(series...), time.Now().UnixMilli(), math.Float64frombits(value.StaleNaN))
	require.NoError(t, err)
	require.NoError(t, app.Commit())
}

// samples are the values of the series with some labels.
func (b *ruleBackend) samples(t *testing.T, name, label, is string) (out []float64) {
	t.Helper()
	q, err := b.db.Querier(0, math.MaxInt64)
	require.NoError(t, err)
	defer func() { require.NoError(t, q.Close()) }()
	set := q.Select(t.Context(), false, nil, labels.MustNewMatcher(labels.MatchEqual, "__name__", name), labels.MustNewMatcher(labels.MatchEqual, label, is))
	for set.Next() {
		it := set.At().Iterator(nil)
		for it.Next() != chunkenc.ValNone {
			_, v := it.At()
			out = append(out, v)
		}
		require.NoError(t, it.Err())
	}
	require.NoError(t, set.Err())
	return out
}

// untilOf is how long the alert of a region is to be taken for firing if nobody repeats it.
func (am *alertmanager) untilOf(name, region string) time.Time {
	am.mtx.Lock()
	defer am.mtx.Unlock()
	for _, a := range am.alerts {
		if a.Labels["alertname"] == name && a.Labels["region"] == region {
			return a.EndsAt
		}
	}
	return time.Time{}
}

// regionRules evaluates rules over regions that a label tells apart.
func regionRules(am *alertmanager, regions map[string]*ruleBackend, more string) string {
	groups := map[string]*ruleBackend{}
	text := rulesConfig(am, more, groups)
	for name, b := range regions {
		text += fmt.Sprintf("  - {name: %s, labels: {region: %s}, static_configs: [{targets: ['%s']}]}\n", name, name, b.Addr())
	}
	return text
}

// One region does not answer: rules go on for the others, whose alerts fire and are resolved. What
// they said of the region stays as it was. Rules over all regions at once wait.
func TestRules_ARegionIsMissing(t *testing.T) {
	am := newAlertmanager(t)
	eu, us := newRuleBackend(t), newRuleBackend(t)
	for _, b := range []*ruleBackend{eu, us} {
		b.add(t, time.Minute, 0, 1, "__name__", "old")
	}
	us.add(t, time.Second, 0, 1, "__name__", "slow")
	const text = `
groups:
  - name: g
    rules:
      - {alert: Old, expr: sum by (region) (old) > 0, labels: {metric: '{{ $labels.region }}/{{ $value }}'}}
      - {alert: New, expr: new > 0}
      - {alert: Slow, expr: slow > 0, for: 1h}
      - {alert: All, expr: sum(old) < 3}
      - {record: 'region:old:sum', expr: sum by (region) (old)}
`
	// What is recorded is not written to the backends, whose series get the label of their region.
	store := newRuleBackend(t)
	more := fmt.Sprintf("remote_write: [{url: 'http://%s/api/v1/write', queue_config: {batch_send_deadline: 50ms}}]\n", store.Addr())
	s, file := startRules(t, regionRules(am, map[string]*ruleBackend{"eu": eu, "us": us}, more), text)
	alert := func(name, region string) string {
		ls := []string{"alertname", name, "site", "here"}
		if region != "" {
			ls = append(ls, "region", region)
		}
		if name == "Old" {
			ls = append(ls, "metric", region+"/1")
		}
		return am.state(ls...)
	}
	own := func(rule string) string {
		return am.state("alertname", "OnepromRuleNotEvaluated", "rule", rule, "rule_group", "g",
			"rule_file", filepath.Join(filepath.Dir(file), "rules.yml"), "severity", "warning", "site", "here")
	}
	activeAt := func() time.Time {
		var answer struct {
			Data struct {
				Alerts []struct {
					Labels   map[string]string
					ActiveAt time.Time
				}
			}
		}
		require.NoError(t, json.Unmarshal(get(s.Handler(), "/api/v1/alerts").Body.Bytes(), &answer))
		for _, a := range answer.Data.Alerts {
			if a.Labels["alertname"] == "Slow" {
				return a.ActiveAt
			}
		}
		return time.Time{}
	}
	recorded := func(region string) []float64 { return store.samples(t, "region:old:sum", "region", region) }
	eventually(t, "alerts of all", func() bool {
		return alert("Old", "eu") == "firing" && alert("Old", "us") == "firing" && alert("All", "") == "firing" && len(recorded("us")) > 0 && !activeAt().IsZero()
	})
	require.NoError(t, us.Set(fault.Refuse()))
	eventually(t, "what stopped is said", func() bool { return own("Old") == "firing" && own("All") == "firing" })
	require.Contains(t, am.description("OnepromRuleNotEvaluated"), `server group "us"`)
	eventually(t, "what is not evaluated is said of each rule", func() bool { // not while the group is evaluated
		return strings.Contains(get(s.Handler(), "/api/v1/rules").Body.String(), `"health":"ok","lastError":"not evaluated for server group \"us\": server group \"us\" did not answer: `)
	})

	until, since := am.untilOf("Old", "us"), activeAt()
	eu.add(t, time.Second, 0, 1, "__name__", "new")
	eventually(t, "a new alert of the other region", func() bool { return alert("New", "eu") == "firing" })
	eventually(t, "the alert of the region is repeated", func() bool { return am.untilOf("Old", "us").After(until) })
	before := len(recorded("eu"))
	eventually(t, "the other region is recorded", func() bool { return len(recorded("eu")) > before+3 })
	for _, v := range recorded("us") {
		require.Equal(t, 1.0, v, "no marker of an end")
	}
	require.Equal(t, "firing", alert("Old", "us"))
	require.Equal(t, "firing", alert("All", ""))
	eventually(t, "an alert that nobody can judge does not come nearer to firing", func() bool { return activeAt().After(since) })
	eu.end(t, "__name__", "new")
	eventually(t, "the alert of the other region is resolved", func() bool { return alert("New", "eu") == "resolved" })

	us.end(t, "__name__", "old")
	require.NoError(t, us.Set(fault.Fault{}))
	eventually(t, "the alert of the region is resolved", func() bool { return alert("Old", "us") == "resolved" })
	eventually(t, "nothing has stopped", func() bool { return own("Old") == "resolved" && own("All") == "resolved" })
	eventually(t, "all rules are evaluated again", func() bool {
		return !strings.Contains(get(s.Handler(), "/api/v1/rules").Body.String(), "not evaluated for")
	})
}
