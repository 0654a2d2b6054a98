package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/proxy/admission"
	"github.com/oneprom/oneprom/proxy/tenant"
	"github.com/oneprom/oneprom/servergroup/backendtest"
)

// secret is in everything that is the other tenant's: no request has it.
const secret = "secretb"

// ofBoth is what servers tell of themselves that is of both tenants.
var ofBoth = func() map[string]string {
	alert := func(team string) string {
		return `{"labels":{"alertname":"Down","team":"` + team + `"},"annotations":{"of":"` + team + `"},"state":"firing","activeAt":"2026-01-01T12:00:00Z","value":"1e+00"}`
	}
	rule := func(team, alerts string) string {
		return `{"type":"alerting","name":"Down` + team + `","query":"up{team=\"` + team + `\"}","labels":{"team":"` + team + `"},"annotations":{},"state":"firing","health":"err","lastError":"found secretb","alerts":[` + alerts + `]}`
	}
	group := func(name, rules string) string {
		return `{"name":"` + name + `","file":"` + name + `.yml","interval":15,"rules":[` + rules + `]}`
	}
	target := func(team string) string {
		return `{"discoveredLabels":{"__meta":"` + team + `"},"labels":{"team":"` + team + `"},"scrapePool":"` + team + `","scrapeUrl":"http://` + team + `/","health":"up"}`
	}
	return map[string]string{
		"/rules": `{"groups":[` + group("mixed", rule("a", alert("a")+","+alert(secret))+","+rule(secret, alert(secret))) + `,` + group(secret, rule(secret, "")) + `]}`,
		// What a rule of nobody's has raised is whose its labels are.
		"/alerts":           `{"alerts":[` + alert("a") + `,` + alert(secret) + `]}`,
		"/targets":          `{"activeTargets":[` + target("a") + `,` + target(secret) + `],"droppedTargets":[{"discoveredLabels":{"x":"secretb"},"scrapePool":"secretb"}],"droppedTargetCounts":{"secretb":1}}`,
		"/targets/metadata": `[{"target":{"team":"a"},"metric":"m","type":"counter","help":"of a","unit":""},{"target":{"team":"secretb"},"metric":"m","type":"counter","help":"of secretb","unit":""}]`,
		"/scrape_pools":     `{"scrapePools":["a","secretb"]}`,
		"/notifications":    `[{"text":"secretb","date":"2026-01-01T12:00:00Z","active":true}]`,
	}
}()

