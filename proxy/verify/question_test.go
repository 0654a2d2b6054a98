package verify

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// the window of these tests: an hour from 1970 on.
var anHour = window{start: time.Unix(0, 0).UTC(), end: time.Unix(3600, 0).UTC(), step: time.Minute}

// asked are the requests that a file leads to, and what was skipped.
func asked(t *testing.T, text string, w window) (requests, skipped []string) {
	t.Helper()
	path := file(t, text)
	questions, skips, err := readSources([]string{path}, w)
	require.NoError(t, err)
	short := func(from string) string { return strings.ReplaceAll(from, path, "f") }
	for _, q := range questions {
		form := q.form()
		query := form.Get("query")
		form.Del("query")
		requests = append(requests, short(q.From)+" "+strings.TrimPrefix(q.path(), "/api/v1/")+" "+form.Encode()+" "+query)
	}
	for _, s := range skips {
		skipped = append(skipped, short(s.From)+": "+s.Why)
	}
	return requests, skipped
}

const prometheusLog = `{"time":"2026-01-01T00:00:00Z","msg":"promql query logged","params":{"end":"2026-01-02T15:04:05.678Z","query":"up == 0","start":"2026-01-02T15:00:05.678Z","step":15},"httpRequest":{"path":"/api/v1/query_range"}}
{"params":{"end":"2026-01-02T15:04:05Z","query":"sum(up)","start":"2026-01-02T15:04:05Z","step":0},"ruleGroup":{"name":"a"}}
{"params":{"end":"2026-01-02T15:04:05Z","query":"sum(up)","start":"2026-01-02T15:04:05Z","step":0}}
{"params":{"query":"no time"}}

{"params":{"end":"2026-01-
{"a":"b"}
`

func TestReadSources_PrometheusLog(t *testing.T) {
	requests, skipped := asked(t, prometheusLog, anHour)
	require.Equal(t, []string{
		"f:1 query_range end=1767366245.678&start=1767366005.678&step=15 up == 0",
		"f:2 query time=1767366245 sum(up)",
	}, requests)
	require.Equal(t, []string{
		"f:4: a query without a time",
		"f:6: not a line of a query log: unexpected end of JSON input",
		"f:7: a line without a query",
	}, skipped)

	w := anHour
	w.override = true
	requests, _ = asked(t, prometheusLog, w)
	require.Equal(t, []string{"f:1 query_range end=3600&start=0&step=60 up == 0", "f:2 query time=3600 sum(up)"}, requests)

	w = anHour
	w.instant = true
	requests, _ = asked(t, prometheusLog, w)
	require.Equal(t, []string{"f:1 query time=3600 up == 0", "f:2 query time=3600 sum(up)"}, requests)
}

func TestReadSources_OwnLog(t *testing.T) {
	requests, skipped := asked(t, `{"time":"2026-11-22T10:58:47.113Z","query":"a","api":"query_range","start":1795341524.5,"end":1795345124,"step":0.5,"duration":2.7,"status":200}
{"query":"b","api":"query","start":5,"end":5,"step":0}
{"query":"c","start":1e300,"end":1e300,"step":0}
{"query":"d","start":9,"end":5,"step":1}
{"query":"e","start":1,"end":5,"step":-1}
`, anHour)
	require.Equal(t, []string{"f:1 query_range end=1795345124&start=1795341524.5&step=0.5 a", "f:2 query time=5 b"}, requests)
	require.Equal(t, []string{"f:3: a query without a time", "f:4: a query without a time", "f:5: a query without a time"}, skipped)
}

// A selector may look like JSON.
func TestReadSources_List(t *testing.T) {
	requests, _ := asked(t, "{__name__=~\"a.*\"}\r\n# c\n up[5m]\n\"text\"\n sum(", anHour)
	require.Equal(t, []string{
		"f:1 query_range end=3600&start=0&step=60 {__name__=~\"a.*\"}",
		"f:3 query time=3600 up[5m]",
		"f:4 query time=3600 \"text\"",
		"f:5 query_range end=3600&start=0&step=60 sum(",
	}, requests)
}

