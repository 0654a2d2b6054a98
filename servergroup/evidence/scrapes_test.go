package evidence

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// ups is the `up` of a target, every 15 s from a time (ms) on: one sample for each
// letter. u is up, d is down, s a stale marker, and _ no sample at all.
func ups(from int64, letters string) *dedup.Samples {
	run := &dedup.Samples{}
	for i, l := range letters {
		t := from + int64(i)*15_000
		switch l {
		case 'u':
			run.Append(0, t, 1)
		case 'd':
			run.Append(0, t, 0)
		case 's':
			run.Append(0, t, dedup.StaleNaN)
		}
	}
	return run
}

// times repeats letters.
func times(n int, letters string) string { return strings.Repeat(letters, n) }

func targetNamed(instance string) labels.Labels {
	return labels.FromStrings("__name__", "up", "instance", instance, "job", "j")
}

// seriesUp is what a replica has of one target.
func seriesUp(run *dedup.Samples) []transport.Series {
	return []transport.Series{{Labels: targetNamed("i"), Run: run}}
}

func slicesFrom(begin int64, n int) []*sliceScrapes {
	table := newTargetTable()
	out := make([]*sliceScrapes, n)
	for i := range out {
		out[i] = &sliceScrapes{begin: begin + int64(i)*scrapeSlice, table: table, failed: map[int]error{}}
	}
	return out
}

// missedText prints what each replica missed of its target, in s.
func missedText(list []*sliceScrapes) []string {
	out := make([]string, len(list[0].missed))
	for _, s := range list {
		for r, missed := range s.missed {
			for _, m := range missed {
				from, to := s.begin+int64(m.from), s.begin+int64(m.to)
				out[r] += fmt.Sprintf(" %g-%g", float64(from)/1000, float64(to)/1000)
			}
			out[r] = strings.TrimSpace(out[r])
		}
	}
	return out
}

func TestCompareScrapes(t *testing.T) {
	for name, c := range map[string]struct {
		runs []*dedup.Samples
		want []string
	}{
		"both whole, clocks shifted": {
			[]*dedup.Samples{ups(0, times(120, "u")), ups(7_000, times(119, "u"))}, []string{"", ""},
		},
		"both whole, one clock": {
			[]*dedup.Samples{ups(0, times(120, "u")), ups(0, times(120, "u"))}, []string{"", ""},
		},
		"one lost scrape": {
			[]*dedup.Samples{ups(0, times(40, "u")+"_"+times(40, "u")), ups(7_000, times(80, "u"))}, []string{"607-607", ""},
		},
		"one lost scrape with one clock": {
			[]*dedup.Samples{ups(0, times(40, "u")+"_"+times(40, "u")), ups(0, times(81, "u"))}, []string{"600-600", ""},
		},
		"two lost scrapes": {
			[]*dedup.Samples{ups(0, times(40, "u")+"_"+times(5, "u")+"_"+times(40, "u")), ups(7_000, times(87, "u"))}, []string{"607-607 697-697", ""},
		},
		"away for five minutes": {
			[]*dedup.Samples{ups(0, times(40, "u")+times(20, "_")+times(40, "u")), ups(7_000, times(100, "u"))}, []string{"607-892", ""},
		},
		"a scrape failed for one": {
			[]*dedup.Samples{ups(0, times(40, "u")+"d"+times(40, "u")), ups(7_000, times(80, "u"))}, []string{"600-607", ""},
		},
		"a scrape failed for one with one clock": {
			[]*dedup.Samples{ups(0, times(40, "u")+"d"+times(40, "u")), ups(0, times(81, "u"))}, []string{"600-600", ""},
		},
		"a target gone while down ends nothing once more": {
			[]*dedup.Samples{ups(0, times(40, "u")+"d"+times(40, "u")), ups(7_000, times(32, "u")+times(7, "d")+"s"+times(41, "u"))}, []string{"600-607", "480-592"},
		},
		"a scrape failed for the other": {
			[]*dedup.Samples{ups(0, times(81, "u")), ups(7_000, times(40, "u")+"d"+times(40, "u"))}, []string{"", "600-607"},
		},
		"down for both": {
			[]*dedup.Samples{ups(0, times(40, "u")+times(20, "d")+times(40, "u")), ups(7_000, times(40, "u")+times(20, "d")+times(40, "u"))}, []string{"", ""},
		},
		"down for both, and one was away": {
			[]*dedup.Samples{ups(0, times(40, "u")+times(10, "d")+times(10, "_")+times(40, "d")), ups(7_000, times(40, "u")+times(60, "d"))}, []string{"757-892", ""},
		},
		"the other saw it down later": {
			[]*dedup.Samples{ups(0, times(40, "u")+times(20, "d")), ups(7_000, times(42, "u")+times(18, "d"))}, []string{"600-637", ""},
		},
		"born and gone at different times": {
			[]*dedup.Samples{ups(0, times(10, "_")+times(20, "u")+"s"), ups(7_000, times(9, "_")+times(21, "u")+"s")}, []string{"", ""},
		},
		"never seen by the one": {
			[]*dedup.Samples{nil, ups(7_000, times(4, "u"))}, []string{"7-52", ""},
		},
		"down, and never seen by the one": {
			[]*dedup.Samples{nil, ups(7_000, times(4, "d"))}, []string{"7-52", ""},
		},
		"rolling restart": {
			[]*dedup.Samples{
				ups(0, times(20, "u")+times(8, "_")+times(60, "u")),
				ups(7_000, times(40, "u")+times(8, "_")+times(40, "u")),
			},
			[]string{"307-412", "600-705"},
		},
		"a third has what both others have lost": {
			[]*dedup.Samples{
				ups(0, times(20, "u")+times(8, "_")+times(20, "u")),
				ups(5_000, times(20, "u")+times(8, "_")+times(20, "u")),
				ups(10_000, times(48, "u")),
			},
			[]string{"295-400", "310-415", ""},
		},
	} {
		t.Run(name, func(t *testing.T) {
			list := slicesFrom(0, 1)
			lists := make([][]transport.Series, len(c.runs))
			for i, run := range c.runs {
				lists[i] = []transport.Series{}
				if run != nil {
					lists[i] = seriesUp(run)
				}
			}
			_, err := compareScrapes(list, lists, nil)
			require.NoError(t, err)
			require.Equal(t, c.want, missedText(list))
			require.True(t, list[0].targets.contains(0))
		})
	}
}

