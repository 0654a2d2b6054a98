package proxy

import (
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/oneprom/oneprom/servergroup/backendtest"
)

// traceReceiver takes spans by OTLP over HTTP.
type traceReceiver struct {
	addr string

	mtx      sync.Mutex // guards the fields below
	services []string
	spans    []*otlp.Span
	headers  []http.Header
}

func newTraceReceiver(t *testing.T) *traceReceiver {
	t.Helper()
	c := &traceReceiver{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var req collector.ExportTraceServiceRequest
		if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(body, &req) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		c.mtx.Lock()
		defer c.mtx.Unlock()
		c.headers = append(c.headers, r.Header)
		for _, rs := range req.ResourceSpans {
			for _, a := range rs.Resource.Attributes {
				if a.Key == "service.name" {
					c.services = append(c.services, a.Value.GetStringValue())
				}
			}
			for _, ss := range rs.ScopeSpans {
				c.spans = append(c.spans, ss.Spans...)
			}
		}
	}))
	t.Cleanup(srv.Close)
	c.addr = strings.TrimPrefix(srv.URL, "http://")
	return c
}

// named returns the only span of a name.
func (c *traceReceiver) named(t *testing.T, name string) *otlp.Span {
	t.Helper()
	c.mtx.Lock()
	defer c.mtx.Unlock()
	var found []*otlp.Span
	for _, s := range c.spans {
		if s.Name == name {
			found = append(found, s)
		}
	}
	require.Len(t, found, 1, name)
	return found[0]
}

// attributesOf are those of a span that are text or numbers.
func attributesOf(s *otlp.Span) map[string]any {
	all := map[string]any{}
	for _, a := range s.Attributes {
		switch v := a.Value.Value.(type) {
		case *common.AnyValue_StringValue:
			all[a.Key] = v.StringValue
		case *common.AnyValue_IntValue:
			all[a.Key] = v.IntValue
		}
	}
	return all
}

// tracedBackend is a Prometheus that tells the traceparent of each query.
func tracedBackend(t *testing.T) (addr string, parents func() []string) {
	t.Helper()
	db := promqltest.LoadedStorage(t, explainData)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	h := backendtest.NewHandler(backendtest.Options{Queryable: db, EarlyNames: true})
	var mtx sync.Mutex
	var seen []string
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.FormValue("query"), "m_total") {
			mtx.Lock()
			seen = append(seen, r.Header.Get("Traceparent"))
			mtx.Unlock()
		}
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(backend.Close)
	return strings.TrimPrefix(backend.URL, "http://"), func() []string {
		mtx.Lock()
		defer mtx.Unlock()
		return seen
	}
}

const (
	traceID     = "4bf92f3577b34da6a3ce929d0e0e4736"
	traceparent = "00-" + traceID + "-00f067aa0ba902b7-01"
)

func tracingConfig(backend, receiver string) string {
	return singleConfig(backend, "query_log_file: queries.log") + "tracing: {client_type: http, insecure: true, endpoint: '" + receiver + "', headers: {X-Tenant: hunter2}}\n"
}

func TestTracing_ClientsTraceIsContinuedToTheBackends(t *testing.T) {
	receiver := newTraceReceiver(t)
	addr, parents := tracedBackend(t)
	s, file := startedServer(t, tracingConfig(addr, receiver.addr), sameFeatures)
	w := <-begun(s, rateQuery, "Traceparent", traceparent)
	require.Equal(t, http.StatusOK, w.Code)
	require.Equal(t, http.StatusOK, (<-begun(s, rateQuery+" + 1")).Code, "the sampling fraction is 0")
	require.NotContains(t, shownConfig(t, s), "hunter2")

	lines := loggedIn(t, s, filepath.Join(filepath.Dir(file), "queries.log"))
	require.Equal(t, traceID, lines[0]["trace_id"])
	require.NotEqual(t, traceID, lines[1]["trace_id"])

	require.Equal(t, []string{"oneprom"}, receiver.services)
	require.Equal(t, "hunter2", receiver.headers[0].Get("X-Tenant"))
	for _, s := range receiver.spans {
		require.Equal(t, traceID, hex.EncodeToString(s.TraceId), s.Name)
	}
	server := receiver.named(t, "POST /api/v1/query")
	require.Equal(t, otlp.Span_SPAN_KIND_SERVER, server.Kind)
	require.Equal(t, "00f067aa0ba902b7", hex.EncodeToString(server.ParentSpanId))
	require.Equal(t, map[string]any{
		"http.request.method": "POST", "url.path": "/api/v1/query", "http.response.status_code": int64(200),
		"client.address": "192.0.2.1", "user_agent.original": "", "query": rateQuery,
	}, attributesOf(server))
	upstreams := receiver.named(t, "promqlInstantQuery")
	require.Equal(t, server.SpanId, upstreams.ParentSpanId)
	require.Equal(t, upstreams.SpanId, receiver.named(t, "plan").ParentSpanId)
	require.Equal(t, upstreams.SpanId, receiver.named(t, "evaluate").ParentSpanId)
	require.NotNil(t, receiver.named(t, "promqlInnerEval"), "and what it does in it")
	asked := receiver.named(t, "POST /api/v1/query_range")
	require.Equal(t, otlp.Span_SPAN_KIND_CLIENT, asked.Kind)
	require.Equal(t, map[string]any{
		"oneprom.group": "a", "oneprom.replica": "http://" + addr, "oneprom.outcome": "ok", "http.response.status_code": int64(200),
	}, attributesOf(asked))
	require.Equal(t, "00-"+traceID+"-"+hex.EncodeToString(asked.SpanId)+"-01", parents()[0])
	require.NotContains(t, parents()[1], traceID)
	require.True(t, strings.HasSuffix(parents()[1], "-00"), "the backends are told that it is not sampled")
}

