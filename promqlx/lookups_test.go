package promqlx

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/common/version"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/promqlx/cache"
	"github.com/oneprom/oneprom/servergroup"
	"github.com/oneprom/oneprom/servergroup/backendtest"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/request"
	"github.com/oneprom/oneprom/servergroup/transport"
)

const hourMS = int64(time.Hour / time.Millisecond)

// region is a group of two replicas whose series come and go, as a Prometheus keeps them: in memory for up to
// three hours, and then in blocks of two.
type region struct {
	name     string
	replicas [2]*store
	db       *tsdb.DB               // of both
	lookups  atomic.Int64           // of series and the label i
	fail     atomic.Bool            // the first replica refuses them
	warn     atomic.Bool            // both warn
	cut      atomic.Bool            // they cut answers, and do not say so
	late     atomic.Bool            // they take samples that are a day late
	during   atomic.Pointer[func()] // is called by the next lookup
	series   []life
}

// life is a series, and when it begins and ends (ms).
type life struct {
	labels   labels.Labels
	from, to int64
}

func openDB(t *testing.T) *tsdb.DB {
	t.Helper()
	db, err := backendtest.OpenDB(t.TempDir(), func(o *tsdb.Options) {
		o.MinBlockDuration, o.MaxBlockDuration = 2*hourMS, 2*hourMS
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	db.DisableCompactions()
	return db
}

func newRegion(t *testing.T, name string, rnd *rand.Rand, last int64) *region {
	t.Helper()
	r := &region{name: name, db: openDB(t)}
	h := backendtest.NewHandler(backendtest.Options{Queryable: r.db})
	for i := range r.replicas {
		r.replicas[i] = newStoreServing(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			answer := func(data any, warnings ...string) {
				backendtest.WriteJSON(w, http.StatusOK, map[string]any{"status": "success", "data": data, "warnings": warnings})
			}
			switch what := strings.TrimPrefix(req.URL.Path, "/api/v1/"); what {
			case "status/config":
				if r.late.Load() {
					answer(map[string]string{"yaml": "storage: {tsdb: {out_of_order_time_window: 1d}}"})
					return
				}
			case "series", "label/i/values":
				r.lookups.Add(1)
				if f := r.during.Swap(nil); f != nil {
					(*f)()
				}
				switch {
				case r.fail.Load() && i == 0:
					w.WriteHeader(http.StatusBadGateway)
					return
				case r.warn.Load():
					answer([]string{}, "who knows")
					return
				case r.cut.Load():
					answer([]string{"0", "1", "2"})
					return
				}
			}
			h.ServeHTTP(w, req)
		}))
	}
	for i := range 60 {
		from := rnd.Int64N(last+6*hourMS) - 6*hourMS
		ls := labels.FromStrings("__name__", fmt.Sprintf("m%d", i%4), "i", strconv.Itoa(i), fmt.Sprintf("only_%s_%d", name, i%17), "x")
		r.series = append(r.series, life{ls, from, from + rnd.Int64N(8*hourMS)})
	}
	r.series = append(r.series, life{labels.FromStrings("__name__", "up", "i", "always", "names", "some"), math.MinInt64, math.MaxInt64})
	return r
}

// world is some regions, and one Prometheus that has scraped all of them.
type world struct {
	storage *Storage
	now     *atomic.Int64
	regions []*region
	truth   *tsdb.DB
	scraped int64
}

func newWorld(t *testing.T, last int64) *world {
	t.Helper()
	rnd := rand.New(rand.NewPCG(1, 2))
	w := &world{truth: openDB(t)}
	for _, name := range []string{"eu", "us"} {
		w.regions = append(w.regions, newRegion(t, name, rnd, last))
	}
	e, now := clockedEngine(t, w.groups()...)
	w.now, w.storage = now, NewStorage(e.groups)
	return w
}

// groups are a group for each region, with some changes.
func (w *world) groups(change ...func(*config.Group)) (cfgs []config.Group) {
	for _, r := range w.regions {
		cfg := groupAt(r.name, map[string]string{"region": r.name}, r.replicas[:]...)
		for _, c := range change {
			c(&cfg)
		}
		cfgs = append(cfgs, cfg)
	}
	return cfgs
}