func TestCompareScrapes_EachMissesAnotherTarget(t *testing.T) {
	whole, broken := times(80, "u"), times(40, "u")+times(4, "_")+times(36, "u")
	list := slicesFrom(0, 1)
	_, err := compareScrapes(list, [][]transport.Series{
		{{Labels: targetNamed("a"), Run: ups(0, broken)}, {Labels: targetNamed("b"), Run: ups(0, whole)}},
		{{Labels: targetNamed("b"), Run: ups(7_000, broken)}, {Labels: targetNamed("c"), Run: ups(7_000, "u")}},
	}, nil)
	require.NoError(t, err)
	require.Equal(t, []labels.Labels{targetNamed("a"), targetNamed("b"), targetNamed("c")}, list[0].table.all())
	require.Equal(t, [][]missedSpan{{{2, 7_000, 7_000}}, {{0, 0, 1_185_000}, {1, 600_000, 645_000}}}, list[0].missed)
}

func TestCompareScrapes_WhoWasNotAskedIsNotCompared(t *testing.T) {
	list := slicesFrom(0, 1)
	_, err := compareScrapes(list, [][]transport.Series{nil, seriesUp(ups(0, "uu"))}, nil)
	require.NoError(t, err)
	require.Equal(t, []string{"", ""}, missedText(list))
	require.True(t, list[0].targets.contains(0))
}

func TestCompareScrapes_GapOverABoundaryIsInBothSlices(t *testing.T) {
	list := slicesFrom(0, 2)
	_, err := compareScrapes(list, [][]transport.Series{
		seriesUp(ups(0, times(110, "u")+times(20, "_")+times(110, "u"))), seriesUp(ups(7_000, times(240, "u"))),
	}, nil)
	require.NoError(t, err)
	require.Len(t, list[0].missed[0], 1)
	require.Len(t, list[1].missed[0], 1)
	require.Equal(t, []string{"1657-1792 1807-1942", ""}, missedText(list))
}

func TestCompareScrapes_TargetTwiceInOneReplica(t *testing.T) {
	list := slicesFrom(0, 1)
	twice := append(seriesUp(ups(0, "uu")), seriesUp(ups(0, "uu"))...)
	_, err := compareScrapes(list, [][]transport.Series{twice, seriesUp(ups(0, "uu"))}, nil)
	require.NoError(t, err)
	require.Equal(t, targetNamed("i").String(), list[0].duplicate)
}

func TestCompareScrapes_BrokenSamplesTellTheirReplica(t *testing.T) {
	for name, data := range map[string][]byte{"short": {0}, "garbage": {0, 9, 1, 2}} {
		t.Run(name, func(t *testing.T) {
			bad := dedup.Chunks{{MinT: 0, MaxT: 1000, Encoding: chunkenc.EncXOR, Data: data}}
			list, failed := slicesFrom(0, 1), map[int]error{}
			compareDecodable(list, [][]transport.Series{
				append(seriesUp(ups(0, "uu")), transport.Series{Labels: targetNamed("j"), Run: ups(0, "uuuu")}),
				append(seriesUp(ups(0, "uu")), transport.Series{Labels: targetNamed("j"), Run: bad}),
				append(seriesUp(ups(0, "uu")), transport.Series{Labels: targetNamed("j"), Run: ups(0, "u")}),
			}, failed, nil)
			require.Len(t, failed, 1)
			require.ErrorContains(t, failed[1], "broken samples of "+targetNamed("j").String())
			require.Equal(t, [][]missedSpan{nil, nil, {{1, 15_000, 45_000}}}, list[0].missed)
		})
	}
}

