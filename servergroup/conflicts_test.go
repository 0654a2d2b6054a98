package servergroup

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest"
	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/request"
	"github.com/oneprom/oneprom/servergroup/transport"
	"github.com/oneprom/oneprom/servergroup/view"
)

// asVictoriaMetrics makes a backend say that it is one. It has the query API only.
func asVictoriaMetrics(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Server-Hostname", "vm")
		if r.URL.Path == "/api/v1/export" {
			http.NotFound(w, r)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// asInfluxDB makes a backend one: remote read and nothing else.
func asInfluxDB(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Influxdb-Version", "1.6.7")
		if r.URL.Path != "/api/v1/prom/read" {
			http.NotFound(w, r)
			return
		}
		r.URL.Path = "/api/v1/read"
		h.ServeHTTP(w, r)
	})
}

func samplesOnly(o *backendtest.Options) { o.RemoteRead = backendtest.SamplesOnly }

// as returns a backend of another kind.
func as(t *testing.T, kind func(http.Handler) http.Handler, load string, change ...func(*backendtest.Options)) config.Group {
	t.Helper()
	return groupOf("archive", serve(t, kind(overridden(t, load, change...))))
}

// ready probes all replicas.
func ready(t *testing.T, s *Set) {
	t.Helper()
	for _, g := range s.current.Load().groups() {
		for _, r := range *g.replicas.Load() {
			p, err := r.Ready(t.Context())
			require.NoError(t, err)
			r.CheckData(t.Context(), p) // as the probe does in the background
		}
	}
}

// findingsOf returns the findings of a group and of its replicas.
func findingsOf(s *Set, group string) []string {
	var texts []string
	for _, g := range s.Status() {
		if g.Name == group {
			texts = append(texts, g.Findings...)
			for _, r := range g.Replicas {
				texts = append(texts, r.Findings...)
			}
		}
	}
	return texts
}

// warningsOf returns what the answer to a selector, of the first minute, says of itself.
func warningsOf(t *testing.T, s *Set, selector string) []string {
	t.Helper()
	return warningsSince(t, s, selector, 0)
}

func warningsSince(t *testing.T, s *Set, selector string, mint int64) []string {
	t.Helper()
	_, ws := fetched(t.Context(), t, s.View(t.Context()), view.Selection{Matchers: matchersOf(t, selector), MinT: mint, MaxT: 60_000})
	return strs(ws)
}

func TestConflict_DataCarriesAnInjectedLabel(t *testing.T) {
	cfg := groupOf("eu", backend(t, "load 15s\n foo{region=\"us\"} 1x3\n bar{region=\"eu\"} 1x3\n baz 1x3\n old{region=\"us\"} 1 stale"))
	cfg.Labels = map[string]string{"region": "eu"}
	s, _ := setAt(t, cfg)
	ready(t, s)
	const want = `series carry region="us" already, and ` + "`labels`" + ` injects "eu": they are shown with exported_region; if the data tells its region itself, name it under ` + "`intrinsic_labels`" + ` instead`
	require.Equal(t, []string{want}, findingsOf(s, "eu"), "found by the probe")
	require.Equal(t, []string{`server group "eu": ` + want}, warningsOf(t, s, "foo"))
	require.Empty(t, warningsOf(t, s, "bar"))
	require.Empty(t, warningsOf(t, s, "baz"))
	require.NotEmpty(t, warningsOf(t, s, `foo{exported_region=""}`), "it is empty because of the other name")
	require.NotEmpty(t, warningsOf(t, s, `{exported_region="us"}`))
	require.Equal(t, []string{want, want}, findingsOf(s, "eu"), "of the group, and of the replica")
}

func TestConflict_NoInjectedLabelIsInTheData(t *testing.T) {
	cfg := groupOf("eu", backend(t, "load 15s\n foo{zone=\"us\"} 1x3\n foo{region=\"eu\"} 1x3", external("region", "eu")))
	cfg.Labels = map[string]string{"region": "eu"}
	s, _ := setAt(t, cfg)
	ready(t, s)
	require.Empty(t, warningsOf(t, s, "foo"))
	require.Empty(t, findingsOf(s, "eu"))
}

