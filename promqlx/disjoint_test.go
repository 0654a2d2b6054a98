package promqlx

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/promqlx/enginetest"
	"github.com/oneprom/oneprom/promqlx/explain"
	"github.com/oneprom/oneprom/promqlx/plan"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/view"
)

// Aggregations whose series are as a rule of one partition each: the partitions answer them whole, and
// what overlaps is found.

// twoRegions is an engine over two regions with one server each, and the truth. In the data %s stands
// for the label of the region.
func twoRegions(t *testing.T, eu, us string) (e *Engine, all truth, stores []*store) {
	t.Helper()
	stores = []*store{newStore(t, strings.ReplaceAll(eu, "%s", "")), newStore(t, strings.ReplaceAll(us, "%s", ""))}
	e = engineOver(t, config.PartialWarn,
		groupAt("eu", map[string]string{"region": "eu"}, stores[0]), groupAt("us", map[string]string{"region": "us"}, stores[1]))
	all = truthOf(t, strings.ReplaceAll(eu, "%s", `,region="eu"`)+strings.ReplaceAll(us, "%s", `,region="us"`))
	return e, all, stores
}

// cpus are the seconds of two processors of two instances, named by a letter and a number.
func cpus(letter string) string {
	var b strings.Builder
	for i := range 2 {
		for cpu := range 2 {
			fmt.Fprintf(&b, "\n  c_total{cpu=\"%d\",instance=\"%s%d\",job=\"j\"%%s} 0+%dx720", cpu, letter, i, 3+2*i+cpu+int(letter[0]))
		}
	}
	return b.String()
}

// evaluated are the queries that the stores were sent since the last call.
func evaluated(stores []*store) (all []string) {
	for _, s := range stores {
		queries, _ := s.asked()
		all = append(all, queries...)
	}
	return all
}

// wholly are aggregations by labels that tell the partitions apart, or may do so.
var wholly = []string{
	`avg by (instance) (rate(c_total[5m]))`,
	`avg by (instance, job) (c_total)`,
	`quantile by (instance) (0.3, rate(c_total[5m]))`,
	`stddev by (instance) (c_total)`,
	`stdvar by (instance) (rate(c_total[5m]))`,
	`avg without (cpu, region) (c_total)`,
	`quantile without (cpu, region) (0.9, c_total)`,
}

// around are expressions with such aggregations in them.
var around = []string{
	`100 - avg by (instance) (rate(c_total[5m])) * 100`,
	`avg by (instance) (rate(c_total[5m])) > 6.7`,
	`label_replace(avg by (instance) (c_total), "instance", "one", "instance", "a0")`,
	`topk(1, avg by (instance) (c_total))`,
	`max(quantile by (instance) (0.5, c_total))`,
	`max_over_time(avg by (instance) (c_total)[10m:1m])`,
	`avg by (instance) (c_total @ 1500 offset 2m)`,
	`avg by (instance) (rate(c_total[5m])) / on (instance) stddev by (instance) (rate(c_total[5m]))`,
	`avg by (instance) (sum by (instance, region) (c_total))`,
	`avg by (instance) (c_total{cpu="0"} > 4000)`,
	`absent(avg by (instance) (c_total) > 1e9)`,
	`avg(avg by (instance) (c_total))`,
}

// TestDisjoint: each instance is scraped in one region. Each region is asked once, for the aggregation.
func TestDisjoint(t *testing.T) {
	e, all, stores := twoRegions(t, cpus("a"), cpus("b"))
	for _, text := range wholly {
		requireTruth(t, e, all, text, at(60, 90))
		queries := evaluated(stores)
		require.Len(t, queries, 2, text)
		for _, q := range queries {
			require.True(t, strings.HasPrefix(q, text[:strings.IndexByte(text, ' ')]), q)
		}
	}
	for _, text := range slices.Concat(wholly, around) {
		requireTruth(t, e, all, text, at(15, 60))
		requireTruth(t, e, all, text, instantAt(30))
	}
}

