package promqlx

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/discovery/targetgroup"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/oneprom/oneprom/promqlx/enginetest"
	"github.com/oneprom/oneprom/servergroup"
	"github.com/oneprom/oneprom/servergroup/backendtest"
	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// store is a backend that remembers what it was asked for.
type store struct {
	*httptest.Server
	queryRange http.HandlerFunc                 // instead of its own answers; nil: none
	all        atomic.Pointer[http.HandlerFunc] // answers whatever is asked, if set
	own        http.Handler

	mtx     sync.Mutex // guards the fields below
	queries []string   // over a range
	reads   []string   // names of the metrics that remote read asked for
}

// newStore serves data of every 15 s.
func newStore(t *testing.T, load string) *store {
	t.Helper()
	return newStoreOf(t, promqltest.LoadedStorage(t, "load 15s"+load))
}

func newStoreOf(t testing.TB, data storage.SampleAndChunkQueryable) *store {
	t.Helper()
	return newStoreServing(t, backendtest.NewHandler(backendtest.Options{Queryable: data, EarlyNames: true}))
}

// newStoreServing serves what a handler answers.
func newStoreServing(t testing.TB, h http.Handler) *store {
	t.Helper()
	s := &store{own: h}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f := s.all.Load(); f != nil {
			(*f)(w, r)
			return
		}
		switch r.URL.Path {
		case "/api/v1/query_range":
			if strings.Contains(r.FormValue("query"), "oneprom_probe") {
				break
			}
			if !backendtest.CountsSeries(r) {
				s.note(&s.queries, r.FormValue("query"))
			}
			if s.queryRange != nil {
				s.queryRange(w, r)
				return
			}
		case "/api/v1/read":
			if !backendtest.CountsSeries(r) {
				s.note(&s.reads, metricsOf(r)...)
			}
		}
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *store) note(list *[]string, texts ...string) {
	s.mtx.Lock()
	defer s.mtx.Unlock()
	*list = append(*list, texts...)
}

// asked returns what was asked since the last call.
func (s *store) asked() (queries, reads []string) {
	s.mtx.Lock()
	defer s.mtx.Unlock()
	queries, reads = s.queries, s.reads
	s.queries, s.reads = nil, nil
	return queries, reads
}

// metricsOf are the names that a remote read request asks for.
func metricsOf(r *http.Request) (names []string) {
	for _, q := range backendtest.ReadQueries(r) {
		for _, m := range q.Matchers {
			if m.Name == labels.MetricName {
				names = append(names, m.Value)
			}
		}
	}
	return names
}

func busy(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "busy", status) }
}

// groupAt is the configuration of a group of backends.
func groupAt(name string, lset map[string]string, stores ...*store) config.Group {
	cfg := config.DefaultGroup
	cfg.Name, cfg.Labels = name, lset
	tg := &targetgroup.Group{Source: "0"}
	for _, s := range stores {
		tg.Targets = append(tg.Targets, model.LabelSet{model.AddressLabel: model.LabelValue(strings.TrimPrefix(s.URL, "http://"))})
	}
	cfg.ServiceDiscoveryConfigs = discovery.Configs{discovery.StaticConfig{tg}}
	return cfg
}

func pushdownOff(c *config.Group) { c.Pushdown = config.PushdownOff }
func mergeAll(c *config.Group)    { c.Replicas = config.MergeAll }

func executionOpts() promql.EngineOpts {
	o := enginetest.Options()
	o.LookbackDelta, o.UseStartTimestamps = 5*time.Minute, true
	return o
}

// engineOver is an engine over groups, three hours after the first sample.
func engineOver(t testing.TB, partial config.PartialResponse, cfgs ...config.Group) *Engine {
	t.Helper()
	set, err := servergroup.NewSet(servergroup.Options{
		Now: func() time.Time { return time.UnixMilli(3 * 3600_000) }, Features: []string{"use-start-timestamps"},
	})
	require.NoError(t, err)
	t.Cleanup(set.Close)
	require.NoError(t, set.Apply(t.Context(), cfgs, partial))
	e := NewEngine(executionOpts(), set)
	t.Cleanup(func() { require.NoError(t, e.Close()) })
	return e
}