// tenantsWorld are two tenants, a and b, whose data has the same names of metrics, and an
// administrator. A pair of servers has data of both; its first one has missed something of
// both. Two more have data of b only, and of neither.
func tenantsWorld(t testing.TB, flags ...string) *Server {
	t.Helper()
	const both = `load 30s
 up{job="j", instance="a1", team="a"} 1x20
 up{job="j", instance="secretb1", team="secretb"} 1x20
 m{job="j", instance="a1", team="a", of="a"} 1+1x20
 m{job="j", instance="secretb1", team="secretb", of="secretb", secretb_label="x"} 1+2x20
 h_bucket{job="j", instance="a1", team="a", le="1"} 1x20
 h_bucket{job="j", instance="a1", team="a", le="+Inf"} 2x20
 h_bucket{job="j", instance="secretb1", team="secretb", le="1"} 1x20
 h_bucket{job="j", instance="secretb1", team="secretb", le="secretb"} 1x20
 target_info{job="j", instance="a1", team="a", data="a"} 1x20
 target_info{job="j", instance="a1", team="secretb", data="secretb"} 1x20
 secretb_only{job="j", instance="secretb1", team="secretb"} 1x20
 team_less{job="j", instance="secretb1", name="secretb"} 1x20
`
	gap := strings.NewReplacer(`"a"} 1x20`, `"a"} 1x4 _x6 1x10`, `"secretb"} 1x20`, `"secretb"} 1x6 _x6 1x8`).Replace(both)
	serve := func(load string) string {
		data := promqltest.LoadedStorage(t, load)
		t.Cleanup(func() { require.NoError(t, data.Close()) })
		for _, team := range []string{"a", secret} {
			app := data.Appender(t.Context())
			series := labels.FromStrings("__name__", "m", "job", "j", "team", team, "instance", team+"1")
			ref, err := app.Append(0, series, 630_000, 1)
			require.NoError(t, err)
			_, err = app.AppendExemplar(ref, series, exemplar.Exemplar{Labels: labels.FromStrings("trace_id", team), Value: 1, Ts: 60_000, HasTs: true})
			require.NoError(t, err)
			require.NoError(t, app.Commit())
		}
		series := backendtest.NewHandler(backendtest.Options{
			Queryable: data, Exemplars: data, EarlyNames: true,
			Metadata: map[string][]metadata.Metadata{"m": {{Type: "counter", Help: "of secretb"}}, "secretb_only": {{Type: "gauge", Help: "x"}}},
		})
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			text, ok := ofBoth[strings.TrimPrefix(r.URL.Path, "/api/v1")]
			if !ok {
				series.ServeHTTP(w, r)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte(`{"status":"success","data":` + text + `,"warnings":["of secretb"]}`))
		}))
		t.Cleanup(srv.Close)
		return strings.TrimPrefix(srv.URL, "http://")
	}
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "rules.yml"), []byte("groups: [{name: own, rules: [{alert: OwnA, expr: m > 0, labels: {team: a}}, {alert: OwnB, expr: secretb_only > 0, labels: {team: secretb}}]}]"), 0o600))
	config := fmt.Sprintf(`
global: {tenant_header: X-Tenant}
rule_files: [rules.yml]
tenants:
  - {name: a, header_values: [a], selector: '{team="a"}'}
  - {name: b, header_values: [b], selector: '{team=~"secretb.*"}'}
  - {name: root, header_values: [root], admin: true}
server_groups:
  - name: pair
    static_configs: [{targets: ['%s', '%s']}]
  - name: group-of-secretb
    labels: {team: secretb-injected}
    static_configs: [{targets: ['%s']}]
  - name: others
    labels: {zone: z}
    replica_labels: [replica]
    static_configs: [{targets: ['%s']}]
`, serve(gap), serve(both), serve("load 30s\n m{job=\"j\", instance=\"x\"} 1x20\n"), serve(strings.ReplaceAll(both, `job="j"`, `job="k"`)))
	file := filepath.Join(dir, "oneprom.yml")
	require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
	s, err := New(tenantsOptions(t, file, flags...))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Stop(context.Background())) })
	require.NoError(t, s.Start(t.Context()))
	return s
}

// as sends a request of a tenant; "" is nobody.
func as(s *Server, tenant, method, target, form string) *httptest.ResponseRecorder {
	req := httptest.NewRequest(method, target, strings.NewReader(form))
	if form != "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if tenant != "" {
		req.Header.Set("X-Tenant", tenant)
	}
	rec := httptest.NewRecorder()
	s.Handler().ServeHTTP(rec, req)
	return rec
}

// told is all that an answer tells: headers and body, that of remote read decompressed.
func told(rec *httptest.ResponseRecorder) string {
	body := rec.Body.Bytes()
	if plain, err := snappy.Decode(nil, body); err == nil {
		body = plain
	}
	return fmt.Sprint(rec.Code, rec.Header(), string(body))
}

func TestTenants_EveryRouteHasAnAccess(t *testing.T) {
	s, _ := newServer(t, oneGroup)
	for _, r := range s.router.Rows() {
		require.NotEqual(t, tenant.ForNobody, r.Access, "%s: say in the table of routes for whom it is", r.Path)
	}
}

