package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest"
	"github.com/oneprom/oneprom/servergroup/backendtest/dialect"
)

// oneprom in front of backends that are not quite a Prometheus: its answers are those of a Prometheus
// that holds everything.

// twoHours is data that begins at the epoch, with ext in the labels of each series.
func twoHours(ext string) string {
	return strings.ReplaceAll(`
load 30s
  up{E,job="a",i="0"} 1x240
  up{E,job="b",i="0"} 1x20 0x20 1x200
  m{E,job="a",i="0"} 0+1.1x240
  m{E,job="a",i="1"} 0+2x240
  m{E,job="b",i="0"} 5x240
  reqs_total{E,job="a",i="0"} 0+30x120 0+15x119
  reqs_total{E,job="b",i="0"} 7+10x240
  gaps{E,job="a"} 1x10 _x40 2x10 stale _x30 3x20
  ends{E,job="a"} 1x20
  flaps{E,job="a"} 1x3 stale 2x3 stale _x2 3x9 stale
  late{E,job="a"} _x100 1+1x20
  lat_bucket{E,le="0.1"} 0+1x240
  lat_bucket{E,le="1.0"} 0+2x240
  lat_bucket{E,le="+Inf"} 0+3x240
  nh{E,job="a"} {{schema:0 sum:8 count:6 z_bucket:1 z_bucket_w:0.001 buckets:[1 2] n_buckets:[2]}}+{{schema:0 sum:1 count:1 buckets:[1]}}x240
  special{E,case="inf"} Inf -Inf NaN 0.1 1e-7 123456789012345680000
  {"utf8.metric",E,"lab el"="x",job="a"} 1x240
  lines{E,msg="x\ny"} 1x240
  lines{E,msg="x y"} 1x240
`, "E", ext)
}