// times are those of one query; without an interval it is an instant query.
type times struct {
	start, end time.Time
	interval   time.Duration
}

// at are times of a query (minutes).
func at(start, end int64) times {
	return times{time.UnixMilli(start * 60_000), time.UnixMilli(end * 60_000), time.Minute}
}

func instantAt(minute int64) times { return times{start: time.UnixMilli(minute * 60_000)} }

// executed is the result of a query with what is said of it.
func executed(t testing.TB, e *Engine, text string, at times) (*promql.Result, []string) {
	t.Helper()
	return resultOf(t, text, at, func() (promql.Query, error) {
		if at.interval == 0 {
			return e.NewInstantQuery(t.Context(), nil, nil, text, at.start)
		}
		return e.NewRangeQuery(t.Context(), nil, nil, text, at.start, at.end, at.interval)
	})
}

func resultOf(t testing.TB, text string, _ times, query func() (promql.Query, error)) (*promql.Result, []string) {
	t.Helper()
	q, err := query()
	require.NoError(t, err)
	defer q.Close()
	res := q.Exec(t.Context())
	warnings, infos := res.Warnings.AsStrings(text, 0, 0)
	said := append(warnings, infos...)
	slices.Sort(said)
	value := enginetest.Copy(res.Value)
	if v, ok := value.(promql.Vector); ok {
		enginetest.SortByLabels(v)
	}
	return &promql.Result{Value: value, Err: res.Err}, said
}

// truth is upstream's engine over all data.
type truth func(text string, at times) (*promql.Result, []string)

func truthOf(t *testing.T, load string) truth {
	t.Helper()
	db := sorted{promqltest.LoadedStorage(t, "load 15s"+load)}
	engine := promql.NewEngine(executionOpts())
	t.Cleanup(func() { require.NoError(t, engine.Close()) })
	return func(text string, at times) (*promql.Result, []string) {
		t.Helper()
		return resultOf(t, text, at, func() (promql.Query, error) {
			if at.interval == 0 {
				return engine.NewInstantQuery(t.Context(), db, nil, text, at.start)
			}
			return engine.NewRangeQuery(t.Context(), db, nil, text, at.start, at.end, at.interval)
		})
	}
}

// sorted is a storage whose series come in the order of their labels, by which errors
// of the engine name some of many.
type sorted struct{ storage.Queryable }

func (s sorted) Querier(mint, maxt int64) (storage.Querier, error) {
	q, err := s.Queryable.Querier(mint, maxt)
	return sortedQuerier{q}, err
}

type sortedQuerier struct{ storage.Querier }

func (q sortedQuerier) Select(ctx context.Context, _ bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	return q.Querier.Select(ctx, true, hints, ms...)
}

// requireTruth compares an engine's answer with the truth.
func requireTruth(t *testing.T, e *Engine, reference truth, text string, at times) {
	t.Helper()
	want, wantSaid := reference(text, at)
	got, said := executed(t, e, text, at)
	require.NoError(t, want.Err, text)
	require.NotEmpty(t, enginetest.Lines(want.Value), "%s: nothing to compare", text)
	enginetest.RequireSame(t, want, got, 1e-13, false, text)
	require.Equal(t, wantSaid, said, text)
}

// targets is the data of three targets; lset are more labels, hole is for the scrapes
// from 25:00 to 34:45.
func targets(lset string, whole bool) string {
	var b strings.Builder
	for i := range 3 {
		counter, gauge := fmt.Sprintf("0+%dx720", i+7), fmt.Sprintf("%dx720", i+1)
		if !whole {
			counter = fmt.Sprintf("0+%dx99 _x40 %d+%dx580", i+7, 140*(i+7), i+7)
			gauge = fmt.Sprintf("%dx99 _x40 %[1]dx580", i+1)
		}
		target := fmt.Sprintf(`{instance="t%d",job="j"%s}`, i, lset)
		fmt.Fprintf(&b, "\n  up%s %s\n  m_total%s %s\n  foo%s %s", target, strings.ReplaceAll(gauge, strconv.Itoa(i+1)+"x", "1x"), target, counter, target, gauge)
	}
	return b.String()
}