func TestTenants_RoutesAreRefused(t *testing.T) {
	s := tenantsWorld(t)
	for _, r := range s.router.Rows() {
		path := strings.NewReplacer(":name", "team", ":id", "1", "*subpath", "pprof/cmdline", "*path", "x").Replace(r.Path)
		for name, refused := range map[string][]tenant.Access{"": {tenant.ForTenants, tenant.ForAdmins}, "unknown": {tenant.ForTenants, tenant.ForAdmins}, "a": {tenant.ForAdmins}} {
			if !slices.Contains(refused, r.Access) {
				continue
			}
			for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete} {
				rec := as(s, name, method, path, "")
				if rec.Code == http.StatusMethodNotAllowed || rec.Code == http.StatusNotFound {
					continue
				}
				want := http.StatusForbidden
				if name == "" {
					want = http.StatusUnauthorized
				}
				require.Equal(t, want, rec.Code, "%s %s as %q: %s", method, path, name, rec.Body)
			}
		}
	}
	require.JSONEq(t, `{"status":"error","errorType":"unauthorized","error":"no tenant identified: send the header X-Tenant, a user or a client certificate"}`,
		as(s, "", http.MethodGet, "/api/v1/query?query=m", "").Body.String())
}

// What a handler answers without permission is not sent.
func TestTenants_NothingUnlessPermitted(t *testing.T) {
	s := tenantsWorld(t)
	h := s.guard.Identify(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Key", secret)
		_, _ = w.Write([]byte(secret))
	}))
	req := httptest.NewRequest(http.MethodGet, "/forgotten", nil)
	req.Header.Set("X-Tenant", "a")
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, req)
	require.Equal(t, http.StatusForbidden, rec.Code)
	require.NotContains(t, told(rec), secret)
}

func TestTenants_AnswersAreThoseOfAPrometheusWithTheOwnDataOnly(t *testing.T) {
	s := tenantsWorld(t)
	for _, c := range []struct{ path, want string }{
		{"query?time=300&query=count(m)", `"2"`}, // of the pair and of the others
		{"query?time=300&query=count(m)by(team)", `"metric":{"team":"a"}`},
		{"query?time=300&query=absent(secret_only)", `"metric":{}`},
		{`query?time=300&query=absent(team_less{job="j"})`, `"metric":{"job":"j"}`},
		{`query?time=300&query=count(m{team!="a"})`, `"result":[]`},
		{`query?time=300&query=count(m{team=~".*"})`, `"2"`},
		{"query?time=300&query=count(count_over_time(m[5m:1m]))", `"2"`},
		{"label/team/values?start=0&end=600", `"data":["a"]`},
		{"label/of/values?start=0&end=600", `"data":["a"]`},
		{"labels?start=0&end=600", `"data":["__name__","data","instance","job","le","of","team","zone"]`},
		{"metadata", `"data":{}`},
	} {
		rec := as(s, "a", http.MethodGet, "/api/v1/"+strings.ReplaceAll(c.path, `"`, "%22"), "")
		require.Equal(t, http.StatusOK, rec.Code, rec.Body)
		require.Contains(t, rec.Body.String(), c.want, c.path)
	}
	require.Equal(t, http.StatusForbidden, as(s, "a", http.MethodGet, "/api/v1/explain?query=m&analyze=true", "").Code)
}

// TestTenants_RulesAlertsAndTargets are shown by their labels.
func TestTenants_RulesAlertsAndTargets(t *testing.T) {
	s := tenantsWorld(t)
	for path, want := range map[string][]string{
		"rules": {`"name":"OwnA"`, `"name":"Downa"`, `"name":"mixed"`, "details are hidden from tenants"}, "rules?exclude_alerts=true": {`"name":"Downa"`},
		"alerts": {`"team":"a"`}, "targets": {`"scrapePool":"a"`, `"droppedTargets":[]`}, "targets/metadata": {`"help":"of a"`}, "rules?group_limit=1": {`"groupNextToken"`},
	} {
		rec := as(s, "a", http.MethodGet, "/api/v1/"+path, "")
		require.Equal(t, http.StatusOK, rec.Code, rec.Body)
		for _, text := range want {
			require.Contains(t, rec.Body.String(), text, path)
		}
		require.NotContains(t, told(rec), secret, path)
		require.NotContains(t, told(rec), "OwnB", path)
		if !strings.Contains(path, "group_limit") {
			require.Contains(t, told(as(s, "root", http.MethodGet, "/api/v1/"+path, "")), secret, path)
		}
	}
	page := as(s, "a", http.MethodGet, "/api/v1/rules?group_limit=9", "").Body.String()
	require.NotContains(t, page, "groupNextToken", "of a group that is not shown")
}