// TestDisjoint_Overlapping: an instance is scraped in both regions. That is found once, and remembered.
func TestDisjoint_Overlapping(t *testing.T) {
	e, all, stores := twoRegions(t, cpus("a")+cpus("b"), cpus("b"))
	const text = `avg by (instance) (rate(c_total[5m]))`
	requireTruth(t, e, all, text, at(60, 90))
	require.Len(t, evaluated(stores), 6, "the averages, then the sums and the counts")
	for _, at := range []times{at(60, 90), at(15, 60), instantAt(70)} {
		requireTruth(t, e, all, text, at)
		queries := evaluated(stores)
		require.LessOrEqual(t, len(queries), 4)
		for _, q := range queries {
			require.NotContains(t, q, "avg")
		}
	}
	for _, text := range slices.Concat(wholly, around) {
		requireTruth(t, e, all, text, at(15, 60))
		requireTruth(t, e, all, text, instantAt(30))
	}
}

// TestDisjoint_Forgotten: after some minutes it is tried again.
func TestDisjoint_Forgotten(t *testing.T) {
	stores := []*store{newStore(t, strings.ReplaceAll(cpus("a"), "%s", "")), newStore(t, strings.ReplaceAll(cpus("a"), "%s", ""))}
	e, now := clockedEngine(t, groupAt("eu", map[string]string{"region": "eu"}, stores[0]), groupAt("us", map[string]string{"region": "us"}, stores[1]))
	asked := func(text string) []string {
		res, _ := executed(t, e, text, at(60, 90))
		require.NoError(t, res.Err)
		queries := evaluated(stores)
		return slices.DeleteFunc(queries, func(q string) bool { return !strings.HasPrefix(q, "avg") })
	}
	// The time of `@` is another one each time that a dashboard asks.
	require.Len(t, asked(`avg by (instance) (c_total @ 3600)`), 2)
	require.Empty(t, asked(`avg by (instance) (c_total @ 3700)`))
	now.Add(view.UnusableAge.Milliseconds() - 1)
	require.Empty(t, asked(`avg by (instance) (c_total @ 3800)`))
	now.Add(1)
	require.Len(t, asked(`avg by (instance) (c_total @ 3900)`), 2)
}

// TestDisjoint_Times: an instance was in both regions at some steps, or moved from one to the other.
func TestDisjoint_Times(t *testing.T) {
	series := func(text string) string { return "\n  c_total{instance=\"m\",job=\"j\"%s} " + text }
	for name, c := range map[string]struct {
		eu, us string
		whole  bool
	}{
		"moved once":            {`0+7x120`, `_x160 0+9x560`, true},
		"moved to and fro":      {`0+7x119 _x60 9000+7x60 _x60 9000+9x400`, `_x140 0+8x20 _x100 100+8x20`, true},
		"in both for some time": {`0+7x240`, `_x220 0+9x500`, false},
		"in both, with holes":   {`0+7x720`, `_x180 0+9x10`, false},
		"not a number in one":   {`0+7x160` + strings.Repeat(" NaN", 60), `_x180 0+9x10`, false},
		"without labels":        {`0+7x720`, `0+9x720`, false},
	} {
		t.Run(name, func(t *testing.T) {
			eu, us := cpus("a")+series(c.eu), cpus("b")+series(c.us)
			if name == "without labels" {
				eu, us = strings.ReplaceAll(eu, `instance="m",`, ""), strings.ReplaceAll(us, `instance="m",`, "")
			}
			e, all, stores := twoRegions(t, eu, us)
			const text = `avg by (instance) (c_total)`
			requireTruth(t, e, all, text, at(5, 170))
			queries := evaluated(stores)
			require.Equal(t, c.whole, len(queries) == 2, queries)
			for _, text := range slices.Concat(wholly, around) {
				requireTruth(t, e, all, text, at(5, 170))
				requireTruth(t, e, all, text, instantAt(34))
			}
		})
	}
}

// TestDisjoint_FilterInside: what overlaps is found even if a filter above hides one of the values.
func TestDisjoint_FilterInside(t *testing.T) {
	e, all, _ := twoRegions(t, cpus("a"), cpus("a")+"\n  c_total{cpu=\"9\",instance=\"a0\",job=\"j\"%s} 0+900x720")
	for _, text := range []string{
		`avg by (instance) (c_total) > 20000`,
		`avg by (instance) (c_total) < 120000`,
		`stddev by (instance) (c_total) > 20000`,
		`quantile by (instance) (0.9, c_total) > 20000`,
		`label_replace(avg by (instance) (c_total) > 20000, "x", "y", "", "")`,
		`count(avg by (instance) (c_total) > 20000) or on () vector(0)`,
	} {
		requireTruth(t, e, all, text, at(60, 90))
		requireTruth(t, e, all, text, instantAt(60))
	}
}

