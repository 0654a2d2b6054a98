package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Shapes: for every endpoint, an answer of oneprom has the keys and types of the answer of
// the Prometheus behind it, on success, if there is nothing, and on error.

// shapeProbes are requests to every endpoint below /api/v1: what is there between start and
// end (s), what is not, and what is refused. counter is a counter with exemplars, pool a
// scrape pool.
func shapeProbes(counter, pool string, start, end int64) []probe {
	when, within := fmt.Sprintf("time=%d&", end), fmt.Sprintf("start=%d&end=%d&", start, end)
	var probes []probe
	add := func(endpoint string, queries ...string) {
		for _, query := range queries {
			probes = append(probes, probe{name: endpoint + "?" + query, path: "/api/v1/" + endpoint + "?" + query})
		}
	}
	for _, expr := range []string{counter, counter + "[1m]", "1", `"s"`, "nope", "rate(" + counter + "[", "sort(nh)", "label_replace(" + counter + `, "a", "b", "job", "(")`} {
		add("query", when+q("query", expr), when+"stats=all&"+q("query", expr))
		add("query_range", within+"step=15&"+q("query", expr), within+"step=15&stats=all&limit=1&"+q("query", expr))
		add("query_exemplars", within+q("query", expr))
		add("format_query", q("query", expr))
		add("parse_query", q("query", expr))
	}
	add("labels", within, "match[]=nope", "limit=1", "limit=x", "match[]=%7B")
	add("label/job/values", within, "match[]=nope", "limit=1", "limit=x", "match[]=%7B")
	add("label/%FF/values", "")
	add("series", within+"match[]=up", "match[]=nope", within+"limit=1&match[]=up", "", "match[]=%7B")
	add("metadata", "", "metric="+counter, "metric=nope", "limit=1", "limit=x")
	add("targets", "", "state=active", "state=dropped", "state=any", "scrapePool=nope")
	add("targets/metadata", "", "metric="+counter, "limit=1", "limit=x", q("match_target", `{job="nope"}`), "match_target=%7B")
	add("targets/relabel_steps", "", "scrapePool="+pool, "scrapePool="+pool+"&"+q("labels", `{"__address__":"x:1"}`), "scrapePool="+pool+"&labels=x", "scrapePool=nope&labels={}")
	add("scrape_pools", "")
	add("scrape_pools/config", "", "scrapePool="+pool, "scrapePool=nope")
	add("rules", "", "type=alert", "type=record", "type=x", "rule_name[]=nope", "exclude_alerts=true", "exclude_alerts=x", "group_limit=1", "group_limit=x",
		"group_limit=1&group_next_token=x", "group_next_token=x", q("match[]", `{severity="page"}`), "match[]=%7B")
	add("alerts", "")
	add("alertmanagers", "")
	add("status/buildinfo", "")
	add("status/config", "")
	add("status/flags", "")
	add("status/runtimeinfo", "")
	add("status/walreplay", "")
	add("status/tsdb", "", "limit=1", "limit=x", "limit=0", "limit=10001")
	add("status/tsdb/blocks", "")
	add("status/self_metrics", "metric_name_pattern=nope", "metric_name_pattern=(")
	add("features", "")
	add("notifications", "")
	for _, what := range []string{"metric_names", "label_names"} {
		add("search/"+what, within, within+"include_score=true&limit=1&search[]=a", "search[]=nope"+strings.Repeat("x", 50), "limit=x", "match[]=%7B")
	}
	add("search/label_values", within+"label=job", "label=nope", "")
	add("nope", "")
	for _, path := range []string{"write", "otlp/v1/metrics", "read", "admin/tsdb/delete_series", "admin/tsdb/snapshot", "admin/tsdb/clean_tombstones"} {
		probes = append(probes, probe{name: path, method: "POST", path: "/api/v1/" + path}, probe{name: path + " by GET", path: "/api/v1/" + path})
	}
	return probes
}

// ownTexts are the probes whose answers name flags that oneprom does not have.
var ownTexts = map[string]bool{"write": true, "otlp/v1/metrics": true}

