package plan

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/promqlx/enginetest"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// trial evaluates plans over the pieces of a world, as upstream's engine would.
type trial struct {
	engine  *promql.Engine
	opts    promql.EngineOpts
	layout  Layout
	world   world
	own     []division // of each partition
	options Options
	// pieces has each partition evaluated for each value of instance by itself,
	// where parts allow it.
	pieces bool
	// texts has parts evaluated as their texts say, without the injected labels.
	texts bool

	adds                   bool // whether the last plan adds answers up
	doubted, parts, texted int
	disjoint, overlapping  int // parts whose answers had to be disjoint, and plans in which some were not
}

// errNotTogether says that the answers of parts cannot be put together.
var errNotTogether = errors.New("doubtful")

// errOverlap says that answers are not disjoint, although they must be.
var errOverlap = errors.New("overlapping")

// times are those of one query; without an interval it is an instant query.
type times struct {
	start, end time.Time
	interval   time.Duration
}

func (tr *trial) query(q storage.Queryable, expr string, at times) (promql.Query, error) {
	if at.interval == 0 {
		return tr.engine.NewInstantQuery(context.Background(), q, nil, expr, at.start)
	}
	return tr.engine.NewRangeQuery(context.Background(), q, nil, expr, at.start, at.end, at.interval)
}

// planned evaluates an expression by way of a plan. If answers overlap, there is a second one.
func (tr *trial) planned(t testing.TB, expr string, at times) *promql.Result {
	t.Helper()
	res := tr.plannedWith(t, expr, at, tr.options)
	if errors.Is(res.Err, errOverlap) {
		tr.overlapping++
		o := tr.options
		o.NoneDisjoint = true
		return tr.plannedWith(t, expr, at, o)
	}
	return res
}

func (tr *trial) plannedWith(t testing.TB, expr string, at times, o Options) *promql.Result {
	t.Helper()
	served := &leaves{}
	q, err := tr.query(served, expr, at)
	require.NoError(t, err)
	defer q.Close()
	stmt := q.Statement().(*parser.EvalStmt)
	before := stmt.Expr.String()
	plan, err := New(t.Context(), stmt, tr.opts.NoStepSubqueryIntervalFn, tr.layout, o)
	require.NoError(t, err)
	tr.adds = false
	for _, leaf := range plan.Leaves {
		w := tr.world
		if leaf.Part != nil {
			tr.parts++
			tr.adds = tr.adds || leaf.Part.Adds
			if w, err = tr.answers(t, leaf.Part); err != nil {
				return &promql.Result{Err: err}
			}
		}
		served.worlds = append(served.worlds, w)
		served.parts = append(served.parts, leaf.Part != nil)
	}
	served.late = tr.world
	require.Equal(t, before, stmt.Expr.String(), "the statement was changed")
	stmt.Expr = plan.Expr
	res := q.Exec(context.Background())
	return &promql.Result{Value: enginetest.Copy(res.Value), Err: res.Err}
}

// leaves answers the selects of an evaluation in order.
type leaves struct {
	storage.LabelQuerier
	mtx    sync.Mutex
	worlds []world
	parts  []bool
	late   world
}

func (l *leaves) Querier(int64, int64) (storage.Querier, error) { return l, nil }
func (l *leaves) Close() error                                  { return nil }

func (l *leaves) Select(_ context.Context, _ bool, _ *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	l.mtx.Lock()
	defer l.mtx.Unlock()
	if len(l.worlds) == 0 { // of info()
		return worldQuerier{world: l.late}.Select(context.Background(), false, nil, ms...)
	}
	w, part := l.worlds[0], l.parts[0]
	l.worlds, l.parts = l.worlds[1:], l.parts[1:]
	if part {
		return newSet(w)
	}
	return worldQuerier{world: w}.Select(context.Background(), false, nil, ms...)
}

// division are the series of a partition: all, those of one target, the others, those
// of one name, the others; and the same without the injected labels.
type division struct {
	all, known [5]world
}

