package proxy

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/proxy/api"
	"github.com/oneprom/oneprom/servergroup/backendtest"
)

// teller starts a server without data that tells of itself what it is given, by path below
// /api/v1: data of a successful answer, or `status body` of another one. It returns host:port.
func teller(t *testing.T, tells map[string]string) string {
	t.Helper()
	other := backendtest.NewHandler(backendtest.Options{Queryable: backendtest.Empty{}})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, ok := tells[strings.TrimPrefix(r.URL.Path, "/api/v1")]
		if !ok {
			other.ServeHTTP(w, r)
			return
		}
		var code int
		if n, _ := fmt.Sscanf(text, "%d ", &code); n == 1 {
			_, text, _ = strings.Cut(text, " ")
		} else {
			code, text = http.StatusOK, `{"status":"success","data":`+text+`}`
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_, _ = w.Write([]byte(text))
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// euAndUS is a configuration of a pair and a single server, told apart by an injected label.
func euAndUS(global, eu1, eu2, us string) string {
	return fmt.Sprintf(`
global: {%s}
server_groups:
  - name: eu
    labels: {region: eu}
    replica_labels: [replica]
    static_configs: [{targets: ['%s', '%s']}]
  - name: us
    labels: {region: us}
    static_configs: [{targets: ['%s']}]
`, global, eu1, eu2, us)
}

// shown is the JSON of an answer's data, and its warnings and infos.
func shown(t *testing.T, s *Server, target string) (data string, said []string) {
	t.Helper()
	w := get(s.Handler(), "/api/v1"+target)
	require.Equal(t, http.StatusOK, w.Code, w.Body.String())
	var a struct {
		Data            json.RawMessage
		Warnings, Infos []string
	}
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &a))
	return string(a.Data), append(a.Warnings, a.Infos...)
}

// downRule is an alerting rule of a replica.
func downRule(replica, state string, alerts ...string) string {
	return fmt.Sprintf(`{"type":"alerting","name":"Down","query":"up == 0","duration":0,"keepFiringFor":0,"labels":{"replica":%q},"annotations":{},"state":%q,"health":"ok",`+
		`"evaluationTime":0.5,"lastEvaluation":"2026-01-01T12:00:00Z","alerts":[%s]}`, replica, state, strings.Join(alerts, ","))
}

func downAlert(replica, state string, minute int) string {
	return fmt.Sprintf(`{"labels":{"alertname":"Down","replica":%q},"annotations":{},"state":%q,"activeAt":"2026-01-01T12:%02d:00Z","value":"1e+00"}`, replica, state, minute)
}

func fileOfRules(rules ...string) string {
	return `{"groups":[{"name":"g","file":"f.yml","interval":15,"limit":0,"evaluationTime":0.5,"lastEvaluation":"2026-01-01T12:00:00Z","rules":[` + strings.Join(rules, ",") + `]}]}`
}