// randomUps is a scraper with a clock of its own that now and then is away, whose
// target fails at times.
func randomUps(rnd *rand.Rand, interval, until int64) *dedup.Samples {
	run := &dedup.Samples{}
	away, down := int64(0), int64(0)
	for t := rnd.Int64N(interval); t < until; t += interval {
		switch rnd.IntN(60) {
		case 0:
			away = t + rnd.Int64N(10*interval)
		case 1:
			down = t + rnd.Int64N(5*interval)
		case 2:
			if n := run.Len(); n > 0 && t >= away && !run.Stale(n-1) {
				run.Append(0, t+rnd.Int64N(5), dedup.StaleNaN)
				away = t + 1 + rnd.Int64N(5*interval)
			}
		}
		if t < away {
			continue
		}
		v := 1.0
		if t < down {
			v = 0
		}
		run.Append(0, t+rnd.Int64N(5), v)
	}
	return run
}

// TestCompareScrapes_SlicesDoNotMatter: what is found out slice by slice, and from
// the samples around each alone, is what is found out over all time at once.
func TestCompareScrapes_SlicesDoNotMatter(t *testing.T) {
	const n = 6
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		interval := []int64{5_000, 15_000, 30_000, 60_000}[rnd.IntN(4)]
		var all [][]transport.Series
		for range 2 + rnd.IntN(2) {
			all = append(all, seriesUp(randomUps(rnd, interval, n*scrapeSlice)))
		}
		whole := slicesFrom(0, n)
		_, err := compareScrapes(whole, all, nil)
		require.NoError(t, err)
		margin := dedup.MarginOf(len(all))
		for i := range whole {
			one := slicesFrom(whole[i].begin, 1)
			part := make([][]transport.Series, len(all))
			for r := range all {
				run := &dedup.Samples{}
				require.NoError(t, all[r][0].Run.AppendTo(run, one[0].begin-margin-dedup.Margin, one[0].begin+scrapeSlice-1+margin))
				part[r] = seriesUp(run)
			}
			_, err := compareScrapes(one, part, nil)
			require.NoError(t, err)
			require.Equal(t, whole[i].missed, one[0].missed, "seed %d, slice %d", seed, i)
			require.Equal(t, whole[i].targets, one[0].targets)
		}
	}
}

// TestCompareScrapes_WholeMeansThatTheMergeIsItsOwn: where a replica missed nothing,
// a series of the target that comes with every scrape is in the merge as it is in
// the replica.
func TestCompareScrapes_WholeMeansThatTheMergeIsItsOwn(t *testing.T) {
	const n = 3
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		runs := []*dedup.Samples{randomUps(rnd, 15_000, n*scrapeSlice), randomUps(rnd, 15_000, n*scrapeSlice)}
		list := slicesFrom(0, n)
		_, err := compareScrapes(list, [][]transport.Series{seriesUp(runs[0]), seriesUp(runs[1])}, nil)
		require.NoError(t, err)
		for r := range runs {
			own, twin := seriesOfTarget(runs[r]), seriesOfTarget(runs[1-r])
			merged := dedup.Merge(&dedup.Samples{}, []*dedup.Samples{own, twin})
			for t0 := int64(0); t0 < n*scrapeSlice; t0 += 5 * 60_000 {
				from, to := t0, t0+5*60_000-1
				s := list[from/scrapeSlice]
				if slices.ContainsFunc(s.missed[r], func(m missedSpan) bool {
					return s.begin+int64(m.from) <= to && s.begin+int64(m.to) >= from
				}) {
					continue
				}
				a, b := &dedup.Samples{}, &dedup.Samples{}
				require.NoError(t, own.AppendTo(a, from, to))
				require.NoError(t, merged.AppendTo(b, from, to))
				require.Equal(t, a.T, b.T, "seed %d, replica %d", seed, r)
			}
		}
	}
}