func loaded(t *testing.T, text string) storage.Storage {
	t.Helper()
	s := promqltest.LoadedStorage(t, text)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// truth serves a storage as a stock Prometheus with oneprom's default features.
func truth(t *testing.T, data storage.SampleAndChunkQueryable) (baseURL string) {
	t.Helper()
	return serve(t, backendtest.NewHandler(backendtest.Options{Queryable: data, Engine: newEngine(t, nil)}))
}

// euPair are two stores of a Thanos that hold the same, or what they are given.
func euPair(a, b storage.Queryable) []dialect.Store {
	return []dialect.Store{
		{Name: "10.0.0.1:10901", Labels: labels.FromStrings("cluster", "eu", "replica", "a"), Data: a},
		{Name: "10.0.0.2:10901", Labels: labels.FromStrings("cluster", "eu", "replica", "b"), Data: b},
	}
}

// foreign is an emulated backend and how it is configured.
type foreign struct {
	name    string
	handler http.Handler
	options []string
	kind    string
}

const (
	asTenant   = "headers: {X-Scope-OrgID: t}"
	neverRead  = "remote_read: never"
	dropEU     = "replica_labels: [replica]"
	mimirPath  = "path_prefix: /prometheus"
	cortexPath = "path_prefix: /api/prom"
)

// foreignBackends hold two hours with the label cluster=eu.
func foreignBackends(t *testing.T) []foreign {
	t.Helper()
	whole, bare := loaded(t, twoHours(`cluster="eu"`)), loaded(t, twoHours(`x=""`))
	thanos := func(o dialect.ThanosOptions) http.Handler {
		o.Stores, o.ReplicaLabels = euPair(bare, bare), []string{"replica"}
		return dialect.NewThanos(o)
	}
	mimir := func(o dialect.MimirOptions) http.Handler {
		o.Data = whole
		return dialect.NewMimir(o)
	}
	cortex := func(o dialect.CortexOptions) http.Handler {
		o.Data, o.Prefix = whole, "/api/prom"
		return dialect.NewCortex(o)
	}
	return []foreign{
		{"prometheus", dialect.NewPrometheus(backendtest.Options{Queryable: whole}, nil), nil, "prometheus"},
		{"prometheus by queries", dialect.NewPrometheus(backendtest.Options{Queryable: whole}, nil), []string{neverRead}, "prometheus"},
		{"prometheus 2", dialect.NewPrometheus2(backendtest.Options{Queryable: whole}), nil, "prometheus"},
		{"prometheus 2 by queries", dialect.NewPrometheus2(backendtest.Options{Queryable: whole}), []string{neverRead}, "prometheus"},
		{"prometheus of a plain build", dialect.NewPrometheus(backendtest.Options{Queryable: whole, Plain: true}, nil), nil, "prometheus"},
		{"thanos", thanos(dialect.ThanosOptions{}), []string{dropEU}, "thanos"},
		{"thanos that downsamples", thanos(dialect.ThanosOptions{AutoDownsampling: true}), []string{dropEU}, "thanos"},
		{"thanos of a plain build", thanos(dialect.ThanosOptions{AutoDownsampling: true, Plain: true}), []string{dropEU}, "thanos"},
		{"thanos behind a proxy for queries", queriesOnly(thanos(dialect.ThanosOptions{AutoDownsampling: true})), []string{dropEU}, "thanos"},
		{"mimir", mimir(dialect.MimirOptions{}), []string{mimirPath, asTenant}, "mimir"},
		{"mimir in small frames", mimir(dialect.MimirOptions{MaxBytesInFrame: 200}), []string{mimirPath, asTenant, "remote_read: always"}, "mimir"},
		{"mimir by queries", mimir(dialect.MimirOptions{NoLookbackDelta: true}), []string{mimirPath, asTenant, neverRead}, "mimir"},
		{"mimir that aligns", mimir(dialect.MimirOptions{Align: true}), []string{mimirPath, asTenant, "remote_read: always"}, "mimir"},
		{"cortex", cortex(dialect.CortexOptions{BuildInfo: true}), []string{cortexPath, asTenant, "remote_read: always"}, "cortex"},
		{"cortex that does not tell", cortex(dialect.CortexOptions{}), []string{cortexPath, asTenant, "remote_read: always", "kind: cortex"}, "cortex"},
		{"cortex by queries", cortex(dialect.CortexOptions{BuildInfo: true}), []string{cortexPath, asTenant, neverRead}, "cortex"},
	}
}

// queriesOnly is a backend behind a proxy that lets queries and lookups pass, and nothing that tells
// what it is.
func queriesOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := strings.TrimPrefix(r.URL.Path, "/api/v1/")
		if strings.HasPrefix(path, "label") || slices.Contains([]string{"query", "query_range", "series"}, path) {
			next.ServeHTTP(w, r)
			return
		}
		http.NotFound(w, r)
	})
}

// instantQuery and rangeQuery are paths below the base URL. Times are in seconds.
func instantQuery(query string, at float64) string {
	return "/api/v1/query?" + url.Values{"query": {query}, "time": {fmt.Sprintf("%.3f", at)}}.Encode()
}

func rangeQuery(query string, start, end, step float64) string {
	return "/api/v1/query_range?" + url.Values{
		"query": {query}, "start": {fmt.Sprintf("%.3f", start)}, "end": {fmt.Sprintf("%.3f", end)}, "step": {fmt.Sprintf("%.3f", step)},
	}.Encode()
}