func sameSeries(a, b string) string {
	return fmt.Sprintf("server groups %q and %q hold the same series, ", a, b)
}

// recent returns a group of one Prometheus.
func recent(t *testing.T, name, load string) config.Group {
	t.Helper()
	return groupOf(name, backend(t, load))
}

const twenty = "load 15s\n foo{i=\"1\"} 1x3\n foo{i=\"2\"} 1x3\n foo{i=\"3\"} 1x3"

func TestConflict_TwoRecentGroupsHoldTheSameSeries(t *testing.T) {
	s, _ := setAt(t, recent(t, "a", twenty), recent(t, "b", twenty+"\n only_b 1x3"))
	ready(t, s)
	require.Empty(t, warningsOf(t, s, "only_b"))
	require.Empty(t, findingsOf(s, "a"))

	ws := warningsOf(t, s, "foo")
	require.Len(t, ws, 1, "however many series")
	require.Contains(t, ws[0], sameSeries("a", "b")+`{__name__="foo", i="1"} for one`)
	require.Equal(t, ws, findingsOf(s, "a"))
	require.Equal(t, ws, findingsOf(s, "b"))
	warningsOf(t, s, "foo")
	require.Len(t, findingsOf(s, "a"), 1)
}

func TestConflict_OfThreeGroupsEachPairIsNamed(t *testing.T) {
	s, _ := setAt(t, recent(t, "a", twenty), recent(t, "b", twenty), recent(t, "c", twenty))
	ws := warningsOf(t, s, "foo")
	slices.Sort(ws)
	require.Len(t, ws, 3)
	for i, want := range []string{sameSeries("a", "b"), sameSeries("a", "c"), sameSeries("b", "c")} {
		require.Contains(t, ws[i], want)
	}
}

// TestConflict_IsFoundAroundAnArchive: wherever that is in the configuration.
func TestConflict_IsFoundAroundAnArchive(t *testing.T) {
	groups := []config.Group{recent(t, "a", twenty), recent(t, "b", twenty), as(t, asVictoriaMetrics, twenty, noRemoteRead)}
	for _, order := range [][]int{{0, 1, 2}, {0, 2, 1}, {2, 0, 1}} {
		s, _ := setAt(t, groups[order[0]], groups[order[1]], groups[order[2]])
		ws := warningsOf(t, s, "foo")
		require.Len(t, ws, 1, order)
		require.Contains(t, ws[0], sameSeries("a", "b"))
		require.Empty(t, findingsOf(s, "archive"))
	}
}

func TestConflict_ReplicasOfAGroupAreNone(t *testing.T) {
	two := groupOf("a", backend(t, twenty), backend(t, "load 15s\n foo{i=\"1\"} _ _ 7"))
	s, _ := setAt(t, two)
	require.Empty(t, warningsOf(t, s, "foo"))
	s, _ = setAt(t, two, recent(t, "b", "load 15s\n foo{i=\"1\"} 1"))
	require.Len(t, warningsOf(t, s, "foo"), 1, "the second replica has other times")
}

func TestConflict_OverlapOfAnArchiveIsNone(t *testing.T) {
	f := func(archive config.Group) {
		t.Helper()
		archive.Name = "archive"
		s, _ := setAt(t, recent(t, "a", twenty), archive)
		require.Empty(t, warningsOf(t, s, "foo"))
		require.Empty(t, findingsOf(s, "a"))
		require.Empty(t, findingsOf(s, "archive"))
	}
	f(as(t, asVictoriaMetrics, twenty, noRemoteRead))
	f(as(t, asInfluxDB, twenty, samplesOnly))
	old := recent(t, "x", twenty)
	old.TimeRange.MinAge = model.Duration(15 * time.Second)
	f(old)
	ended := recent(t, "x", twenty)
	ended.TimeRange.End = config.Time{Time: time.UnixMilli(61_000)}
	f(ended)

	// A bound at the other end makes no archive.
	young := recent(t, "young", twenty)
	young.TimeRange.MaxAge = model.Duration(time.Hour)
	s, _ := setAt(t, recent(t, "a", twenty), young)
	require.Len(t, warningsOf(t, s, "foo"), 1)
}

