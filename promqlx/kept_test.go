package promqlx

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/promqlx/cache"
	"github.com/oneprom/oneprom/promqlx/enginetest"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/request"
)

// askedOf executes a query as proxy does, and returns what the cache had of the answer.
func askedOf(t *testing.T, e *Engine, text string, at times) (res *promql.Result, cached string) {
	t.Helper()
	var record Record
	q, err := e.NewRangeQuery(t.Context(), nil, nil, text, at.start, at.end, at.interval)
	require.NoError(t, err)
	defer q.Close()
	res = q.Exec(WithRecord(t.Context(), &record))
	enginetest.Lines(res.Value) // before the memory is released
	return res, record.Cache()
}

// moving are the times of a query that is asked again and again.
func moving() []times {
	odd := at(41, 90)
	odd.start, odd.end = odd.start.Add(17*time.Second), odd.end.Add(50*time.Second)
	coarse := at(20, 170)
	coarse.interval = 5 * time.Minute
	return []times{at(20, 100), at(30, 63), at(20, 100), at(30, 110), at(1, 179), at(90, 120), coarse, odd, coarse, odd, at(0, 179), at(0, 179), instantAt(50), at(35, 45), at(35, 36), at(82, 90), at(66, 70), at(50, 140)}
}

// TestKept_Truth: the answer is the same whatever is kept of it, with the same annotations.
func TestKept_Truth(t *testing.T) {
	histograms := "\n  h{job=\"j\"%s} {{schema:0 sum:5 count:4 buckets:[1 2 1]}}+{{schema:0 sum:1 count:1 buckets:[1 0 0]}}x720"
	mixed := "\n  mix{job=\"j\"%s} 1x300 _x5 {{schema:0 sum:5 count:4 buckets:[1 2 1]}}x400"
	data := targets("%s", true) + histograms + mixed
	for le, n := range map[string]int{"1": 5, "2": 3, "+Inf": 9} { // no histogram has such buckets
		data += fmt.Sprintf("\n  b_bucket{le=%q,job=\"j\"%%s} %dx720", le, n)
	}
	e, all, _ := twoRegions(t, data, data)
	e.UseCache(cache.New(cache.NewMemory(64<<20), nil))
	queries := append(regionalQueries(),
		`h`, `sum(rate(h[5m]))`, `histogram_quantile(0.9, sum(rate(h[5m])))`, `mix`,
		`rate(foo[5m])`, `rate(mix[5m]) or foo`, `histogram_quantile(0.5, b_bucket)`, `histogram_quantile(0.5, sum by (le) (b_bucket))`,
		`(sum by (job) (rate(foo[5m])) + sum by (job) (
		   rate(mix[5m]))) or sum(foo)`,
		`sum(mix)`,
		`-m_total`, `max_over_time((foo or m_total)[10m:1m])`, `sum(m_total offset -5m)`, `m_total @ end()`, `time() + foo`,
	)
	for _, text := range queries {
		for _, when := range moving() {
			requireTruth(t, e, all, text, when)
		}
	}
}

// TestKept_IsUsed: what was asked before is not asked again, also where there are annotations.
func TestKept_IsUsed(t *testing.T) {
	e, _, stores := twoRegions(t, targets("%s", true), targets("%s", true))
	e.UseCache(cache.New(cache.NewMemory(64<<20), nil))
	askedOf(t, e, `up`, at(20, 30)) // the replicas are known afterwards
	for _, tc := range []struct {
		text string
		asks int // until all is kept
	}{
		{`sum(rate(m_total[5m]))`, 1}, {`m_total`, 1}, {`rate(foo[5m])`, 2}, {`SUM (rate(m_total[5m]))`, 0},
	} {
		for i := range tc.asks + 1 {
			_, cached := askedOf(t, e, tc.text, at(20, 100))
			require.Equal(t, i == tc.asks, cached == "hit", "%s: %s", tc.text, cached)
		}
		evaluated(stores)
		_, cached := askedOf(t, e, tc.text, at(30, 80))
		if tc.asks < 2 {
			require.Equal(t, "hit", cached, tc.text)
			require.Empty(t, evaluated(stores))
		}
	}
	_, cached := askedOf(t, e, `m_total`, at(10, 110))
	require.Equal(t, "partial", cached)
}

