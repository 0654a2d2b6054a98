package servergroup

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/findings"
	"github.com/oneprom/oneprom/servergroup/partition"
	"github.com/oneprom/oneprom/servergroup/request"
	"github.com/oneprom/oneprom/servergroup/transport"
	"github.com/oneprom/oneprom/servergroup/view"
)

// evaluator is a backend whose queries over a range can be answered otherwise, and
// are remembered.
type evaluator struct {
	*httptest.Server
	replace map[string]http.HandlerFunc // by path below /api/v1
	// everywhere answers whatever is asked, if set.
	everywhere atomic.Pointer[http.HandlerFunc]
	answer     atomic.Pointer[string] // the body that answers queries over a range; nil: its own

	mtx     sync.Mutex // guards queries
	queries []string
}

// newEvaluator serves data of every 15 s with the features of stockFeatures.
func newEvaluator(t *testing.T, load string, change ...func(*backendtest.Options)) *evaluator {
	t.Helper()
	o := backendtest.Options{Queryable: promqltest.LoadedStorage(t, "load 15s"+load), EarlyNames: true}
	for _, c := range change {
		c(&o)
	}
	h := backendtest.NewHandler(o)
	e := &evaluator{replace: map[string]http.HandlerFunc{}}
	e.Server = serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := strings.TrimPrefix(r.URL.Path, "/api/v1")
		if f := e.everywhere.Load(); f != nil {
			(*f)(w, r)
			return
		}
		if asksEngine(r) {
			path = engineProbe
		}
		if f := e.replace[path]; f != nil {
			f(w, r)
			return
		}
		if path == "/query_range" && !backendtest.CountsSeries(r) {
			e.mtx.Lock()
			e.queries = append(e.queries, r.FormValue("query"))
			e.mtx.Unlock()
			if body := e.answer.Load(); body != nil {
				w.Header().Set("Content-Type", "application/json")
				_, _ = io.WriteString(w, *body)
				return
			}
		}
		h.ServeHTTP(w, r)
	}))
	return e
}

// engineProbe is the key of evaluator.replace for the query of probes that shows how the backend
// evaluates.
const engineProbe = "engine"

// asksEngine reports whether a request is that query.
func asksEngine(r *http.Request) bool { return strings.Contains(r.FormValue("query"), "oneprom_probe") }

// saying has queries over a range answered with a body.
func (e *evaluator) saying(body string) { e.answer.Store(&body) }

// asked returns the queries over a range so far, and forgets them.
func (e *evaluator) asked() []string {
	e.mtx.Lock()
	defer e.mtx.Unlock()
	out := e.queries
	e.queries = nil
	return out
}

// stockFeatures are those of a backend that drops names early.
var stockFeatures = []string{"use-start-timestamps"}

// featuredSet is a set whose features are those of its backends, three hours after
// the first sample.
func featuredSet(t *testing.T, features []string, cfgs ...config.Group) (*Set, *clock) {
	t.Helper()
	c := &clock{}
	c.ms.Store(3 * hour)
	s, err := NewSet(Options{Now: c.now, Features: features})
	require.NoError(t, err)
	t.Cleanup(s.Close)
	require.NoError(t, s.Apply(t.Context(), cfgs, config.PartialWarn))
	return s, c
}

// onlyPiece is the one that the only partition answers with at minutes 10 to 20.
func onlyPiece(ctx context.Context, t *testing.T, s *Set) *partition.Piece {
	t.Helper()
	return onlyPieceOf(ctx, t, s.View(ctx))
}

func onlyPieceOf(ctx context.Context, t *testing.T, v *view.View) *partition.Piece {
	t.Helper()
	st := transport.Steps{Start: 10 * minute, End: 20 * minute, Step: minute, Lookback: 5 * minute}
	ms := matchersOf(t, "foo")
	list := partition.Of(v, []view.Selection{{Matchers: ms, MinT: 5 * minute, MaxT: 20 * minute}})
	require.Len(t, list, 1)
	pieces, err := list[0].Choose(ctx, partition.Need{Steps: st, Reaches: []partition.Reach{{Matchers: ms, From: -5 * minute}}})
	require.NoError(t, err)
	require.Len(t, pieces, 1)
	require.NotEmpty(t, pieces[0].Replica(), pieces[0].Why)
	return pieces[0]
}

func answering(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, body)
	}
}

func refusing(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "busy", status) }
}

// noGroups makes a oneprom of a backend.
const noGroups = `{"status":"success","data":[]}`

const buildinfo = `{"status":"success","data":{"version":"%s","goVersion":"go1"}}`

