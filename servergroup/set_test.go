package servergroup

import (
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	commoncfg "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/discovery/file"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/oneprom/oneprom/servergroup/backendtest"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/replica"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestApply_UnchangedGroupKeepsItsReplicas(t *testing.T) {
	a, b := groupOf("a", backend(t, "")), groupOf("b", backend(t, ""))
	s := newTestSet(t, config.PartialWarn, a, b)
	before := s.current.Load().groups()
	b.Region = "elsewhere"
	require.NoError(t, s.Apply(t.Context(), []config.Group{b, a}, config.PartialWarn))
	after := s.current.Load().groups()
	require.Same(t, before[0], after[1])
	require.NotSame(t, before[1], after[0])
}

// firstReplica is the first replica of the first group.
func firstReplica(s *Set) *replica.Replica { return (*s.current.Load().groups()[0].replicas.Load())[0] }

func TestApply_RunningViewDoesNotNotice(t *testing.T) {
	s := newTestSet(t, config.PartialWarn, groupOf("a", backend(t, "")))
	v := s.View(t.Context())
	require.NoError(t, s.Apply(t.Context(), nil, config.PartialError))
	require.Len(t, v.Groups, 1)
	require.False(t, v.Strict(v.Groups[0].Config))
}

func TestApply_BadConfigurationChangesNothing(t *testing.T) {
	good := groupOf("a", backend(t, ""))
	s := newTestSet(t, config.PartialWarn, good)
	bad := groupOf("b", backend(t, ""))
	bad.HTTPClientConfig.TLSConfig.CAFile = "/does/not/exist"
	require.ErrorContains(t, s.Apply(t.Context(), []config.Group{good, bad}, config.PartialWarn), `server group "b"`)
	require.Len(t, s.Status(), 1)
}

func TestApply_FileDiscoveryTellsTargetsBeforeItReturns(t *testing.T) {
	srv := backend(t, "load 15s\n foo 1x3")
	path := filepath.Join(t.TempDir(), "targets.json")
	require.NoError(t, os.WriteFile(path, []byte(`[{"targets": ["`+strings.TrimPrefix(srv.URL, "http://")+`"], "labels": {"odd": "x"}}]`), 0o600))
	cfg := config.DefaultGroup
	cfg.Name = "a"
	sd := file.DefaultSDConfig
	sd.Files = []string{path}
	cfg.ServiceDiscoveryConfigs = discovery.Configs{&sd}
	s := newTestSet(t, config.PartialWarn, cfg)
	got, _, err := selectText(t, s, `foo`, 0, 0)
	require.NoError(t, err)
	require.Equal(t, `{__name__="foo"} 0:1`+"\n", got)
	require.Contains(t, s.Status()[0].Findings[0], `label "odd" of discovered targets is not used`)
}

// TestApply_UsedOAuth2DoesNotMakeAGroupChanged: the client must not leave traces
// in the configuration that the next one is compared with.
func TestApply_UsedOAuth2DoesNotMakeAGroupChanged(t *testing.T) {
	tokens := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"access_token": "x", "token_type": "Bearer", "expires_in": 3600}`)
	}))
	srv := backend(t, "load 15s\n foo 1x3")
	load := func() config.Group {
		cfg := groupOf("a", srv)
		cfg.HTTPClientConfig.OAuth2 = &commoncfg.OAuth2{ClientID: "id", ClientSecret: "s", TokenURL: tokens.URL}
		cfg.HTTPClientConfig.OAuth2.ProxyFromEnvironment = true
		return cfg
	}
	s := newTestSet(t, config.PartialWarn, load())
	_, _, err := selectText(t, s, `foo`, 0, 0)
	require.NoError(t, err)
	before := s.current.Load().groups()[0]
	require.NoError(t, s.Apply(t.Context(), []config.Group{load()}, config.PartialWarn))
	require.Same(t, before, s.current.Load().groups()[0])
}

// fixedSD is a service discovery that finds what a test sends it.
type fixedSD chan []*targetgroup.Group

func (fixedSD) Name() string { return "fixed" }

func (sd fixedSD) NewDiscoverer(discovery.DiscovererOptions) (discovery.Discoverer, error) {
	return sd, nil
}

func (fixedSD) NewDiscovererMetrics(prometheus.Registerer, discovery.RefreshMetricsInstantiator) discovery.DiscovererMetrics {
	return &discovery.NoopDiscovererMetrics{}
}

func (sd fixedSD) Run(ctx context.Context, up chan<- []*targetgroup.Group) {
	for {
		select {
		case tgs := <-sd:
			select {
			case up <- tgs:
			case <-ctx.Done():
			}
		case <-ctx.Done():
			return
		}
	}
}

// targetsOf returns what service discovery finds for a server.
func targetsOf(url string) []*targetgroup.Group {
	addr := model.LabelValue(strings.TrimPrefix(url, "http://"))
	return []*targetgroup.Group{{Source: "x", Targets: []model.LabelSet{{model.AddressLabel: addr}}}}
}

func urls(g *group) []string {
	var list []string
	for _, r := range *g.replicas.Load() {
		list = append(list, r.URL())
	}
	return list
}

// TestApply_ChangedGroupHasItsTargetsThroughout reloads a group whose discovery
// has not answered when the new configuration comes into force.
func TestApply_ChangedGroupHasItsTargetsThroughout(t *testing.T) {
	old, next := backend(t, "load 15s\n foo 1x3"), backend(t, "load 15s\n foo 2x3")
	sd := make(fixedSD, 1)
	sd <- targetsOf(old.URL)
	cfg := groupOf("a")
	cfg.ServiceDiscoveryConfigs = discovery.Configs{sd}
	s := newTestSet(t, config.PartialWarn, cfg)
	require.Equal(t, []string{old.URL}, urls(s.current.Load().groups()[0]))

	sd = make(fixedSD)
	cfg.ServiceDiscoveryConfigs = discovery.Configs{sd}
	impatient, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, s.Apply(impatient, []config.Group{cfg}, config.PartialWarn))
	got, _, err := selectText(t, s, `foo`, 0, 0)
	require.NoError(t, err)
	require.Equal(t, `{__name__="foo"} 0:1`+"\n", got)

	sd <- targetsOf(next.URL)
	<-s.current.Load().entries[0].discovered
	got, _, err = selectText(t, s, `foo`, 0, 0)
	require.NoError(t, err)
	require.Equal(t, `{__name__="foo"} 0:2`+"\n", got)

	// A group without discovery has nothing to wait for.
	require.NoError(t, s.Apply(t.Context(), []config.Group{groupOf("a")}, config.PartialWarn))
	require.Empty(t, urls(s.current.Load().groups()[0]))
}

// TestGroup_EmptyListsBeforeTheFirstTargets: upstream sends them for a provider
// that has not answered yet.
func TestGroup_EmptyListsBeforeTheFirstTargets(t *testing.T) {
	static, discovered := backend(t, ""), backend(t, "")
	cfg := groupOf("a", static)
	cfg.ServiceDiscoveryConfigs = append(cfg.ServiceDiscoveryConfigs, make(fixedSD))
	s := newTestSet(t, config.PartialWarn)
	e, err := newEntry(cfg, s.registry, s.auditor)
	require.NoError(t, err)
	e.begin(nil)
	g := (*e.groups.Load())[0]
	for _, empty := range [][]*targetgroup.Group{{}, {{Source: "x"}}} {
		e.setTargets(empty)
		require.False(t, e.isDiscovered())
		require.Equal(t, []string{static.URL}, urls(g))
	}
	e.setTargets(targetsOf(discovered.URL))
	require.True(t, e.isDiscovered())
	require.Equal(t, []string{static.URL, discovered.URL}, urls(g))

	changed, err := newEntry(cfg, s.registry, s.auditor)
	require.NoError(t, err)
	changed.begin(e)
	changed.setTargets(nil)
	require.Equal(t, []string{static.URL, discovered.URL}, urls((*changed.groups.Load())[0]))

	e.setTargets(nil)
	require.Equal(t, []string{static.URL}, urls(g), "later ones are believed")
}

func TestStatus_TellsWhatProbingFound(t *testing.T) {
	a := groupOf("a", backend(t, "load 15s\n foo 1x3", external("replica", "r1")))
	b := groupOf("b", backend(t, "load 15s\n foo 1x3", noRemoteRead))
	gone := backend(t, "")
	gone.Close()
	s := newTestSet(t, config.PartialWarn, a, b, groupOf("c", gone))
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
	s := newTestSet(t, config.PartialWarn, groupOf("a", serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*h.Load()).ServeHTTP(w, r) }))))
	for _, mode := range []backendtest.RemoteRead{backendtest.Streamed, backendtest.NoRemoteRead} {
		use(mode)
		got, ws, err := selectText(t, s, `foo`, 0, 0)
		require.NoError(t, err)
		require.Empty(t, strs(ws))
		require.Equal(t, `{__name__="foo"} 0:1`+"\n", got)
	}
	require.Equal(t, "query_api", s.Status()[0].Replicas[0].Transport)
}

// TestClient_SecretsStayWithTheHostTheyAreFor redirects a backend's requests
// elsewhere.
func TestClient_SecretsStayWithTheHostTheyAreFor(t *testing.T) {
	var reached atomic.Bool
	other := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Store(true) }))
	cfg := groupOf("a", serve(t, http.RedirectHandler(other.URL, http.StatusTemporaryRedirect)))
	cfg.Headers = map[string]commoncfg.Secret{"X-Key": "hunter2"}
	s := newTestSet(t, config.PartialWarn, cfg)
	_, _, err := selectText(t, s, `foo`, 0, 0)
	require.ErrorContains(t, err, "redirected to another host, "+strings.TrimPrefix(other.URL, "http://"))
	require.False(t, reached.Load())
}