// TestKept_OrderOfGroups: the same groups in another order, and other groups, have the same answers.
func TestKept_OrderOfGroups(t *testing.T) {
	data := strings.ReplaceAll(targets("%s", true), "%s", "")
	groups := []config.Group{groupAt("eu", map[string]string{"region": "eu"}, newStore(t, data)), groupAt("us", map[string]string{"region": "us"}, newStore(t, data))}
	e := engineOver(t, config.PartialWarn, groups...)
	e.UseCache(cache.New(cache.NewMemory(64<<20), nil))
	const text = `sum(rate(m_total{region=~"eu|us"}[5m]))`
	askedOf(t, e, text, at(20, 30)) // the replicas are known afterwards
	_, cached := askedOf(t, e, text, at(20, 100))
	require.NotEqual(t, "hit", cached)
	slices.Reverse(groups)
	groups = append(groups, groupAt("asia", map[string]string{"region": "asia"}, newStore(t, data)))
	require.NoError(t, e.groups.Apply(t.Context(), groups, config.PartialWarn))
	_, cached = askedOf(t, e, text, at(20, 100))
	require.Equal(t, "hit", cached)
}

// TestKept_Bypass: what is not kept says why.
func TestKept_Bypass(t *testing.T) {
	e, _, _ := twoRegions(t, targets("%s", true), targets("%s", true))
	e.UseCache(cache.New(cache.NewMemory(64<<20), nil))
	for text, why := range map[string]string{
		`sum(m_total @ 1500)`:                      "a selector has @",
		`sum(m_total @ end())`:                     "a selector has @",
		`sum(m_total offset -5m)`:                  "a selector looks ahead",
		`time()`:                                   "the result is no vector",
		`vector(1)`:                                "it has no selectors",
		`{__name__=~"m_total|foo"}`:                "a selector may find several names",
		`sort(m_total)`:                            "sort() looks at all steps at once",
		`-(foo or m_total)`:                        "names are taken from series that may have several",
		`sum(m_total) + step()`:                    "it depends on the step or the range of the query",
		`sum(rate(m_total{region="nowhere"}[5m]))`: "no group may have its series",
	} {
		for range 2 {
			_, cached := askedOf(t, e, text, at(20, 100))
			require.Equal(t, "bypass; reason="+why, cached, text)
		}
	}
}

// TestKept_Key: an answer is kept under all that it depends on. Each pair of queries has the same key but for
// one thing, and other answers.
func TestKept_Key(t *testing.T) {
	eu, us := newStore(t, strings.ReplaceAll(targets("%s", true), "%s", "")), newStore(t, strings.ReplaceAll(targets("%s", true), "%s", ""))
	regions := func(names ...string) []config.Group {
		return []config.Group{groupAt("a", map[string]string{"region": names[0]}, eu), groupAt("b", map[string]string{"region": names[1]}, us)}
	}
	e := engineOver(t, config.PartialWarn, regions("eu", "us")...)
	other := func(change func(*promql.EngineOpts)) *Engine {
		o := executionOpts()
		change(&o)
		e := NewEngine(o, e.groups)
		t.Cleanup(func() { require.NoError(t, e.Close()) })
		return e
	}
	same := func(*promql.EngineOpts) {}
	type asking struct {
		engine *Engine
		text   string
		at     times
		opts   promql.QueryOpts
		ctx    func(context.Context) context.Context
		groups []config.Group
	}
	base := asking{engine: e, text: `count by (region, __name__) (last_over_time(m_total[3m:])) + on (region) group_left () sum by (region) (rate(m_total[5m]))`, at: at(20, 100), ctx: func(ctx context.Context) context.Context { return ctx }, groups: regions("eu", "us")}
	restricted := func(name, shown string) func(context.Context) context.Context {
		return func(ctx context.Context) context.Context {
			return request.With(ctx, func(r *request.Request) {
				r.Restricted, r.Shown = true, []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, name, shown)}
			})
		}
	}
	ask := func(t *testing.T, c *cache.Cache, a asking) string {
		require.NoError(t, e.groups.Apply(t.Context(), a.groups, config.PartialWarn))
		a.engine.cache = c
		defer func() { a.engine.cache = nil }()
		q, err := a.engine.NewRangeQuery(t.Context(), nil, a.opts, a.text, a.at.start, a.at.end, a.at.interval)
		require.NoError(t, err)
		defer q.Close()
		res := q.Exec(a.ctx(t.Context()))
		require.NoError(t, res.Err)
		return res.Value.String()
	}
	for name, change := range map[string]func(*asking){
		"text":  func(a *asking) { a.text += " * 2" },
		"phase": func(a *asking) { a.at.start, a.at.end = a.at.start.Add(7*time.Second), a.at.end.Add(7*time.Second) },
		"step":  func(a *asking) { a.at.interval = 2 * time.Minute },
		"lookback": func(a *asking) {
			a.opts, a.text = promql.NewPrometheusQueryOpts(false, time.Second), `count(m_total offset 7s)`
		},
		"subqueries": func(a *asking) {
			a.engine = other(func(o *promql.EngineOpts) { o.NoStepSubqueryIntervalFn = func(int64) int64 { return 170_000 } })
			a.text = `count_over_time(m_total{instance="t0"}[10m:])`
		},
		"options": func(a *asking) {
			a.engine = other(func(o *promql.EngineOpts) { o.EnableDelayedNameRemoval = true })
			a.text = `label_replace(rate(m_total[5m]), "name", "$1", "__name__", "(.*)")`
		},
		"restricted":  func(a *asking) { a.ctx = restricted("instance", "t0") },
		"matchers":    func(a *asking) { a.ctx = restricted("instance", "t1") },
		"regions":     func(a *asking) { a.ctx = restricted("region", "us") },
		"generation":  func(a *asking) { a.groups = regions("eu", "other") },
		"other group": func(a *asking) { a.groups = regions("eu", "us")[:1] },
	} {
		t.Run(name, func(t *testing.T) {
			changed := base
			change(&changed)
			original := base
			original.text = changed.text
			if name == "text" {
				original.text = base.text
			}
			if name == "matchers" {
				original.ctx = restricted("instance", "t0")
			}
			if changed.engine != base.engine {
				original.engine = other(same)
			}
			want, other := ask(t, nil, changed), ask(t, nil, original)
			require.NotEqual(t, want, other, "nothing to tell them apart")
			c := cache.New(cache.NewMemory(64<<20), nil)
			for range 2 {
				ask(t, c, original)
				got := ask(t, c, changed)
				require.Equal(t, want, got)
				got = ask(t, c, original)
				require.Equal(t, ask(t, nil, original), got)
			}
		})
	}
}

