package servergroup

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest"
	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/fanout"
	"github.com/oneprom/oneprom/servergroup/lookup"
	"github.com/oneprom/oneprom/servergroup/request"
	"github.com/oneprom/oneprom/servergroup/targets"
	"github.com/oneprom/oneprom/servergroup/view"
)

// backend serves promqltest `load` data as a Prometheus would.
func backend(t *testing.T, load string, change ...func(*backendtest.Options)) *httptest.Server {
	t.Helper()
	o := backendtest.Options{Queryable: promqltest.LoadedStorage(t, load)}
	for _, c := range change {
		c(&o)
	}
	return serve(t, backendtest.NewHandler(o))
}

func serve(t *testing.T, h http.Handler) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

func external(name, value string) func(*backendtest.Options) {
	return func(o *backendtest.Options) { o.ExternalLabels = labels.FromStrings(name, value) }
}

func noRemoteRead(o *backendtest.Options) { o.RemoteRead = backendtest.NoRemoteRead }

// groupOf returns a valid group with the servers as replicas.
func groupOf(name string, servers ...*httptest.Server) config.Group {
	cfg := config.DefaultGroup
	cfg.Name = name
	tg := &targetgroup.Group{Source: "0"}
	for _, s := range servers {
		_, address, _ := strings.Cut(s.URL, "://")
		tg.Targets = append(tg.Targets, model.LabelSet{model.AddressLabel: model.LabelValue(address)})
	}
	cfg.ServiceDiscoveryConfigs = discovery.Configs{discovery.StaticConfig{tg}}
	return cfg
}

func newTestSet(t *testing.T, partial config.PartialResponse, cfgs ...config.Group) *Set {
	t.Helper()
	for _, c := range cfgs {
		require.NoError(t, c.Validate())
		require.NoError(t, targets.Validate(&c))
	}
	s, err := NewSet(Options{MaxFetchedBytes: 1 << 20})
	require.NoError(t, err)
	t.Cleanup(s.Close)
	require.NoError(t, s.Apply(t.Context(), cfgs, partial))
	return s
}

// selectText fetches and prints series as `{labels} t:v t:v`.
func selectText(t *testing.T, s *Set, selector string, mint, maxt int64) (string, annotations.Annotations, error) {
	t.Helper()
	var done sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	defer done.Wait()
	defer cancel()
	set := s.View(ctx).Select(ctx, view.Selection{Matchers: matchersOf(t, selector), MinT: mint, MaxT: maxt}, &done).Read()
	text := seriesText(t, set)
	return text, set.Warnings(), set.Err()
}

// fetched returns the labels of the series of a selection, which must not fail, and the warnings.
func fetched(ctx context.Context, t *testing.T, v *view.View, sel view.Selection) ([]labels.Labels, annotations.Annotations) {
	t.Helper()
	var done sync.WaitGroup
	defer done.Wait()
	set := v.Select(ctx, sel, &done).Read()
	var list []labels.Labels
	for set.Next() {
		list = append(list, set.At().Labels())
	}
	require.NoError(t, set.Err())
	return list, set.Warnings()
}

func seriesText(t *testing.T, set storage.SeriesSet) string {
	t.Helper()
	var b strings.Builder
	var it chunkenc.Iterator
	for set.Next() {
		b.WriteString(set.At().Labels().String())
		it = set.At().Iterator(it)
		for it.Next() != chunkenc.ValNone {
			ts, v := it.At()
			fmt.Fprintf(&b, " %d:%g", ts/1000, v)
		}
		require.NoError(t, it.Err())
		b.WriteByte('\n')
	}
	return b.String()
}

func matchersOf(t *testing.T, selector string) []*labels.Matcher {
	t.Helper()
	ms, err := parser.NewParser(parser.Options{}).ParseMetricSelector(selector)
	require.NoError(t, err)
	return ms
}

func strs(ws annotations.Annotations) []string {
	warnings, infos := ws.AsStrings("", 0, 0)
	return append(warnings, infos...)
}

func TestView_ShardsWithoutLabelsAreAllAnswered(t *testing.T) {
	a := backend(t, "load 15s\n foo{i=\"1\"} 3+0x3")
	b := backend(t, "load 15s\n foo{i=\"2\"} 4+0x3")
	s := newTestSet(t, config.PartialWarn, groupOf("a", a), groupOf("b", b))
	got, ws, err := selectText(t, s, `foo`, 0, 30000)
	require.NoError(t, err)
	require.Empty(t, strs(ws))
	require.Equal(t, `{__name__="foo", i="1"} 0:3 15:3 30:3`+"\n"+`{__name__="foo", i="2"} 0:4 15:4 30:4`+"\n", got)
}