func newTrial(l Layout, w world) *trial {
	opts := enginetest.Options()
	opts.MaxSamples = 1e7
	tr := &trial{engine: promql.NewEngine(opts), opts: opts, layout: l}
	for i, p := range l.Partitions {
		own := w.of(func(ls labels.Labels) bool {
			return has(ls, p) && (l.Distinct == nil || (len(l.Distinct[i]) > 0) == (ls.Get("env") == "dev"))
		})
		tr.world = append(tr.world, own...)
		var d division
		named := func(ls labels.Labels) bool { return ls.Get(labels.MetricName) == "m" }
		d.all = [5]world{
			own,
			own.of(func(ls labels.Labels) bool { return ls.Get("instance") == "0" }),
			own.of(func(ls labels.Labels) bool { return ls.Get("instance") != "0" }),
			own.of(named),
			own.of(func(ls labels.Labels) bool { return !named(ls) }),
		}
		for i, w := range d.all {
			d.known[i] = w.without(slices.Collect(maps.Keys(p)))
		}
		tr.own = append(tr.own, d)
	}
	tr.world.sorted()
	return tr
}

// answers are those of all partitions to a part, as series.
func (tr *trial) answers(t testing.TB, p *Part) (world, error) {
	var all promql.Matrix
	for i, partition := range tr.layout.Partitions {
		pieces := []int{0}
		switch {
		case tr.pieces && p.ByName:
			pieces = []int{3, 4}
		case tr.pieces && p.ByTarget:
			pieces = []int{1, 2}
		}
		for _, piece := range pieces {
			res := tr.evaluate(tr.own[i].all[piece], p.Steps, func() parser.Expr { return p.Copy() })
			if tr.texts {
				said := tr.said(t, p, tr.own[i].known[piece], partition)
				enginetest.RequireSame(t, res, said, 0, statsOnly(p.Expr), p.String())
				tr.texted++
			}
			if res.Err != nil {
				return nil, res.Err
			}
			if tr.doubts(p, res) {
				return nil, errNotTogether
			}
			if p.Disjoint && slices.ContainsFunc(res.Warnings.AsErrors(), func(w error) bool { return errors.Is(w, annotations.PromQLWarning) }) {
				return nil, errOverlap
			}
			for _, series := range res.Value.(promql.Matrix) {
				for _, name := range p.Injected {
					if tr.layout.Distinct != nil && partition[name] == "" {
						continue
					}
					want := ""
					if slices.Contains(p.Carries, name) {
						want = partition[name]
					}
					require.Equal(t, want, series.Metric.Get(name), "%s: %s", p, series.Metric)
				}
				all = append(all, series)
			}
		}
	}
	if p.Disjoint {
		var ok bool
		if all, ok = disjointSeries(all); !ok {
			return nil, errOverlap
		}
		tr.disjoint++
	}
	var out world
	for _, series := range all {
		out = append(out, served(series, p))
	}
	return out.sorted(), nil
}

// disjointSeries makes one series of those with equal labels. It is not ok if two have a sample at one time.
func disjointSeries(list promql.Matrix) (out promql.Matrix, ok bool) {
	at, seen := map[string]int{}, map[string]bool{} // at: in out, by labels
	for _, series := range list {
		key := series.Metric.String()
		var times []int64
		for _, point := range series.Floats {
			times = append(times, point.T)
		}
		for _, point := range series.Histograms {
			times = append(times, point.T)
		}
		for _, t := range times {
			value := fmt.Sprint(key, t)
			if seen[value] {
				return nil, false
			}
			seen[value] = true
		}
		if i, known := at[key]; known {
			out[i].Floats = append(out[i].Floats, series.Floats...)
			out[i].Histograms = append(out[i].Histograms, series.Histograms...)
			continue
		}
		at[key] = len(out)
		out = append(out, series)
	}
	return out, true
}

