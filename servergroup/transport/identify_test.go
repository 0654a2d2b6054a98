package transport

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// answers is a backend that answers paths below /api/v1/ with a body each, and 404 to others. All answers have the
// headers; a body that begins with a number has it as its status.
func answers(t *testing.T, headers, bodies map[string]string) *Client {
	t.Helper()
	statuses := map[string]int{"400 ": 400, "401 ": 401, "403 ": 403, "404 ": 404, "405 ": 405, "429 ": 429, "500 ": 500, "501 ": 501, "503 ": 503}
	return served(t, func(w http.ResponseWriter, r *http.Request) {
		for name, value := range headers {
			w.Header().Set(name, value)
		}
		body, ok := bodies[strings.TrimPrefix(r.URL.Path, "/api/v1/")]
		status := http.StatusNotFound
		if ok {
			status = http.StatusOK
		}
		if s := statuses[body[:min(4, len(body))]]; s != 0 {
			status, body = s, body[4:]
		}
		if strings.HasPrefix(body, "{") {
			w.Header().Set("Content-Type", "application/json")
		} else {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
}

func success(data string) string { return `{"status":"success","data":` + data + `}` }

// What servers answer to engineQuery: Prometheus 2 and 3, and Thanos.
const (
	engineOf2      = `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"oneprom_probe":"\n"},"values":[[90,"3"]]}]}}`
	engineOf3      = `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"oneprom_probe":"\n","dot":"1"},"values":[[90,"2"]]}]}}`
	engineMoved    = `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"oneprom_probe":"\n","dot":"1"},"values":[[60,"2"]]}]}}`
	engineOfThanos = `400 {"status":"error","errorType":"bad_data","error":"'dedup' parameter: strconv.ParseBool: parsing \"oneprom_probe\": invalid syntax"}`
)

// storageFlags are flags of a Prometheus, thanosFlags some of a Thanos Query.
const (
	storageFlags = `{"status":"success","data":{"enable-feature":"otlp-deltatocumulative","storage.tsdb.path":"data/"}}`
	thanosFlags  = `{"status":"success","data":{"query.replica-label":"replica","enable-feature":""}}`
)

// TestIdentify_Kinds: each row is a server by what it answers. Its version does not matter.
func TestIdentify_Kinds(t *testing.T) {
	modern := Engine{Known: true, LeftOpen: true, DotAll: true, FlagsShown: true, Features: "otlp-deltatocumulative"}
	old := Engine{Known: true, FlagsShown: true, Features: "otlp-deltatocumulative"}
	for _, version := range []string{"", "0.39.2", "2.42.0+ds", "3.15.0", "main-1a2b3c"} {
		f := func(want Identity, bodies map[string]string) {
			t.Helper()
			if _, ok := bodies["status/buildinfo"]; !ok {
				bodies["status/buildinfo"] = success(`{"version":"` + version + `","revision":"x"}`)
				want.Version = version
			}
			id, err := answers(t, nil, bodies).Identify(t.Context())
			require.NoError(t, err)
			require.Equal(t, want, id)
		}
		f(Identity{Kind: Prometheus, Engine: modern}, map[string]string{"status/flags": storageFlags, "query_range": engineOf3})
		f(Identity{Kind: Thanos, Version: "dev"}, map[string]string{
			"status/flags": storageFlags, "query_range": engineOf3, "status/buildinfo": success(`{"version":"dev"}`), "stores": success(`{"store":[]}`),
		})
		f(Identity{Kind: Prometheus, Engine: old}, map[string]string{"status/flags": storageFlags, "query_range": engineOf2})
		f(Identity{Kind: Prometheus, Engine: modern}, map[string]string{"status/flags": storageFlags, "query_range": engineOf3, "status/buildinfo": "404 "})
		f(Identity{Kind: Prometheus, Engine: Engine{Known: true, LeftOpen: true, DotAll: true}}, map[string]string{
			"status/flags": "403 no", "query_range": engineOf3, "status/tsdb": success(`{"headStats":{"numSeries":1}}`),
		})
		// One of its name, which need not be one.
		f(Identity{Kind: Prometheus, Version: "9", Application: "Prometheus of ours", Engine: modern}, map[string]string{
			"status/flags": storageFlags, "query_range": engineOf3, "status/buildinfo": success(`{"version":"9","application":"Prometheus of ours"}`),
		})
		// It may be one, but does not evaluate.
		f(Identity{Kind: Prometheus, Engine: Engine{FlagsShown: true, Features: "otlp-deltatocumulative"}}, map[string]string{"status/flags": storageFlags})

		f(Identity{Kind: Thanos}, map[string]string{"stores": success(`{"sidecar":[{"name":"10.0.0.1:10901","lastError":null}]}`)})
		f(Identity{Kind: Thanos}, map[string]string{"stores": success(`{}`), "status/flags": thanosFlags, "query_range": engineOf3})
		// A proxy lets queries pass, and nothing else.
		f(Identity{Kind: Thanos}, map[string]string{"status/buildinfo": "404 ", "query_range": engineOfThanos})
		f(Identity{Kind: Thanos, Engine: Engine{FlagsShown: true}}, map[string]string{"status/flags": thanosFlags, "query_range": engineOfThanos})

		f(Identity{Kind: Oneprom, Engine: modern}, map[string]string{"status/groups": success(`[{"name":"a","replicas":[]}]`), "status/flags": storageFlags, "query_range": engineOf3})
		f(Identity{Kind: Oneprom}, map[string]string{"status/groups": success(`[]`)})

		// Others that have such a path, or pretend to have every path.
		for _, body := range []string{success(`"x"`), success(`7`), success(`null`), "<html>", "404 ", "405 ", "401 no", "403 no", "400 no", "501 no", `{"status":"error","error":"x"}`, `{`} {
			f(Identity{Kind: UnknownKind}, map[string]string{"stores": body, "status/groups": body, "status/flags": body, "status/tsdb": body, "query_range": body})
			f(Identity{Kind: Prometheus, Engine: modern}, map[string]string{"stores": body, "status/groups": body, "status/flags": storageFlags, "query_range": engineOf3})
		}
		f(Identity{Kind: UnknownKind, Engine: Engine{FlagsShown: true}}, map[string]string{"stores": success(`[]`), "status/groups": success(`{}`), "status/flags": success(`{}`), "status/tsdb": success(`{}`)})
		f(Identity{Kind: UnknownKind, Engine: Engine{Known: true, LeftOpen: true, DotAll: true}}, map[string]string{"query_range": engineOf3})
	}
}

// TestIdentify_KindsThatTell by their build info, or by a header whatever the answer is.
func TestIdentify_KindsThatTell(t *testing.T) {
	f := func(want string, headers, bodies map[string]string) {
		t.Helper()
		id, err := answers(t, headers, bodies).Identify(t.Context())
		require.NoError(t, err)
		require.Equal(t, want, id.String())
	}
	build := func(data string) map[string]string { return map[string]string{"status/buildinfo": success(data)} }
	f("mimir 2.17.0", nil, build(`{"version":"2.17.0","application":"Grafana Mimir","features":{"a":"true"}}`))
	f("mimir", nil, build(`{"version":"","application":"Grafana Mimir"}`))
	f("mimir 2.1", nil, build(`{"version":"2.1","application":"Grafana Enterprise Metrics"}`))
	f("cortex 1.19.0", nil, build(`{"version":"1.19.0"}`))
	f("cortex 2.0", nil, build(`{"version":"2.0","application":"Cortex"}`))
	f("unknown 9", nil, build(`{"version":"9","application":"Something"}`))
	f("unknown 3.15.0", nil, build(`{"version":"3.15.0","application":"Prometheus"}`))
	f("unknown 2.45.0", nil, build(`{"version":"2.45.0"}`))
	f("unknown", nil, build(`{}`))
	f("unknown", nil, build(`null`))

	vm, influx := map[string]string{"X-Server-Hostname": "h"}, map[string]string{"X-Influxdb-Version": "1.6.7~rc0", "X-Influxdb-Build": "OSS"}
	f("victoriametrics", vm, build(`{}`))
	f("victoriametrics", vm, build(`{"version":"2.24.0"}`))
	f("victoriametrics", vm, map[string]string{"status/buildinfo": "400 unsupported path"})
	f("influxdb 1.6.7~rc0", influx, nil)
	f("influxdb 1.6.7~rc0", influx, map[string]string{"status/buildinfo": "401 no"})
}

// TestIdentify_WhatStandsBefore a server changes its answers: it is not what it shows.
func TestIdentify_WhatStandsBefore(t *testing.T) {
	f := func(want string, headers map[string]string, body string) {
		t.Helper()
		for _, bodies := range []map[string]string{{"status/flags": storageFlags}, {"status/groups": success(`[]`), "status/flags": storageFlags}} {
			bodies["query_range"] = body
			id, err := answers(t, headers, bodies).Identify(t.Context())
			require.NoError(t, err)
			require.Equal(t, UnknownKind, id.Kind)
			require.Contains(t, id.Front, want)
			require.False(t, id.Engine.Known)
		}
	}
	f("steps of range queries are moved", nil, engineMoved)
	f("a Thanos answers its queries", nil, engineOfThanos)
	f("a cache answers its queries, which the header X-Trickster-Result shows", map[string]string{"X-Trickster-Result": "engine=DeltaProxyCache; status=kmiss"}, engineOf3)
	f("a cache answers its queries, which the header Age shows", map[string]string{"Age": "0"}, engineOf3)
}

// TestIdentify_StrangeEngines are not known.
func TestIdentify_StrangeEngines(t *testing.T) {
	series := func(metric, values string) string {
		return success(`{"resultType":"matrix","result":[{"metric":{` + metric + `},"values":[` + values + `]}]}`)
	}
	const a = `"oneprom_probe":"\n"`
	for _, body := range []string{
		success(`{"resultType":"matrix","result":[]}`), success(`{}`), success(`[]`), "422 no", "404 ", "500 no",
		series(a, ``), series(a, `[90,"2"],[90,"2"]`), series(a, `[90,"4"]`), series(a, `[90,2]`), series(``, `[90,"2"]`), series(a, `[90]`), series(a, `90`),
	} {
		id, err := answers(t, nil, map[string]string{"status/flags": storageFlags, "query_range": body}).Identify(t.Context())
		require.NoError(t, err)
		require.Equal(t, Prometheus, id.Kind)
		require.False(t, id.Engine.Known, body)
	}
	id, err := answers(t, nil, map[string]string{"status/flags": storageFlags, "query_range": series(a, `[90,"2"]`)}).Identify(t.Context())
	require.NoError(t, err)
	require.Equal(t, Engine{Known: true, LeftOpen: true, FlagsShown: true, Features: "otlp-deltatocumulative"}, id.Engine)
}

// TestIdentify_PassingFailureIsNotAKind: it would be believed until the next probe.
func TestIdentify_PassingFailureIsNotAKind(t *testing.T) {
	f := func(class Class, bodies map[string]string) {
		t.Helper()
		id, err := answers(t, nil, bodies).Identify(t.Context())
		require.Equal(t, class, ClassOf(err), "%v", err)
		require.False(t, Refused(err))
		require.NotContains(t, []Kind{Prometheus, Oneprom, Thanos}, id.Kind)
	}
	build := success(`{"version":"3.15.0"}`)
	f(ClassServer, map[string]string{"status/buildinfo": "500 oops"})
	f(ClassServer, map[string]string{"status/buildinfo": "503 oops"})
	f(ClassLoad, map[string]string{"status/buildinfo": "429 busy"})
	// A proxy may know no such path. The query tells more.
	id, err := answers(t, nil, map[string]string{"status/buildinfo": build, "status/flags": storageFlags, "stores": "503 oops", "query_range": engineOf3}).Identify(t.Context())
	require.NoError(t, err)
	require.Equal(t, Prometheus, id.Kind)
	for _, path := range []string{"status/groups", "stores", "status/flags", "status/tsdb", "query_range"} {
		f(ClassServer, map[string]string{"status/buildinfo": build, path: "503 oops"})
		f(ClassLoad, map[string]string{"status/buildinfo": build, path: "429 busy"})
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = answers(t, nil, map[string]string{"status/buildinfo": build}).Identify(ctx)
	require.Equal(t, ClassCanceled, ClassOf(err))
}

// TestIdentify_RefusalIsNoFailure: the backend may be fine all the same.
func TestIdentify_RefusalIsNoFailure(t *testing.T) {
	for _, body := range []string{"404 ", "401 no", "403 no", "405 no", "501 no", "400 no"} {
		id, err := answers(t, nil, map[string]string{"status/buildinfo": body}).Identify(t.Context())
		require.NoError(t, err)
		require.Equal(t, Identity{Kind: UnknownKind}, id)
	}
}

func TestIdentify_AnswersThatAreNone(t *testing.T) {
	huge := success(`{"version":"` + strings.Repeat("3", maxProbeBody) + `"}`)
	for _, body := range []string{"<html>login</html>", "", "{", `{"data":[]}`, success(`{"version":7}`), success(`"x"`), huge} {
		id, err := answers(t, nil, map[string]string{"status/buildinfo": body}).Identify(t.Context())
		require.Equal(t, ClassContent, ClassOf(err), "%.50s", body)
		require.Equal(t, Identity{Kind: UnknownKind}, id)
		require.Less(t, len(err.Error()), 500)
	}
}

func TestIdentify_HostileValues(t *testing.T) {
	f := func(want Identity, headers map[string]string, data string) {
		t.Helper()
		id, err := answers(t, headers, map[string]string{"status/buildinfo": success(data)}).Identify(t.Context())
		require.NoError(t, err)
		require.Equal(t, want, id)
	}
	f(Identity{Kind: UnknownKind, Version: "3  [31m"}, nil, `{"version":"3\n\u001b[31m\u0007"}`)
	f(Identity{Kind: UnknownKind, Version: "3", Application: "x  [31m"}, nil, `{"version":"3","application":"x\n\u001b[31m"}`)
	f(Identity{Kind: UnknownKind, Version: strings.Repeat("3", 200) + "…"}, nil, `{"version":"`+strings.Repeat("3", 10_000)+`"}`)
	f(Identity{Kind: InfluxDB, Version: strings.Repeat("1", 200) + "…"}, map[string]string{"X-Influxdb-Version": strings.Repeat("1", 10_000)}, `{}`)
	f(Identity{Kind: InfluxDB, Version: "1\ufffd2"}, map[string]string{"X-Influxdb-Version": "1\xff2"}, `{}`)
}
