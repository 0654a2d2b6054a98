package servergroup

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest"
	"github.com/oneprom/oneprom/servergroup/evidence"
	"github.com/oneprom/oneprom/servergroup/replica"
)

// counter is a Prometheus that counts how often it is asked to count series.
type counter struct {
	*httptest.Server
	asked atomic.Int64
	// instead answers these requests, if set.
	instead atomic.Pointer[http.HandlerFunc]
}

func newCounter(t *testing.T, load string) *counter {
	t.Helper()
	own := backendtest.NewHandler(backendtest.Options{Queryable: promqltest.LoadedStorage(t, "load 15s"+load), EarlyNames: true})
	c := &counter{}
	c.Server = serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if backendtest.CountsSeries(r) {
			if backendtest.TellsSeries(r) || strings.HasPrefix(r.FormValue("query"), "count({") {
				c.asked.Add(1) // the others are about the stamps of the samples
			}
			if f := c.instead.Load(); f != nil {
				(*f)(w, r)
				return
			}
		}
		own.ServeHTTP(w, r)
	}))
	return c
}

func (c *counter) answer(f http.HandlerFunc) { c.instead.Store(&f) }

// lost is the data of there without a series of b from 25:00 on.
const lost = `
  up{instance="a",job="j"} 1x720
  up{instance="b",job="j"} 1x720
  foo{instance="a",job="j"} 1x720
  foo{instance="b",job="j"} 1x100`

// TestCounts_AskedForOnce: all queries share the counts of a slice, and those of the end of time are
// fetched every three minutes.
func TestCounts_AskedForOnce(t *testing.T) {
	a, b := newCounter(t, lost), newCounter(t, there)
	s, c := evidenceSet(t, 150*minute, a.Server, b.Server)
	f := func(want, from, to int64) evidence.Shown {
		t.Helper()
		sh := evidenceOf(t, s, "foo", from, to)
		require.Equal(t, []int64{want, want}, []int64{a.asked.Load(), b.asked.Load()})
		return sh
	}
	require.Equal(t, [][]evidence.Span{{{From: 25 * minute, To: 30 * minute}}, nil}, f(1, 10*minute, 30*minute).Lacking)
	f(1, 12*minute, 20*minute)
	f(2, 10*minute, 110*minute) // the rest of it
	f(2, 40*minute, 50*minute)
	sh := f(3, 100*minute, 150*minute)
	require.Equal(t, []evidence.Span{{From: 100 * minute, To: 150 * minute}}, sh.Lacking[0], "it goes on as it was last")
	for range 2 {
		c.ms.Add(minute)
		sh = f(3, 100*minute, c.ms.Load())
		require.Equal(t, []evidence.Span{{From: 100 * minute, To: c.ms.Load()}}, sh.Lacking[0])
	}
	c.ms.Add(minute)
	f(4, 100*minute, c.ms.Load())
	c.ms.Add(evidence.CountAge)
	f(5, 10*minute, 30*minute)
}

// TestCounts_WiderSelectors: where nothing is lacking of a selector, nothing is asked for narrower ones.
func TestCounts_WiderSelectors(t *testing.T) {
	more := there + `
  foo{instance="a",job="j",path="/"} 1x720
  foo{instance="b",job="j",path="/"} 1x720
  bar{instance="a",job="j",path="/"} 1x720`
	for name, row := range map[string]struct {
		load     string // of the first replica; the second one has all
		wider    string
		narrower string
		again    bool // whether the narrower one is counted
		lacking  bool // whether it lacks anything
	}{
		"whole":                  {more, `foo`, `foo{path="/"}`, false, false},
		"one of its matchers":    {more, `foo{job="j"}`, `foo{path="/",job="j"}`, false, false},
		"in another order":       {more, `foo{path="/",job="j"}`, `foo{job="j",path="/"}`, false, false},
		"not wider":              {more, `foo{path="/"}`, `foo{job="j"}`, true, false},
		"another name":           {more, `{path="/"}`, `foo{path="/"}`, true, false},
		"lost":                   {there, `foo`, `foo{path="/"}`, true, true},
		"lost, but not of these": {there, `foo`, `foo{path=""}`, true, false},
		"many matchers":          {more, `foo`, `foo{path="/",a="",b="",c="",d="",e=""}`, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := newCounter(t, row.load), newCounter(t, more)
			s, c := evidenceSet(t, 150*minute, a.Server, b.Server)
			f := func(selector string, from, to int64) evidence.Shown {
				t.Helper()
				sh := evidenceOf(t, s, selector, from, to)
				require.Empty(t, sh.Unavailable)
				return sh
			}
			f(row.wider, 10*minute, 50*minute)
			asked := a.asked.Load()
			sh := f(row.narrower, 20*minute, 40*minute)
			require.Equal(t, row.again, a.asked.Load() > asked)
			require.Equal(t, row.lacking, len(sh.Lacking[0]) > 0)
			if row.again {
				return
			}
			f(row.narrower, 20*minute, 110*minute)
			require.Greater(t, a.asked.Load(), asked, "the wider one was not compared there")
			asked = a.asked.Load()
			c.ms.Add(evidence.CountAge)
			f(row.narrower, 20*minute, 40*minute)
			require.Greater(t, a.asked.Load(), asked, "too long ago")
		})
	}
}