func has(ls labels.Labels, want map[string]string) bool {
	for name, value := range want {
		if ls.Get(name) != value {
			return false
		}
	}
	return true
}

func (tr *trial) doubts(p *Part, res *promql.Result) bool {
	for _, w := range res.Warnings {
		if p.DoubtfulAnnotation(w.Error()) {
			return true
		}
	}
	for _, series := range res.Value.(promql.Matrix) {
		for _, point := range series.Floats {
			if p.DoubtfulValue(point.F) {
				return true
			}
		}
	}
	return false
}

// evaluate evaluates an expression over a world at some steps.
func (tr *trial) evaluate(w world, s transport.Steps, expr func() parser.Expr) *promql.Result {
	if s.End < s.Start {
		return &promql.Result{Value: promql.Matrix{}}
	}
	q, err := tr.query(w, "vector(0)", times{time.UnixMilli(s.Start), time.UnixMilli(s.End), time.Duration(s.Step) * time.Millisecond})
	if err != nil {
		return &promql.Result{Err: err}
	}
	defer q.Close()
	q.Statement().(*parser.EvalStmt).Expr = expr()
	res := q.Exec(context.Background())
	return &promql.Result{Value: enginetest.Copy(res.Value), Err: res.Err, Warnings: res.Warnings}
}

// said evaluates the text of a part over a partition without its labels, and gives
// them to the answer.
func (tr *trial) said(t testing.TB, p *Part, w world, partition map[string]string) *promql.Result {
	never := labels.MustNewMatcher(labels.MatchEqual, labels.MetricName, "")
	text := p.Text(slices.Collect(maps.Keys(partition)), func(ms []*labels.Matcher) []*labels.Matcher {
		var out []*labels.Matcher
		for _, m := range ms {
			switch v, ok := partition[m.Name]; {
			case !ok:
				out = append(out, m)
			case !m.Matches(v):
				out = append(out, never)
			}
		}
		return out
	})
	expr, err := tr.opts.Parser.ParseExpr(text)
	require.NoError(t, err, text)
	require.Equal(t, text, expr.String())
	s := p.Steps
	if s.End < s.Start {
		return &promql.Result{Value: promql.Matrix{}}
	}
	q, err := tr.query(w, text, times{time.UnixMilli(s.Start), time.UnixMilli(s.End), time.Duration(s.Step) * time.Millisecond})
	require.NoError(t, err, text)
	defer q.Close()
	res := q.Exec(context.Background())
	if res.Err != nil {
		return &promql.Result{Err: res.Err}
	}
	matrix := enginetest.Copy(res.Value).(promql.Matrix)
	for i := range matrix {
		b := labels.NewBuilder(matrix[i].Metric)
		for _, name := range p.Carries {
			if value, ok := partition[name]; ok {
				b.Set(name, value)
			}
		}
		matrix[i].Metric = b.Labels()
	}
	sort.Sort(matrix)
	return &promql.Result{Value: matrix}
}

// statsOnly reports whether any histogram may be read without its buckets.
func statsOnly(e parser.Expr) bool {
	out := false
	parser.Inspect(e, func(node parser.Node, _ []parser.Node) error {
		if vs, ok := node.(*parser.VectorSelector); ok && vs.SkipHistogramBuckets {
			out = true
		}
		return nil
	})
	return out
}

// served is an answer as a series, with a stale marker at each empty step.
func served(series promql.Series, p *Part) storage.Series {
	at := map[int64]chunks.Sample{}
	for _, point := range series.Floats {
		at[point.T] = sample{t: point.T, f: point.F}
	}
	for _, point := range series.Histograms {
		at[point.T] = sample{t: point.T, h: point.H}
	}
	var out []chunks.Sample
	for t := p.Steps.Start; t <= p.Steps.End; t += p.Steps.Step {
		s, ok := at[t]
		if !ok {
			s = sample{t: t, f: math.Float64frombits(value.StaleNaN)}
		}
		out = append(out, s)
	}
	return storage.NewListSeries(series.Metric, out)
}