// tenantsRequest makes a request of numbers and texts, as a tenant would who wants to see
// more.
func tenantsRequest(s *Server, route, method uint8, expr, match, more string) *http.Request {
	path := s.router.Rows()[int(route)%len(s.router.Rows())].Path
	names := []string{"team", "instance", "__name__", "U__team", "secret", "of"}
	path = strings.NewReplacer(":name", names[int(method)%len(names)], ":id", "1", "*subpath", "pprof/cmdline", "*path", "labels").Replace(path)
	params := url.Values{"query": {expr}, "match[]": {match}, "match_target": {match}, "metric": {more}, "time": {"300"}, "start": {"0"}, "end": {"600"}, "step": {"60"}, "analyze": {strconv.FormatBool(method%3 == 0)}}
	if strings.HasSuffix(path, "/query") {
		params.Del("step")
	}
	params.Set("format", []string{"json", "text", more}[int(method/2)%3])
	methods := []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions, http.MethodHead}
	var req *http.Request
	switch verb := methods[int(method)%len(methods)]; {
	case path == "/api/v1/read":
		read := &prompb.ReadRequest{Queries: []*prompb.Query{{EndTimestampMs: 600_000, Matchers: []*prompb.LabelMatcher{
			{Type: prompb.LabelMatcher_Type(method % 4), Name: "team", Value: more},
			{Type: prompb.LabelMatcher_NEQ, Name: "__name__", Value: ""},
		}}}}
		if method%2 == 0 {
			read.AcceptedResponseTypes = []prompb.ReadRequest_ResponseType{prompb.ReadRequest_STREAMED_XOR_CHUNKS}
		}
		data, err := read.Marshal()
		if err != nil {
			data = nil
		}
		req = httptest.NewRequest(http.MethodPost, path, bytes.NewReader(snappy.Encode(nil, data)))
	case verb == http.MethodPost:
		req = httptest.NewRequest(verb, path, strings.NewReader(params.Encode()))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	default:
		req = httptest.NewRequest(verb, path, nil)
		req.URL.RawQuery = params.Encode()
	}
	return req
}

var (
	breakOuts = []string{
		`m`, `{team=~".+"}`, `{team=~"a|sec.*"}`, `{__name__=~".+"}`, `m{team!="a"}`, `{team=~"a|.*"}`, `{team="a" or team=~".+"}`, `{zone!="", team!~"a"}`,
		`label_replace(m, "x", "$1", "team", "(.*)")`, `m or on() {team!="a"}`, `m unless m{team="a"}`, `absent(m{team=~"sec.*"})`, `absent({team!="a"})`,
		`info(m)`, `info(m, {team!="a"})`, `info(m, {data=~".+"})`, `count_values("x", m)`, `group by (team, instance, of) ({__name__=~".+"})`,
		`topk(99, {__name__=~".+"})`, `sum by (team) (rate(m[5m]))`, `max_over_time({team!=""}[5m:1m])`, `m{team!="a"}[5m]`, `m @ end()`, `m offset -1m`,
		`histogram_quantile(0.5, h_bucket)`, `histogram_quantile(2, {le=~".+"})`, `m * on(job) group_left(team) {team!="a"}`, `m + on(job) m`, `label_join(team_less, "y", "-", "name", "team")`,
		`quantile(3, m)`, `sort_by_label(m, "team")`, `{"m", team!="a"}`, `{team=""}`, `team_less`, `sum(m) by (__name__, instance)`, `m{`, `"x"`, `limitk(5, {__name__!=""})`,
	}
	moreTexts = []string{"", "a", ".*", ".+", "m", "sec.*", "a|sec.*", "team", `a" or team=~".+`, "a\x00", "\xff", "1", "true"}
)

func requireSecretKept(t testing.TB, s *Server, req *http.Request) {
	t.Helper()
	shown := fmt.Sprint(req.Method, req.URL)
	req.Header.Set("X-Tenant", "a")
	rec := httptest.NewRecorder()
	s.Handler().ServeHTTP(rec, req)
	if text := told(rec); strings.Contains(text, secret) {
		t.Fatalf("%s tells of the other tenant:\n%s", shown, text)
	}
}

