package servergroup

import (
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/lookup"
)

// reloadable is a backend whose external labels change while it runs.
type reloadable struct {
	t       *testing.T
	opts    backendtest.Options
	handler atomic.Pointer[http.Handler]
	asked   atomic.Int64 // for its configuration
	read    atomic.Int64 // remote read
	before  atomic.Pointer[func(*http.Request)]
}

func newReloadable(t *testing.T, load string, external ...string) *reloadable {
	t.Helper()
	b := &reloadable{t: t, opts: backendtest.Options{Queryable: promqltest.LoadedStorage(t, "load 15s\n"+load)}}
	b.reload(external...)
	return b
}

func (b *reloadable) reload(external ...string) {
	b.opts.ExternalLabels = labels.FromStrings(external...)
	h := backendtest.NewHandler(b.opts)
	b.handler.Store(&h)
}

func (b *reloadable) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f := b.before.Load(); f != nil {
		(*f)(r)
	}
	switch r.URL.Path {
	case "/api/v1/status/config":
		b.asked.Add(1)
	case "/api/v1/read":
		b.read.Add(1)
	}
	(*b.handler.Load()).ServeHTTP(w, r)
}

// pairOf is a set over a pair.
func pairOf(t *testing.T, a, b *reloadable, change ...func(*config.Group)) *Set {
	t.Helper()
	cfg := groupOf("a", serve(t, a), serve(t, b))
	cfg.ReplicaLabels = []string{"replica"}
	for _, f := range change {
		f(&cfg)
	}
	s, _ := setAt(t, cfg)
	ready(t, s)
	return s
}

// requireShown checks samples and lookups of a selector, whose series are not the same at all
// moments if external labels are taken for their own.
func requireShown(t *testing.T, s *Set, selector string, want ...string) {
	t.Helper()
	got, ws, err := selectText(t, s, selector, 0, 0)
	require.NoError(t, err)
	require.Empty(t, strs(ws))
	var text strings.Builder
	for _, w := range want {
		text.WriteString(w + " 0:1\n")
	}
	require.Equal(t, text.String(), got)
	found, ws, err := lookup.Series(t.Context(), s.View(t.Context()), lookup.Lookup{Matchers: matchersOf(t, selector), MaxT: 60_000})
	require.NoError(t, err)
	require.Empty(t, strs(ws))
	var looked []string
	for _, ls := range found {
		looked = append(looked, ls.String())
	}
	require.Equal(t, want, looked)
}

const threeOf = " foo{job=\"api\",instance=\"1\"} 1x10\n foo{job=\"api\",instance=\"2\"} 1x10\n bar{job=\"api\",instance=\"1\"} 1x10\n up{job=\"api\",instance=\"1\"} 1x10"

var (
	foos = []string{`{__name__="foo", instance="1", job="api"}`, `{__name__="foo", instance="2", job="api"}`}
	bars = []string{`{__name__="bar", instance="1", job="api"}`}
)

func TestExternalLabels_ChangeWhileAServerRuns(t *testing.T) {
	for _, mode := range []struct {
		name string
		read backendtest.RemoteRead
	}{{"streamed", backendtest.Streamed}, {"samples", backendtest.SamplesOnly}, {"query API", backendtest.NoRemoteRead}} {
		t.Run(mode.name, func(t *testing.T) {
			a, b := newReloadable(t, threeOf, "replica", "a"), newReloadable(t, threeOf, "replica", "b")
			a.opts.RemoteRead, b.opts.RemoteRead = mode.read, mode.read
			a.reload("replica", "a")
			b.reload("replica", "b")
			s := pairOf(t, a, b)
			show := func() {
				t.Helper()
				requireShown(t, s, `foo`, foos...)
				requireShown(t, s, `foo{job="api"}`, foos...)
				requireShown(t, s, `bar`, bars...)
				requireShown(t, s, `bar{cluster="c1"}`)
				requireShown(t, s, `bar{cluster=""}`, bars...)
			}
			show()
			for _, change := range [][]string{
				{"replica", "a", "cluster", "c1"},                   // a label is added,
				{"replica", "a", "cluster", "c2"},                   // changed,
				{"replica", "a", "cluster", "c1", "job", "other"},   // as the data has it,
				{"replica", "a", "cluster", "c1", "region", "eu"},   // replaced,
				{"replica", "a2", "cluster", "c1", "instance", "3"}, // another one;
				{"replica", "a"}, // removed,
				{},               // all of them
			} {
				a.reload(change...)
				show()
				b.reload(change...)
				show()
			}
		})
	}
}