// scrapeUntil has all scraped every ten minutes.
func (w *world) scrapeUntil(t *testing.T, now int64) {
	t.Helper()
	for ; w.scraped <= now; w.scraped += 600_000 {
		all := w.truth.Appender(t.Context())
		for _, r := range w.regions {
			own := r.db.Appender(t.Context())
			for _, s := range r.series {
				if s.from > w.scraped || s.to < w.scraped {
					continue
				}
				_, err := own.Append(0, s.labels, w.scraped, 1)
				require.NoError(t, err)
				_, err = all.Append(0, labels.NewBuilder(s.labels).Set("region", r.name).Labels(), w.scraped, 1)
				require.NoError(t, err)
			}
			require.NoError(t, own.Commit())
		}
		require.NoError(t, all.Commit())
		if w.scraped%hourMS == 0 {
			for _, db := range []*tsdb.DB{w.regions[0].db, w.regions[1].db, w.truth} {
				require.NoError(t, db.Compact(t.Context()))
			}
		}
	}
	w.now.Store(now)
}

// asked is a lookup.
type asked struct {
	what       string // names, series, or values of a label
	selector   string // "" for none
	start, end int64
	limit      int
}

// of looks up in a storage.
func (a asked) of(t *testing.T, ctx context.Context, from storage.Queryable) ([]string, annotations.Annotations) {
	t.Helper()
	q, err := from.Querier(a.start, a.end)
	require.NoError(t, err)
	defer q.Close()
	var ms []*labels.Matcher
	if a.selector != "" {
		ms, err = parser.NewParser(parser.Options{}).ParseMetricSelector(a.selector)
		require.NoError(t, err)
	}
	var out []string
	var ws annotations.Annotations
	switch a.what {
	case "names":
		out, ws, err = q.LabelNames(ctx, &storage.LabelHints{Limit: a.limit}, ms...)
	case "series":
		set := q.Select(ctx, true, &storage.SelectHints{Func: "series", Start: a.start, End: a.end, Limit: a.limit}, ms...)
		for set.Next() {
			out = append(out, set.At().Labels().String())
		}
		ws, err = set.Warnings(), set.Err()
	default:
		out, ws, err = q.LabelValues(ctx, strings.TrimPrefix(a.what, "values of "), &storage.LabelHints{Limit: a.limit}, ms...)
	}
	require.NoError(t, err)
	return append([]string{}, out...), ws
}

// counted returns how often lookups were sent to the replicas since it was called last.
func (w *world) counted() (n int64) {
	for _, r := range w.regions {
		n += r.lookups.Swap(0)
	}
	return n
}

// requireTruth looks up, and compares with the one Prometheus.
func (w *world) requireTruth(t *testing.T, a asked) {
	t.Helper()
	want, _ := a.of(t, t.Context(), w.truth)
	got, ws := a.of(t, t.Context(), w.storage)
	require.Empty(t, ws)
	require.Equal(t, want, got, "%+v", a)
}

// TestLookups_Truth: a lookup has the answer of one Prometheus that has everything, while time goes on, whatever
// was looked up before.
func TestLookups_Truth(t *testing.T) {
	const last = 42 * hourMS
	w := newWorld(t, last)
	w.storage.UseCache(cache.New(cache.NewMemory(64<<20), nil))
	rnd := rand.New(rand.NewPCG(3, 4))
	for now := 30*hourMS + 1; now < last; now += rnd.Int64N(hourMS) {
		w.scrapeUntil(t, now)
		for _, what := range []string{"names", "series", "values of i", "values of __name__", "values of region"} {
			for _, selector := range []string{"", `m1`, `{region="eu",i!="3"}`, `{i!="3", region="eu"}`, `{i!="3"}`} {
				if selector == "" && what == "series" {
					continue
				}
				end := now - rnd.Int64N(4)*rnd.Int64N(8*hourMS)
				for _, a := range []asked{{start: now - 24*hourMS, end: now}, {start: end - rnd.Int64N(24*hourMS), end: end, limit: 1000}} {
					a.what, a.selector = what, selector
					w.requireTruth(t, a)
				}
			}
		}
	}
}