// TestTenants_SecretsAreKept sends every text that might break out to every route, and
// random mixtures of them.
func TestTenants_SecretsAreKept(t *testing.T) {
	s := tenantsWorld(t)
	rng := rand.New(rand.NewPCG(1, 2))
	pick := func(list []string) string { return list[rng.IntN(len(list))] }
	seen := map[string]bool{} // routes by which the other one is told
	for i, r := range s.router.Rows() {
		if strings.HasSuffix(r.Path, "/live") || strings.HasPrefix(r.Path, "/-/") {
			continue // which do not end, or end the server
		}
		texts := []string{breakOuts[0]}
		if r.Access == tenant.ForTenants {
			texts = breakOuts
		}
		for _, expr := range texts {
			for method := range uint8(2) {
				requireSecretKept(t, s, tenantsRequest(s, uint8(i), method, expr, expr, pick(moreTexts)))
			}
			requireSecretKept(t, s, tenantsRequest(s, uint8(i), uint8(rng.IntN(256)), expr, pick(breakOuts), pick(moreTexts)))
		}
		if r.Access == tenant.ForTenants {
			req := tenantsRequest(s, uint8(i), 0, "m", `{team=~".+"}`, ".+")
			if r.Path == "/api/v1/read" {
				req = tenantsRequest(s, uint8(i), 2, "", "", ".+")
			}
			req.Header.Set("X-Tenant", "b")
			rec := httptest.NewRecorder()
			s.Handler().ServeHTTP(rec, req)
			seen[r.Path] = seen[r.Path] || strings.Contains(told(rec), secret)
		}
	}
	for _, route := range []string{"rules", "alerts", "targets", "targets/metadata", "query", "query_range", "query_exemplars", "series", "labels", "label/:name/values", "read"} {
		require.True(t, seen["/api/v1/"+route], "%s does not tell b of its own", route)
	}
	require.NotContains(t, as(s, "root", http.MethodGet, "/metrics", "").Body.String(), "secretb1")
}

func FuzzTenants_SecretsAreKept(f *testing.F) {
	s := tenantsWorld(f)
	for i, expr := range breakOuts {
		f.Add(uint8(i), uint8(i), expr, breakOuts[(i+7)%len(breakOuts)], moreTexts[i%len(moreTexts)])
	}
	f.Fuzz(func(t *testing.T, route, method uint8, expr, match, more string) {
		name := s.router.Rows()[int(route)%len(s.router.Rows())].Path
		if strings.Contains(expr+match+more, secret) || strings.HasSuffix(name, "/live") || strings.HasPrefix(name, "/-/") {
			return
		}
		requireSecretKept(t, s, tenantsRequest(s, route, method, expr, match, more))
	})
}

// What servers say in words of their own may be of anybody.
func TestTenants_WordsOfServersAreWithheld(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, `{"status":"error","errorType":"internal","error":"store of secretb is down"}`, http.StatusInternalServerError)
	}))
	t.Cleanup(srv.Close)
	s, _ := startedServer(t, `
global: {tenant_header: X-Tenant}
tenants:
  - {name: a, header_values: [a], selector: '{team="a"}'}
  - {name: root, header_values: [root], admin: true}
server_groups:
  - {name: g, static_configs: [{targets: ['`+strings.TrimPrefix(srv.URL, "http://")+`']}]}
`)
	for _, path := range []string{"query?query=m", "query?query=sum(m)", "labels", "series?match[]=m", "query_exemplars?query=m"} {
		require.NotContains(t, told(as(s, "a", http.MethodGet, "/api/v1/"+path, "")), secret, path)
		require.Contains(t, told(as(s, "root", http.MethodGet, "/api/v1/"+path, "")), secret, path)
	}
}

func TestTenants_OneTenantOnly(t *testing.T) {
	s := tenantsWorld(t)
	req := httptest.NewRequest(http.MethodGet, "/api/v1/labels", nil)
	req.Header["X-Tenant"] = []string{"a", "root"}
	rec := httptest.NewRecorder()
	s.Handler().ServeHTTP(rec, req)
	require.Equal(t, http.StatusForbidden, rec.Code)
}