var executedQueries = []string{
	`m_total`,
	`sum(rate(m_total[5m]))`,
	`sum by (instance) (rate(m_total[5m])) > 0.5`,
	`avg(m_total) + on () count(up == 1)`,
	`topk(1, m_total)`,
	`quantile(0.5, increase(m_total[10m]))`,
	`absent(m_total{instance="nowhere"})`,
	`max_over_time(sum(rate(m_total[5m]))[10m:1m])`,
	`sum(m_total offset 7m) / sum(foo @ 1500)`,
	`foo * on (instance) group_left () m_total`,
}

// TestExecute_PairOfWhichOneWasAway gives the answers of one that never was.
func TestExecute_PairOfWhichOneWasAway(t *testing.T) {
	a, b := newStore(t, targets("", false)), newStore(t, targets("", true))
	all := truthOf(t, targets("", true))
	for name, change := range map[string]func(*config.Group){
		"push-down": func(*config.Group) {}, "no push-down": pushdownOff, "merged": mergeAll,
	} {
		t.Run(name, func(t *testing.T) {
			cfg := groupAt("g", nil, a, b)
			change(&cfg)
			e := engineOver(t, config.PartialWarn, cfg)
			for _, text := range executedQueries {
				requireTruth(t, e, all, text, at(15, 60))
				requireTruth(t, e, all, text, instantAt(30))
			}
		})
	}
}

// TestExecute_WhoIsAsked: the first alone where it is whole, the second alone where
// the first was away, both where all is merged.
func TestExecute_WhoIsAsked(t *testing.T) {
	const text, sent = `sum(rate(m_total[5m]))`, `sum(rate({__name__="m_total"}[5m]))`
	f := func(change func(*config.Group), span times, want ...string) {
		t.Helper()
		a, b := newStore(t, targets("", false)), newStore(t, targets("", true))
		cfg := groupAt("g", nil, a, b)
		change(&cfg)
		res, said := executed(t, engineOver(t, config.PartialWarn, cfg), text, span)
		require.NoError(t, res.Err)
		require.Empty(t, said)
		var got []string
		for i, s := range []*store{a, b} {
			queries, reads := s.asked()
			for _, q := range queries {
				got = append(got, fmt.Sprintf("%d %s", i, q))
			}
			for _, name := range reads {
				if name == "m_total" {
					got = append(got, fmt.Sprintf("%d read", i))
				}
			}
		}
		require.Equal(t, want, got)
	}
	on := func(*config.Group) {}
	whole, gone := at(60, 90), at(27, 33)
	f(on, whole, "0 "+sent)
	f(on, gone, "1 "+sent)
	f(on, at(15, 60), "0 "+sent, "0 "+sent, "1 "+sent)
	f(pushdownOff, whole, "0 read")
	f(pushdownOff, gone, "1 read")
	f(mergeAll, whole, "0 read", "1 read")
}

// TestExecute_Turns: who was away for a moment answers before and after it at once,
// unless it has something to say, which may be about the time between.
func TestExecute_Turns(t *testing.T) {
	short := strings.NewReplacer("_x40", "_x8", "x580", "x612", " 980+", " 756+", " 1120+", " 864+", " 1260+", " 972+")
	a, b := newStore(t, short.Replace(targets("", false))), newStore(t, targets("", true))
	all := truthOf(t, targets("", true))
	span := at(15, 60)
	f := func(cfg config.Group, text string, queries ...int) {
		t.Helper()
		e := engineOver(t, config.PartialWarn, cfg)
		requireTruth(t, e, all, text, span)
		for i, s := range []*store{a, b} {
			asked, _ := s.asked()
			require.Len(t, asked, queries[i], "%s: %s", text, asked)
		}
		requireTruth(t, e, all, text, span)
		asked, _ := a.asked()
		require.Len(t, asked, min(queries[0], 2), "%s again: %s", text, asked)
		b.asked()
	}
	cfg := groupAt("g", nil, a, b)
	f(cfg, `sum(rate(m_total[5m]))`, 1, 1)
	f(cfg, `rate(m_total[5m]) > 0.5`, 1, 1)
	f(cfg, `sum(rate(foo[5m]))`, 3, 1)
	f(cfg, `m_total`, 0, 0)
	pushdownOff(&cfg)
	for _, text := range executedQueries {
		f(cfg, text, 0, 0)
	}
}