// dialectQueries are of all shapes. Steps of 25 minutes are those from which Thanos downsamples.
func dialectQueries() []string {
	return []string{
		instantQuery(`m`, 3600),
		instantQuery(`m{job="a"} + on (i) group_left m{job="b"}`, 3601.5),
		instantQuery(`sort_desc(m)`, 3599.999),
		instantQuery(`topk(2, m)`, 900),
		instantQuery(`{__name__=~"m|ends|gaps"}`, 650),
		instantQuery(`ends`, 899.999), // the last millisecond of the lookback
		instantQuery(`ends`, 900),
		instantQuery(`gaps`, 1830),
		instantQuery(`gaps[1h]`, 3600),
		instantQuery(`m{i="0"}[5m] offset 7s`, 1000),
		instantQuery(`rate(reqs_total[5m])`, 3660),
		instantQuery(`increase(reqs_total[1h])`, 7200),
		instantQuery(`sum by (job) (rate(reqs_total[10m] offset 20m))`, 5000),
		instantQuery(`m @ 600`, 7000),
		instantQuery(`rate(reqs_total[5m] @ 1234.5)`, 100),
		instantQuery(`m offset -10m`, 60),
		instantQuery(`max_over_time(sum(m)[30m:7s])`, 3000),
		instantQuery(`sum_over_time((up == 0)[1h:])`, 3600),
		instantQuery(`count_over_time(flaps[5m:10s])`, 400),
		instantQuery(`absent(nothing{job="x"})`, 60),
		instantQuery(`absent(late)`, 60),
		instantQuery(`histogram_quantile(0.9, rate(lat_bucket[5m]))`, 1800),
		instantQuery(`histogram_quantile(0.9, rate(nh[5m]))`, 1801),
		instantQuery(`nh`, 45),
		instantQuery(`{"utf8.metric"}`, 45),
		instantQuery(`count by ("lab el") ({"utf8.metric","lab el"=~".+"})`, 45),
		instantQuery(`count({"utf8.metric","k8s.pod"="","lab el"!="y"})`, 45),
		instantQuery(`count(lines{msg=~"x.y"})`, 45),
		instantQuery(`lines{msg!~"x.*|"}`, 45),
		instantQuery(`special`, 60),
		instantQuery(`special[10m]`, 400),
		instantQuery(`timestamp(m)`, 3610),
		instantQuery(`label_replace(up, "c", "$1-x", "cluster", "(.*)")`, 3610),
		instantQuery(`count by (cluster, job) ({cluster="eu"})`, 3610),
		instantQuery(`count({cluster=~"us|ap"}) or vector(7)`, 3610),
		rangeQuery(`m`, 0, 7200, 60),
		rangeQuery(`m`, 11.1, 7000, 33.3),
		rangeQuery(`gaps`, 0, 7500, 17),
		rangeQuery(`flaps`, 3, 1000, 7),
		rangeQuery(`ends`, 600, 1000, 0.999*100),
		rangeQuery(`late`, 2500, 4500, 13),
		rangeQuery(`rate(reqs_total[5m])`, 301, 7200, 61),
		rangeQuery(`rate(reqs_total[5m])`, 0.5, 20, 0.25),
		rangeQuery(`sum by (job) (m) / count by (job) (up)`, 5, 7205, 300),
		rangeQuery(`avg_over_time(m[10m])`, 7, 7200, 1500),
		rangeQuery(`m`, 7, 7200, 1500),
		rangeQuery(`count_over_time(gaps[10m])`, 100, 7300, 1501),
		rangeQuery(`changes(up[15m] offset 5m)`, 0, 7200, 45),
		rangeQuery(`min_over_time((m * 2)[10m:30s] offset 1m)`, 1000, 3000, 101),
		rangeQuery(`m @ end() - m @ start()`, 1000, 3000, 500),
		rangeQuery(`up == 0`, 0, 3000, 20),
		rangeQuery(`absent_over_time(gaps[2m])`, 0, 3000, 50),
		rangeQuery(`histogram_sum(rate(nh[5m]))`, 301, 3000, 77),
		rangeQuery(`nh`, 0, 600, 45),
	}
}