// builtin are the expressions of upstream's test files.
func builtin(t testing.TB) []string {
	exprs, err := promqltest.GetBuiltInExprs()
	require.NoError(t, err)
	slices.Sort(exprs)
	return slices.Compact(exprs)
}

// TestPlan_Equivalence compares the answers of plans with those of upstream's engine
// over all series.
func TestPlan_Equivalence(t *testing.T) {
	own := expressions(t)
	upstream := builtin(t)
	all := newWorld(t, append(slices.Clone(own), upstream...))
	at := []times{
		{start: time.UnixMilli(1800_123)},
		{start: time.UnixMilli(1500_123), end: time.UnixMilli(3700_000), interval: 97 * time.Second},
	}
	fast := []string{"regions", "held", "grid, divided", "grid, in pieces", "zones, in pieces"}
	for _, c := range []struct {
		name          string
		layout        Layout
		pieces, texts bool
		exprs         []string
		options       Options
	}{
		{"regions", regions, false, true, own, Options{}},
		{"regions, upstream's", regions, false, true, upstream, Options{}},
		{"one, in pieces", one, true, true, own, Options{}},
		{"one, divided", one, true, true, own, Options{Divided: true}},
		{"plain, divided, upstream's", plain, true, false, upstream, Options{Divided: true}},
		{"grid, divided", grids, true, true, own, Options{Divided: true}},
		{"one, in pieces, upstream's", one, true, false, upstream, Options{}},
		{"plain, in pieces", plain, true, false, own, Options{}},
		{"grid, in pieces", grids, true, true, own, Options{}},
		{"held", held, false, true, own, Options{}},
		{"held, upstream's", held, false, true, upstream, Options{}},
		{"held, in pieces", held, true, true, own, Options{Divided: true}},
		{"zones, in pieces", zones, true, true, own, Options{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			// One goroutine plans and evaluates: the race detector would only take four times as long.
			if (testing.Short() || raceDetector) && !slices.Contains(fast, c.name) {
				t.Skip("slow: make test-plan runs it")
			}
			tr := newTrial(c.layout, all)
			tr.pieces, tr.texts, tr.options = c.pieces, c.texts, c.options
			compared, empty, failed := 0, 0, 0
			for _, expr := range c.exprs {
				for _, at := range at {
					q, err := tr.query(tr.world, expr, at)
					if err != nil { // one that is to fail
						require.NotContains(t, own, expr)
						continue
					}
					res := q.Exec(context.Background())
					want := &promql.Result{Value: enginetest.Copy(res.Value), Err: res.Err}
					q.Close()
					tr.compare(t, expr, at, want)
					compared++
					switch {
					case want.Err != nil:
						failed++
					case len(enginetest.Lines(want.Value)) == 0:
						empty++
					}
				}
			}
			require.Less(t, tr.doubted*20, compared)
			t.Logf("%d compared, of them %d failed, %d empty, %d doubtful, %d parts, of them %d disjoint, %d overlapping, %d texts", compared, failed, empty, tr.doubted, tr.parts, tr.disjoint, tr.overlapping, tr.texted)
		})
	}
}

func (tr *trial) compare(t testing.TB, expr string, at times, want *promql.Result) {
	what := fmt.Sprintf("%s at %v", expr, at)
	got := tr.planned(t, expr, at)
	if errors.Is(got.Err, errNotTogether) {
		tr.doubted++
		return
	}
	if v, ok := want.Value.(promql.Vector); ok && got.Err == nil && !strings.HasPrefix(expr, "sort") {
		enginetest.SortByLabels(v)
		enginetest.SortByLabels(got.Value.(promql.Vector))
	}
	tolerance := 0.0
	if tr.adds {
		tolerance = 1e-13
	}
	enginetest.RequireSame(t, want, got, tolerance, false, what)
}