// TestExecute_TargetsCutOut: one of twenty targets was not scraped for a while by the
// first, which answers for the others.
func TestExecute_TargetsCutOut(t *testing.T) {
	load := func(first string) string {
		var b strings.Builder
		for i := range 20 {
			counter, up := fmt.Sprintf("0+%dx720", i+7), "1x720"
			if i == 0 && first != "" {
				counter, up = first, "1x99 _x40 1x580"
			}
			fmt.Fprintf(&b, "\n  up{instance=\"t.%d\",job=\"j\"} %s\n  m_total{instance=\"t.%[1]d\",job=\"j\"} %[3]s", i, up, counter)
		}
		return b.String()
	}
	a, b := newStore(t, load("0+7x99 _x40 980+7x580")), newStore(t, load(""))
	all := truthOf(t, load(""))
	e := engineOver(t, config.PartialWarn, groupAt("g", nil, a, b))
	for _, text := range []string{`sum(rate(m_total[5m]))`, `rate(m_total[5m])`, `topk(3, m_total)`, `count(m_total > 3000)`} {
		requireTruth(t, e, all, text, at(15, 60))
		queries, _ := b.asked()
		require.Empty(t, queries, text)
		queries, _ = a.asked()
		for _, q := range queries {
			require.Contains(t, q, `instance!~"t\\.0"`)
		}
	}
	// What cannot be put together of targets is not divided.
	requireTruth(t, e, all, `quantile(0.5, m_total)`, at(15, 60))
	queries, _ := b.asked()
	require.Equal(t, []string{`quantile(0.5, {__name__="m_total"})`}, queries)
}

// TestExecute_OtherNames: where a selector may find what rules have written, or what no
// target has, only that is read of both.
func TestExecute_OtherNames(t *testing.T) {
	const alert = "\n  a:b{job=\"j\"} 1x720\n  ALERTS{alertname=\"x\",instance=\"t0\",job=\"j\"} "
	a, b := newStore(t, targets("", true)+alert+"1x99 _x40 1x580"), newStore(t, targets("", true)+alert+"_x50 1x670")
	all := truthOf(t, targets("", true)+alert+"1x720")
	e := engineOver(t, config.PartialWarn, groupAt("g", nil, a, b))
	f := func(text, want string) {
		t.Helper()
		requireTruth(t, e, all, text, at(15, 60))
		queries, _ := a.asked()
		slices.Sort(queries)
		require.Equal(t, want, strings.Join(queries, " "))
		requireTruth(t, e, all, text, instantAt(30))
		a.asked()
	}
	const but = `__name__!~"ALERTS|ALERTS_FOR_STATE|a:b"`
	f(`count by (__name__) ({job="j"})`, `count by (__name__) ({`+but+`,job="j"})`)
	f(`topk(1, {job="j"})`, `topk(1, {`+but+`,job="j"})`)
	f(`sum by (instance) ({job="j"})`, `sum by (instance) ({`+but+`,job="j"})`)
	f(`stddev by (__name__) ({job="j"})`, `stddev by (__name__) ({`+but+`,job="j"})`)
	f(`stddev without (instance) ({job="j"})`, "") // which drops names
	f(`{job="j"}`, "")
	f(`max(max_over_time({__name__=~"up|ALERTS"}[5m]))`, "")
	queries, _ := b.asked()
	require.Empty(t, queries)
}

// TestExecute_BackendThatRefuses to evaluate is read.
func TestExecute_BackendThatRefuses(t *testing.T) {
	all := truthOf(t, targets("", true))
	for _, status := range []int{422, 500} {
		a := newStore(t, targets("", true))
		a.queryRange = busy(status)
		e := engineOver(t, config.PartialWarn, groupAt("g", nil, a))
		requireTruth(t, e, all, `sum(rate(m_total[5m]))`, at(60, 90))
		queries, reads := a.asked()
		require.Len(t, queries, 1, status)
		require.Contains(t, reads, "m_total", status)
	}
}