// inOrder is the result of a query as text; series are sorted where nothing says in which order
// Prometheus gives them.
func inOrder(t *testing.T, path string, r reply) string {
	t.Helper()
	require.Equal(t, http.StatusOK, r.status, "%s\n%s", path, r.body)
	var e struct {
		Data struct {
			ResultType string
			Result     json.RawMessage
		}
	}
	require.NoError(t, json.Unmarshal([]byte(r.body), &e), r.body)
	var list []json.RawMessage
	ordered := strings.Contains(path, "query=sort") || strings.Contains(path, "query=topk") || strings.Contains(path, "query_range")
	if ordered || json.Unmarshal(e.Data.Result, &list) != nil {
		return string(e.Data.Result)
	}
	slices.SortFunc(list, func(a, b json.RawMessage) int { return strings.Compare(string(a), string(b)) })
	return fmt.Sprintf("%s", list)
}

// plainClient asks without ever waiting long.
func plainClient(t *testing.T) contractPair {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableCompression: true}, Timeout: time.Minute}
	t.Cleanup(client.CloseIdleConnections)
	return contractPair{client: client}
}

// requireSame wants the paths to be answered as the truth does, without a warning that it does not
// have.
func requireSame(t *testing.T, c contractPair, truth, base string, paths ...string) {
	t.Helper()
	for _, path := range paths {
		want, got := c.ask(t, truth, probe{path: path}), c.ask(t, base, probe{path: path})
		shown, err := url.QueryUnescape(path)
		require.NoError(t, err)
		if !assertEqual(t, inOrder(t, path, want), inOrder(t, path, got), shown) {
			continue
		}
		require.NotContains(t, got.body, "partial", shown)
	}
}

// assertEqual goes on after a difference, so that one run tells all.
func assertEqual(t *testing.T, want, got, what string) bool {
	t.Helper()
	if want == got {
		return true
	}
	at := 0
	for at < min(len(want), len(got)) && want[at] == got[at] {
		at++
	}
	cut := func(s string) string { return s[max(0, at-120):min(len(s), at+200)] }
	t.Errorf("%s\n want …%s\n  got …%s", what, cut(want), cut(got))
	return false
}

func TestDialects_AnswerAsOnePrometheus(t *testing.T) {
	c := plainClient(t)
	want := truth(t, loaded(t, twoHours(`cluster="eu"`)))
	for _, b := range foreignBackends(t) {
		t.Run(b.name, func(t *testing.T) {
			base := oneprom(t, oneBackend([]string{hostPort(t, serve(t, b.handler))}, b.options...))
			requireSame(t, c, want, base, dialectQueries()...)
			for _, path := range []string{"/api/v1/labels", "/api/v1/label/job/values", "/api/v1/label/cluster/values", "/api/v1/series?match[]=m"} {
				require.Equal(t, dataOf(t, c.ask(t, want, probe{path: path}).body), dataOf(t, c.ask(t, base, probe{path: path}).body), path)
			}
		})
	}
}

// replicaKind is what /api/v1/status/groups shows of the first replica.
func replicaKind(t *testing.T, c contractPair, base string) (kind, transport string) {
	t.Helper()
	var e struct {
		Data []struct {
			Replicas []struct{ Kind, Transport string }
		}
	}
	body := c.ask(t, base, probe{path: "/api/v1/status/groups"}).body
	require.NoError(t, json.Unmarshal([]byte(body), &e), body)
	return e.Data[0].Replicas[0].Kind, e.Data[0].Replicas[0].Transport
}

func TestDialects_KindIsFoundOrConfigured(t *testing.T) {
	c := plainClient(t)
	for _, b := range foreignBackends(t) {
		t.Run(b.name, func(t *testing.T) {
			address := hostPort(t, serve(t, b.handler))
			configured := slices.DeleteFunc(slices.Clone(b.options), func(s string) bool { return strings.HasPrefix(s, "kind:") })
			for _, options := range [][]string{b.options, append(configured, "kind: "+b.kind)} {
				base := oneprom(t, oneBackend([]string{address}, options...))
				require.Equal(t, http.StatusOK, c.ask(t, base, probe{path: instantQuery("m", 60)}).status)
				kind, _ := replicaKind(t, c, base)
				require.Equal(t, b.kind, kind)
			}
		})
	}
}