// TestLookups_AreUsed: of what was looked up before, only the ends are asked for again.
func TestLookups_AreUsed(t *testing.T) {
	const now = 40 * hourMS
	w := newWorld(t, now)
	w.scrapeUntil(t, now)
	a := asked{what: "values of i", start: 10*hourMS + 5, end: now}
	f := func(want int64, change func(*asked)) {
		t.Helper()
		w.counted()
		other := a
		change(&other)
		w.requireTruth(t, other)
		require.Equal(t, want, w.counted()/4) // there are four replicas
	}
	same := func(*asked) {}
	f(1, same)
	w.storage.UseCache(cache.New(cache.NewMemory(64<<20), nil))
	f(10, same) // eight hours, what is before these, and what is not settled
	f(10, same)
	f(10, same)
	f(3, same) // there are 25 whole hours
	f(2, same)
	f(2, func(a *asked) { a.start, a.end = a.start+hourMS, a.end-hourMS })
	f(1, func(a *asked) { a.start, a.end = 20*hourMS, 25*hourMS })
	f(0, func(a *asked) { a.start, a.end = 20*hourMS, 25*hourMS-1 })
	f(1, func(a *asked) { a.start = now - 6*hourMS })
	f(1, func(a *asked) { a.start = math.MinInt64 })
}

// TestLookups_Key: an answer is kept under all that it depends on. Each pair of lookups has the same key but for one
// thing, and other answers.
func TestLookups_Key(t *testing.T) {
	const now = 40 * hourMS
	w := newWorld(t, now)
	w.scrapeUntil(t, now)
	groups := func(names ...string) (cfgs []config.Group) {
		for i, name := range names {
			cfgs = append(cfgs, groupAt(strconv.Itoa(i), map[string]string{"region": name}, w.regions[i].replicas[:]...))
		}
		return cfgs
	}
	type asking struct {
		asked
		groups     []config.Group
		restricted bool
		shown      string
	}
	ask := func(c *cache.Cache, a asking) []string {
		require.NoError(t, w.storage.groups.Apply(t.Context(), a.groups, config.PartialWarn))
		w.storage.UseCache(c)
		out, ws := a.of(t, request.With(t.Context(), func(r *request.Request) {
			r.Restricted = a.restricted
			if a.shown != "" {
				r.Shown = []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, "i", a.shown)}
			}
		}), w.storage)
		require.Empty(t, ws)
		return out
	}
	base := asking{asked: asked{what: "series", selector: `m1`, start: 20 * hourMS, end: 25*hourMS - 1}, groups: groups("eu", "us")}
	for name, change := range map[string]func(original, changed *asking){
		"names":      func(_, a *asking) { a.what = "names" },
		"label":      func(o, a *asking) { o.what, a.what = "values of i", "values of region" },
		"a label":    func(o, a *asking) { o.what, a.what = "names", "values of names" },
		"matchers":   func(_, a *asking) { a.selector = `m2` },
		"start":      func(_, a *asking) { a.start -= 4 * hourMS; a.end -= 4 * hourMS },
		"day":        func(o, a *asking) { o.start, o.end, a.start, a.end = 0, 24*hourMS-1, 0, hourMS-1 },
		"generation": func(_, a *asking) { a.groups = groups("eu", "asia") },
		"fewer":      func(_, a *asking) { a.groups = groups("eu") },
		"restricted": func(o, a *asking) { o.shown, a.shown, a.restricted = "[1-3].*", "[1-3].*", true },
		"shown":      func(o, a *asking) { o.shown, o.restricted, a.shown, a.restricted = "[1-3].*", true, "[^1-3].*", true },
	} {
		t.Run(name, func(t *testing.T) {
			original, changed := base, base
			change(&original, &changed)
			want, before := ask(nil, changed), ask(nil, original)
			require.NotEqual(t, want, before, "nothing to tell them apart")
			c := cache.New(cache.NewMemory(64<<20), nil)
			for range 2 {
				ask(c, original)
				require.Equal(t, want, ask(c, changed))
				require.Equal(t, before, ask(c, original))
			}
		})
	}
	c := cache.New(cache.NewMemory(64<<20), nil)
	ask(c, base)
	w.counted()
	ask(c, base)
	require.Zero(t, w.counted())
	before := version.Version
	defer func() { version.Version = before }()
	version.Version = "another"
	ask(c, base)
	require.NotZero(t, w.counted())
}