// regionsOf are two groups of one replica each, whose data is that of targets, and
// the truth over both.
func regionsOf(t *testing.T) (eu, us *store, all truth) {
	t.Helper()
	eu, us = newStore(t, targets("", true)), newStore(t, targets("", true))
	return eu, us, truthOf(t, targets(`,region="eu"`, true)+targets(`,region="us"`, true))
}

func TestExecute_Regions(t *testing.T) {
	eu, us, all := regionsOf(t)
	for _, off := range []bool{false, true} {
		local := groupAt("us", map[string]string{"region": "us"}, us)
		if off {
			pushdownOff(&local)
		}
		e := engineOver(t, config.PartialWarn, groupAt("eu", map[string]string{"region": "eu"}, eu), local)
		for _, text := range []string{
			`m_total`, `sum(rate(m_total[5m]))`, `sum by (region) (m_total)`, `avg(m_total)`, `count_values("v", foo)`, `topk(2, m_total)`,
			`m_total{region="us"} - ignoring (region) m_total{region="eu"}`, `sum by (instance) (foo{region!="us"})`, `quantile by (region) (0.3, m_total)`,
			`sum(histogram_quantile(2, foo{region="asia"})) or sum(foo)`, // the engine warns of it although there are no series
		} {
			requireTruth(t, e, all, text, at(60, 70))
			requireTruth(t, e, all, text, instantAt(60))
		}
	}
}

func TestExecute_GroupThatDoesNotAnswer(t *testing.T) {
	eu, us, _ := regionsOf(t)
	us.Close()
	only := truthOf(t, targets(`,region="eu"`, true))
	groups := []config.Group{groupAt("eu", map[string]string{"region": "eu"}, eu), groupAt("us", map[string]string{"region": "us"}, us)}
	for _, text := range []string{`sum(rate(m_total[5m]))`, `sum by (region) (m_total)`, `m_total`} {
		want, _ := only(text, at(60, 70))
		got, said := executed(t, engineOver(t, config.PartialWarn, groups...), text, at(60, 70))
		enginetest.RequireSame(t, want, got, 1e-13, false, text)
		require.Len(t, said, 1)
		require.Contains(t, said[0], `partial answer: server group "us" did not answer: `+us.URL)

		got, _ = executed(t, engineOver(t, config.PartialError, groups...), text, at(60, 70))
		var unavailable *completeness.UnavailableError
		require.ErrorAs(t, got.Err, &unavailable, text)
		require.ErrorContains(t, got.Err, `server group "us" did not answer`)
	}
	// It is no empty answer, nor is that of a part that it alone concerns.
	for _, text := range []string{`absent(m_total{region="us"})`, `sum(m_total{region="us"}) or sum(m_total{region="eu"})`} {
		got, _ := executed(t, engineOver(t, config.PartialWarn, groups...), text, at(60, 70))
		var unavailable *completeness.UnavailableError
		require.ErrorAs(t, got.Err, &unavailable, text)
	}
}

// TestExecute_WhatIsSaid: annotations are in upstream's words, about the query, and are said once.
func TestExecute_WhatIsSaid(t *testing.T) {
	eu, us, all := regionsOf(t)
	for name, change := range map[string][2]func(*config.Group){
		"remote":    {func(*config.Group) {}, func(*config.Group) {}},
		"here":      {pushdownOff, pushdownOff},
		"one there": {pushdownOff, func(*config.Group) {}},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := groupAt("eu", map[string]string{"region": "eu"}, eu), groupAt("us", map[string]string{"region": "us"}, us)
			change[0](&a)
			change[1](&b)
			e := engineOver(t, config.PartialWarn, a, b)
			for text, where := range map[string]string{
				`sum(rate(foo[5m])) + 1`:                                   "(1:10)",
				`1 + max by (region) (increase( foo{job="j"}[5m] ))`:       "(1:32)",
				`2 * (sum by (instance)(rate(foo{region=~"eu|us"}[10m])))`: "(1:29)",
				`sum(max_over_time(rate(foo[5m])[10m:1m]))`:                "",
				"sum(up) + on ()\n  sum(rate(foo[5m]))":                    "(2:12)",
			} {
				_, said := all(text, at(60, 62))
				require.Len(t, said, 1)
				require.Contains(t, said[0], where)
				requireTruth(t, e, all, text, at(60, 62))
				requireTruth(t, e, all, text, instantAt(60))
			}
		})
	}
}

