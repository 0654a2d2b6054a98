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

func TestIdentify_Kinds(t *testing.T) {
	f := func(want string, headers, bodies map[string]string) {
		t.Helper()
		id, err := answers(t, headers, bodies).Identify(t.Context())
		require.NoError(t, err)
		require.Equal(t, want, id.String())
	}
	build := func(data string) map[string]string { return map[string]string{"status/buildinfo": success(data)} }
	f("prometheus 3.15.0", nil, build(`{"version":"3.15.0","revision":"x"}`))
	f("prometheus 2.42.0+ds", nil, build(`{"version":"2.42.0+ds"}`))
	f("prometheus 3.15.0", nil, build(`{"version":"3.15.0","application":"Prometheus"}`))
	f("mimir 2.17.0", nil, build(`{"version":"2.17.0","application":"Grafana Mimir","features":{"a":"true"}}`))
	f("mimir 2.1", nil, build(`{"version":"2.1","application":"Grafana Enterprise Metrics"}`))
	f("cortex 1.19.0", nil, build(`{"version":"1.19.0"}`))
	f("cortex 2.0", nil, build(`{"version":"2.0","application":"Cortex"}`))
	f("unknown 9", nil, build(`{"version":"9","application":"Something"}`))
	f("unknown", nil, build(`{}`))
	f("unknown", nil, build(`null`))

	// Headers tell, whatever the answer is.
	vm, influx := map[string]string{"X-Server-Hostname": "h"}, map[string]string{"X-Influxdb-Version": "1.6.7~rc0", "X-Influxdb-Build": "OSS"}
	f("victoriametrics", vm, build(`{}`))
	f("victoriametrics", vm, build(`{"version":"2.24.0"}`))
	f("victoriametrics", vm, map[string]string{"status/buildinfo": "400 unsupported path"})
	f("influxdb 1.6.7~rc0", influx, nil)
	f("influxdb 1.6.7~rc0", influx, map[string]string{"status/buildinfo": "401 no"})
}

// TestIdentify_LooksLikeAPrometheus: what else a backend has tells.
func TestIdentify_LooksLikeAPrometheus(t *testing.T) {
	f := func(want, version, path, body string) {
		t.Helper()
		id, err := answers(t, nil, map[string]string{"status/buildinfo": success(`{"version":"` + version + `"}`), path: body}).Identify(t.Context())
		require.NoError(t, err)
		require.Equal(t, want+" "+version, id.String())
	}
	f("thanos", "0.39.2", "stores", success(`{"sidecar":[{"name":"10.0.0.1:10901","lastError":null}]}`))
	f("thanos", "0.39.2", "stores", success(`{}`))
	f("oneprom", "3.15.0", "status/groups", success(`[{"name":"a","replicas":[]}]`))
	f("oneprom", "3.15.0", "status/groups", success(`[]`))
	// Others that have such a path, or pretend to have every path.
	for _, body := range []string{success(`"x"`), success(`7`), "<html>", "404 ", "405 ", "401 no", "403 no", "400 no", "501 no", `{"status":"error","error":"x"}`, `{`} {
		f("prometheus", "0.39.2", "stores", body)
		f("prometheus", "3.15.0", "status/groups", body)
	}
	f("prometheus", "0.39.2", "stores", success(`[]`))
	f("prometheus", "3.15.0", "status/groups", success(`{}`))
	f("prometheus", "3.15.0", "stores", success(`{}`))
	f("prometheus", "0.39.2", "status/groups", success(`[]`))
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
	f(ClassServer, map[string]string{"status/buildinfo": build, "status/groups": "503 oops"})
	f(ClassLoad, map[string]string{"status/buildinfo": build, "status/groups": "429 busy"})
	f(ClassServer, map[string]string{"status/buildinfo": success(`{"version":"0.39.2"}`), "stores": "500 oops"})

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := answers(t, nil, map[string]string{"status/buildinfo": build}).Identify(ctx)
	require.Equal(t, ClassCanceled, ClassOf(err))
}

// TestIdentify_RefusalIsNoFailure: the backend may be fine all the same.
func TestIdentify_RefusalIsNoFailure(t *testing.T) {
	for _, body := range []string{"404 ", "401 no", "403 no", "405 no", "501 no", "400 no"} {
		id, err := answers(t, nil, map[string]string{"status/buildinfo": body}).Identify(t.Context())
		require.True(t, Refused(err), body)
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
	f(Identity{Prometheus, "3  [31m"}, nil, `{"version":"3\n\u001b[31m\u0007"}`)
	f(Identity{UnknownKind, "3"}, nil, `{"version":"3","application":"x\n\u001b[31m"}`)
	f(Identity{Prometheus, strings.Repeat("3", 200) + "…"}, nil, `{"version":"`+strings.Repeat("3", 10_000)+`"}`)
	f(Identity{InfluxDB, strings.Repeat("1", 200) + "…"}, map[string]string{"X-Influxdb-Version": strings.Repeat("1", 10_000)}, `{}`)
	f(Identity{InfluxDB, "1\ufffd2"}, map[string]string{"X-Influxdb-Version": "1\xff2"}, `{}`)
}