// What Prometheus 2.42 answers to engineProbe, and what one with its regular expressions only would.
const (
	closedWindows = `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"oneprom_probe":"\n"},"values":[[90,"3"]]}]}}`
	dotInLine     = `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"oneprom_probe":"\n"},"values":[[90,"2"]]}]}}`
)

// TestLocal says why a replica does not evaluate.
func TestLocal(t *testing.T) {
	ctx := t.Context()
	f := func(want string, selector bool, ctx context.Context, features []string, e *evaluator, change ...func(*config.Group)) {
		t.Helper()
		cfg := groupOf("g", e.Server)
		for _, c := range change {
			c(&cfg)
		}
		s, _ := featuredSet(t, features, cfg)
		why, err := onlyPiece(ctx, t, s).Local(ctx, selector)
		require.NoError(t, err)
		if want == "" {
			require.Empty(t, why)
		}
		require.Contains(t, why, want)
	}
	stock := newEvaluator(t, there)
	f("", false, ctx, stockFeatures, stock)
	f("", false, request.With(ctx, func(r *request.Request) { r.Pushdown = config.PushdownProvable }), stockFeatures, stock)
	f("pushdown: off", false, request.With(ctx, func(r *request.Request) { r.Pushdown = config.PushdownOff }), stockFeatures, stock)
	off := func(c *config.Group) { c.Pushdown = config.PushdownOff }
	f("pushdown: off", false, ctx, stockFeatures, stock, off)
	f("pushdown: off", false, request.With(ctx, func(r *request.Request) { r.Pushdown = config.PushdownProvable }), stockFeatures, stock, off)

	// A selector's samples are fewer bytes than its values, in chunks.
	f("its samples come cheaper", true, ctx, stockFeatures, stock)
	f("", true, ctx, stockFeatures, stock, func(c *config.Group) { c.RemoteRead = config.RemoteReadNever })

	f("the feature use-start-timestamps is not the same", false, ctx, nil, stock)
	f("the feature type-and-unit-labels is not the same", false, ctx, append([]string{"type-and-unit-labels"}, stockFeatures...), stock)
	f("", false, ctx, append([]string{"promql-delayed-name-removal"}, stockFeatures...), newEvaluator(t, there, func(o *backendtest.Options) { o.EarlyNames = false }))
	f("the feature promql-delayed-name-removal is not the same", false, ctx, stockFeatures, newEvaluator(t, there, func(o *backendtest.Options) { o.EarlyNames = false }))
	// Others change nothing.
	f("", false, ctx, append([]string{"promql-experimental-functions"}, stockFeatures...), stock)

	// What it answers counts, not its version.
	for version, answer := range map[string]string{"2.55.1": "", "": "", "4.1.0-rc.0": "", "main-1a2b3c": "", "3.0.0": closedWindows, "3.0.1": dotInLine, "3.0.2": `{"status":"success","data":{}}`} {
		want := map[string]string{closedWindows: "Prometheus 3.0.0 has windows that are closed on the left", dotInLine: "dot matches no line break"}[answer]
		e := newEvaluator(t, there)
		e.replace["/status/buildinfo"] = answering(fmt.Sprintf(buildinfo, version))
		if answer != "" {
			e.replace[engineProbe] = answering(answer)
			want = cmp.Or(want, "the backend does not show how it evaluates")
		}
		for _, kind := range []transport.Kind{"", transport.Oneprom} {
			f(want, false, ctx, stockFeatures, e, func(c *config.Group) { c.Kind = kind })
		}
	}
	oneprom := newEvaluator(t, there)
	oneprom.replace["/status/groups"] = answering(noGroups)
	f("", false, ctx, stockFeatures, oneprom)
	f("the feature use-start-timestamps is not the same", false, ctx, nil, oneprom)
	f("its samples come cheaper", true, ctx, stockFeatures, oneprom)
	f("pushdown: off", false, request.With(ctx, func(r *request.Request) { r.Pushdown = config.PushdownOff }), stockFeatures, oneprom)
	for _, kind := range []transport.Kind{transport.Thanos, transport.Mimir, transport.VictoriaMetrics} {
		f(" has its own PromQL", false, ctx, stockFeatures, newEvaluator(t, there), func(c *config.Group) { c.Kind = kind })
	}
	hidden := newEvaluator(t, there)
	hidden.replace["/status/flags"] = refusing(http.StatusForbidden)
	f("the backend does not show its flags", false, ctx, stockFeatures, hidden)
}