// TestExecute_CountedInfos: what the engine fixes is counted over all groups.
func TestExecute_CountedInfos(t *testing.T) {
	buckets := func(region string) string {
		var b strings.Builder
		for i, le := range []string{"1", "2", "+Inf"} {
			fmt.Fprintf(&b, "\n  b_bucket{instance=\"t0\",job=\"j\",le=%q%s} %d+%[3]dx720", le, region, []int{5, 2, 9}[i])
		}
		return b.String() + "\n  up{instance=\"t0\",job=\"j\"" + region + "} 1x720"
	}
	eu, us := newStore(t, buckets("")), newStore(t, buckets(""))
	all := truthOf(t, buckets(`,region="eu"`)+buckets(`,region="us"`))
	e := engineOver(t, config.PartialWarn, groupAt("eu", map[string]string{"region": "eu"}, eu), groupAt("us", map[string]string{"region": "us"}, us))
	const text = `histogram_quantile(0.5, b_bucket)`
	_, said := all(text, at(60, 62))
	require.Len(t, said, 1)
	require.Contains(t, said[0], "monotonicity")
	requireTruth(t, e, all, text, at(60, 62))
}

// TestExecute_VarianceOfTimestamps depends on their order from the seventh digit on: that
// of the truth is by the names of metrics first.
func TestExecute_VarianceOfTimestamps(t *testing.T) {
	var groups []config.Group
	var data strings.Builder
	for i, shard := range []string{"a", "b", "c"} {
		load := func(lset string) string {
			return fmt.Sprintf("\n  foo{instance=\"t%d\"%s} 17e8+0.%dx300\n  up{instance=\"a%[1]d\"%[2]s} 17e8+1.%[3]dx300", 7-i, lset, 3*i+1)
		}
		groups = append(groups, groupAt(shard, map[string]string{"shard": shard}, newStore(t, load(""))))
		data.WriteString(load(fmt.Sprintf(",shard=%q", shard)))
	}
	all, e := truthOf(t, data.String()), engineOver(t, config.PartialWarn, groups...)
	for _, text := range []string{
		`stdvar(max_over_time({__name__=~"foo|up"}[5m]))`,
		`stddev by (job) (-{__name__=~"foo|up"})`,
		`stdvar(max by (instance) (max_over_time({__name__=~"foo|up"}[5m])))`,
		`stdvar({__name__=~"foo|up"})`,
		`stdvar(max_over_time(up[5m]))`,
	} {
		requireTruth(t, e, all, text, at(15, 60))
	}
}

// TestExecute_SumsThatCancelOut, or would be infinite, are added up of all values.
func TestExecute_SumsThatCancelOut(t *testing.T) {
	const histogram = "{{count:1.1e308 sum:-1e100 buckets:[1.1e308]}}x300"
	load := func(p string) string {
		out := "\n  big{i=\"0\"} 1e308x300\n  ten{i=\"0\"} -1e100x300\n  fine{i=\"0\"} -4x300"
		if p == "a" {
			out = "\n  big{i=\"1\"} 1e308x300\n  ten{i=\"1\"} 1x300\n  ten{i=\"2\"} 1e100x300\n  fine{i=\"1\"} 5x300" +
				"\n  h{i=\"1\"} " + histogram + "\n  h{i=\"2\"} " + histogram
		}
		return out
	}
	in := func(p string) string { return strings.ReplaceAll(load(p), "{i=", "{p=\""+p+"\",i=") }
	a, b := newStore(t, load("a")), newStore(t, load("b"))
	all := truthOf(t, in("a")+in("b"))
	e := engineOver(t, config.PartialWarn, groupAt("a", map[string]string{"p": "a"}, a), groupAt("b", map[string]string{"p": "b"}, b))
	for _, text := range []string{`avg(big)`, `histogram_count(avg(h))`, `sum(ten)`, `avg(ten)`, `2 * sum by (x) (ten)`, `sum(fine)`} {
		requireTruth(t, e, all, text, at(15, 20))
		requireTruth(t, e, all, text, instantAt(20))
	}
	asked, _ := a.asked()
	require.Contains(t, asked, `sum({__name__="fine"})`)
}