// Twins are one, of which the firing one is shown; another group is told apart by its label.
func TestViews_RulesAndAlerts(t *testing.T) {
	s, _ := startedServer(t, euAndUS("",
		teller(t, map[string]string{"/rules": fileOfRules(downRule("a", "pending", downAlert("a", "pending", 3))), "/alerts": `{"alerts":[` + downAlert("a", "pending", 3) + `]}`}),
		teller(t, map[string]string{"/rules": fileOfRules(downRule("b", "firing", downAlert("b", "firing", 5))), "/alerts": `{"alerts":[` + downAlert("b", "firing", 5) + `]}`}),
		teller(t, map[string]string{"/rules": fileOfRules(downRule("c", "inactive")), "/alerts": `{"alerts":[]}`})))
	const alert = `{"labels":{"alertname":"Down","region":"eu"},"annotations":{},"state":"firing","activeAt":"2026-01-01T12:03:00Z","value":"1e+00"}`
	rule := func(state, labels, alerts string) string {
		return `{"state":"` + state + `","name":"Down","query":"up == 0","duration":0,"keepFiringFor":0,"labels":{` + labels + `},"annotations":{},"alerts":` + alerts + `,` +
			`"health":"ok","evaluationTime":0.5,"lastEvaluation":"2026-01-01T12:00:00Z","type":"alerting"}`
	}
	file := func(rules ...string) string {
		return `{"groups":[{"name":"g","file":"f.yml","rules":[` + strings.Join(rules, ",") + `],"interval":15,"limit":0,"evaluationTime":0.5,"lastEvaluation":"2026-01-01T12:00:00Z"}]}`
	}
	eu, us := rule("firing", `"region":"eu"`, "["+alert+"]"), rule("inactive", `"region":"us","replica":"c"`, "[]")
	f := func(target, want string) {
		t.Helper()
		data, said := shown(t, s, target)
		require.Equal(t, want, data)
		require.Empty(t, said)
	}
	const none = `{"groups":[]}`
	f("/alerts", `{"alerts":[`+alert+`]}`)
	f("/rules", file(eu, us))
	f("/rules?exclude_alerts=true", file(rule("firing", `"region":"eu"`, "null"), rule("inactive", `"region":"us","replica":"c"`, "null")))
	// What is asked for is asked for of the merged list.
	f("/rules?"+url.Values{"match[]": {`{region="eu"}`}}.Encode(), file(eu))
	f("/rules?"+url.Values{"match[]": {`{replica="a"}`}}.Encode(), none)
	f("/rules?type=record", none)
	f("/rules?type=Alert&rule_name[]=Down&rule_group=g&file=f.yml", file(eu, us))
	for _, other := range []string{"rule_name", "rule_group", "file"} {
		f("/rules?"+other+"=x", none)
		f("/rules?"+url.QueryEscape(other+"[]")+"=x", none)
	}
	w := get(s.Handler(), "/api/v1/rules")
	require.Equal(t, "whole", w.Header().Get(api.CompletenessHeader))
}

func TestViews_RulesAreRefusedAsUpstreamRefuses(t *testing.T) {
	s, _ := startedServer(t, oneGroup)
	for query, message := range map[string]string{
		"type=x":                           `invalid parameter \"type\": not supported value \"x\"`,
		"exclude_alerts=x":                 `invalid parameter \"exclude_alerts\": error converting exclude_alerts: strconv.ParseBool: parsing \"x\": invalid syntax`,
		"group_next_token=x":               `invalid parameter \"group_next_token\": group_limit needs to be present in order to paginate over the groups`,
		"group_limit=0":                    `invalid parameter \"group_limit\": group_limit needs to be greater than 0`,
		"group_limit=0&group_next_token":   `invalid parameter \"group_limit\": group_limit needs to be greater than 0`,
		"group_limit=1&group_next_token=x": `invalid parameter \"group_next_token\": invalid group_next_token 'x'. were rule groups changed?`,
		"match[]=%7B%7D":                   `match[] must contain at least one non-empty matcher`,
		"%zz":                              `error parsing form values: invalid URL escape \"%zz\"`,
	} {
		r := httptest.NewRequest(http.MethodGet, "/api/v1/rules", nil)
		r.URL.RawQuery = query
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		require.Equal(t, http.StatusBadRequest, w.Code, query)
		require.Equal(t, apiFailure("bad_data", message), w.Body.String(), query)
	}
}

// Pages are of the merged list: each group comes once, whoever has it, and the token is
// upstream's.
func TestViews_RulesByPages(t *testing.T) {
	group := func(file, name string) string {
		return `{"file":"` + file + `","name":"` + name + `","rules":[{"type":"recording","name":"r","query":"1"}]}`
	}
	both := `{"groups":[` + group("b", "2") + `,` + group("a", "1") + `]}`
	s, _ := startedServer(t, euAndUS("", teller(t, map[string]string{"/rules": both}), teller(t, map[string]string{"/rules": both}),
		teller(t, map[string]string{"/rules": `{"groups":[` + group("a", "2") + `,` + group("b", "1") + `,` + group("b", "2") + `]}`})))
	pages := func(query string) (names [][]string) {
		for token := ""; ; {
			data, _ := shown(t, s, "/rules?"+query+token)
			var page struct {
				Groups         []struct{ File, Name string }
				GroupNextToken string
			}
			require.NoError(t, json.Unmarshal([]byte(data), &page))
			var list []string
			for _, g := range page.Groups {
				list = append(list, g.File+g.Name)
			}
			names = append(names, list)
			if page.GroupNextToken == "" {
				return names
			}
			token = "&group_next_token=" + page.GroupNextToken
		}
	}
	require.Equal(t, [][]string{{"a1", "a2", "b1", "b2"}}, pages(""))
	require.Equal(t, [][]string{{"a1", "a2", "b1"}, {"b2"}}, pages("group_limit=3"))
	require.Equal(t, [][]string{{"a1"}, {"a2"}, {"b1"}, {"b2"}}, pages("group_limit=1"))
	require.Equal(t, [][]string{{"a1", "a2", "b1", "b2"}}, pages("group_limit=4"))
	require.Equal(t, [][]string{{"a2"}, {"b2"}}, pages("group_limit=1&rule_group=2"))
	data, _ := shown(t, s, "/rules?group_limit=1")
	require.Contains(t, data, `"groupNextToken":"d0b40f1ceaedd862a2b8ea8690fdfb30af4a472fb0a621eeaca71af9c1956be1"`)
}

