package servergroup

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/discovery/file"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/oneprom/oneprom/servergroup/backendtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestApply_UnchangedGroupKeepsItsReplicas(t *testing.T) {
	a, b := groupOf("a", backend(t, "")), groupOf("b", backend(t, ""))
	s := newTestSet(t, PartialWarn, a, b)
	before := s.current.Load().groups
	b.Region = "elsewhere"
	require.NoError(t, s.Apply(t.Context(), []Config{b, a}, PartialWarn))
	after := s.current.Load().groups
	require.Same(t, before[0], after[1])
	require.NotSame(t, before[1], after[0])
}

func TestApply_RunningViewDoesNotNotice(t *testing.T) {
	s := newTestSet(t, PartialWarn, groupOf("a", backend(t, "")))
	v := s.View(t.Context())
	require.NoError(t, s.Apply(t.Context(), nil, PartialError))
	require.Len(t, v.groups, 1)
	require.Equal(t, PartialWarn, v.partial)
}

func TestApply_BadConfigurationChangesNothing(t *testing.T) {
	good := groupOf("a", backend(t, ""))
	s := newTestSet(t, PartialWarn, good)
	bad := groupOf("b", backend(t, ""))
	bad.HTTPClientConfig.TLSConfig.CAFile = "/does/not/exist"
	require.ErrorContains(t, s.Apply(t.Context(), []Config{good, bad}, PartialWarn), `server group "b"`)
	require.Len(t, s.Status(), 1)
}

func TestApply_FileDiscoveryTellsTargetsBeforeItReturns(t *testing.T) {
	srv := backend(t, "load 15s\n foo 1x3")
	path := filepath.Join(t.TempDir(), "targets.json")
	require.NoError(t, os.WriteFile(path, []byte(`[{"targets": ["`+strings.TrimPrefix(srv.URL, "http://")+`"], "labels": {"odd": "x"}}]`), 0o600))
	cfg := DefaultConfig
	cfg.Name = "a"
	sd := file.DefaultSDConfig
	sd.Files = []string{path}
	cfg.ServiceDiscoveryConfigs = discovery.Configs{&sd}
	s := newTestSet(t, PartialWarn, cfg)
	got, _, err := selectText(t, s, `foo`, 0, 0)
	require.NoError(t, err)
	require.Equal(t, `{__name__="foo"} 0:1`+"\n", got)
	require.Contains(t, s.Status()[0].Findings[0], `label "odd" of discovered targets is not used`)
}

func TestStatus_TellsWhatProbingFound(t *testing.T) {
	a := groupOf("a", backend(t, "load 15s\n foo 1x3", external("replica", "r1")))
	b := groupOf("b", backend(t, "load 15s\n foo 1x3", noRemoteRead))
	gone := backend(t, "")
	gone.Close()
	s := newTestSet(t, PartialWarn, a, b, groupOf("c", gone))
	_, _, err := selectText(t, s, `foo`, 0, 0)
	require.NoError(t, err)
	st := s.Status()
	require.Equal(t, "up", st[0].Replicas[0].Health)
	require.Equal(t, "remote_read_streamed", st[0].Replicas[0].Transport)
	require.Equal(t, map[string]string{"replica": "r1"}, st[0].Replicas[0].ExternalLabels)
	require.Equal(t, "prometheus", st[0].Replicas[0].Kind)
	require.Equal(t, "query_api", st[1].Replicas[0].Transport)
	require.Contains(t, st[1].Replicas[0].TransportReason, "no remote read: status 404")
	require.Equal(t, "down", st[2].Replicas[0].Health)
	require.Contains(t, st[2].Replicas[0].LastError, "connection refused")
}

// TestReplica_ProbedAgainWhenTheBackendChanges takes remote read away from a
// backend that had it.
func TestReplica_ProbedAgainWhenTheBackendChanges(t *testing.T) {
	db := promqltest.LoadedStorage(t, "load 15s\n foo 1x3")
	var h atomic.Pointer[http.Handler]
	use := func(mode backendtest.RemoteRead) {
		next := backendtest.NewHandler(backendtest.Options{Queryable: db, RemoteRead: mode})
		h.Store(&next)
	}
	use(backendtest.Streamed)
	s := newTestSet(t, PartialWarn, groupOf("a", serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*h.Load()).ServeHTTP(w, r) }))))
	for _, mode := range []backendtest.RemoteRead{backendtest.Streamed, backendtest.NoRemoteRead} {
		use(mode)
		got, ws, err := selectText(t, s, `foo`, 0, 0)
		require.NoError(t, err)
		require.Empty(t, strs(ws))
		require.Equal(t, `{__name__="foo"} 0:1`+"\n", got)
	}
	require.Equal(t, "query_api", s.Status()[0].Replicas[0].Transport)
}