// TestExecute_ConflictingResets: that counters in two groups conflict is said though a
// gauge is added up with one of them.
func TestExecute_ConflictingResets(t *testing.T) {
	load := func(a, b string) string {
		return "\n  h{i=\"1\"" + a + "} {{count:1 sum:1 buckets:[1] counter_reset_hint:gauge}}x1" +
			"\n  h{i=\"2\"" + a + "} {{count:1 sum:1 buckets:[1]}} {{count:3 sum:3 buckets:[3]}}" +
			"\n  h{i=\"3\"" + b + "} {{count:9 sum:9 buckets:[9]}} {{count:3 sum:3 buckets:[3]}}"
	}
	lines := strings.SplitAfter(load("", ""), "\n  h{i=\"3\"")
	first, second := strings.TrimSuffix(lines[0], "\n  h{i=\"3\""), "\n  h{i=\"3\""+lines[1]
	all := truthOf(t, load(`,p="a"`, `,p="b"`))
	e := engineOver(t, config.PartialWarn, groupAt("a", map[string]string{"p": "a"}, newStore(t, first)), groupAt("b", map[string]string{"p": "b"}, newStore(t, second)))
	span := times{start: time.Unix(15, 0)}
	for _, text := range []string{`histogram_count(sum(h))`, `histogram_count(avg(h))`} {
		_, said := all(text, span)
		require.Len(t, said, 1)
		requireTruth(t, e, all, text, span)
	}
}

// TestExecute_SaidInTwoPlaces: of what is said in the same words of two places, the engine
// tells the last.
func TestExecute_SaidInTwoPlaces(t *testing.T) {
	eu, us, all := regionsOf(t)
	for name, change := range map[string]func(*config.Group){"remote": func(*config.Group) {}, "here": pushdownOff} {
		t.Run(name, func(t *testing.T) {
			a, b := groupAt("eu", map[string]string{"region": "eu"}, eu), groupAt("us", map[string]string{"region": "us"}, us)
			change(&a)
			change(&b)
			e := engineOver(t, config.PartialWarn, a, b)
			for _, text := range []string{
				`sum(rate(foo[5m])) + sum(rate(foo[5m]))`,
				`rate(foo{region="us"}[5m]) or rate(foo{region="eu"}[6m])`,
				`rate(foo{region="eu"}[5m]) or rate(foo{region="us"}[6m])`,
			} {
				_, said := all(text, at(60, 62))
				require.Len(t, said, 1)
				requireTruth(t, e, all, text, at(60, 62))
			}
		})
	}
}

// TestExecute_PairsThatDoNotGoTogether: of those at one step the engine tells the last.
func TestExecute_PairsThatDoNotGoTogether(t *testing.T) {
	const histograms, floats = "{{schema:0 sum:5 count:4 buckets:[1 2 1]}}x300", "1x300"
	load := func(region, m, n string) string {
		return fmt.Sprintf("\n  up{instance=\"t0\",job=\"j\"%[1]s} 1x300\n  m{instance=\"t0\",job=\"j\"%[1]s} %[2]s\n  n{instance=\"t0\",job=\"j\"%[1]s} %[3]s", region, m, n)
	}
	eu, us := newStore(t, load("", histograms, floats)), newStore(t, load("", floats, histograms))
	all := truthOf(t, load(`,region="eu"`, histograms, floats)+load(`,region="us"`, floats, histograms))
	e := engineOver(t, config.PartialWarn, groupAt("eu", map[string]string{"region": "eu"}, eu), groupAt("us", map[string]string{"region": "us"}, us))
	const text = `(m > bool n) or up`
	_, said := all(text, at(20, 22))
	require.Len(t, said, 1)
	require.Contains(t, said[0], "incompatible sample types")
	requireTruth(t, e, all, text, at(20, 22))
}