// TestCounts_WiderSelectorsThatWereCounted show nothing: two replicas may have equally many series.
func TestCounts_WiderSelectorsThatWereCounted(t *testing.T) {
	a := newCounter(t, there+longLabels()+"\n  foo{instance=\"a\",job=\"j\",path=\"/\"} 1x720")
	b := newCounter(t, there+longLabels()+"\n  foo{instance=\"b\",job=\"j\",path=\"/\"} 1x720")
	s, _ := evidenceSet(t, 150*minute, a.Server, b.Server)
	require.Equal(t, [][]evidence.Span{nil, nil}, evidenceOf(t, s, `foo`, 10*minute, 30*minute).Lacking)
	all := []evidence.Span{{From: 10 * minute, To: 30 * minute}}
	require.Equal(t, [][]evidence.Span{all, all}, evidenceOf(t, s, `foo{path="/"}`, 10*minute, 30*minute).Lacking)
}

// TestCounts_OldSlices are believed for longer.
func TestCounts_OldSlices(t *testing.T) {
	a, b := newCounter(t, lost), newCounter(t, there)
	s, c := evidenceSet(t, 12*hour, a.Server, b.Server)
	f := func(want int64) {
		t.Helper()
		evidenceOf(t, s, "foo", 10*minute, 30*minute)
		require.Equal(t, want, a.asked.Load())
	}
	f(1)
	c.ms.Add(evidence.OldCountAge - 1)
	f(1)
	c.ms.Add(1)
	f(2)
}

// TestCounts_Generations: a replica that may have lost samples is counted again.
func TestCounts_Generations(t *testing.T) {
	a, b := newCounter(t, there), newCounter(t, there)
	srv := &pastServer{Handler: a.Config.Handler}
	srv.say("x", "", "")
	s, c := evidenceSet(t, 150*minute, serve(t, srv), b.Server)
	evidenceOf(t, s, "foo", 10*minute, 30*minute)
	evidenceOf(t, s, "foo", 10*minute, 30*minute)
	require.EqualValues(t, 1, b.asked.Load())
	srv.say("y", "", "")
	reprobe(s, c)
	evidenceOf(t, s, "foo", 10*minute, 30*minute)
	require.EqualValues(t, 2, b.asked.Load())
}

// TestCounts_ReplicaThatDoesNotCount: it is not asked by each query, and nothing is missing. If it refuses
// to count, no replica is believed; if it fails to, it is not compared.
func TestCounts_ReplicaThatDoesNotCount(t *testing.T) {
	for name, row := range map[string]struct {
		answer http.HandlerFunc
		again  bool // whether it is asked again after a minute
	}{
		"too many requests": {refusing(429), true},
		"too many samples":  {refusing(422), false},
		"unavailable":       {refusing(503), true},
		"no such endpoint":  {refusing(404), true},
		"no matrix":         {answering(`{"status":"success","data":{"resultType":"vector","result":[]}}`), true},
		"another step":      {answering(matrix(`{"metric":{},"values":[[601,"1"]]}`, "")), true},
		"no end": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte(`{"status":"success","data":{"resultType":"matrix","result":[`))
			for range 1 << 20 {
				if _, err := fmt.Fprint(w, `{"metric":{},"values":[[600,"1"]]},`); err != nil {
					return
				}
			}
		}, true},
		"breaks off": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := newCounter(t, lost), newCounter(t, there)
			b.answer(row.answer)
			s, c := evidenceSet(t, 150*minute, a.Server, b.Server)
			f := func() {
				t.Helper()
				sh := evidenceOf(t, s, "foo", 10*minute, 30*minute)
				require.Empty(t, sh.Unavailable)
				require.Empty(t, sh.Failed)
				if row.again {
					require.Equal(t, [][]evidence.Span{nil, nil}, sh.Lacking)
				} else {
					all := []evidence.Span{{From: 10 * minute, To: 30 * minute}}
					require.Equal(t, [][]evidence.Span{all, all}, sh.Lacking)
				}
			}
			f()
			asked := b.asked.Load()
			require.Positive(t, asked)
			f()
			f()
			require.Equal(t, asked, b.asked.Load())
			c.ms.Add(replica.ProfileAge.Milliseconds())
			f()
			require.Equal(t, row.again, b.asked.Load() > asked)
			require.True(t, firstReplica(s).Health.Usable())
		})
	}
}