// TestExternalLabels_LikeTheDatas: a label with a value that other series have themselves.
func TestExternalLabels_LikeTheDatas(t *testing.T) {
	load := " foo{env=\"prod\"} 1x10\n foo{env=\"prod\",x=\"y\"} 1x10\n bar{x=\"y\"} 1x10\n bar{x=\"z\"} 1x10\n up 1x10"
	a, b := newReloadable(t, load), newReloadable(t, load)
	s := pairOf(t, a, b)
	requireBars := func() {
		t.Helper()
		requireShown(t, s, `bar`, `{__name__="bar", x="y"}`, `{__name__="bar", x="z"}`)
	}
	requireShown(t, s, `foo`, `{__name__="foo", env="prod"}`, `{__name__="foo", env="prod", x="y"}`)
	requireBars()
	a.reload("env", "prod")
	requireBars()
	b.reload("env", "prod")
	requireBars()
	a.reload("env", "test")
	requireBars()
	requireShown(t, s, `bar{env="test"}`)
}

// TestExternalLabels_OwnValuesOfOtherSeries: an external label that some series have themselves, with values of
// their own, is changed to one of these.
func TestExternalLabels_OwnValuesOfOtherSeries(t *testing.T) {
	load := " foo{dc=\"x\"} 1x10\n foo{dc=\"y\"} 1x10\n foo 1x10\n bar 1x10\n up 1x10"
	a, b := newReloadable(t, load, "dc", "z"), newReloadable(t, load, "dc", "z")
	s := pairOf(t, a, b)
	foo := []string{`{__name__="foo"}`, `{__name__="foo", dc="x"}`, `{__name__="foo", dc="y"}`}
	requireShown(t, s, `foo`, foo...)
	requireShown(t, s, `bar`, `{__name__="bar"}`)
	a.reload("dc", "w")
	requireShown(t, s, `foo`, foo...)
	a.reload("dc", "y")
	requireShown(t, s, `bar`, `{__name__="bar"}`)
	require.Equal(t, map[string]string{"dc": "y"}, s.Status()[0].Replicas[0].ExternalLabels)
}

// TestExternalLabels_ReadOnceForEachDoubt: where nothing changes, a query asks for nothing else than its samples.
func TestExternalLabels_ReadOnceForEachDoubt(t *testing.T) {
	a, b := newReloadable(t, threeOf, "dc", "x"), newReloadable(t, threeOf, "dc", "x")
	s := pairOf(t, a, b)
	count := func(want int64, selectors ...string) {
		t.Helper()
		before := a.asked.Load() + b.asked.Load()
		for _, selector := range selectors {
			_, _, err := selectText(t, s, selector, 0, 60_000)
			require.NoError(t, err)
		}
		require.Equal(t, want, a.asked.Load()+b.asked.Load()-before)
	}
	count(0, `foo{job="api"}`, `nothing`, `foo{instance!="",job!=""}`, `{job="api",instance=~".+"}`)
	count(2, `foo`) // job="api", by each replica
	count(0, `foo`, `foo`, `{job=~".*",__name__="foo"}`)
	count(2, `bar`) // instance="1"
	count(0, `bar`, `foo`, `up`)
	r := firstReplica(s)
	r.Forget()
	_, err := r.Ready(t.Context())
	require.NoError(t, err)
	count(0, `bar`, `foo`, `up`)
}