const histogram = `{{schema:0 count:3 sum:4 buckets:[1 2]}}x720`

// TestDisjoint_Histograms: floats and histograms have no average, so that a partition which has both says
// nothing of an instance. Quantiles ignore histograms.
func TestDisjoint_Histograms(t *testing.T) {
	mixed := "\n  c_total{cpu=\"h\",instance=\"a0\",job=\"j\"%s} " + histogram
	other := "\n  c_total{cpu=\"o\",instance=\"a0\",job=\"j\"%s} {{schema:-53 count:3 sum:4 custom_values:[1 2] buckets:[1 2]}}x720"
	for name, c := range map[string][2]string{
		"one partition has both":                  {cpus("a") + mixed, cpus("b")},
		"one has both, one has floats":            {cpus("a") + mixed, cpus("a")},
		"one has both, one has histograms":        {cpus("a") + mixed, mixed},
		"one has floats, one has histograms":      {cpus("a"), mixed},
		"two kinds in one, one of them elsewhere": {mixed + other, cpus("b") + mixed},
		"a kind in each":                          {mixed, cpus("b") + other},
	} {
		t.Run(name, func(t *testing.T) {
			e, all, _ := twoRegions(t, c[0], c[1])
			for _, text := range []string{
				`avg by (instance) (c_total)`, `quantile by (instance) (0.3, c_total)`, `stddev by (instance) (c_total)`, `stdvar by (instance) (c_total)`,
				`avg by (instance) (c_total) > 100`, `avg by (instance) (rate(c_total[5m]))`, `histogram_count(avg by (instance) (c_total))`,
			} {
				for range 2 { // whatever is known by then
					requireSameOrNothing(t, e, all, text, at(60, 90))
					requireSameOrNothing(t, e, all, text, instantAt(60))
				}
			}
		})
	}
}

// requireSameOrNothing is requireTruth for a truth that may be empty.
func requireSameOrNothing(t *testing.T, e *Engine, reference truth, text string, at times) {
	t.Helper()
	want, wantSaid := reference(text, at)
	got, said := executed(t, e, text, at)
	require.NoError(t, want.Err, text)
	enginetest.RequireSame(t, want, got, 1e-13, false, text)
	require.Equal(t, wantSaid, said, text)
}

// TestDisjoint_Several: of several aggregations in a query, one overlaps. The query is planned anew once,
// and the next one has only that one divided.
func TestDisjoint_Several(t *testing.T) {
	e, all, stores := twoRegions(t, cpus("a"), cpus("b"))
	const text = `avg by (instance) (rate(c_total[5m])) / on () group_left () avg by (job) (c_total) + on (instance) quantile by (instance) (0.5, c_total)`
	requireTruth(t, e, all, text, at(60, 90))
	evaluated(stores)
	requireTruth(t, e, all, text, at(60, 90))
	var ops []string
	for _, q := range evaluated(stores) {
		op, _, _ := strings.Cut(q, " ")
		ops = append(ops, op)
	}
	slices.Sort(ops)
	require.Equal(t, []string{"avg", "avg", "count", "count", "quantile", "quantile", "sum", "sum"}, ops)
}

// TestDisjoint_Lacking: a pair of which one replica lacks a target for a while. What is by instance is
// divided by target, and what is not is recombined, also the next time.
func TestDisjoint_Lacking(t *testing.T) {
	whole := targets("", true)
	holes := strings.ReplaceAll(whole, `up{instance="t2",job="j"} 1x720`, `up{instance="t2",job="j"} 1x200 _x10 1x510`)
	holes = strings.ReplaceAll(holes, `m_total{instance="t2",job="j"} 0+9x720`, `m_total{instance="t2",job="j"} 0+9x200 _x10 1899+9x510`)
	require.NotEqual(t, whole, holes)
	us := strings.ReplaceAll(whole, `instance="t`, `instance="u`)
	a, b, c := newStore(t, holes), newStore(t, whole), newStore(t, us)
	e := engineOver(t, config.PartialWarn, groupAt("eu", map[string]string{"region": "eu"}, a, b), groupAt("us", map[string]string{"region": "us"}, c))
	in := func(load, region string) string {
		return strings.ReplaceAll(load, `job="j"`, `job="j",region="`+region+`"`)
	}
	all := truthOf(t, in(whole, "eu")+in(us, "us"))
	for range 2 {
		for _, text := range []string{
			`avg by (instance) (rate(m_total[5m]))`, `avg by (job) (rate(m_total[5m]))`, `quantile by (instance) (0.5, m_total)`,
			`quantile by (job) (0.5, m_total)`, `stddev by (instance) (foo)`, `avg by (instance) (m_total) - on (instance) avg by (job, instance) (foo)`,
		} {
			requireTruth(t, e, all, text, at(15, 90))
			requireTruth(t, e, all, text, instantAt(52))
		}
	}
}