// TestCounts_TwinThatHangs: a query does not wait for its counts for long.
func TestCounts_TwinThatHangs(t *testing.T) {
	a, b := newEvaluator(t, there), newCounter(t, there)
	b.answer(func(_ http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		<-r.Context().Done()
	})
	s, c := featuredSet(t, stockFeatures, groupOf("g", a.Server, b.Server))
	c.ms.Store(150 * minute)
	v := s.View(t.Context())
	p := onlyPieceOf(t.Context(), t, v)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second) // of which a quarter is for the counts
	defer cancel()
	got, err := p.Evaluate(ctx, "x", `sum(foo)`, nil)
	require.NoError(t, err)
	require.Equal(t, a.URL, got.Replica)
	require.NoError(t, ctx.Err())
	require.ErrorContains(t, errors.Join(v.Ledger.LateWarnings().AsErrors()...), "nothing shows that it has all")
}

// TestCounts_OtherLabels: labels that replicas do not have are not asked for.
func TestCounts_OtherLabels(t *testing.T) {
	a := backend(t, "load 15s"+lost, external("replica", "a"))
	b := backend(t, "load 15s"+there, external("replica", "b"))
	cfg := groupOf("g", a, b)
	cfg.Labels, cfg.ReplicaLabels = map[string]string{"region": "eu"}, []string{"replica"}
	s, c := setAt(t, cfg)
	c.ms.Store(150 * minute)
	for _, selector := range []string{`foo{region="eu"}`, `foo{region=~"eu|us",job="j",replica=""}`, `{region="eu",job="j",__name__!="up"}`} {
		sh := evidenceOf(t, s, selector, 10*minute, 30*minute)
		require.Empty(t, sh.Unavailable, selector)
		require.Equal(t, [][]evidence.Span{{{From: 25 * minute, To: 30 * minute}}, nil}, sh.Lacking, selector)
	}
}

// TestCounts_BesideMissedScrapes: scrapes that a replica missed now and then, of that or another target,
// do not explain that it lacks a series for long.
func TestCounts_BesideMissedScrapes(t *testing.T) {
	for _, target := range []string{"a", "b"} {
		missing := strings.Replace(lost, fmt.Sprintf(`up{instance=%q,job="j"} 1x720`, target),
			fmt.Sprintf(`up{instance=%q,job="j"} %s`, target, strings.Repeat("1x14 _ ", 45)), 1)
		a, b := newCounter(t, missing), newCounter(t, there)
		s, _ := evidenceSet(t, 150*minute, a.Server, b.Server)
		require.Equal(t, []evidence.Span{{From: 25 * minute, To: 60 * minute}}, evidenceOf(t, s, "foo", 10*minute, 60*minute).Lacking[0])
	}
}

// TestCounts_TwinThatWentAway: a series whose target has failed is not lacking because a twin, which was
// away then, did not see it end.
func TestCounts_TwinThatWentAway(t *testing.T) {
	scrapes := func(phase int, of func(i int) string) string { // once a minute
		var b strings.Builder
		for i := range 720 {
			if i%4 == phase {
				b.WriteString(of(i) + " ")
			} else {
				b.WriteString("_ ")
			}
		}
		return b.String()
	}
	between := func(from, to int, then string) func(int) string {
		return func(i int) string {
			if i >= from && i < to {
				return then
			}
			return "1"
		}
	}
	server := func(up, foo string) *counter {
		return newCounter(t, fmt.Sprintf("\n  up{instance=\"a\",job=\"j\"} %s\n  foo{instance=\"a\",job=\"j\"} %s", up, foo))
	}
	foo := func(i int) string { // there is one marker
		if i == 100 {
			return "stale"
		}
		return between(101, 160, "_")(i)
	}
	whole := server(scrapes(0, between(100, 160, "0")), scrapes(0, foo))
	gone := between(100, 200, "_")
	twin := server(scrapes(3, gone), scrapes(3, gone))
	s, _ := evidenceSet(t, 150*minute, whole.Server, twin.Server)
	sh := evidenceOf(t, s, "foo", 10*minute, 60*minute)
	require.NotEmpty(t, sh.Missed[1])
	require.Empty(t, sh.Missed[0])
	require.Empty(t, sh.Lacking[0])
}