func TestTenants_QueriesAreTheirOwn(t *testing.T) {
	s := tenantsWorld(t, "--web.enable-admin-api")
	ids, end := map[string]string{}, make(chan struct{})
	var running sync.WaitGroup
	for _, tenant := range []string{"a", "b"} {
		asked := make(chan struct{})
		h := s.guard.Identify(s.queries.Observe(func(h http.Handler) http.Handler { return h }, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			close(asked)
			<-end
		})))
		running.Go(func() {
			req := httptest.NewRequest(http.MethodGet, "/query?query=of_"+tenant, nil)
			req.Header.Set("X-Tenant", tenant)
			h.ServeHTTP(httptest.NewRecorder(), req)
		})
		<-asked
	}
	defer running.Wait()
	defer close(end)
	for _, q := range listedBy(t, s, "root") {
		ids[q.Tenant] = q.ID
	}
	list := func(tenant string) string {
		return as(s, tenant, http.MethodGet, "/api/v1/status/queries", "").Body.String()
	}
	require.Contains(t, list("a"), "of_a")
	require.NotContains(t, list("a"), "of_b")
	require.Contains(t, list("root"), "of_a")
	require.Contains(t, list("root"), "of_b")
	ofB := "/api/v1/status/queries/" + ids["b"]
	require.Equal(t, http.StatusNotFound, as(s, "a", http.MethodDelete, ofB, "").Code)
	require.NotEqual(t, http.StatusNotFound, as(s, "b", http.MethodDelete, ofB, "").Code)
}

// listedBy are the running queries that a tenant is shown.
func listedBy(t *testing.T, s *Server, tenant string) (list []struct{ ID, Tenant string }) {
	t.Helper()
	var envelope struct{ Data json.RawMessage }
	require.NoError(t, json.Unmarshal(as(s, tenant, http.MethodGet, "/api/v1/status/queries", "").Body.Bytes(), &envelope))
	require.NoError(t, json.Unmarshal(envelope.Data, &list))
	return list
}

func tenantsOptions(t testing.TB, file string, flags ...string) Options {
	t.Helper()
	var o Options
	app := kingpin.New("oneprom", "").Terminate(nil)
	AddFlags(app, &o)
	_, err := app.Parse(append([]string{"--config.file=" + file, "--web.listen-address=127.0.0.1:0"}, flags...))
	require.NoError(t, err)
	return o
}

// A tenant has slots of its own, and query rules know it.
func TestTenants_Limits(t *testing.T) {
	s, _ := startedServer(t, `
global: {tenant_header: X-Tenant}
tenants:
  - {name: a, header_values: [a], selector: '{team="a"}', max_concurrency: 1}
  - {name: b, header_values: [b], selector: '{team="b"}'}
query_rules:
  - {name: no-b, tenant: b, regex: 'time.*', action: refuse, reason: not for b}
server_groups:
  - {name: g, static_configs: [{targets: ['127.0.0.1:1']}]}
`, "--query.max-queued=0")
	query := func(tenant string) *httptest.ResponseRecorder {
		return as(s, tenant, http.MethodGet, "/api/v1/query?query=time()", "")
	}
	require.Equal(t, http.StatusOK, query("a").Code)
	require.Contains(t, query("b").Body.String(), "not for b")
	var pool *admission.Pool
	owners := s.guard.Identify(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { pool = tenant.Of(r.Context()).Pool() }))
	askWith(owners, "/", "X-Tenant", "a")
	leave, err := s.gate.Queue.Enter(t.Context(), admission.Request{Client: "x", Arrived: time.Now(), Pools: []*admission.Pool{pool}})
	require.NoError(t, err)
	require.Equal(t, http.StatusTooManyRequests, query("a").Code)
	require.NoError(t, s.Reload(t.Context())) // the slots are kept
	require.Equal(t, http.StatusTooManyRequests, query("a").Code)
	leave()
	require.Equal(t, http.StatusOK, query("a").Code)
}
