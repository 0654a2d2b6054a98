package proxy

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest"
)

// readRequest is the body of a remote read request for all series of one name.
func readRequest(t *testing.T, name string, accepted ...prompb.ReadRequest_ResponseType) string {
	t.Helper()
	req := &prompb.ReadRequest{
		Queries:               []*prompb.Query{{EndTimestampMs: 1 << 40, Matchers: []*prompb.LabelMatcher{{Name: "__name__", Value: name}}}},
		AcceptedResponseTypes: accepted,
	}
	raw, err := req.Marshal()
	require.NoError(t, err)
	return string(snappy.Encode(nil, raw))
}

// Where an answer cannot say that something is missing, it is not given.
func TestPartialAnswers_OnlyWhereTheyCanBeSaid(t *testing.T) {
	data := promqltest.LoadedStorage(t, "load 30s\n  m 1x10")
	t.Cleanup(func() { require.NoError(t, data.Close()) })
	backend := httptest.NewServer(backendtest.NewHandler(backendtest.Options{Queryable: data}))
	t.Cleanup(backend.Close)
	alive := strings.TrimPrefix(backend.URL, "http://")
	const group = "  - name: %s\n    static_configs: [{targets: ['%s']}]\n"
	whole := "server_groups:\n" + fmt.Sprintf(group, "alive", alive)

	for _, accepted := range [][]prompb.ReadRequest_ResponseType{nil, {prompb.ReadRequest_STREAMED_XOR_CHUNKS}} {
		read := readRequest(t, "m", accepted...)
		s, file := startedServer(t, whole)
		w := ask(s.Handler(), http.MethodPost, "/api/v1/read", read)
		require.Equal(t, http.StatusOK, w.Code, w.Body)
		require.Equal(t, http.StatusOK, get(s.Handler(), "/federate?match[]=m").Code)

		writeConfig(t, file, whole+fmt.Sprintf(group, "dead", "127.0.0.1:1"))
		require.NoError(t, s.Reload(t.Context()))
		w = get(s.Handler(), "/api/v1/query?query=m&time=60")
		require.Equal(t, http.StatusOK, w.Code, w.Body)
		require.Contains(t, w.Body.String(), `"warnings":["partial answer: server group \"dead\"`)
		w = ask(s.Handler(), http.MethodPost, "/api/v1/read", read)
		require.Equal(t, http.StatusServiceUnavailable, w.Code, w.Body)
		require.Equal(t, http.StatusServiceUnavailable, get(s.Handler(), "/federate?match[]=m").Code)
	}
}