func TestConflict_SeriesThatMovedIsNone(t *testing.T) {
	s, _ := setAt(t, recent(t, "a", "load 15s\n foo 1x1 stale"), recent(t, "b", "load 15s\n foo _ _ _ 1x1"))
	require.Empty(t, warningsOf(t, s, "foo"))
	require.Empty(t, findingsOf(s, "a"))
}

func TestConflict_GroupsThatLabelsTellApartAreNone(t *testing.T) {
	a, b := recent(t, "a", twenty), recent(t, "b", twenty)
	a.Labels, b.Labels = map[string]string{"region": "eu"}, map[string]string{"region": "us"}
	s, _ := setAt(t, a, b)
	require.Empty(t, warningsOf(t, s, "foo"))
}

func TestConflict_ReplicaLabelIsNowhere(t *testing.T) {
	f := func(found bool, cfg config.Group) {
		t.Helper()
		cfg.ReplicaLabels = []string{"replica"}
		s, _ := setAt(t, cfg)
		ready(t, s)
		require.Empty(t, warningsOf(t, s, "foo"))
		if found {
			require.Equal(t, []string{"replica label \"replica\" is neither in the data nor an external label: remove it from `replica_labels`, or correct its name"}, findingsOf(s, cfg.Name))
		} else {
			require.Empty(t, findingsOf(s, cfg.Name))
		}
	}
	f(true, groupOf("a", backend(t, twenty)))
	f(true, groupOf("a", backend(t, twenty, external("prometheus_replica", "r1"))))
	f(true, as(t, asVictoriaMetrics, twenty, noRemoteRead))
	f(false, groupOf("a", backend(t, twenty, external("replica", "r1"))))
	f(false, groupOf("a", backend(t, "load 15s\n foo{replica=\"r1\"} 1x3\n foo 1x3")))
	f(false, as(t, asVictoriaMetrics, "load 15s\n foo{replica=\"r1\"} 1x3", noRemoteRead))
	f(false, groupOf("a", backend(t, "")))
	f(false, as(t, asInfluxDB, twenty, samplesOnly))

	// A backend that does not show its configuration.
	hidden := func(load string, status map[string]int) config.Group {
		o := overridden(t, load, external("replica", "r1"))
		o.status = status
		return groupOf("a", serve(t, o))
	}
	f(false, hidden("load 15s\n up 1x4\n foo 1x3", map[string]int{"/status/config": 403}))
	f(false, hidden(twenty, map[string]int{"/status/config": 403}))
	never := hidden(twenty, map[string]int{"/status/config": 403, "/read": 404})
	f(false, never)
	never.RemoteRead = config.RemoteReadNever
	f(false, never)
	// One that does not answer the question.
	f(false, hidden(twenty, map[string]int{"/status/config": 404, "/label/replica/values": 404}))
	f(false, hidden(twenty, map[string]int{"/status/config": 404, "/label/replica/values": 503}))
}