// TestDisjoint_LargeFleet: at every moment each replica lacks some targets. What is by instance is divided by
// target. What is not is put together of parts that are, and the next time at once.
func TestDisjoint_LargeFleet(t *testing.T) {
	const fleet = 500
	in := func(load, region string) string {
		return strings.ReplaceAll(load, `job="j"`, `job="j",region="`+region+`"`)
	}
	us := strings.ReplaceAll(wounded(3, -1), `instance="t`, `instance="u`)
	stores := []*store{newStore(t, wounded(fleet, 20)), newStore(t, wounded(fleet, 320)), newStore(t, us)}
	e := engineOver(t, config.PartialWarn, groupAt("eu", map[string]string{"region": "eu"}, stores[:2]...), groupAt("us", map[string]string{"region": "us"}, stores[2]))
	all := truthOf(t, in(wounded(fleet, -1), "eu")+in(us, "us"))
	requireTruth(t, e, all, `avg by (instance) (rate(m_total[5m]))`, at(15, 75))
	out := analyzed(t, e, `avg by (instance) (rate(m_total[5m]))`, at(15, 75))
	require.Len(t, out.Parts, 1)
	requireMostlyRemote(t, out.Parts[0].Partitions[0].Pieces, fleet)
	const text = `avg by (job) (rate(m_total[5m]))`
	require.NotContains(t, planOf(t, e, text, 70).Text(), "not pushed down whole")
	requireTruth(t, e, all, text, at(15, 75))
	require.Contains(t, planOf(t, e, text, 70).Text(), "not pushed down whole: "+text+": more is answered by one replica if the part is divided by target\n")
	evaluated(stores)
	requireTruth(t, e, all, text, at(15, 75))
	require.NotContains(t, strings.Join(evaluated(stores), "\n"), "avg")
}

// TestDisjoint_RegionIsDown: the answer lacks the instances of the region, and says so, as other answers do.
func TestDisjoint_RegionIsDown(t *testing.T) {
	e, _, stores := twoRegions(t, cpus("a"), cpus("b"))
	all := truthOf(t, strings.ReplaceAll(cpus("a"), "%s", `,region="eu"`))
	for _, down := range []bool{false, true} {
		if down {
			stores[1].everywhere(busy(http.StatusServiceUnavailable))
		}
		for _, text := range wholly {
			res, said := executed(t, e, text, at(60, 90))
			require.NoError(t, res.Err)
			if !down {
				require.Empty(t, said)
				continue
			}
			require.Len(t, said, 1, text)
			require.Contains(t, said[0], "us", text)
			want, _ := all(text, at(60, 90))
			enginetest.RequireSame(t, want, res, 1e-13, false, text)
		}
	}
}

// TestDisjoint_Archive: the steps are divided, and an instance is in both regions.
func TestDisjoint_Archive(t *testing.T) {
	for name, us := range map[string]string{"disjoint": cpus("b"), "overlapping": cpus("a") + cpus("b")} {
		t.Run(name, func(t *testing.T) {
			in := func(load, region string) string { return strings.ReplaceAll(load, "%s", region) }
			both := in(cpus("a"), `,region="eu"`) + in(us, `,region="us"`)
			archive := groupAt("archive", nil, newStore(t, both))
			archive.TimeRange = age("1h", "")
			e := engineOver(t, config.PartialWarn,
				groupAt("eu", map[string]string{"region": "eu"}, newStore(t, in(cpus("a"), ""))),
				groupAt("us", map[string]string{"region": "us"}, newStore(t, in(us, ""))), archive)
			all := truthOf(t, both)
			for range 2 {
				out := analyzed(t, e, `avg by (instance) (c_total)`, at(90, 170))
				require.Len(t, out.Stretches, 2)
				require.Equal(t, name == "overlapping", len(out.Stretches[1].NotWhole) == 1)
				for _, text := range slices.Concat(wholly, around[:4]) {
					requireTruth(t, e, all, text, at(90, 170))
				}
			}
		})
	}
}