func TestView_EachTransportGivesTheSameSeries(t *testing.T) {
	const load = "load 15s\n foo{i=\"1\"} 0+1x10 stale 3 4\n foo{i=\"2\",replica=\"own\"} 5x4"
	want := `{__name__="foo", i="1", region="eu"} 15:1 30:2 45:3` + "\n" + `{__name__="foo", i="2", region="eu"} 15:5 30:5 45:5` + "\n"
	for name, change := range map[string]func(*backendtest.Options){
		"streamed": func(*backendtest.Options) {},
		"samples":  func(o *backendtest.Options) { o.RemoteRead = backendtest.SamplesOnly },
		"query":    noRemoteRead,
		"tiny":     func(o *backendtest.Options) { o.MaxBytesInFrame = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := groupOf("eu", backend(t, load, external("prometheus", "p1"), change))
			cfg.Labels = map[string]string{"region": "eu"}
			cfg.ReplicaLabels = []string{"replica"}
			s := newTestSet(t, config.PartialWarn, cfg)
			got, ws, err := selectText(t, s, `foo{region="eu"}`, 15000, 45000)
			require.NoError(t, err)
			require.Empty(t, strs(ws))
			require.Equal(t, want, got)
			got, _, err = selectText(t, s, `foo{prometheus="p1"}`, 15000, 45000)
			require.NoError(t, err)
			require.Empty(t, got, "external labels are not shown, and so match nothing")
		})
	}
}

func TestView_LostReplicaIsSaidAndItsTwinAnswers(t *testing.T) {
	a := backend(t, "load 15s\n foo 1+1x3")
	b := backend(t, "load 15s\n foo 1+1x3")
	b.Close()
	s := newTestSet(t, config.PartialError, groupOf("a", b, a))
	got, ws, err := selectText(t, s, `foo`, 0, 15000)
	require.NoError(t, err)
	require.Equal(t, `{__name__="foo"} 0:1 15:2`+"\n", got)
	require.Len(t, strs(ws), 1)
	require.Contains(t, strs(ws)[0], `PromQL info: server group "a" answered without a replica: `+b.URL)
}

func TestView_LostGroupIsPartialOrAnError(t *testing.T) {
	a := backend(t, "load 15s\n foo{i=\"1\"} 1+1x3")
	b := backend(t, "load 15s\n foo{i=\"2\"} 1+1x3")
	b.Close()
	lost := groupOf("b", b)
	lost.Region = "us"

	s := newTestSet(t, config.PartialWarn, groupOf("a", a), lost)
	got, ws, err := selectText(t, s, `foo`, 0, 0)
	require.NoError(t, err)
	require.Equal(t, `{__name__="foo", i="1"} 0:1`+"\n", got)
	require.Len(t, strs(ws), 1)
	require.Contains(t, strs(ws)[0], `partial answer: server group "b" (region "us") did not answer: `+b.URL)

	s = newTestSet(t, config.PartialError, groupOf("a", a), lost)
	_, _, err = selectText(t, s, `foo`, 0, 0)
	var unavailable *completeness.UnavailableError
	require.ErrorAs(t, err, &unavailable)
	require.Contains(t, err.Error(), `server group "b" (region "us") did not answer`)
}

func TestView_NoGroupAnsweringIsNeverAnEmptySuccess(t *testing.T) {
	b := backend(t, "")
	b.Close()
	noTargets := groupOf("empty")
	for _, cfg := range []config.Group{groupOf("b", b), noTargets} {
		s := newTestSet(t, config.PartialWarn, cfg)
		_, _, err := selectText(t, s, `foo`, 0, 0)
		var unavailable *completeness.UnavailableError
		require.ErrorAs(t, err, &unavailable)
	}
}

func TestView_GroupOfAnotherRegionIsNotAsked(t *testing.T) {
	var asked atomic.Int64
	h := backendtest.NewHandler(backendtest.Options{Queryable: promqltest.LoadedStorage(t, "load 15s\n foo 1x3")})
	us := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/api/v1/query") && !asksEngine(r) {
			asked.Add(1)
		}
		h.ServeHTTP(w, r)
	}))
	eu := backend(t, "load 15s\n foo 2x3")
	cu, ce := groupOf("us", us), groupOf("eu", eu)
	cu.Labels, ce.Labels = map[string]string{"region": "us"}, map[string]string{"region": "eu"}
	cu.RemoteRead = config.RemoteReadNever
	s := newTestSet(t, config.PartialWarn, cu, ce)
	got, _, err := selectText(t, s, `foo{region="eu"}`, 0, 0)
	require.NoError(t, err)
	require.Equal(t, `{__name__="foo", region="eu"} 0:2`+"\n", got)
	require.Zero(t, asked.Load())
}