func TestConflict_ExternalLabelDisagrees(t *testing.T) {
	f := func(found bool, cfg config.Group) {
		t.Helper()
		cfg.Labels = map[string]string{"region": "eu"}
		s, _ := setAt(t, cfg)
		ready(t, s)
		got, ws, err := selectText(t, s, "foo", 0, 60_000)
		require.NoError(t, err)
		require.Contains(t, got, `region="eu"`)
		require.NotContains(t, got, "exported")
		if !found {
			require.Empty(t, strs(ws))
			require.Empty(t, findingsOf(s, cfg.Name))
			return
		}
		require.Len(t, findingsOf(s, cfg.Name), 1)
		require.Contains(t, findingsOf(s, cfg.Name)[0], `the backend's external label region="us" disagrees with the group's `+"`labels`, which say \"eu\"")
		require.Len(t, strs(ws), 1)
		require.Contains(t, strs(ws)[0], findingsOf(s, cfg.Name)[0])
		require.Contains(t, strs(ws)[0], `server group "a": http://127.0.0.1`)
	}
	f(true, groupOf("a", backend(t, twenty, external("region", "us"))))
	f(true, groupOf("a", backend(t, twenty, external("region", "us"), noRemoteRead)))
	f(false, groupOf("a", backend(t, twenty, external("region", "eu"))))
	f(false, groupOf("a", backend(t, twenty, external("zone", "us"))))
	o := overridden(t, "load 15s\n up 1x4\n foo 1x3", external("region", "us"))
	o.status = map[string]int{"/status/config": 403}
	f(true, groupOf("a", serve(t, o)))

	// Groups that are not asked say nothing.
	cfg := groupOf("a", backend(t, twenty, external("region", "us")))
	cfg.Labels = map[string]string{"region": "eu"}
	s, _ := setAt(t, cfg, recent(t, "b", "load 15s\n bar 1x3"))
	require.Empty(t, warningsOf(t, s, `bar{region=""}`))
}

func TestConflict_ExternalLabelsDifferBetweenReplicas(t *testing.T) {
	x, y, none, alsoX := backend(t, twenty, external("dc", "x")), backend(t, twenty, external("dc", "y")), backend(t, twenty), backend(t, twenty, external("dc", "x"))
	f := func(want int, replicas []*httptest.Server, replicaLabels ...string) {
		t.Helper()
		cfg := groupOf("a", replicas...)
		cfg.ReplicaLabels = replicaLabels
		s, _ := setAt(t, cfg)
		ready(t, s)
		got := s.Status()[0].Findings
		require.Len(t, got, want)
		if want > 0 {
			require.Contains(t, got[0], `external label dc is "x" at http://127.0.0.1`)
			require.Contains(t, got[0], "add it to `replica_labels`, else make them two groups")
		}
		require.Empty(t, warningsOf(t, s, "foo"))
	}
	f(1, []*httptest.Server{x, y, alsoX})
	f(1, []*httptest.Server{x, alsoX, none})
	f(0, []*httptest.Server{x, alsoX})
	f(0, []*httptest.Server{x, y, none}, "dc")
	f(0, []*httptest.Server{none})

	// Nothing is said of a replica that has not answered.
	gone := backend(t, "")
	gone.Close()
	s, _ := setAt(t, groupOf("a", x, gone))
	warningsOf(t, s, "foo")
	require.Empty(t, s.Status()[0].Findings)
}

func TestConflict_KindIsNotTheBackends(t *testing.T) {
	f := func(kind transport.Kind, want string, cfg config.Group) {
		t.Helper()
		cfg.Kind = kind
		s, _ := setAt(t, cfg)
		ready(t, s)
		st := s.Status()[0].Replicas[0]
		require.Equal(t, string(kind), st.Kind, "what is configured holds")
		if want == "" {
			require.Empty(t, st.Findings)
			return
		}
		require.Equal(t, []string{"`kind: " + string(kind) + "` is configured, but the backend says that it is " + want + ": correct `kind` or remove it"}, st.Findings)
	}
	f(transport.Mimir, "prometheus "+backendtest.Version, groupOf("a", backend(t, twenty)))
	f(transport.Prometheus, "victoriametrics", as(t, asVictoriaMetrics, twenty, noRemoteRead))
	f(transport.Prometheus, "", groupOf("a", backend(t, twenty)))
	silent := overridden(t, twenty)
	silent.status = untold
	f(transport.Mimir, "", groupOf("a", serve(t, silent)))
}