// TestLookups_NotKept: what may lack something, or be too much, is not kept, nor used where it must not be.
func TestLookups_NotKept(t *testing.T) {
	const now = 40 * hourMS
	w := newWorld(t, now)
	w.scrapeUntil(t, now)
	a := asked{what: "values of i", start: 20 * hourMS, end: 25*hourMS - 1}
	a.of(t, t.Context(), w.storage) // the replicas are known afterwards
	var kept *cache.Cache
	fresh := func() {
		kept = cache.New(cache.NewMemory(64<<20), nil)
		w.storage.UseCache(kept)
	}
	eu, us := w.regions[0], w.regions[1]
	// asks returns how many requests each replica of a region gets.
	asks := func(ctx context.Context, a asked) int64 {
		us.lookups.Store(0)
		_, _ = a.of(t, ctx, w.storage)
		return us.lookups.Load() / 2
	}

	fresh()
	require.EqualValues(t, 5, asks(t.Context(), a))
	require.EqualValues(t, 0, asks(t.Context(), a))
	require.EqualValues(t, 1, asks(request.With(t.Context(), func(r *request.Request) { r.NoCache = true }), a))

	// Something is flushed.
	kept.Flush(cache.Flush{Group: "us", From: 20 * hourMS, To: 22*hourMS - 1, At: now})
	w.now.Add(1000)
	require.EqualValues(t, 2, asks(t.Context(), a))
	require.EqualValues(t, 0, asks(t.Context(), a))

	// What is in the memory of a Prometheus is of other times, too.
	fresh()
	young := asked{what: "values of i", start: 35 * hourMS, end: 39 * hourMS}
	for range 2 {
		require.EqualValues(t, 1, asks(t.Context(), young))
	}
	w.scrapeUntil(t, 48*hourMS)
	require.EqualValues(t, 5, asks(t.Context(), young))
	require.EqualValues(t, 1, asks(t.Context(), young))

	// There are warnings.
	fresh()
	for _, r := range w.regions {
		r.warn.Store(true)
	}
	require.EqualValues(t, 5, asks(t.Context(), a))
	for _, r := range w.regions {
		r.warn.Store(false)
	}
	require.EqualValues(t, 1, asks(t.Context(), a)) // at once
	w.now.Add(11 * 60_000)
	require.EqualValues(t, 5, asks(t.Context(), a))
	require.EqualValues(t, 0, asks(t.Context(), a))

	// A limit cuts the answers.
	fresh()
	few := a
	few.limit = 3
	require.EqualValues(t, 5, asks(t.Context(), few))
	require.EqualValues(t, 1, asks(t.Context(), few))
	require.EqualValues(t, 5, asks(t.Context(), a))
	require.EqualValues(t, 0, asks(t.Context(), a))
	fresh()
	for _, r := range w.regions {
		r.cut.Store(true)
	}
	require.EqualValues(t, 5, asks(t.Context(), few))
	require.EqualValues(t, 1, asks(t.Context(), few))
	for _, r := range w.regions {
		r.cut.Store(false)
	}

	// The server groups change meanwhile.
	fresh()
	change := func() {
		require.NoError(t, w.storage.groups.Apply(t.Context(), w.groups(func(c *config.Group) { c.Labels["region"] += "-1" }), config.PartialWarn))
	}
	us.during.Store(&change)
	require.EqualValues(t, 5, asks(t.Context(), a))
	require.NoError(t, w.storage.groups.Apply(t.Context(), w.groups(), config.PartialWarn))
	require.EqualValues(t, 1, asks(t.Context(), a)) // the replicas are known afterwards
	require.EqualValues(t, 5, asks(t.Context(), a))
	require.EqualValues(t, 0, asks(t.Context(), a))

	// No group holds it yet.
	fresh()
	late := func(c *config.Group) { c.TimeRange.MinAge = model.Duration(26 * time.Hour) }
	require.NoError(t, w.storage.groups.Apply(t.Context(), w.groups(late), config.PartialWarn))
	require.EqualValues(t, 1, asks(t.Context(), a)) // the replicas are known afterwards
	require.EqualValues(t, 3, asks(t.Context(), a)) // 20:00 to 22:11
	require.EqualValues(t, 1, asks(t.Context(), a)) // 22:00 to 22:11
	w.now.Store(60 * hourMS)
	require.EqualValues(t, 5, asks(t.Context(), a))
	require.EqualValues(t, 0, asks(t.Context(), a))

	// A replica fails: its twin answers, and nothing is kept. Then it is known to be away, and all is asked for
	// at once. What was kept before is used.
	another := a
	another.selector = `{i!="0"}`
	eu.fail.Store(true)
	require.EqualValues(t, 5, asks(t.Context(), another))
	require.EqualValues(t, 1, asks(t.Context(), another))
	require.EqualValues(t, 0, asks(t.Context(), a))
	eu.fail.Store(false)
	require.Eventually(t, func() bool {
		w.now.Add(10_000)
		return asks(t.Context(), another) == 0
	}, 10*time.Second, time.Millisecond)
}