// almostSteady are the scrapes of two or three replicas that go alike, or nearly so.
func almostSteady(rnd *rand.Rand) []*dedup.Samples {
	interval := []int64{20, 1_000, 5_000, 15_000, 20_000, 24_000, 30_000, 60_000}[rnd.IntN(8)]
	late := []int64{1, 5, 20, 1 + interval/5, 1 + interval/2}[rnd.IntN(5)]
	grid := []int64{1, 1, 1_000}[rnd.IntN(3)] // clocks differ by multiples of it
	begin := 1_000_000 + rnd.Int64N(200_000)
	end := begin + (2+rnd.Int64N(40))*interval
	one := func(in int) bool { return rnd.IntN(in) == 0 }
	runs := make([]*dedup.Samples, 2+rnd.IntN(2))
	for r := range runs {
		from, to, every := begin+rnd.Int64N(interval)/grid*grid, end, interval
		if one(5) {
			from += rnd.Int64N(3 * interval)
		}
		if one(5) {
			to += rnd.Int64N(3 * interval)
		}
		if one(5) {
			every += rnd.Int64N(interval/2 + 1)
		}
		runs[r] = &dedup.Samples{}
		for t := from; t < to; t += every {
			value := 1.0
			switch rnd.IntN(400) {
			case 0:
				continue
			case 1:
				value = 0
			case 2:
				value = dedup.StaleNaN
			}
			at := t + rnd.Int64N(late)
			if n := runs[r].Len(); n == 0 || at > runs[r].T[n-1] {
				runs[r].Append(0, at, value)
			}
		}
	}
	return runs
}

// TestSteady: where a glance tells that nothing was missed, the merge tells so too, and
// there is no failed scrape that it would have to be asked about once more.
func TestSteady(t *testing.T) {
	const cases = 100_000
	decided := 0
	for seed := range uint64(cases) {
		runs := almostSteady(rand.New(rand.NewPCG(seed, 3)))
		if !steady(runs) {
			continue
		}
		decided++
		for r, own := range runs {
			order := append(append([]*dedup.Samples{own}, runs[:r]...), runs[r+1:]...)
			require.Same(t, own, dedup.Merge(&dedup.Samples{}, order), "seed %d, replica %d", seed, r)
			require.Same(t, own, successes(&dedup.Samples{}, own), "seed %d, replica %d", seed, r)
		}
	}
	require.Greater(t, decided, cases/10)
}

// seriesOfTarget is another series of a target as Prometheus writes it: a value
// for a scrape that succeeded, a marker for the first that failed.
func seriesOfTarget(up *dedup.Samples) *dedup.Samples {
	out := &dedup.Samples{}
	alive := false
	for i, t := range up.T {
		ok := up.F[i] == 1
		switch {
		case ok:
			out.Append(0, t, float64(t))
		case alive:
			out.Append(0, t, dedup.StaleNaN)
		}
		alive = ok
	}
	return out
}

// BenchmarkEvidence compares one slice of 10,000 targets of a pair that scrapes
// every 15 s.
func BenchmarkEvidence(b *testing.B) {
	const targets = 10_000
	const begin = 10 * scrapeSlice
	const before, after = 48, 24 // samples around the slice
	for _, c := range []struct{ name, letters string }{
		{"whole", times(before+120+after, "u")},
		{"one away for ten minutes", times(before+40, "u") + times(40, "_") + times(40+after, "u")},
		{"one away", times(before, "u") + times(120, "_") + times(after, "u")},
		{"one in ten down", ""},
	} {
		b.Run(c.name, func(b *testing.B) {
			lists := make([][]transport.Series, 2)
			for r := range lists {
				for i := range targets {
					letters := times(before+120+after, "u")
					switch {
					case c.letters == "" && i%10 == 0:
						letters = times(before+60, "u") + times(60+after, "d")
					case c.letters != "" && r == 0:
						letters = c.letters
					}
					ls := labels.FromStrings("__name__", "up", "instance", fmt.Sprintf("10.0.%03d.%03d:9100", i/250, i%250), "job", "node")
					run := xorRun(b, ups(begin-before*15_000+int64(r*7_000+i%7_000), letters))
					lists[r] = append(lists[r], transport.Series{Labels: ls, Run: run})
				}
			}
			table := newTargetTable()
			var s *sliceScrapes
			for b.Loop() {
				s = &sliceScrapes{begin: begin, table: table}
				_, err := compareScrapes([]*sliceScrapes{s}, lists, nil)
				require.NoError(b, err)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/targets, "ns/target")
			b.ReportMetric(float64(s.bytes()), "B/slice")
			b.ReportMetric(float64(table.size()), "B/table")
		})
	}
}

// xorRun compresses samples as remote read does.
func xorRun(b testing.TB, s *dedup.Samples) dedup.Run {
	c := chunkenc.NewXORChunk()
	app, err := c.Appender()
	require.NoError(b, err)
	for i, t := range s.T {
		app.Append(0, t, s.F[i])
	}
	return dedup.Chunks{{MinT: s.T[0], MaxT: s.T[len(s.T)-1], Encoding: chunkenc.EncXOR, Data: c.Bytes()}}
}