func TestViews_Targets(t *testing.T) {
	target := func(replica, health, at string) string {
		return `{"discoveredLabels":{"__address__":"x:1"},"labels":{"instance":"x:1","replica":"` + replica + `"},"scrapePool":"p","scrapeUrl":"http://x:1/metrics","globalUrl":"http://x:1/metrics",` +
			`"lastError":"","lastScrape":"` + at + `","lastScrapeDuration":0.5,"health":"` + health + `","scrapeInterval":"15s","scrapeTimeout":"10s"}`
	}
	targets := func(active string, dropped int) string {
		return fmt.Sprintf(`{"activeTargets":[%s],"droppedTargets":[{"discoveredLabels":{"__address__":"y"},"scrapePool":"p"}],"droppedTargetCounts":{"p":%d}}`, active, dropped)
	}
	metadata := func(replica string) string {
		return `[{"target":{"instance":"x:1","replica":"` + replica + `"},"metric":"up","type":"gauge","help":"","unit":""},{"target":{"instance":"x:1","replica":"` + replica + `"},"metric":"a","type":"gauge","help":"","unit":""}]`
	}
	tells := func(replica, health, at string, dropped int, config string) map[string]string {
		return map[string]string{
			"/targets": targets(target(replica, health, at), dropped), "/targets/metadata": metadata(replica),
			"/scrape_pools": `{"scrapePools":["p","` + config + `"]}`, "/scrape_pools/config": `{"yaml":"` + config + `"}`,
			"/targets/relabel_steps": `{"steps":[]}`,
			"/alertmanagers":         `{"activeAlertmanagers":[{"url":"http://am-` + config + `"}],"droppedAlertmanagers":[]}`,
		}
	}
	s, _ := startedServer(t, euAndUS("",
		teller(t, tells("a", "down", "2026-01-01T12:00:05Z", 2, "eu")),
		teller(t, tells("b", "up", "2026-01-01T12:00:00Z", 3, "eu")),
		teller(t, tells("c", "up", "2026-01-01T12:00:01Z", 4, "us"))))
	f := func(path, want string, warnings ...string) {
		t.Helper()
		data, said := shown(t, s, path)
		require.Equal(t, want, data)
		require.Len(t, said, len(warnings), said)
		for i := range warnings {
			require.Equal(t, warnings[i], said[i])
		}
	}
	eu := strings.Replace(target("", "up", "2026-01-01T12:00:00Z"), `,"replica":""`, `,"region":"eu"`, 1)
	us := strings.Replace(target("c", "up", "2026-01-01T12:00:01Z"), `,"replica"`, `,"region":"us","replica"`, 1)
	f("/targets", `{"activeTargets":[`+eu+`,`+us+`],"droppedTargets":[{"discoveredLabels":{"__address__":"y"},"scrapePool":"p"}],"droppedTargetCounts":{"p":7}}`)
	ofEU := `[{"target":{"instance":"x:1","region":"eu"},"metric":"a","type":"gauge","help":"","unit":""},{"target":{"instance":"x:1","region":"eu"},"metric":"up","type":"gauge","help":"","unit":""}`
	ofUS := `{"target":{"instance":"x:1","region":"us","replica":"c"},"metric":"a","type":"gauge","help":"","unit":""},{"target":{"instance":"x:1","region":"us","replica":"c"},"metric":"up","type":"gauge","help":"","unit":""}]`
	f("/targets/metadata", ofEU+","+ofUS)
	f("/targets/metadata?limit=2", ofEU+"]")
	f("/targets/metadata?"+url.Values{"match_target": {`{region="us"}`}}.Encode(), "["+ofUS)
	for _, text := range []string{`{region="us",instance=~".+","k8s.pod"=""}`, `{replica!="",replica!="a",instance="x:1"}`} {
		f("/targets/metadata?"+url.Values{"match_target": {text}}.Encode(), "["+ofUS)
	}
	f("/scrape_pools", `{"scrapePools":["eu","p","us"]}`)
	f("/alertmanagers", `{"activeAlertmanagers":[{"url":"http://am-eu"},{"url":"http://am-us"}],"droppedAlertmanagers":[]}`)
	f("/scrape_pools/config?scrapePool=p", `{"yaml":"eu"}`, `server group "us" has another scrape pool of this name than server group "eu", which this is of`)
	f("/targets/relabel_steps?scrapePool=p&labels=%7B%7D", `{"steps":[]}`)

	for path, message := range map[string]string{
		"/scrape_pools/config": `no scrapePool parameter provided`, "/targets/relabel_steps?scrapePool=p": `no labels parameter provided`,
		"/targets/metadata?limit=x": `limit must be a number`, "/targets/metadata?match_target=%7B": `invalid parameter \"match_target\": 1:2: parse error: unexpected end of input inside braces`,
		"/status/tsdb?limit=0": `limit must be a positive number`,
	} {
		w := get(s.Handler(), "/api/v1"+path)
		require.Equal(t, http.StatusBadRequest, w.Code, path)
		require.Equal(t, apiFailure("bad_data", message), w.Body.String(), path)
	}
}