// TestLookups_WholeDays: what a server tells of whole days only is not kept.
func TestLookups_WholeDays(t *testing.T) {
	const now = 40 * hourMS
	w := newWorld(t, now)
	w.now.Store(now)
	daily := func(c *config.Group) { c.Kind = transport.VictoriaMetrics }
	require.NoError(t, w.storage.groups.Apply(t.Context(), w.groups(daily), config.PartialWarn))
	w.storage.UseCache(cache.New(cache.NewMemory(64<<20), nil))
	for range 3 {
		w.counted()
		asked{what: "values of i", start: 20 * hourMS, end: 25*hourMS - 1}.of(t, t.Context(), w.storage)
		require.NotZero(t, w.counted())
	}
}

// TestLookups_Late: what may still change is not kept.
func TestLookups_Late(t *testing.T) {
	const now = 60 * hourMS
	w := newWorld(t, now)
	w.now.Store(now)
	for _, r := range w.regions {
		r.late.Store(true)
	}
	w.storage.UseCache(cache.New(cache.NewMemory(64<<20), nil))
	// All at once while the replicas are not known, 30:00 to 35:00, and what is after that.
	for _, want := range []int64{1, 6, 1} {
		w.counted()
		asked{what: "values of i", start: 30 * hourMS, end: 40*hourMS - 1}.of(t, t.Context(), w.storage)
		require.Equal(t, want, w.counted()/4)
	}
}

// TestLookups_Budget: an answer that needs much of the memory of a query is as if nothing were kept.
func TestLookups_Budget(t *testing.T) {
	const now = 40 * hourMS
	w := newWorld(t, now)
	w.scrapeUntil(t, now)
	a := asked{what: "series", selector: `{i!=""}`, start: 20 * hourMS, end: 27*hourMS - 1}
	want, _ := a.of(t, t.Context(), w.truth)
	// fetched looks up with a limit (bytes), three times, and returns how many bytes the last one needed.
	fetched := func(limit int64, c *cache.Cache) (bytes int64, err error) {
		set, err := servergroup.NewSet(servergroup.Options{Now: func() time.Time { return time.UnixMilli(now) }, MaxFetchedBytes: limit})
		require.NoError(t, err)
		defer set.Close()
		require.NoError(t, set.Apply(t.Context(), w.groups(), config.PartialWarn))
		s := NewStorage(set)
		s.UseCache(c)
		for range 3 { // the replicas are known after the first one
			q, err := s.Querier(a.start, a.end)
			require.NoError(t, err)
			found := q.Select(t.Context(), true, &storage.SelectHints{Func: "series"}, labels.MustNewMatcher(labels.MatchNotEqual, "i", ""))
			if found.Err() != nil {
				return 0, found.Err()
			}
			bytes = q.(*groupQuerier).view(t.Context()).FetchedBytes()
			require.NoError(t, q.Close())
			var series []string
			for found.Next() {
				series = append(series, found.At().Labels().String())
			}
			require.Equal(t, want, series)
		}
		return bytes, nil
	}
	whole, err := fetched(0, nil)
	require.NoError(t, err)
	got, err := fetched(whole, cache.New(cache.NewMemory(64<<20), nil))
	require.NoError(t, err)
	require.Equal(t, whole, got, "it was asked in parts")
	_, err = fetched(whole-1, cache.New(cache.NewMemory(64<<20), nil))
	require.ErrorContains(t, err, "query needs more than")
	got, err = fetched(100*whole, cache.New(cache.NewMemory(64<<20), nil))
	require.NoError(t, err)
	require.Zero(t, got)
}
