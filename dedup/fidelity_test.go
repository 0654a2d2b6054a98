package dedup

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/stretchr/testify/require"
)

// load is what one replica holds: series in promqltest notation, scraped at
// every interval after an offset.
type load struct {
	interval, offset time.Duration
	series           []string
}

// replicaSet is a storage of replicas, merged.
type replicaSet struct {
	t        testing.TB
	replicas []load
}

func (r replicaSet) Querier(mint, maxt int64) (storage.Querier, error) {
	return &setQuerier{replicaSet: r, mint: mint, maxt: maxt}, nil
}

type setQuerier struct {
	storage.LabelQuerier
	replicaSet
	mint, maxt int64
}

func (q *setQuerier) Close() error { return nil }

func (q *setQuerier) Select(_ context.Context, _ bool, _ *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	runs := map[string][]Run{}
	sets := map[string]labels.Labels{}
	for _, l := range q.replicas {
		for _, line := range l.series {
			lset, values, err := parser.NewParser(parser.Options{}).ParseSeriesDesc(line)
			require.NoError(q.t, err)
			if slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return !m.Matches(lset.Get(m.Name)) }) {
				continue
			}
			s := &Samples{}
			for i, v := range values {
				if !v.Omitted {
					s.Append(0, (l.offset + time.Duration(i)*l.interval).Milliseconds(), v.Value)
				}
			}
			sets[lset.String()] = lset
			runs[lset.String()] = append(runs[lset.String()], clip(s, q.mint-Margin, q.maxt+Margin))
		}
	}
	list := &seriesList{}
	for name, lset := range sets {
		list.rest = append(list.rest, NewSeries(lset, runs[name], q.mint, q.maxt, nil))
	}
	slices.SortFunc(list.rest, func(a, b *Series) int { return labels.Compare(a.labels, b.labels) })
	return list
}

type seriesList struct {
	rest []*Series
	cur  *Series
}

func (l *seriesList) Next() bool {
	if len(l.rest) == 0 {
		return false
	}
	l.cur, l.rest = l.rest[0], l.rest[1:]
	return true
}
func (l *seriesList) At() storage.Series                { return l.cur }
func (l *seriesList) Err() error                        { return nil }
func (l *seriesList) Warnings() annotations.Annotations { return nil }

// The cases of replicas in fidelity.md, section 10, by number.
func TestFidelityCases(t *testing.T) {
	const s15, s30, s60 = 15 * time.Second, 30 * time.Second, time.Minute
	every := func(interval, offset time.Duration, series ...string) load {
		return load{interval: interval, offset: offset, series: series}
	}
	for _, tc := range []struct {
		name     string
		replicas []load
		want     map[string]float64 // query to value
		at       int64              // seconds
	}{
		{
			"8",
			[]load{every(s15, 0, `foo{i="1"} 1+0x40`), every(s15, 0, `foo{i="1"} 1+0x40`, `foo{i="2"} 1+0x40`)},
			map[string]float64{"sum(foo)": 2},
			300,
		},
		{
			"8 reversed",
			[]load{every(s15, 0, `foo{i="1"} 1+0x40`, `foo{i="2"} 1+0x40`), every(s15, 0, `foo{i="1"} 1+0x40`)},
			map[string]float64{"sum(foo)": 2},
			300,
		},
		{
			"9",
			[]load{every(s15, 0, `foo{i="1"} 1+0x40`), every(s15, 0, `foo{i="2"} 1+0x40`)},
			map[string]float64{"sum(foo)": 2, "count(foo)": 2},
			300,
		},
		{
			"10",
			[]load{every(s15, 0, `c 0+15x10 _x10 315+15x19`), every(s15, 0, `c 0+15x40`)},
			map[string]float64{"increase(c[5m])": 300, "count_over_time(c[5m])": 20},
			450,
		},
		{
			"11",
			[]load{every(s60, 0, `s _x8 1 1 1`), every(s60, 0, `s 1 50 1+0x8`)},
			map[string]float64{"max_over_time(s[10m])": 50},
			600,
		},
		{
			"13, two whole clocks",
			[]load{every(s30, 0, `c 0+30x40`), every(s30, s15, `c 15+30x40`)},
			map[string]float64{"increase(c[10m])": 600, "count_over_time(c[10m])": 20, "resets(c[10m])": 0},
			900,
		},
		{
			"13, A down 120-240, B down 300-420",
			[]load{every(s30, 0, `c 0+30x3 _x5 270+30x20`), every(s30, s15, `c 15+30x9 _x4 435+30x20`)},
			map[string]float64{"increase(c[10m])": 600, "resets(c[10m])": 0},
			600,
		},
		{
			"13, A misses two",
			[]load{every(s30, 0, `c 0+30x6 _x2 270+30x20`), every(s30, s15, `c 15+30x40`)},
			map[string]float64{"increase(c[10m])": 600, "resets(c[10m])": 0},
			600,
		},
		{
			"19",
			[]load{every(s15, 0, `c 0+15x40`), every(s15, 0, `c 3+15x40`)},
			map[string]float64{"count_over_time(c[5m])": 20, "resets(c[5m])": 0},
			450,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			engine := newEngine(t)
			for expr, want := range tc.want {
				q, err := engine.NewInstantQuery(t.Context(), replicaSet{t, tc.replicas}, nil, expr, time.Unix(tc.at, 0))
				require.NoError(t, err)
				vec, err := q.Exec(t.Context()).Vector()
				require.NoError(t, err)
				require.Len(t, vec, 1, expr)
				require.InDelta(t, want, vec[0].F, 1e-9, expr)
				q.Close()
			}
		})
	}
}

func TestFidelityCase12(t *testing.T) {
	engine := newEngine(t)
	for _, pair := range [][2]string{
		{`foo 1 2 3 4 stale 6 7 8 9 10`, `foo 1 2 3 4 5 6 7 stale 9 10`},
		{`foo 1 2 3 4 5 6 7 8 9 stale`, `foo _x3 4 5 6 7 8 9 10`},
	} {
		replicas := []load{
			{interval: time.Minute, series: []string{pair[0]}},
			{interval: time.Minute, series: []string{pair[1]}},
		}
		q, err := engine.NewRangeQuery(t.Context(), replicaSet{t, replicas}, nil, "foo", time.Unix(0, 0), time.Unix(540, 0), time.Minute)
		require.NoError(t, err)
		m, err := q.Exec(t.Context()).Matrix()
		require.NoError(t, err)
		require.Len(t, m, 1)
		require.Len(t, m[0].Floats, 10)
		for i, p := range m[0].Floats {
			require.Equal(t, float64(i+1), p.F)
		}
		q.Close()
	}
}

// Case 13 as samples: no hole is longer than 1.5 intervals.
func TestFidelityCase13HasNoHole(t *testing.T) {
	out := merge(run(t, "0..90/30 270..870/30"), run(t, "15..285/30 435..885/30"))
	for i := 1; i < out.Len(); i++ {
		require.LessOrEqual(t, out.T[i]-out.T[i-1], int64(45_000))
	}
}

func newEngine(t *testing.T) *promql.Engine {
	e := promql.NewEngine(promql.EngineOpts{MaxSamples: 1e6, Timeout: time.Minute})
	t.Cleanup(func() { require.NoError(t, e.Close()) })
	return e
}