func TestViews_Statistics(t *testing.T) {
	tells := func(series, up int, feature string) map[string]string {
		return map[string]string{
			"/status/tsdb": fmt.Sprintf(`{"headStats":{"numSeries":%d,"numLabelPairs":1,"chunkCount":2,"minTime":5,"maxTime":6},"seriesCountByMetricName":[{"name":"up","value":%d},{"name":"x","value":1}],`+
				`"labelValueCountByLabelName":[{"name":"replica","value":9}],"memoryInBytesByLabelName":[],"seriesCountByLabelValuePair":[]}`, series, up),
			"/status/tsdb/blocks": `{"blocks":[{"ulid":"00000000000000000000000001","minTime":1,"maxTime":2,"stats":{},"compaction":{"level":1,"sources":["00000000000000000000000001"]},"version":1}]}`,
			"/features":           `{"tsdb":{"` + feature + `":true},"promql":{"anchored":true}}`,
			"/notifications":      `[{"text":"Down.","date":"2026-01-01T12:00:00Z","active":true}]`,
		}
	}
	eu1, eu2, us := teller(t, tells(10, 4, "a")), teller(t, tells(9, 5, "a")), teller(t, tells(3, 2, "b"))
	s, _ := startedServer(t, euAndUS("", eu1, eu2, us))
	data, said := shown(t, s, "/status/tsdb?limit=1")
	require.Empty(t, said)
	require.JSONEq(t, `{"headStats":{"numSeries":13,"numLabelPairs":2,"chunkCount":4,"minTime":5,"maxTime":6},"seriesCountByMetricName":[{"name":"up","value":7}],`+
		`"labelValueCountByLabelName":[{"name":"replica","value":9}],"memoryInBytesByLabelName":[],"seriesCountByLabelValuePair":[]}`, data)
	data, _ = shown(t, s, "/status/tsdb/blocks")
	require.Contains(t, data, `{"blocks":[{"ulid":"00000000000000000000000001","minTime":1,"maxTime":2,`)
	data, _ = shown(t, s, "/features")
	require.Contains(t, data, `"tsdb":{"a":true,"b":true}`)
	require.Contains(t, data, `"promql":{"anchored":false,`)
	data, _ = shown(t, s, "/notifications")
	note := func(group, at string) string {
		return fmt.Sprintf(`{"text":"server group \"%s\": http://%s: Down.","date":"2026-01-01T12:00:00Z","active":true}`, group, at)
	}
	require.Equal(t, "["+note("eu", eu1)+","+note("eu", eu2)+","+note("us", us)+"]", data)
}

