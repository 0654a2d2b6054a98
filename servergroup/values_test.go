package servergroup

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/view"
)

// TestIntrinsicLabels_DecideOnOldSamples: the values of a label in a group's data rule the group out, of
// samples that were old when they were looked up, and as long as all replicas tell of them.
func TestIntrinsicLabels_DecideOnOldSamples(t *testing.T) {
	db := promqltest.LoadedStorage(t, "load 1m\n foo{region=\"eu\"} 1x600\n bar{region=\"us\"} 1x600\n bare 1x600")
	h := backendtest.NewHandler(backendtest.Options{Queryable: db})
	var looked atomic.Int32
	var broken atomic.Bool
	archive := groupOf("archive", serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/label/region/values") {
			looked.Add(1)
			if broken.Load() {
				http.Error(w, "broken", http.StatusInternalServerError)
				return
			}
		}
		h.ServeHTTP(w, r)
	})))
	archive.IntrinsicLabels = []string{"region"}
	archive.TimeRange.MinAge = model.Duration(time.Hour)
	s, c, _ := loggedSet(t, archive)
	c.ms.Store(600 * 60_000)
	ready(t, s)

	const old, young = 500 * 60_000, 540 * 60_000
	skipped := func(selector string, to int64) string {
		routes := s.View(t.Context()).Routes(view.Selection{Matchers: matchersOf(t, selector), MinT: 60_000, MaxT: to})
		return routes[0].Skipped
	}
	asked := func(selector string, to int64) {
		t.Helper()
		require.Empty(t, skipped(selector, to), selector)
		require.NotEmpty(t, s.View(t.Context()).RouteMerge(matchersOf(t, selector), 60_000, to), selector)
	}
	ruledOut := func(selector string, to int64) {
		t.Helper()
		require.Equal(t, `no series of it that old has a value of its intrinsic label "region" that matches`, skipped(selector, to), selector)
		require.Empty(t, s.View(t.Context()).RouteMerge(matchersOf(t, selector), 60_000, to), selector)
		require.Empty(t, s.View(t.Context()).RouteLookup(matchersOf(t, selector), 60_000, to), selector)
	}

	s.lookUpValues(t.Context())
	require.Zero(t, looked.Load(), "no query has wanted it")
	asked(`foo{region="ap"}`, old)
	s.lookUpValues(t.Context())
	require.EqualValues(t, 1, looked.Load())
	ruledOut(`foo{region="ap"}`, old)
	ruledOut(`foo{region="ap"}`, young) // the archive's range ends there
	ruledOut(`{region=~"a.*|b.*"}`, old)
	ruledOut(`{region=~"e.*",region!="eu"}`, old)
	ruledOut(`{region!~"eu|us|"}`, old)
	for _, selector := range []string{`foo{region="eu"}`, `foo{region=~"eu|ap"}`, `foo{region!="eu"}`, `foo{region=~"ap|"}`, `foo{region=""}`, `foo`, `foo{region!~".+"}`, `foo{zone="ap"}`} {
		asked(selector, old)
	}
	require.EqualValues(t, 1, looked.Load(), "queries ask for no values")

	// A value that is new, of old samples, is there at the next look-up.
	app := db.Appender(t.Context())
	_, err := app.Append(0, labels.FromStrings("__name__", "foo", "region", "ap"), 599*60_000, 1)
	require.NoError(t, err)
	require.NoError(t, app.Commit())
	s.lookUpValues(t.Context())
	asked(`foo{region="ap"}`, old)
	ruledOut(`foo{region="sa"}`, old)

	// Nor is there after the clock was put back: what was young then is young again.
	c.ms.Add(-100 * 60_000)
	asked(`foo{region="sa"}`, 400*60_000)
	c.ms.Add(100 * 60_000)
	ruledOut(`foo{region="sa"}`, old)

	// Without a fresh answer there is no belief.
	broken.Store(true)
	s.lookUpValues(t.Context())
	asked(`foo{region="sa"}`, old)
	broken.Store(false)
	s.lookUpValues(t.Context())
	ruledOut(`foo{region="sa"}`, old)
	c.ms.Add((2*time.Minute + time.Millisecond).Milliseconds())
	asked(`foo{region="sa"}`, old)
	c.ms.Add((10*time.Minute + time.Millisecond).Milliseconds())
	s.lookUpValues(t.Context())
	asked(`foo{region="sa"}`, old) // nobody wanted it any more
}

// TestIntrinsicLabels_YoungSamplesAreAskedFor: a group without a range may have a new value at any
// moment.
func TestIntrinsicLabels_YoungSamplesAreAskedFor(t *testing.T) {
	cfg := recent(t, "a", "load 1m\n foo{region=\"eu\"} 1x600")
	cfg.IntrinsicLabels = []string{"region"}
	s, c, _ := loggedSet(t, cfg)
	c.ms.Store(600 * 60_000)
	ready(t, s)
	groups := func(to int64) int {
		return len(s.View(t.Context()).RouteMerge(matchersOf(t, `foo{region="ap"}`), 0, to))
	}
	require.Equal(t, 1, groups(60_000))
	s.lookUpValues(t.Context())
	require.Equal(t, 0, groups(60_000))
	require.Equal(t, 1, groups(600*60_000))
	require.Equal(t, 1, groups(595*60_000), "it may have been on its way")
	require.Equal(t, 1, groups(589*60_000), "the merge looks at what is behind the window")
}

// TestIntrinsicLabels_OtherServersAreAsked: only a Prometheus is known to tell all values.
func TestIntrinsicLabels_OtherServersAreAsked(t *testing.T) {
	for _, change := range []func(*config.Group){
		func(g *config.Group) { g.Kind = "mimir" },
		func(g *config.Group) { g.ForwardHeaders = []string{"X-Org"} },
		func(g *config.Group) {
			g.Labels = map[string]string{"x": "y"}
			g.IntrinsicLabels = []string{"exported_x"}
		},
	} {
		cfg := recent(t, "a", "load 1m\n foo{region=\"eu\"} 1x600")
		cfg.IntrinsicLabels = []string{"region"}
		change(&cfg)
		s, c, _ := loggedSet(t, cfg)
		c.ms.Store(600 * 60_000)
		ms := matchersOf(t, `foo{region="ap",exported_x="ap"}`)
		s.View(t.Context()).RouteMerge(ms, 0, 60_000)
		s.lookUpValues(t.Context())
		require.Len(t, s.View(t.Context()).RouteMerge(ms, 0, 60_000), 1)
	}
}