// TestExternalLabels_ReloadWhileItIsRead: the answer is that of one moment, even if it takes several requests.
func TestExternalLabels_ReloadWhileItIsRead(t *testing.T) {
	a, b := newReloadable(t, threeOf), newReloadable(t, threeOf)
	s := pairOf(t, a, b)
	requireShown(t, s, `foo`, foos...)
	reads := a.read.Load()
	reload := func(r *http.Request) {
		switch n := a.read.Load() - reads; {
		case r.URL.Path == "/api/v1/status/config" && n == 1:
			a.reload("cluster", "c2") // once more
		case r.URL.Path == "/api/v1/read" && n == 0:
			a.reload("cluster", "c1")
		}
	}
	a.before.Store(&reload)
	requireShown(t, s, `foo`, foos...)
	require.Equal(t, map[string]string{"cluster": "c2"}, s.Status()[0].Replicas[0].ExternalLabels)
	require.LessOrEqual(t, a.read.Load()-reads, int64(4), "two answers, and two probes")
}

// TestExternalLabels_ThatNeverStandStill are an error and no wrong answer.
func TestExternalLabels_ThatNeverStandStill(t *testing.T) {
	a, b := newReloadable(t, threeOf), newReloadable(t, threeOf)
	s := pairOf(t, a, b)
	n := 0
	reload := func(r *http.Request) {
		if r.URL.Path == "/api/v1/read" {
			n++
			a.reload("cluster", strconv.Itoa(n))
		}
	}
	a.before.Store(&reload)
	got, ws, err := selectText(t, s, `foo`, 0, 0)
	require.NoError(t, err)
	require.Len(t, strs(ws), 1)
	require.Contains(t, strs(ws)[0], "external labels have changed while it was read")
	require.Equal(t, strings.Join(foos, " 0:1\n")+" 0:1\n", got, "what the other has")
}

// TestExternalLabels_ThatAreNotAdded by a server that shows some in its configuration.
func TestExternalLabels_ThatAreNotAdded(t *testing.T) {
	o := overridden(t, "load 15s\n foo{x=\"1\"} 1x10\n foo{x=\"2\"} 1x10")
	shows := overridden(t, "load 15s\n foo 1x10", external("dc", "x"))
	o.replace = map[string]http.HandlerFunc{"/status/config": shows.Handler.ServeHTTP}
	s, _ := setAt(t, groupOf("a", serve(t, o)))
	for range 2 {
		requireShown(t, s, `foo`, `{__name__="foo", x="1"}`, `{__name__="foo", x="2"}`)
	}
}

// TestExternalLabels_CannotBeReadAgain: an answer that may have them is not used.
func TestExternalLabels_CannotBeReadAgain(t *testing.T) {
	o := overridden(t, "load 15s\n foo{x=\"1\"} 1x10")
	o.status = map[string]int{"/status/config": 503}
	o.on.Store(false)
	s, _ := setAt(t, groupOf("a", serve(t, o)))
	ready(t, s)
	o.on.Store(true)
	_, _, err := selectText(t, s, `foo`, 0, 0)
	require.ErrorContains(t, err, "cannot tell whether its external labels have changed")
	o.on.Store(false)
	requireShown(t, s, `foo`, `{__name__="foo", x="1"}`)
}

// TestExternalLabels_WithoutAConfiguration that the server shows, they are found by a series.
func TestExternalLabels_WithoutAConfiguration(t *testing.T) {
	a, b := newReloadable(t, threeOf, "dc", "x"), newReloadable(t, threeOf, "dc", "x")
	hide := func(h http.Handler) *override {
		o := &override{Handler: h, status: map[string]int{"/status/config": 403}}
		o.on.Store(true)
		return o
	}
	s, _ := setAt(t, groupOf("a", serve(t, hide(a)), serve(t, hide(b))))
	ready(t, s)
	requireShown(t, s, `foo`, foos...)
	a.reload("dc", "x", "cluster", "c1")
	requireShown(t, s, `foo`, foos...)
	a.reload()
	requireShown(t, s, `foo`, foos...)
}