func TestViews_MetadataAndExemplars(t *testing.T) {
	tells := func(help, replica, trace string) map[string]string {
		return map[string]string{
			"/metadata": `{"up":[{"type":"gauge","help":"` + help + `","unit":""}]}`,
			"/query_exemplars": `[{"seriesLabels":{"__name__":"m","replica":"` + replica + `"},"exemplars":[{"labels":{"trace_id":"` + trace + `"},"value":"1","timestamp":5}]},` +
				`{"seriesLabels":{"__name__":"m","replica":"` + replica + `"},"exemplars":[{"labels":{"trace_id":"both"},"value":"1","timestamp":4}]}]`,
		}
	}
	s, _ := startedServer(t, euAndUS("partial_response: error", teller(t, tells("A", "a", "x")), teller(t, tells("A", "b", "y")), teller(t, tells("B", "c", "z"))))
	data, said := shown(t, s, "/metadata")
	require.Empty(t, said)
	require.JSONEq(t, `{"up":[{"type":"gauge","help":"A","unit":""},{"type":"gauge","help":"B","unit":""}]}`, data)
	data, said = shown(t, s, "/query_exemplars?start=0&end=10&"+url.Values{"query": {`m{region="eu"}`}}.Encode())
	require.Empty(t, said)
	require.JSONEq(t, `[{"seriesLabels":{"__name__":"m","region":"eu"},"exemplars":[{"labels":{"trace_id":"both"},"value":"1","timestamp":4},`+
		`{"labels":{"trace_id":"x"},"value":"1","timestamp":5},{"labels":{"trace_id":"y"},"value":"1","timestamp":5}]}]`, data)

	none, _ := startedServer(t, singleConfig(teller(t, map[string]string{"/metadata": "404 no", "/query_exemplars": "404 no"}), "partial_response: error"))
	for _, path := range []string{"/metadata", "/query_exemplars?query=m"} {
		_, said := shown(t, none, path)
		require.Empty(t, said, path)
	}
}

// viewPaths are the merged views, each with the parameters that it must have.
var viewPaths = []string{
	"/rules", "/alerts", "/targets", "/targets/metadata", "/scrape_pools", "/alertmanagers", "/status/tsdb", "/status/tsdb/blocks", "/features", "/notifications",
}

// A server that does not have an endpoint knows nothing of it, and nothing is missing.
func TestViews_ServersWithoutTheEndpoint(t *testing.T) {
	for name, text := range map[string]string{
		"none":            `404 404 page not found`,
		"an agent":        `422 {"status":"error","errorType":"execution","error":"unavailable with Prometheus Agent"}`,
		"VictoriaMetrics": `400 remoteAddr: "1.2.3.4"; requestURI: /api/v1/x; unsupported path requested: "/api/v1/x"`,
	} {
		tells := map[string]string{}
		for _, path := range append(viewPaths, "/scrape_pools/config") {
			tells[path] = text
		}
		s, _ := startedServer(t, singleConfig(teller(t, tells), "partial_response: error"))
		for _, path := range viewPaths {
			_, said := shown(t, s, path)
			require.Empty(t, said, "%s %s", name, path)
		}
		w := get(s.Handler(), "/api/v1/scrape_pools/config?scrapePool=p")
		require.Equal(t, http.StatusBadRequest, w.Code)
		require.Equal(t, apiFailure("bad_data", `error retrieving scrape config: scrape pool \"p\" not found`), w.Body.String())
	}
}

// A group that answers with garbage, or not at all, is a warning; what the others have is
// shown, and the replica is still asked for samples.
func TestViews_PartialAnswers(t *testing.T) {
	for name, text := range map[string]string{
		"HTML":              `200 <html>`,
		"another type":      `200 {"status":"success","data":42}`,
		"a list of nothing": `200 {"status":"success"}`,
		"an error":          `500 {"status":"error","errorType":"internal","error":"no"}`,
		"forbidden":         `403 no`,
		"no gateway":        `502 no`,
	} {
		broken, whole := map[string]string{}, map[string]string{
			"/rules": fileOfRules(downRule("c", "inactive")), "/scrape_pools": `{"scrapePools":["p"]}`,
		}
		for _, path := range append(viewPaths, "/scrape_pools/config", "/targets/relabel_steps") {
			broken[path] = text
		}
		good, twin, bad := teller(t, whole), teller(t, broken), teller(t, broken)
		s, _ := startedServer(t, euAndUS("", good, twin, bad))
		for _, path := range viewPaths {
			_, said := shown(t, s, path)
			require.Len(t, said, 2, "%s %s", name, path)
			require.Contains(t, said[0], `partial answer: server group "us" did not answer: http://`+bad)
			require.Contains(t, said[1], `server group "eu" answered without a replica: http://`+twin)
			w := get(s.Handler(), "/api/v1"+path)
			require.Equal(t, "partial", w.Header().Get(api.CompletenessHeader))
			require.Equal(t, "us", w.Header().Get(api.MissingHeader))
		}
		data, _ := shown(t, s, "/scrape_pools")
		require.JSONEq(t, `{"scrapePools":["p"]}`, data)
		w := get(s.Handler(), "/api/v1/scrape_pools/config?scrapePool=nope")
		require.Equal(t, http.StatusBadRequest, w.Code, "%s %s", name, w.Body)
		require.Contains(t, w.Body.String(), `scrape pool \"nope\" not found; server group \"us\" did not answer: `)
		for range 20 { // its breaker stays closed
			shown(t, s, "/rules")
		}
		_, said := shown(t, s, "/series?match[]=up")
		require.Empty(t, said)

		strict, _ := startedServer(t, euAndUS("partial_response: error", good, twin, bad))
		for _, path := range viewPaths {
			w := get(strict.Handler(), "/api/v1"+path)
			require.Equal(t, http.StatusServiceUnavailable, w.Code, "%s %s", name, path)
			require.Contains(t, w.Body.String(), `server group \"us\" did not answer`)
		}
	}
}