// TestCounts_MissedMarker: a replica does not lack a series that has ended because a twin has missed the
// one scrape that shows the end: of a target that is gone, and of a series that was there for a moment.
// The twin does, unless it is known to have missed scrapes of the target.
func TestCounts_MissedMarker(t *testing.T) {
	for name, load := range map[string][2]string{
		"gone":  {"\n  up{instance=\"a\",job=\"j\"} " + strings.Repeat("1 _ ", 50) + "stale\n  foo{instance=\"a\",job=\"j\"} " + strings.Repeat("1 _ ", 50) + "stale", "\n  up{instance=\"a\",job=\"j\"} " + strings.Repeat("_ 1 ", 50) + "\n  foo{instance=\"a\",job=\"j\"} " + strings.Repeat("_ 1 ", 50)},
		"short": {"\n  up{instance=\"a\",job=\"j\"} 1x720\n  foo{instance=\"a\",job=\"j\"} _x101 1 stale", "\n  up{instance=\"a\",job=\"j\"} 1x101 _ 1x617\n  foo{instance=\"a\",job=\"j\"} _x101 1"},
	} {
		t.Run(name, func(t *testing.T) {
			more := "\n  up{instance=\"b\",job=\"j\"} 1x720\n  foo{instance=\"b\",job=\"j\"} 1x720"
			whole, twin := newCounter(t, load[0]+more), newCounter(t, load[1]+more)
			s, _ := evidenceSet(t, 150*minute, whole.Server, twin.Server)
			sh := evidenceOf(t, s, "foo", 10*minute, 60*minute)
			require.Empty(t, sh.Lacking[0])
			if name == "gone" {
				require.NotEmpty(t, sh.Lacking[1], "it lacks the marker")
			}
		})
	}
}

// TestCounts_AwayAtTheEnd: a replica that was away when a series ended does not show that the other one lacks
// the end.
func TestCounts_AwayAtTheEnd(t *testing.T) {
	load := func(here string) string {
		return "\n  up{instance=\"a\",job=\"j\"} " + here + "\n  foo{instance=\"a\",job=\"j\"} " + here + "\n  up{instance=\"b\",job=\"j\"} 1x720\n  foo{instance=\"b\",job=\"j\"} 1x720"
	}
	for _, away := range []int{20, 24} {
		whole, twin := newCounter(t, load("1x100 stale")), newCounter(t, load(fmt.Sprintf("1x%d", 100-away)))
		s, _ := evidenceSet(t, 150*minute, whole.Server, twin.Server)
		require.Empty(t, evidenceOf(t, s, "foo", 10*minute, 60*minute).Lacking[0], "away for %d scrapes", away)
	}
}

// TestCounts_NoMarker: a series that ends without a stale marker, as samples were lost, does not show that the
// other replica lacks the end.
func TestCounts_NoMarker(t *testing.T) {
	load := func(foo string) string {
		return "\n  up{instance=\"a\",job=\"j\"} 1x720\n  foo{instance=\"a\",job=\"j\"} " + foo
	}
	for end, lacks := range map[string]bool{"": false, " stale": true} {
		whole, twin := newCounter(t, load("1x117 stale")), newCounter(t, load("1x100"+end))
		s, _ := evidenceSet(t, 150*minute, whole.Server, twin.Server)
		require.Equal(t, lacks, len(evidenceOf(t, s, "foo", 10*minute, 60*minute).Lacking[0]) > 0)
	}
}

