package plan

import (
	"context"
	"hash/fnv"
	"maps"
	"math"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"
)

// This file makes the samples that plans are tried on.

// sample is a float or a histogram at a time.
type sample struct {
	t int64
	f float64
	h *histogram.FloatHistogram
}

func (s sample) T() int64                      { return s.t }
func (s sample) ST() int64                     { return 0 }
func (s sample) F() float64                    { return s.f }
func (s sample) H() *histogram.Histogram       { return nil }
func (s sample) FH() *histogram.FloatHistogram { return s.h }
func (s sample) Copy() chunks.Sample           { return s }
func (s sample) Type() chunkenc.ValueType {
	if s.h != nil {
		return chunkenc.ValFloatHistogram
	}
	return chunkenc.ValFloat
}

// world is a storage of series in the order of their names and labels.
type world []storage.Series

func (w world) sorted() world {
	slices.SortStableFunc(w, func(a, b storage.Series) int {
		if c := strings.Compare(a.Labels().Get(labels.MetricName), b.Labels().Get(labels.MetricName)); c != 0 {
			return c
		}
		return labels.Compare(a.Labels(), b.Labels())
	})
	return w
}

// named returns the series that may match a name.
func (w world) named(ms []*labels.Matcher) world {
	for _, m := range ms {
		if m.Name == labels.MetricName && m.Type == labels.MatchEqual {
			from := sort.Search(len(w), func(i int) bool { return w[i].Labels().Get(labels.MetricName) >= m.Value })
			to := sort.Search(len(w), func(i int) bool { return w[i].Labels().Get(labels.MetricName) > m.Value })
			return w[from:to]
		}
	}
	return w
}

// of returns the series that have some labels.
func (w world) of(keep func(labels.Labels) bool) world {
	return slices.DeleteFunc(slices.Clone(w), func(s storage.Series) bool { return !keep(s.Labels()) })
}

// without returns the series without some labels.
func (w world) without(names []string) world {
	out := make(world, len(w))
	for i, s := range w {
		out[i] = relabelled{s, labels.NewBuilder(s.Labels()).Del(names...).Labels()}
	}
	return out.sorted()
}

type relabelled struct {
	storage.Series
	labels labels.Labels
}

func (s relabelled) Labels() labels.Labels { return s.labels }

func (w world) Querier(int64, int64) (storage.Querier, error) { return worldQuerier{world: w}, nil }

type worldQuerier struct {
	storage.LabelQuerier
	world world
}

func (q worldQuerier) Select(_ context.Context, _ bool, _ *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	return newSet(q.world.named(ms).of(func(ls labels.Labels) bool {
		return !slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return !m.Matches(ls.Get(m.Name)) })
	}))
}

func (worldQuerier) Close() error { return nil }

// worldSet goes through a world.
type worldSet struct {
	storage.SeriesSet // an empty one
	rest              world
	at                storage.Series
}

func newSet(w world) storage.SeriesSet {
	return &worldSet{SeriesSet: storage.EmptySeriesSet(), rest: w}
}

func (s *worldSet) Next() bool {
	if len(s.rest) == 0 {
		return false
	}
	s.at, s.rest = s.rest[0], s.rest[1:]
	return true
}

func (s *worldSet) At() storage.Series { return s.at }

// The span and the interval of the samples of a world.
const (
	worldEnd = 3600_000
	scrape   = 15_000
)

// newWorld holds series of each metric that the expressions name, in two regions,
// each of one zone, and two environments, of two instances. Their other labels take
// the values that the expressions ask for.
func newWorld(t testing.TB, exprs []string) world {
	t.Helper()
	asked := map[string]map[string][]string{} // metric, label, values
	for _, text := range exprs {
		expr, err := parser.NewParser(promqltest.TestParserOpts).ParseExpr(text)
		if err != nil {
			continue
		}
		for _, ms := range parser.ExtractSelectors(expr) {
			ask(asked, ms)
		}
	}
	require.Greater(t, len(asked), 250)
	var w world
	for name, values := range asked {
		for n := range 24 {
			region, env := []string{"eu", "us"}[n%2], []string{"dev", "prod"}[n/2%2]
			b := labels.NewBuilder(labels.FromStrings(
				"__name__", name, "region", region, "env", env, "zone", region+"1", "instance", strconv.Itoa(n/4%2), "pod", strconv.Itoa(n/8),
			))
			if name == "typed" {
				b.Set("__type__", "gauge")
			}
			for i, label := range slices.Sorted(maps.Keys(values)) {
				if list := values[label]; !slices.Contains([]string{"region", "env", "zone", "instance", "le"}, label) {
					b.Set(label, list[(n*7/3+i)%len(list)])
				}
			}
			w = append(w, seriesOf(b.Labels())...)
		}
	}
	return w.sorted()
}