// Elements that are null, and fields that are not what they should be, break nothing.
func TestViews_NullsAreLeftOut(t *testing.T) {
	s, _ := startedServer(t, singleConfig(teller(t, map[string]string{
		"/rules":  `{"groups":[null,{"rules":[null,{"type":"alerting","labels":null,"alerts":[null]}]}]}`,
		"/alerts": `{"alerts":[null]}`, "/targets": `{"activeTargets":[null],"droppedTargets":[null]}`, "/targets/metadata": `[null]`,
		"/alertmanagers": `{"activeAlertmanagers":[null]}`, "/status/tsdb": `null`, "/features": `{"x":null}`,
	}), ""))
	for _, path := range viewPaths {
		shown(t, s, path)
	}
}

// With every group gone there is still what is oneprom's own.
func TestViews_NobodyAnswers(t *testing.T) {
	s, _ := startedServer(t, oneGroup)
	for _, path := range viewPaths {
		_, said := shown(t, s, path)
		require.Len(t, said, 1, path)
		require.Contains(t, said[0], `partial answer: server group "a" did not answer`)
	}
}

func TestSearch(t *testing.T) {
	db := promqltest.LoadedStorage(t, "load 15s\n  metric_a{job=\"x\"} 1x10\n  metric_b{job=\"y\"} 1x10")
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	backend := httptest.NewServer(backendtest.NewHandler(backendtest.Options{Queryable: db}))
	t.Cleanup(backend.Close)
	yaml := euAndUS("", strings.TrimPrefix(backend.URL, "http://"), "127.0.0.1:1", "127.0.0.1:2")
	off, _ := startedServer(t, yaml)
	w := get(off.Handler(), "/api/v1/search/metric_names")
	require.Equal(t, http.StatusInternalServerError, w.Code)
	require.Equal(t, apiFailure("unavailable", "search API disabled"), w.Body.String())
	require.Contains(t, get(off.Handler(), "/api/v1/features").Body.String(), `"search":false`)

	on, _ := startedServer(t, yaml, "--enable-feature=search-api")
	require.Contains(t, get(on.Handler(), "/api/v1/features").Body.String(), `"search":true`)
	f := func(query, results string) {
		t.Helper()
		w := get(on.Handler(), "/api/v1/search/"+query)
		require.Equal(t, http.StatusOK, w.Code)
		require.Equal(t, "application/x-ndjson; charset=utf-8", w.Header().Get("Content-Type"))
		require.Contains(t, w.Body.String(), `{"results":`+results)
		require.Contains(t, w.Body.String(), `partial answer: server group \"us\" did not answer`)
		require.Contains(t, w.Body.String(), `{"status":"success","has_more":false`)
	}
	within := "&start=0&end=3600"
	f("metric_names?search[]=_b"+within, `[{"name":"metric_b"}]`)
	f("label_names?search[]=region"+within, `[{"name":"region"}]`)
	f("label_values?label=job&sort_by=alpha&sort_dir=dsc"+within, `[{"value":"y"},{"value":"x"}]`)
	f("label_values?label=region"+within, `[{"value":"eu"}]`)
}