// TestCounts_Lost: single samples of a series that is scraped were lost where there is no stale marker either, but the
// scrapes of its target, and a twin shows it then.
func TestCounts_Lost(t *testing.T) {
	const every = "1x720"
	span := func(from, to int64) []evidence.Span { return []evidence.Span{{From: from*15_000 + 1, To: to * 15_000}} }
	for name, tc := range map[string]struct {
		up, part, whole string
		lacking         []evidence.Span
	}{
		"one":                                {every, "1x100 _ 1x618", every, span(100, 101)},
		"a few":                              {every, "1x100 _x4 1x615", every, span(100, 104)},
		"before it was away":                 {"1x104 _x40 1x575", "1x100 _x44 1x575", every, span(100, 104)},
		"by both":                            {every, "1x100 _x9 1x610", "1x100 _x9 1x610", span(100, 109)},
		"a marker":                           {every, "1x100 stale _x3 1x615", every, nil},
		"it ended when the server began":     {every, "1x100", "1x100 stale", []evidence.Span{{From: 22 * minute, To: 28 * minute}}}, // it lacks the marker
		"nobody else has it":                 {every, "1x100 _x4 1x615", "_x720", nil},
		"it ended while the server was away": {"1x100 _x40 1x579", "1x100", "1x120 stale", nil},
		"it was away meanwhile":              {"1x100 _x40 1x579", "1x100 _x44 1x575", every, nil}, // unless that is for long
	} {
		t.Run(name, func(t *testing.T) {
			load := func(up, foo string) string {
				return "\n  up{instance=\"a\",job=\"j\"} " + up + "\n  foo{instance=\"a\",job=\"j\"} " + foo + "\n  up{instance=\"b\",job=\"j\"} 1x720\n  foo{instance=\"b\",job=\"j\"} 1x720"
			}
			part, whole := newCounter(t, load(tc.up, tc.part)), newCounter(t, load(every, tc.whole))
			s, _ := evidenceSet(t, 150*minute, part.Server, whole.Server)
			require.Equal(t, tc.lacking, evidenceOf(t, s, "foo", 10*minute, 60*minute).Lacking[0])
		})
	}
}

// TestCounts_Unscraped: single samples that a replica lacks show in series that no scrape has brought, as those
// of a rule that is gone. A scrape that it missed shortly before explains them only if the series may be of the
// target.
func TestCounts_Unscraped(t *testing.T) {
	const up = "\n  up{instance=\"a\",job=\"j\"} "
	load := func(scrapes, labels, samples string) string {
		return "\n  up{instance=\"b\",job=\"k\"} 1x720" + up + scrapes + "\n\nload 22s\n  rec{" + labels + "} " + samples
	}
	const every, one = "1x720", "1x70 _ 1x648"
	for name, tc := range map[string]struct {
		labels, scrapes string
		lacks           bool
	}{
		"of a target":                         {`instance="a",job="j"`, every, true},
		"of no target":                        {`instance="a",job="k"`, every, true},
		"of a target, after a missed scrape":  {`instance="a",job="j"`, one, false},
		"of no target, after a missed scrape": {`instance="a",job="k"`, one, true},
	} {
		t.Run(name, func(t *testing.T) {
			part, whole := newCounter(t, load(tc.scrapes, tc.labels, "1x50 _ 1x400")), newCounter(t, load(every, tc.labels, "1x452"))
			s, _ := evidenceSet(t, 150*minute, part.Server, whole.Server)
			sh := evidenceOf(t, s, "rec", 10*minute, 60*minute)
			require.Empty(t, sh.Unavailable)
			want := [][]evidence.Span{{{From: 50*22_000 + 1, To: 52*22_000 - 1}}, nil}
			if !tc.lacks {
				want[0] = nil
			}
			require.Equal(t, want, sh.Lacking)
			require.Equal(t, [][]evidence.Span{nil, nil}, evidenceOf(t, s, "rec", 30*minute, 60*minute).Lacking)
		})
	}
}