func analyzed(t *testing.T, e *Engine, text string, at times) *explain.Explanation {
	t.Helper()
	out, _, err := e.Analyze(t.Context(), Question{Query: text, Start: at.start, End: at.end, Interval: at.interval})
	require.NoError(t, err)
	return out
}

// TestDisjoint_Explained: an explanation says why an aggregation is pushed down whole, and why not.
func TestDisjoint_Explained(t *testing.T) {
	const text = `avg by (instance, job) (c_total)`
	e, _, _ := twoRegions(t, cpus("a"), cpus("b"))
	require.Contains(t, analyzed(t, e, text, at(60, 90)).Text(), "\n  part: whole, if no two partitions answer for the same instance, job, divisible by target\n")
	e, _, _ = twoRegions(t, cpus("a"), cpus("a"))
	const why = "\nnot pushed down whole: " + text + ": several partitions answer for the same instance, job\n"
	require.Contains(t, analyzed(t, e, text, at(60, 90)).Text(), why)
	require.Contains(t, planOf(t, e, text, 70).Text(), why)
	require.NotContains(t, planOf(t, e, text+` + 1`, 70).Text(), "part: whole")
	e, _, _ = twoRegions(t, cpus("a")+"\n  c_total{cpu=\"h\",instance=\"a0\",job=\"j\"%s} "+histogram, cpus("b"))
	res, _ := executed(t, e, text, at(60, 90))
	require.NoError(t, res.Err)
	require.Contains(t, planOf(t, e, text, 70).Text(), ": an answer may lack values: PromQL warning: encountered a mix of histograms and floats for aggregation")
}

// BenchmarkDisjoint is what aggregations by instance over two regions cost: "ms" of processor time, of oneprom
// and both servers together, and "x" how many times as much it is where they are not asked for whole.
func BenchmarkDisjoint(b *testing.B) {
	var groups []config.Group
	for _, region := range []string{"eu", "us"} {
		var load strings.Builder
		for i := range 480 { // of 60 instances with 8 processors
			fmt.Fprintf(&load, "\n  up{instance=\"%s%d\",job=\"j\"} 1x720\n  x_total{cpu=\"%d\",instance=\"%[1]s%[2]d\",job=\"j\"} 0+%[4]dx720", region, i/8, i%8, 1+i%7)
		}
		groups = append(groups, groupAt(region, map[string]string{"region": region}, newStoreOf(b, promqltest.LoadedStorage(b, "load 15s"+load.String()))))
	}
	when := times{at(60, 170).start, at(60, 170).end, 15 * time.Second}
	for name, text := range map[string]string{
		"average":  `100 - avg by (instance) (rate(x_total[5m])) * 100`,
		"quantile": `quantile by (instance) (0.9, rate(x_total[5m]))`,
	} {
		b.Run(name, func(b *testing.B) {
			whole, divided := engineOver(b, config.PartialWarn, groups...), engineOver(b, config.PartialWarn, groups...)
			q, err := divided.rangeQuery(b.Context(), nil, text, when.start, when.end, when.interval)
			require.NoError(b, err)
			planned, err := plan.Route(b.Context(), q.Statement().(*parser.EvalStmt), divided.subqueryStep, divided.groups.View(b.Context()), divided.options())
			require.NoError(b, err)
			planned.RememberNotDisjoint(divided.notDisjoint, planned.Leaves[0].Part, "a benchmark")
			q.Close()
			run := func(e *Engine) time.Duration {
				began := processorTime(b)
				res, said := executed(b, e, text, when)
				require.NoError(b, res.Err)
				require.Empty(b, said)
				require.Len(b, res.Value, 120)
				return processorTime(b) - began
			}
			run(whole)
			run(divided)
			var one, two time.Duration
			for b.Loop() {
				one += run(whole)
				two += run(divided)
			}
			b.ReportMetric(one.Seconds()*1000/float64(b.N), "ms")
			b.ReportMetric(float64(two)/float64(one), "x")
		})
	}
}