const someDashboard = `{
  "dashboard": {
    "title": "d",
    "templating": {"list": [
      {"name": "job", "type": "query", "query": {"query": "label_values(job)"}, "current": {"value": "api"}},
      {"name": "node", "current": {"value": ["a.b", "c"]}},
      {"name": "all", "current": {"value": ["$__all"]}},
      {"name": "own", "allValue": "x|y", "current": {"value": "$__all"}},
      {"name": "fresh", "query": "label_values(up, instance)"},
      {"name": "const", "query": "7"},
      {"name": "every", "current": {"value": "$__auto_interval_every"}},
      {"name": "metric", "current": {"value": "$__all"}}
    ]},
    "panels": [
      {"title": "one", "datasource": {"type": "prometheus", "uid": "${ds}"}, "targets": [
        {"refId": "A", "expr": "rate(x{job=\"$job\"}[$__rate_interval])"},
        {"refId": "B", "expr": "max_over_time(x[${__range}]) > ${const}", "instant": true, "range": false},
        {"refId": "C", "expr": "x{node=~\"${node:regex}\"}", "instant": true, "range": true},
        {"refId": "D", "expr": "x{a=\"$all\",b=~\"p.[[own]]\",c=~\"q-$fresh\"}"},
        {"refId": "E", "expr": "sum by (x) (increase(x[$every]))"},
        {"refId": "F", "expr": "x{a!=\"$all\"}"},
        {"refId": "G", "expr": "$metric{a=\"b\"}"},
        {"refId": "H", "expr": "sum by ($all) (x)"},
        {"refId": "I", "expr": "rate(x[$all])"},
        {"refId": "J", "expr": "x{a=\"$nobody\"}"},
        {"refId": "K", "expr": "sum(x{job=\"$job\"}"},
        {"refId": "L", "expr": ""},
        {"refId": "M", "expr": {"a": "b"}}
      ]},
      {"title": "row", "type": "row", "panels": [
        {"title": "logs", "datasource": {"type": "loki"}, "targets": [{"expr": "{app=\"a\"} |= \"x\""}]},
        {"title": "mixed", "datasource": {"type": "datasource", "uid": "-- Mixed --"}, "targets": [
          {"datasource": {"type": "prometheus"}, "expr": "up"},
          {"refId": "B", "datasource": {"type": "influxdb"}, "query": "select"}
        ]}
      ]},
      {"title": "shared", "libraryPanel": {"uid": "x"}},
      {"title": "words", "type": "text", "datasource": null}
    ],
    "rows": [{"title": "old", "panels": [{"title": "graph", "datasource": "name", "targets": [{"expr": "old[$__interval_ms] + 1"}, {"expr": "old offset $__interval"}]}]}]
  }
}`

func TestReadSources_Dashboard(t *testing.T) {
	requests, skipped := asked(t, someDashboard, anHour)
	const hour = "query_range end=3600&start=0&step=60 "
	require.Equal(t, []string{
		`f: panel "one" A ` + hour + `rate(x{job="api"}[1m15s])`,
		`f: panel "one" B query time=3600 max_over_time(x[1h]) > 7`,
		`f: panel "one" C ` + hour + `x{node=~"(a\\.b|c)"}`,
		`f: panel "one" D ` + hour + `x{a=~".+",b=~"p.x|y",c=~"q-.+"}`,
		`f: panel "one" E ` + hour + `sum by (x) (increase(x[1m]))`,
		`f: panel "mixed" ` + hour + `up`,
		`f: panel "graph" ` + hour + `old offset 1m`,
	}, requests)
	const elsewhere = anyElsewhere
	require.Equal(t, []string{
		`f: panel "one" F: ` + elsewhere,
		`f: panel "one" G: ` + elsewhere,
		`f: panel "one" H: ` + elsewhere,
		`f: panel "one" I: ` + elsewhere,
		`f: panel "one" J: uses the variable $nobody, of which the dashboard does not tell a value`,
		`f: panel "one" K: not PromQL once variables are replaced: 1:17: parse error: unclosed left parenthesis`,
		`f: panel "one" L: has no expression`,
		`f: panel "one" M: has no expression`,
		`f: panel "logs": asks a data source of type loki`,
		`f: panel "mixed" B: asks a data source of type influxdb`,
		`f: panel "shared": a library panel: its queries are not in the dashboard`,
		`f: panel "graph": not PromQL once variables are replaced: 1:1: parse error: binary expression must contain only scalar and instant vector types`,
	}, skipped)
}

// FuzzReadSources: no file makes it panic, and all that is asked has a query.
func FuzzReadSources(f *testing.F) {
	f.Add([]byte(someDashboard))
	f.Add([]byte(prometheusLog))
	f.Add([]byte("up\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := file(t, string(data))
		questions, _, _ := readSources([]string{path}, anHour)
		for _, q := range questions {
			require.NotEmpty(t, q.form().Get("query"))
		}
	})
}

func TestUlps(t *testing.T) {
	f := func(a, b float64, want uint64) {
		t.Helper()
		n, ok := ulps(a, b)
		require.True(t, ok)
		require.Equal(t, want, n)
		require.Equal(t, n <= 4, Ulps(4)(a, b))
	}
	f(1, 1, 0)
	f(1, 1.0000000000000002, 1)
	f(-1, -1.0000000000000002, 1)
	f(0, -5e-324, 1)
	f(5e-324, -5e-324, 2)
	f(1, 2, 1<<52)
	require.False(t, Ulps(4)(1, -1))
}