// TestCounts_UnscrapedEdges: so do the first and the last ones, if the twin has the same clock, or has them for
// longer than a hole may be.
func TestCounts_UnscrapedEdges(t *testing.T) {
	const half = 11_000
	run := func(from, n int) string { // samples every two halves
		return strings.Repeat("_ ", from) + strings.Repeat("1 _ ", n)
	}
	load := func(instance, samples string) string {
		return "\n  up{instance=\"b\",job=\"k\"} 1x720\n  up{instance=\"a\",job=\"j\"} 1x720\n\nload 11s\n  rec{instance=\"" + instance + "\",job=\"j\"} " + samples
	}
	none := evidence.Span{}
	for name, tc := range map[string]struct {
		instance, part, whole string
		lacks                 evidence.Span
	}{
		"the last one":              {"b", run(100, 50), run(100, 51), evidence.Span{From: 198*half + 1, To: 200 * half}},
		"the last ones":             {"b", run(100, 50), run(100, 56), evidence.Span{From: 198*half + 1, To: 210 * half}},
		"the first one":             {"b", run(102, 50), run(100, 51), evidence.Span{From: 100 * half, To: 102*half - 1}},
		"the first ones":            {"b", run(106, 48), run(100, 51), evidence.Span{From: 100 * half, To: 106*half - 1}},
		"all but one":               {"b", run(102, 1), run(102, 2), evidence.Span{From: 102*half + 1, To: 104 * half}},
		"of a target":               {"a", run(100, 50), run(100, 51), evidence.Span{From: 198*half + 1, To: 200 * half}},
		"of a target, a moment ago": {"a", run(100, 350), run(100, 351), none},
		"another clock":             {"b", run(100, 50), run(101, 50), none},
		"for longer, another clock": {"b", run(100, 50), run(101, 52), evidence.Span{From: 198*half + 1, To: 203 * half}},
		"a stale marker is the end": {"b", run(100, 50) + "stale", run(100, 51), none},
	} {
		t.Run(name, func(t *testing.T) {
			part, whole := newCounter(t, load(tc.instance, tc.part)), newCounter(t, load(tc.instance, tc.whole))
			s, _ := evidenceSet(t, 150*minute, part.Server, whole.Server)
			sh := evidenceOf(t, s, "rec", 10*minute, 145*minute)
			require.Empty(t, sh.Unavailable)
			if tc.lacks == none {
				require.Empty(t, sh.Lacking[0])
			} else {
				require.Equal(t, [][]evidence.Span{{tc.lacks}, nil}, sh.Lacking)
			}
		})
	}
}

// TestCounts_AwayAfterwards: that a replica was away from soon after the range on does not explain what it lacks
// in it.
func TestCounts_AwayAfterwards(t *testing.T) {
	load := func(up, some string) string {
		return "\n  up{instance=\"a\",job=\"j\"} " + up + "\n  foo{instance=\"a\",job=\"j\",s=\"1\"} " + up + "\n  foo{instance=\"a\",job=\"j\",s=\"2\"} " + some
	}
	part, whole := newCounter(t, load("1x240", "1x100")), newCounter(t, load("1x720", "1x720"))
	s, _ := evidenceSet(t, 150*minute, part.Server, whole.Server)
	require.Equal(t, []evidence.Span{{From: 58 * minute, To: 59 * minute}}, evidenceOf(t, s, "foo", 58*minute, 59*minute).Lacking[0])
}

// TestCounts_SeveralNames: series whose labels differ by their names only are told apart.
func TestCounts_SeveralNames(t *testing.T) {
	both := "\n  up{instance=\"a\",job=\"j\"} 1x720\n  foo{instance=\"a\",job=\"j\"} 1x720\n  bar{instance=\"a\",job=\"j\"} 1x"
	a, b := newCounter(t, both+"720"), newCounter(t, both+"100")
	s, _ := evidenceSet(t, 150*minute, a.Server, b.Server)
	for _, selector := range []string{`{__name__=~"foo|bar"}`, `{job="j"}`} {
		require.Equal(t, [][]evidence.Span{nil, {{From: 25 * minute, To: 30 * minute}}}, evidenceOf(t, s, selector, 10*minute, 30*minute).Lacking, selector)
	}
}

// longLabels are series of foo whose labels are long.
func longLabels() string {
	long := strings.Repeat("x", 200_000)
	var out strings.Builder
	for i := range 40 {
		fmt.Fprintf(&out, "\n  foo{instance=\"a\",job=\"j\",i=\"%d\",of=%q} 1x720", i, long)
	}
	return out.String()
}

// TestCounts_ManySeries: which series there are is not told if that would be much. They are counted.
func TestCounts_ManySeries(t *testing.T) {
	a, b := newCounter(t, there+longLabels()), newCounter(t, lost+longLabels())
	s, _ := evidenceSet(t, 150*minute, a.Server, b.Server)
	for range 2 {
		require.Equal(t, []evidence.Span{{From: 25 * minute, To: 30 * minute}}, evidenceOf(t, s, "foo", 10*minute, 30*minute).Lacking[1])
	}
	require.Equal(t, []int64{2, 2}, []int64{a.asked.Load(), b.asked.Load()}, "the answer was cut off, and then they were counted")
	require.Equal(t, []evidence.Span{{From: 40 * minute, To: 140 * minute}}, evidenceOf(t, s, "foo", 40*minute, 140*minute).Lacking[1])
	require.Equal(t, []int64{3, 3}, []int64{a.asked.Load(), b.asked.Load()}, "it is known that they are many")
}