func ask(asked map[string]map[string][]string, ms []*labels.Matcher) {
	var name string
	for _, m := range ms {
		if m.Name == labels.MetricName && m.Type == labels.MatchEqual {
			name = m.Value
		}
	}
	if name == "" || strings.Contains(name, "nonexistent") {
		return
	}
	if asked[name] == nil {
		asked[name] = map[string][]string{"job": {"api", "db", "web"}}
	}
	for _, m := range ms {
		if m.Name != labels.MetricName && m.Value != "" && m.Type == labels.MatchEqual && !slices.Contains(asked[name][m.Name], m.Value) {
			asked[name][m.Name] = append(asked[name][m.Name], m.Value)
		}
	}
}

// seriesOf makes the samples of the series with some labels: what they are like
// depends on the name, and their values on all labels. Floats are fractions of two
// that add up without an error, so that no order of adding matters, and as a rule no
// two are equal, so that topk() has no choice.
func seriesOf(ls labels.Labels) world {
	name := ls.Get(labels.MetricName)
	sum := fnv.New32a()
	_, _ = sum.Write([]byte(ls.String()))
	seed := int64(sum.Sum32() % 9973)
	switch {
	case strings.HasSuffix(name, "_bucket"):
		var out world
		for i, le := range []string{"0.1", "0.5", "1", "10", "+Inf"} {
			out = append(out, floats(labels.NewBuilder(ls).Set("le", le).Labels(), seed, func(k int64) float64 {
				return float64((k + seed%7) * int64(i+1))
			}))
		}
		return out
	case strings.Contains(name, "mix") && seed%2 == 0, name == "h", strings.Contains(strings.ToLower(name), "hist") && !strings.Contains(name, "mix"):
		return world{histograms(ls, seed, tsdbutil.GenerateTestFloatHistogram)}
	case strings.Contains(name, "nhcb"), strings.Contains(name, "custom"):
		return world{histograms(ls, seed, tsdbutil.GenerateTestCustomBucketsFloatHistogram)}
	case name == "big":
		return world{floats(ls, seed, func(k int64) float64 { return 1e308 + float64((k+seed)%7)*1e307 })}
	case strings.HasSuffix(name, "_total"), strings.Contains(name, "count"), strings.Contains(name, "request"):
		return world{floats(ls, seed, func(k int64) float64 { return float64((k*(1+seed%61))%(2000+seed))/4 + float64(seed)/16384 })}
	}
	return world{floats(ls, seed, func(k int64) float64 {
		switch v := (k*7919+seed*104729)%1999 - 700; {
		case v%97 == 0:
			return math.NaN()
		case v%89 == 0:
			return math.Inf(int(v % 2))
		default:
			return float64(v) + float64(seed)/16384
		}
	})}
}

// floats are samples of a series with holes and stale markers, that may begin late
// or end early.
func floats(ls labels.Labels, seed int64, f func(k int64) float64) storage.Series {
	return storage.NewListSeries(ls, timed(seed, func(k, t int64) sample { return sample{t: t, f: f(k)} }))
}

func histograms(ls labels.Labels, seed int64, f func(int64) *histogram.FloatHistogram) storage.Series {
	return storage.NewListSeries(ls, timed(seed, func(k, t int64) sample { return sample{t: t, h: f((k + seed%5) % 180)} }))
}

func timed(seed int64, at func(k, t int64) sample) []chunks.Sample {
	var out []chunks.Sample
	for k := int64(0); k*scrape <= worldEnd; k++ {
		t := k*scrape + seed%scrape
		switch phase := (k + seed) % 101; {
		case seed%5 == 0 && k > 150, seed%7 == 0 && k < 40, phase > 40 && phase < 70 && seed%3 == 0:
		case phase == 20 && seed%2 == 0:
			out = append(out, sample{t: t, f: math.Float64frombits(value.StaleNaN)})
		default:
			out = append(out, at(k, t))
		}
	}
	return out
}