// TestView_BudgetEndsTheQuery at the moment at which it is crossed: nobody waits for the others, of which one never answers.
func TestView_BudgetEndsTheQuery(t *testing.T) {
	hung := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/status/") {
			_, _ = io.WriteString(w, `{"status":"success","data":{"version":"3.0.0"}}`)
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	endless := endlessServer(t)
	cfg, other := groupOf("a", endless), groupOf("b", hung)
	for _, c := range []*config.Group{&cfg, &other} {
		c.RemoteRead, c.Timeout = config.RemoteReadNever, model.Duration(time.Hour)
	}
	for _, groups := range [][]config.Group{{cfg}, {cfg, other}} {
		s := newTestSet(t, config.PartialWarn, groups...)
		_, _, err := selectText(t, s, `foo`, 0, 1<<50)
		requireOverBudget(t, err)
		require.ErrorContains(t, err, "most of it from "+endless.URL)
	}
}

// endlessServer answers probes, and queries without an end.
func endlessServer(t *testing.T) *httptest.Server {
	t.Helper()
	return serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if strings.Contains(r.URL.Path, "/status/") {
			_, _ = io.WriteString(w, `{"status":"success","data":{"version":"3.0.0"}}`)
			return
		}
		if !strings.Contains(r.URL.Path, "/query") {
			http.NotFound(w, r)
			return
		}
		if r.FormValue("query") == "vector(1)" { // a probe: on a slow machine the answer is late
			_, _ = io.WriteString(w, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[0,"1"]}]}}`)
			return
		}
		_, _ = io.WriteString(w, `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[`)
		for i := 0; r.Context().Err() == nil; i++ {
			_, _ = fmt.Fprintf(w, `[%d,"1"],`, i)
		}
	}))
}

// TestView_EndlessReplicaIsNotTheQuerys: its twin answers, the answer says so, and it is asked no more.
func TestView_EndlessReplicaIsNotTheQuerys(t *testing.T) {
	endless, twin := endlessServer(t), backend(t, "load 15s\n foo 1x3")
	cfg := groupOf("a", endless, twin)
	cfg.RemoteRead, cfg.Timeout = config.RemoteReadNever, model.Duration(time.Hour)
	s := newTestSet(t, config.PartialWarn, cfg)
	s.opts.MaxFetchedBytes = 64 << 10
	for range 5 {
		require.True(t, firstReplica(s).Health.Usable())
		got, ws, err := selectText(t, s, `foo`, 0, 45_000)
		require.NoError(t, err)
		require.Equal(t, `{__name__="foo"} 0:1 15:1 30:1 45:1`+"\n", got)
		require.Contains(t, strings.Join(strs(ws), "\n"), endless.URL+": answer cut off, as the query would hold more than 65536 bytes with it")
	}
	require.False(t, firstReplica(s).Health.Usable())

	// Where all send too much, it is the query again.
	cfg = groupOf("b", endless, endlessServer(t))
	cfg.RemoteRead, cfg.Timeout = config.RemoteReadNever, model.Duration(time.Hour)
	s = newTestSet(t, config.PartialWarn, cfg)
	_, _, err := selectText(t, s, `foo`, 0, 45_000)
	requireOverBudget(t, err)
	require.True(t, firstReplica(s).Health.Usable())
}

func requireOverBudget(t *testing.T, err error) {
	t.Helper()
	var over *fanout.BudgetError
	require.ErrorAs(t, err, &over)
	require.Contains(t, err.Error(), "query needs more than 1048576 bytes of data")
}

func TestView_HangingReplicaDoesNotOutliveTheQuery(t *testing.T) {
	gone := make(chan struct{}, 10)
	hung := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
		gone <- struct{}{}
	}))
	a := backend(t, "load 15s\n foo 1x3")
	cfg := groupOf("a", hung, a)
	cfg.Timeout = model.Duration(time.Second)
	s := newTestSet(t, config.PartialWarn, cfg)
	got, ws, err := selectText(t, s, `foo`, 0, 0)
	require.NoError(t, err)
	require.Equal(t, `{__name__="foo"} 0:1`+"\n", got)
	require.Contains(t, strs(ws)[0], "no answer within the group's timeout of 1s")
	<-gone
}

func TestView_Lookups(t *testing.T) {
	eu := groupOf("eu", backend(t, "load 15s\n foo{i=\"1\",replica=\"a\",region=\"own\"} 1x3"), backend(t, "load 15s\n foo{i=\"1\",replica=\"b\"} 1x3"))
	eu.Labels, eu.ReplicaLabels = map[string]string{"region": "eu"}, []string{"replica"}
	us := groupOf("us", backend(t, "load 15s\n bar{j=\"2\"} 1x3"))
	us.Labels = map[string]string{"region": "us"}
	s := newTestSet(t, config.PartialWarn, eu, us)
	v := s.View(t.Context())
	all := lookup.Lookup{MinT: 0, MaxT: 60000}

	names, _, err := lookup.LabelNames(t.Context(), v, all)
	require.NoError(t, err)
	require.Equal(t, []string{"__name__", "exported_region", "i", "j", "region"}, names)

	values := func(name string, l lookup.Lookup) []string {
		got, _, err := lookup.LabelValues(t.Context(), v, name, l)
		require.NoError(t, err)
		return got
	}
	require.Equal(t, []string{"eu", "us"}, values("region", all))
	require.Equal(t, []string{"own"}, values("exported_region", all))
	require.Empty(t, values("replica", all))
	foo := all
	foo.Matchers = matchersOf(t, `foo`)
	require.Equal(t, []string{"eu"}, values("region", foo))
	require.Empty(t, values("region", lookup.Lookup{MinT: 1e12, MaxT: 1e12 + 1}), "a region without series has no value")

	series, _, err := lookup.Series(t.Context(), v, foo)
	require.NoError(t, err)
	require.Equal(t, []labels.Labels{
		labels.FromStrings("__name__", "foo", "exported_region", "own", "i", "1", "region", "eu"),
		labels.FromStrings("__name__", "foo", "i", "1", "region", "eu"),
	}, series)
}

// TestView_StoreOfTwoReplicasIsMergedWithMargins reads a store that keeps what
// both members of a pair have written. What an instant sees must not depend on
// where the window ends.
func TestView_StoreOfTwoReplicasIsMergedWithMargins(t *testing.T) {
	const load = `load 10s
  foo{replica="a"} 0+1x10 _x10 21+1x40
  foo{replica="b"} 0+1x61`
	for name, change := range map[string]func(*backendtest.Options){"streamed": func(*backendtest.Options) {}, "query": noRemoteRead} {
		t.Run(name, func(t *testing.T) {
			cfg := groupOf("store", backend(t, load, change))
			cfg.ReplicaLabels = []string{"replica"}
			s := newTestSet(t, config.PartialWarn, cfg)
			whole, _, err := selectText(t, s, `foo`, 0, 600_000)
			require.NoError(t, err)
			require.Contains(t, whole, " 140:14 150:15 160:16")
			for end := int64(100_000); end <= 220_000; end += 10_000 {
				part, _, err := selectText(t, s, `foo`, end-30_000, end)
				require.NoError(t, err)
				_, samples, _ := strings.Cut(strings.TrimSpace(part), " ")
				require.Contains(t, whole, samples)
				require.Len(t, strings.Fields(samples), 4)
			}
		})
	}
}

// TestView_WarningsOfBackendsAreTold is a backend that is in front of others and
// says that it answers without some of them.
func TestView_WarningsOfBackendsAreTold(t *testing.T) {
	srv := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if strings.Contains(r.URL.Path, "/status/") {
			_, _ = io.WriteString(w, `{"status":"success","data":{"version":"3.0.0"}}`)
			return
		}
		_, _ = io.WriteString(w, `{"status":"success","data":{"resultType":"matrix","result":[]},"warnings":["a store is away"]}`)
	}))
	cfg := groupOf("a", srv)
	cfg.RemoteRead, cfg.Kind = config.RemoteReadNever, "prometheus"
	s := newTestSet(t, config.PartialWarn, cfg)
	_, ws, err := selectText(t, s, `foo`, 0, 0)
	require.NoError(t, err)
	require.Equal(t, []string{`server group "a": ` + srv.URL + `: a store is away`}, strs(ws))
}

// TestView_Alike: a reload makes other groups, though they be the same.
func TestView_Alike(t *testing.T) {
	cfg := groupOf("g", newEvaluator(t, there).Server)
	s, _ := setAt(t, cfg)
	v := s.View(t.Context())
	require.True(t, v.Alike(s.View(t.Context())))
	require.False(t, v.Alike(s.View(request.With(t.Context(), func(r *request.Request) { r.Pushdown = config.PushdownOff }))))
	require.False(t, v.Alike(s.View(request.With(t.Context(), func(r *request.Request) { r.Partial = config.PartialError }))))
	cfg.Timeout++
	require.NoError(t, s.Apply(t.Context(), []config.Group{cfg}, config.PartialWarn))
	require.False(t, v.Alike(s.View(t.Context())))
}