// TestExecute_ErrorsAreUpstreams, about the query and not about a part of it.
func TestExecute_ErrorsAreUpstreams(t *testing.T) {
	eu, us, all := regionsOf(t)
	for _, change := range []func(*config.Group){func(*config.Group) {}, pushdownOff} {
		a, b := groupAt("eu", map[string]string{"region": "eu"}, eu), groupAt("us", map[string]string{"region": "us"}, us)
		change(&a)
		change(&b)
		e := engineOver(t, config.PartialWarn, a, b)
		for _, text := range []string{
			`sum(foo{region="eu"} * on (region, job) m_total{region="eu"})`,
			`1 + sum by (region) (foo * on (region) group_left () m_total)`,
			`label_replace(foo, "instance", "x", "instance", ".*")`,
		} {
			for _, span := range []times{at(60, 62), instantAt(60)} {
				want, _ := all(text, span)
				require.Error(t, want.Err, text)
				got, _ := executed(t, e, text, span)
				require.EqualError(t, got.Err, want.Err.Error(), text)
			}
		}
	}
}

// TestExecute_FloatAndHistogramAtOnce asks for series whose labels a function makes
// equal: upstream's engine gives one series with a float and a histogram at each time.
func TestExecute_FloatAndHistogramAtOnce(t *testing.T) {
	load := "\n  up{instance=\"t\",job=\"j\"} 1x720\n  h{instance=\"t\",job=\"j\"} {{schema:0 sum:5 count:4 buckets:[1 2 1]}}x720"
	a, all := newStore(t, load), truthOf(t, load)
	for _, change := range []func(*config.Group){func(*config.Group) {}, pushdownOff} {
		g := groupAt("g", nil, a)
		change(&g)
		requireTruth(t, engineOver(t, config.PartialWarn, g), all, `-{__name__=~"h|up"}`, at(60, 62))
	}
}

// TestExecute_HistogramsAreReadNextTime: the backend is asked once in vain.
func TestExecute_HistogramsAreReadNextTime(t *testing.T) {
	load := "\n  up{instance=\"t\",job=\"j\"} 1x720\n  h{instance=\"t\",job=\"j\"} {{schema:0 sum:5 count:4 buckets:[1 2 1]}}x720"
	a, all := newStore(t, load), truthOf(t, load)
	e := engineOver(t, config.PartialWarn, groupAt("g", nil, a))
	for n, want := range []int{1, 0, 0} {
		requireTruth(t, e, all, `sum(h)`, at(60+int64(n), 90))
		queries, reads := a.asked()
		require.Len(t, queries, want)
		require.Contains(t, reads, "h")
	}
}

// TestExecute_HistogramsOfTwoKinds: what is wrong with the histograms of two groups
// is said of the metric that has them.
func TestExecute_HistogramsOfTwoKinds(t *testing.T) {
	const exponential = "\n  h{job=\"a\"} {{schema:0 sum:1 count:1 buckets:[1]}}x100"
	const custom = "\n  h{job=\"b\"} {{schema:-53 custom_values:[5 10] sum:1 count:1 buckets:[1]}}x100"
	const floats = "\n  f{job=\"a\"} 1x100"
	cfgs := []config.Group{
		groupAt("eu", map[string]string{"region": "eu"}, newStore(t, exponential+floats)),
		groupAt("us", map[string]string{"region": "us"}, newStore(t, custom)),
	}
	e := engineOver(t, config.PartialWarn, cfgs...)
	all := truthOf(t, strings.NewReplacer(`"a"`, `"a",region="eu"`, `"b"`, `"b",region="us"`).Replace(exponential+floats+custom))
	for _, text := range []string{`sum(h) or sum(f)`, `sum(rate(h[5m])) or sum(f)`, `sum by (job) (h)`} {
		requireTruth(t, e, all, text, at(5, 20))
	}
}