// TestKept_Away: while a replica is away, what was kept is used, and nothing is kept.
func TestKept_Away(t *testing.T) {
	data := strings.ReplaceAll(targets("%s", true), "%s", "")
	one, two := newStore(t, data), newStore(t, data)
	e, now := clockedEngine(t, groupAt("a", nil, one, two))
	e.UseCache(cache.New(cache.NewMemory(64<<20), nil))
	const text, another = `sum(rate(m_total[5m]))`, `sum(foo)`
	askedOf(t, e, `up`, at(20, 30)) // the replicas are known afterwards
	_, cached := askedOf(t, e, text, at(20, 100))
	require.Equal(t, "miss", cached)
	one.everywhere(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	for range 3 {
		now.Add(1000)
		_, cached = askedOf(t, e, another, at(20, 100))
		require.Equal(t, "miss", cached)
	}
	_, cached = askedOf(t, e, text, at(20, 100))
	require.Equal(t, "hit", cached)
	one.all.Store(nil)
	require.Eventually(t, func() bool {
		now.Add(10_000)
		_, cached = askedOf(t, e, another, at(20, 100))
		return cached == "hit"
	}, 10*time.Second, time.Millisecond)
}

// TestKept_Size: an answer that is too large for a query is the same error, whatever is kept of it.
func TestKept_Size(t *testing.T) {
	e, _, _ := twoRegions(t, targets("%s", true), targets("%s", true))
	e.UseCache(cache.New(cache.NewMemory(64<<20), nil))
	askedOf(t, e, `up`, at(20, 30)) // the replicas are known afterwards
	for _, when := range []times{at(0, 60), at(60, 120), at(120, 170)} {
		_, cached := askedOf(t, e, `m_total`, when)
		require.NotEqual(t, "hit", cached)
	}
	o := executionOpts()
	o.MaxSamples = 700
	small := NewEngine(o, e.groups)
	t.Cleanup(func() { require.NoError(t, small.Close()) })
	small.UseCache(e.cache)
	res, _ := askedOf(t, small, `m_total`, at(0, 170))
	require.ErrorContains(t, res.Err, "too many samples")
	res, cached := askedOf(t, small, `m_total`, at(0, 60))
	require.NoError(t, res.Err)
	require.Equal(t, "hit", cached)
}

// heldStore holds what it is to keep.
type heldStore struct {
	*cache.Memory
	arrived, release chan struct{}
}

func (s *heldStore) Set(key string, value []byte, ttl time.Duration) {
	s.arrived <- struct{}{}
	<-s.release
	s.Memory.Set(key, value, ttl)
}

// TestKept_Later: the client has its answer before that is kept, and who asks the same meanwhile waits for that.
func TestKept_Later(t *testing.T) {
	e, all, stores := twoRegions(t, targets("%s", true), targets("%s", true))
	requireTruth(t, e, all, `up`, at(20, 30)) // the replicas are known afterwards
	held := &heldStore{cache.NewMemory(64 << 20), make(chan struct{}, 100), make(chan struct{})}
	e.UseCache(cache.New(held, nil))
	_, cached := askedOf(t, e, `sum(m_total)`, at(20, 30))
	require.Equal(t, "miss", cached)
	<-held.arrived
	evaluated(stores)
	waits := make(chan string)
	go func() {
		_, cached := askedOf(t, e, `sum(m_total)`, at(22, 28))
		waits <- cached
	}()
	close(held.release)
	require.Equal(t, "hit", <-waits)
	require.Empty(t, evaluated(stores))
}