// requireShapes asks both every probe and compares the shapes of the answers.
func (c contractPair) requireShapes(t *testing.T, probes []probe) {
	for _, p := range probes {
		t.Run(p.name, func(t *testing.T) {
			want, got := c.ask(t, c.direct, p), c.ask(t, c.oneprom, p)
			require.Equal(t, want.status, got.status, "%s\n%s", want.body, got.body)
			require.Equal(t, want.header.Get("Content-Type"), got.header.Get("Content-Type"))
			switch media, _, _ := strings.Cut(want.header.Get("Content-Type"), ";"); media {
			case "application/json", "application/x-ndjson":
				require.Equal(t, shapeOf(t, p.path, want.body), shapeOf(t, p.path, got.body), "%s\n%s", want.body, got.body)
			default:
				if !ownTexts[p.name] {
					require.Equal(t, want.body, got.body)
				}
			}
		})
	}
}

// dataKeys are the objects whose keys are data, by their places: labels, and the tables of
// some endpoints. They are compared by the types of their values.
var dataKeys = regexp.MustCompile(`\.(labels|annotations|discoveredLabels|target|metric|output|seriesLabels|droppedTargetCounts)$|` +
	`^/(status/flags|metadata|features) \.data$|^/features \.data\.\*$`)

// shapeOf lists the places in the JSON of an answer, of which there may be several lines,
// with the types of what is there.
func shapeOf(t *testing.T, path, body string) []string {
	t.Helper()
	path, _, _ = strings.Cut(strings.TrimPrefix(path, "/api/v1"), "?")
	places := map[string]bool{}
	var walk func(at string, v any)
	walk = func(at string, v any) {
		switch v := v.(type) {
		case map[string]any:
			places[at+" object"] = true
			for k, child := range v {
				if dataKeys.MatchString(path + " " + at) {
					k = "*"
				}
				walk(at+"."+k, child)
			}
		case []any:
			places[at+" list"] = true
			for _, child := range v {
				walk(at+"[]", child)
			}
		default:
			places[fmt.Sprintf("%s %T", at, v)] = true
		}
	}
	decoder := json.NewDecoder(strings.NewReader(body))
	for decoder.More() {
		var tree any
		require.NoError(t, decoder.Decode(&tree), body)
		walk("", tree)
	}
	return slices.Sorted(maps.Keys(places))
}

func TestShapeNoticesDifferences(t *testing.T) {
	same := func(path, a, b string) { t.Helper(); require.Equal(t, shapeOf(t, path, a), shapeOf(t, path, b)) }
	other := func(path, a, b string) { t.Helper(); require.NotEqual(t, shapeOf(t, path, a), shapeOf(t, path, b)) }
	same("/api/v1/x", `{"data":[{"labels":{"a":"b"},"v":1}]}`, `{"data":[{"v":2,"labels":{"c":"d"}},{"v":3,"labels":{"a":"b"}}]}`)
	other("/api/v1/x", `{"data":[]}`, `{"data":null}`)
	other("/api/v1/x", `{"data":[]}`, `{"data":{}}`)
	other("/api/v1/x", `{"data":[]}`, `{"data":[1]}`)
	other("/api/v1/x", `{"data":1}`, `{"data":"1"}`)
	other("/api/v1/x", `{"data":{"a":1}}`, `{"data":{"b":1}}`)
	other("/api/v1/x", `{"labels":{"a":"b"}}`, `{"labels":{"a":1}}`)
	same("/api/v1/features", `{"data":{"a":{"b":true}}}`, `{"data":{"c":{"d":false}}}`)
	other("/api/v1/features", `{"data":{"a":{"b":true}}}`, `{"data":{"c":{"d":1}}}`)
	other("/api/v1/search/x", "{\"a\":1}\n{\"b\":1}\n", "{\"a\":1}\n")
}

func TestContractShapes(t *testing.T) {
	shows(t, byHTTP, 9, 10, 12)
	shows(t, byHTTP, 10, 12)
	newContractPair(t, "--query.max-samples=50000000").requireShapes(t, shapeProbes("ex_total", "nope", 0, 600))
}