func TestPartial_WarningsOfBackendsAreErrorsWhereAnswersMustBeWhole(t *testing.T) {
	srv := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if strings.Contains(r.URL.Path, "/status/") {
			_, _ = io.WriteString(w, `{"status":"success","data":{"version":"3.0.0"}}`)
			return
		}
		_, _ = io.WriteString(w, `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":"foo"},"values":[[1,"1"]]}]},"warnings":["a store\nis away"]}`)
	}))
	cfg := groupOf("a", srv)
	cfg.RemoteRead, cfg.Kind = config.RemoteReadNever, transport.Prometheus
	s := newTestSet(t, config.PartialError, cfg)
	_, ws, err := selectText(t, s, `foo`, 0, 60_000)
	var partial *completeness.UnavailableError
	require.ErrorAs(t, err, &partial)
	require.EqualError(t, err, `server group "a": `+srv.URL+`: a store is away`)
	require.False(t, partial.Late)
	require.NotNil(t, ws)

	v := s.View(request.With(t.Context(), func(r *request.Request) { r.Partial = config.PartialWarn }))
	list, more := fetched(t.Context(), t, v, view.Selection{Matchers: matchersOf(t, `foo`), MaxT: 60_000})
	require.Len(t, list, 1)
	require.Equal(t, []string{`server group "a": ` + srv.URL + `: a store is away`}, strs(more))
}

// TestPartial_DoubtsAreNoErrors: what is doubtful is not missing.
func TestPartial_DoubtsAreNoErrors(t *testing.T) {
	cfg := groupOf("a", backend(t, "load 15s\n foo{region=\"x\"} 1x3", external("region", "us")))
	cfg.Labels = map[string]string{"region": "eu"}
	s := newTestSet(t, config.PartialError, cfg, recent(t, "b", twenty), recent(t, "c", twenty))
	require.Len(t, warningsOf(t, s, "foo"), 3)
}

// TestProbe_DoesNotWaitForLabels: a backend that is slow to list label values answers queries all the same.
func TestProbe_DoesNotWaitForLabels(t *testing.T) {
	o := overridden(t, "load 15s\n foo 1x3")
	release := make(chan struct{})
	o.replace = map[string]http.HandlerFunc{"/label/region/values": func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}}
	cfg := groupOf("a", serve(t, o))
	cfg.Labels = map[string]string{"region": "eu"}
	s, _ := setAt(t, cfg)
	got, _, err := selectText(t, s, `foo`, 0, 0)
	require.NoError(t, err)
	require.Equal(t, `{__name__="foo", region="eu"} 0:1`+"\n", got)
	close(release)
}

// TestConflict_IsNotToldOfOthersSeries: a tenant whose selector only oneprom can check is told of the
// series that it sees, though the server has sent those of others, too.
func TestConflict_IsNotToldOfOthersSeries(t *testing.T) {
	cfg := groupOf("eu", backend(t, "load 15s\n foo{region=\"hidden\",i=\"1\"} 1x3\n foo{region=\"us\",i=\"2\"} 1x3\n foo{i=\"3\"} 1x3"))
	cfg.Labels = map[string]string{"region": "eu"}
	s, _ := setAt(t, cfg)
	as := func(selector string) []string {
		ctx := request.With(t.Context(), func(r *request.Request) { r.Restricted, r.Shown = true, matchersOf(t, selector) })
		series, ws := fetched(ctx, t, s.View(ctx), view.Selection{Matchers: matchersOf(t, "foo"), MaxT: 60_000})
		require.NotEmpty(t, series)
		require.NotContains(t, fmt.Sprint(series), "hidden")
		return strs(ws)
	}
	require.Empty(t, as(`{exported_region=""}`))
	ws := as(`{exported_region="us"}`)
	require.Len(t, ws, 1)
	require.Contains(t, ws[0], `series carry region="us" already`)
	require.Contains(t, warningsOf(t, s, "foo")[0], "hidden")
}