// TestLocal_LabelsOfItsOwn: series of any time that carry an injected label or a
// replica label themselves, which is found out by asking.
func TestLocal_LabelsOfItsOwn(t *testing.T) {
	f := func(want, load string, change func(*config.Group), replace map[string]http.HandlerFunc) {
		t.Helper()
		a, b := newEvaluator(t, load), newEvaluator(t, load)
		a.replace, b.replace = replace, replace
		cfg := groupOf("g", a.Server, b.Server)
		change(&cfg)
		s, _ := featuredSet(t, stockFeatures, cfg)
		r := firstReplica(s)
		p, err := r.Ready(t.Context())
		require.NoError(t, err)
		require.Equal(t, want, p.NoPushdown.Why)
	}
	region := func(c *config.Group) { c.Labels = map[string]string{"region": "eu"} }
	replicas := func(c *config.Group) { c.ReplicaLabels = []string{"replica"} }
	// Hours before now, and for a moment only.
	own := there + "\n  old{%s=\"x\"} 1"
	f("", there, region, nil)
	f("", there, replicas, nil)
	f(`its series carry the label "region" themselves`, fmt.Sprintf(own, "region"), region, nil)
	f(`its series carry the label "replica" themselves`, fmt.Sprintf(own, "replica"), replicas, nil)
	f("", fmt.Sprintf(own, "zone"), region, nil)
	values := func(answer http.HandlerFunc) map[string]http.HandlerFunc {
		return map[string]http.HandlerFunc{"/label/region/values": answer}
	}
	f("the backend does not tell the labels of its series", there, region, values(refusing(http.StatusNotFound)))
	f("the backend does not tell the labels of all its series", there, region, values(answering(`{"status":"success","data":[],"warnings":["partial answer: a group is gone"]}`)))
	f("", there, region, values(answering(`{"status":"success","data":[],"infos":["PromQL info: a twin is gone"]}`)))

	// What a oneprom is in front of may be gone, and the replica is fine all the same.
	below := func(groups string, more map[string]http.HandlerFunc) map[string]http.HandlerFunc {
		out := map[string]http.HandlerFunc{"/status/groups": answering(`{"status":"success","data":[` + groups + `]}`)}
		maps.Copy(out, more)
		return out
	}
	kinds := `{"name":"a","replicas":[{"kind":"prometheus"}]},{"name":"b","replicas":[{"kind":"victoriametrics"},{"kind":"%s"}]}`
	f("", there, region, below(fmt.Sprintf(kinds, "thanos"), nil))
	f(`its series carry the label "region" themselves`, fmt.Sprintf(own, "region"), region, below("", nil))
	f("the backend does not tell the labels of its series", there, region, below("", values(refusing(http.StatusServiceUnavailable))))
	f("the backend would have to read samples to tell the labels of its series", there, region, below(fmt.Sprintf(kinds, "influxdb"), nil))
	f("", there, func(*config.Group) {}, below(fmt.Sprintf(kinds, "influxdb"), nil))
}

// TestProbe_FailsWhereItCannotTell whether the backend evaluates: it may be what it
// was before.
func TestProbe_FailsWhereItCannotTell(t *testing.T) {
	for _, path := range []string{"/status/flags", "/label/region/values"} {
		e := newEvaluator(t, there)
		e.replace[path] = refusing(http.StatusServiceUnavailable)
		cfg := groupOf("g", e.Server)
		cfg.Labels = map[string]string{"region": "eu"}
		s, _ := featuredSet(t, stockFeatures, cfg)
		_, err := firstReplica(s).Ready(t.Context())
		require.ErrorContains(t, err, "status 503", path)
	}
}

func TestLocal_DataThatDoesNotFit(t *testing.T) {
	s, c := featuredSet(t, stockFeatures, groupOf("g", newEvaluator(t, there).Server))
	local := func() string {
		why, err := onlyPiece(t.Context(), t, s).Local(t.Context(), false)
		require.NoError(t, err)
		return why
	}
	require.Empty(t, local())
	g := s.current.Load().groups()[0]
	g.findings.Add("x", "a finding", c.now())
	require.Equal(t, "its data does not fit the group's configuration", local())
	c.ms.Add(findings.Age.Milliseconds() + 1)
	require.Empty(t, local())

	cfg := groupOf("g", newEvaluator(t, there).Server, newEvaluator(t, there).Server)
	cfg.ReplicaLabels = []string{"nowhere"}
	s, _ = featuredSet(t, stockFeatures, cfg)
	ready(t, s)
	require.Equal(t, "its data does not fit the group's configuration", local())
}

func TestLocal_ReplicaThatCannotBeReached(t *testing.T) {
	e := newEvaluator(t, there)
	s, _ := featuredSet(t, stockFeatures, groupOf("g", e.Server))
	p := onlyPiece(t.Context(), t, s)
	_, err := p.Local(t.Context(), false)
	require.NoError(t, err)
	e.Close()
	firstReplica(s).Forget()
	_, err = p.Local(t.Context(), false)
	require.ErrorContains(t, err, e.URL)
}