func TestTracing_NothingWithoutTheBlock(t *testing.T) {
	addr, parents := tracedBackend(t)
	s, _ := startedServer(t, singleConfig(addr, ""), sameFeatures)
	require.Equal(t, http.StatusOK, (<-begun(s, rateQuery, "Traceparent", traceparent)).Code)
	require.Nil(t, s.tracing.Current())
	require.Equal(t, []string{""}, parents())
}

func TestTracing_Reload(t *testing.T) {
	receiver := newTraceReceiver(t)
	addr, parents := tracedBackend(t)
	s, file := startedServer(t, singleConfig(addr, ""), sameFeatures)
	with := tracingConfig(addr, receiver.addr)

	writeConfig(t, file, with)
	require.NoError(t, s.Reload(t.Context()))
	first := s.tracing.Current()
	require.NotNil(t, first)
	require.NoError(t, s.Reload(t.Context()))
	require.Same(t, first, s.tracing.Current(), "nothing has changed")

	// All or nothing, and the place is named.
	f := func(text, want string) {
		t.Helper()
		writeConfig(t, file, text)
		require.ErrorContains(t, s.Reload(t.Context()), want)
		require.Same(t, first, s.tracing.Current())
	}
	f(strings.Replace(with, "insecure: true", "tls_config: {ca_file: nowhere.pem}", 1), "tracing: unable to read CA cert")
	f(strings.Replace(with, "client_type: http", "client_type: udp", 1), `tracing.client_type: expected grpc or http, found "udp"`)
	f(with+"  - x\n", "oneprom.yml")
	f(strings.Replace(with, "static_configs", "tls_config: {ca_file: nowhere.pem}\n    static_configs", 1), "nowhere.pem")
	f(strings.Replace(with, "queries.log", "none/queries.log", 1), "query_log_file")
	require.Equal(t, http.StatusOK, (<-begun(s, rateQuery, "Traceparent", traceparent)).Code)
	require.Contains(t, parents()[0], traceID)

	writeConfig(t, file, singleConfig(addr, ""))
	require.NoError(t, s.Reload(t.Context()))
	require.Nil(t, s.tracing.Current())
	receiver.named(t, "POST /api/v1/query") // what was left has been exported
	require.Equal(t, http.StatusOK, (<-begun(s, rateQuery, "Traceparent", traceparent)).Code)
	require.Empty(t, parents()[1])
}

// Each way of reaching a collector can be made; that of HTTP is tried above.
func TestNewTracer(t *testing.T) {
	for _, block := range []string{
		"{endpoint: a:1}", "{endpoint: a:1, insecure: true, compression: gzip, timeout: 1s, headers: {a: b}}",
		"{endpoint: a:1, client_type: http, compression: gzip, timeout: 1s}",
	} {
		s, _ := startedServer(t, oneGroup+"tracing: "+block+"\n")
		require.NotNil(t, s.tracing.Current(), block)
	}
}

func TestTraced_FailureIsOneOfTheSpan(t *testing.T) {
	receiver := newTraceReceiver(t)
	s, _ := startedServer(t, tracingConfig("127.0.0.1:1", receiver.addr))
	require.Equal(t, http.StatusServiceUnavailable, (<-begun(s, "up", "Traceparent", traceparent)).Code)
	require.NoError(t, s.Stop(t.Context()))
	require.Equal(t, otlp.Status_STATUS_CODE_ERROR, receiver.named(t, "POST /api/v1/query").Status.Code)
	require.Equal(t, otlp.Status_STATUS_CODE_ERROR, receiver.named(t, "evaluate").Status.Code)
}