// TestDialects_WhatCannotBeToldIsDoubted: it is asked in all ways that may give its raw samples, and
// what it answers says that nobody knows whether they are.
func TestDialects_WhatCannotBeToldIsDoubted(t *testing.T) {
	c := plainClient(t)
	want := truth(t, loaded(t, twoHours(`cluster="eu"`)))
	bare := loaded(t, twoHours(`x=""`))
	thanos := queriesOnly(dialect.NewThanos(dialect.ThanosOptions{Stores: euPair(bare, bare), ReplicaLabels: []string{"replica"}, AutoDownsampling: true}))
	forgiving := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("dedup") == "oneprom_probe" { // it refuses no value
			r.Form.Set("dedup", "true")
		}
		thanos.ServeHTTP(w, r)
	})
	address := hostPort(t, serve(t, forgiving))
	base := oneprom(t, oneBackend([]string{address}, dropEU))
	requireSame(t, c, want, base, dialectQueries()...)
	kind, _ := replicaKind(t, c, base)
	require.Equal(t, "unknown", kind)
	const doubt = "the backend does not show what kind it is, so its samples may be deduplicated, downsampled or old: configure its `kind`, or let its /api/v1/status/flags be read"
	require.Contains(t, c.ask(t, base, probe{path: "/api/v1/status/groups"}).body, `"findings":["`+doubt)
	for _, path := range []string{instantQuery("m", 60), instantQuery("sum(m)", 60), rangeQuery("rate(reqs_total[5m])", 600, 1200, 60)} {
		require.Contains(t, c.ask(t, base, probe{path: path}).body, doubt, path)
	}
	base = oneprom(t, oneBackend([]string{address}, dropEU, "kind: thanos"))
	require.NotContains(t, c.ask(t, base, probe{path: instantQuery("m", 60)}).body, doubt)
	require.NotContains(t, c.ask(t, base, probe{path: "/api/v1/status/groups"}).body, "findings")
}

func TestDialects_ThanosReplicasAreUnited(t *testing.T) {
	c := plainClient(t)
	a := loaded(t, "load 30s\n m{job=\"a\"} 0+1x40 _x40 81+1x160\n one{job=\"a\"} 1x10 _x230")
	b := loaded(t, "load 30s\n m{job=\"a\"} _x20 20+1x140 _x40 201+1x40\n two{job=\"a\"} 1x10")
	want := truth(t, loaded(t, `load 30s
		m{job="a",cluster="eu"} 0+1x241
		one{job="a",cluster="eu"} 1x10
		two{job="a",cluster="eu"} 1x10`))
	thanos := dialect.NewThanos(dialect.ThanosOptions{Stores: euPair(a, b), ReplicaLabels: []string{"replica"}})
	base := oneprom(t, oneBackend([]string{hostPort(t, serve(t, thanos))}, dropEU))
	requireSame(t, c, want, base,
		instantQuery(`count_over_time(m[2h])`, 7200),
		instantQuery(`m[2h]`, 7200),
		instantQuery(`count(m) + count(one) + count(two)`, 200),
		rangeQuery(`m`, 0, 7200, 31),
		rangeQuery(`rate(m[5m])`, 300, 7200, 60),
		rangeQuery(`{__name__=~"m|one|two"}`, 0, 900, 15),
	)
	for path, want := range map[string]string{
		"/api/v1/label/replica/values": `[]`, "/api/v1/labels": `["__name__","cluster","job"]`,
		"/api/v1/series?match[]=one": `[{"__name__":"one","cluster":"eu","job":"a"}]`,
	} {
		require.JSONEq(t, `{"data":`+want+`}`, dataOf(t, c.ask(t, base, probe{path: path}).body), path)
	}
}
