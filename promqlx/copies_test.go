package promqlx

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/promqlx/enginetest"
	"github.com/oneprom/oneprom/promqlx/explain"
	"github.com/oneprom/oneprom/servergroup/backendtest"
	"github.com/oneprom/oneprom/servergroup/config"
)

// from is a load of targets whose samples begin at a minute, with holes: from one minute until another.
func from(lset string, minute int, holes ...[2]int) string {
	var b strings.Builder
	for i := range 3 {
		series := func(start, step int) string {
			var out strings.Builder
			at := 0 // scrapes, four a minute
			leave := func(until int) {
				if until > at {
					fmt.Fprintf(&out, " _x%d", until-at)
					at = until
				}
			}
			fill := func(until int) {
				if until > at {
					fmt.Fprintf(&out, " %d+%dx%d", start+at*step, step, until-at-1)
					at = until
				}
			}
			leave(4 * minute)
			for _, h := range holes {
				fill(4 * h[0])
				leave(4 * h[1])
			}
			fill(721)
			return out.String()
		}
		target := fmt.Sprintf(`{instance="t%d",job="j"%s}`, i, lset)
		fmt.Fprintf(&b, "\n  up%s%s\n  m_total%s%s\n  foo%s%s", target, series(1, 0), target, series(0, i+7), target, series(i+1, 0))
	}
	return b.String()
}

// scrapesFail is a load of targets whose scrapes fail from one minute until another.
func scrapesFail(since, until int) string {
	load := from("", 0, [2]int{since, until})
	for i := range 3 {
		up := fmt.Sprintf("up{instance=\"t%d\",job=\"j\"} 1+0x%d _x%d", i, 4*since-1, 4*(until-since))
		if !strings.Contains(load, up) {
			panic(load)
		}
		load = strings.ReplaceAll(load, up, strings.ReplaceAll(up, fmt.Sprintf("_x%d", 4*(until-since)), fmt.Sprintf("0x%d", 4*(until-since)-1)))
	}
	return load
}

// blocked is a store whose server tells of blocks, each from one minute until another.
func blocked(t *testing.T, load string, blocks ...[2]int) *store {
	t.Helper()
	var list []string
	for i, b := range blocks {
		list = append(list, fmt.Sprintf(`{"ulid":"%d","minTime":%d,"maxTime":%d,"compaction":{"sources":["%[1]d"]}}`, i, b[0]*60_000, b[1]*60_000))
	}
	h := backendtest.NewHandler(backendtest.Options{Queryable: promqltest.LoadedStorage(t, "load 15s"+load), EarlyNames: true})
	return newStoreServing(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/v1/status/tsdb/blocks" {
			w.Header().Set("Content-Type", "application/json")
			_, _ = fmt.Fprintf(w, `{"status":"success","data":{"blocks":[%s]}}`, strings.Join(list, ","))
			return
		}
		h.ServeHTTP(w, r)
	}))
}

// copying is a group with copies of the series of others.
func copying(s *store, of ...string) config.Group {
	g := groupAt("archive", nil, s)
	g.CopiesOf = of
	return g
}

// copied are layouts of pairs beside an archive with copies. All samples are in one of them.
func copied(t *testing.T) (layouts map[string][]config.Group, all truth) {
	t.Helper()
	labelled := func(region string) map[string]string { return map[string]string{"region": region} }
	stored := func(load string) *store { return newStore(t, load) }
	whole := targets(`,region="eu"`, true) + targets(`,region="us"`, true)
	a := stored(whole)
	gone := &store{Server: &httptest.Server{URL: "http://127.0.0.1:1"}} // nobody else takes that port
	return map[string][]config.Group{
		"kept since 60 minutes":    {groupAt("eu", labelled("eu"), stored(from("", 60)), stored(from("", 60))), groupAt("us", labelled("us"), stored(from("", 60)), stored(from("", 60))), copying(a, "eu", "us")},
		"kept for different times": {groupAt("eu", labelled("eu"), stored(from("", 20)), stored(from("", 80))), groupAt("us", labelled("us"), stored(from("", 40)), stored(from("", 50))), copying(a, "eu", "us")},
		"archive first":            {copying(a, "eu", "us"), groupAt("eu", labelled("eu"), stored(from("", 60)), stored(from("", 60))), groupAt("us", labelled("us"), stored(from("", 50)))},
		"one was away at a time":   {groupAt("eu", labelled("eu"), stored(from("", 10, [2]int{100, 104})), stored(from("", 10, [2]int{120, 130}))), groupAt("us", labelled("us"), stored(from("", 10))), copying(a, "eu", "us")},
		"both were away at once":   {groupAt("eu", labelled("eu"), stored(from("", 10, [2]int{100, 120})), stored(from("", 10, [2]int{110, 130}))), groupAt("us", labelled("us"), stored(from("", 10))), copying(a, "eu", "us")},
		"the only one was away":    {groupAt("eu", labelled("eu"), stored(from("", 10)), stored(from("", 10))), groupAt("us", labelled("us"), stored(from("", 10, [2]int{100, 120}, [2]int{140, 141}))), copying(a, "eu", "us")},
		"away for hours":           {groupAt("eu", labelled("eu"), stored(from("", 0, [2]int{20, 150}))), groupAt("us", labelled("us"), stored(from("", 10)), stored(from("", 10))), copying(a, "eu", "us")},
		"with blocks": {
			groupAt("eu", labelled("eu"), blocked(t, from("", 60), [2]int{60, 80}, [2]int{80, 150}), blocked(t, from("", 60), [2]int{60, 90}, [2]int{90, 150})),
			groupAt("us", labelled("us"), blocked(t, from("", 60), [2]int{60, 150})), copying(a, "eu", "us"),
		},
		"a block is lost": {
			groupAt("eu", labelled("eu"), blocked(t, from("", 0, [2]int{60, 120}), [2]int{0, 20}, [2]int{20, 60}, [2]int{120, 150}), blocked(t, from("", 0, [2]int{90, 95}), [2]int{0, 20}, [2]int{20, 150})),
			groupAt("us", labelled("us"), blocked(t, from("", 0), [2]int{0, 150})), copying(a, "eu", "us"),
		},
		"it is lost where scrapes failed": {
			groupAt("eu", labelled("eu"), blocked(t, from("", 0, [2]int{60, 120}), [2]int{0, 20}, [2]int{20, 60}, [2]int{120, 150}), blocked(t, scrapesFail(90, 95), [2]int{0, 20}, [2]int{20, 150})),
			groupAt("us", labelled("us"), blocked(t, from("", 0), [2]int{0, 150})), copying(a, "eu", "us"),
		},
		"one of them is gone": {groupAt("eu", labelled("eu"), stored(from("", 10, [2]int{100, 104})), gone), groupAt("us", labelled("us"), stored(from("", 10)), stored(from("", 10))), copying(a, "eu", "us")},
		"both are gone":       {groupAt("eu", labelled("eu"), gone), groupAt("us", labelled("us"), stored(from("", 10)), stored(from("", 10))), copying(a, "eu", "us")},
	}, truthOf(t, whole)
}

// TestCopies_Truth: the answer is the same wherever copies are left out.
func TestCopies_Truth(t *testing.T) {
	layouts, all := copied(t)
	queries := append([]string{
		`sum by (region) (rate(m_total[5m]))`,
		`foo{region="eu"} - ignoring (region) foo{region="us"}`,
		`sum(m_total @ 4000)`,
		`sum(m_total @ 9000)`,
		`sum by (region) (foo @ 9000) + sum by (region) (m_total offset 15m)`,
		`timestamp(m_total)`,
		`sum_over_time(avg by (region) (m_total)[40m:3m])`,
		`max_over_time(sum(m_total)[10m:1m])`,
		`count(foo) unless absent(foo{region="us"})`,
		`{job="j",__name__=~"m_total|foo"}`,
		`topk(1, m_total{region="eu"})`,
		`limitk(10, foo)`,
	}, regionalQueries()...)
	for name, groups := range layouts {
		t.Run(name, func(t *testing.T) {
			e := engineOver(t, config.PartialWarn, groups...)
			for _, text := range queries {
				for _, when := range []times{at(20, 179), at(90, 150), at(140, 179), instantAt(110), instantAt(179)} {
					want, wantSaid := all(text, when)
					if strings.Contains(name, "scrapes failed") && strings.Contains(text, "up == 1") {
						continue // that scrapes of one replica failed is no loss: its `up` is the truth for it
					}
					got, said := executed(t, e, text, when)
					require.NotEmpty(t, enginetest.Lines(want.Value), "%s: nothing to compare", text)
					if got.Err != nil && name == "both are gone" { // nobody knows whether the archive has all copies
						require.ErrorContains(t, got.Err, `this query needs every server group`, text)
						continue
					}
					enginetest.RequireSame(t, want, got, 1e-13, false, text)
					if !strings.HasSuffix(name, "gone") {
						require.Equal(t, wantSaid, said, text)
					} else if strings.Contains(text, "eu") || !strings.Contains(text, "us") {
						require.Contains(t, strings.Join(said, ""), `server group "eu"`, text)
					}
				}
			}
		})
	}
}

// TestCopies_WhoIsAsked: those with copies are asked for what others do not keep, and for times at which all
// of these were away.
func TestCopies_WhoIsAsked(t *testing.T) {
	layouts, _ := copied(t)
	engines := map[string]*Engine{}
	for name, groups := range layouts {
		engines[name] = engineOver(t, config.PartialWarn, groups...)
		_, _, err := engines[name].Analyze(t.Context(), Question{Query: `sum(up)`, Start: at(170, 170).start, End: at(170, 170).end, Interval: time.Minute}) // what servers keep is known from then on
		require.NoError(t, err)
	}
	for _, c := range []struct {
		layout, text string
		at           times
		want         []string
	}{
		{"kept since 60 minutes", `sum(rate(m_total[5m]))`, at(20, 179), []string{"20-70 no parts", "71-179 eu remote us remote"}},
		{"kept since 60 minutes", `sum(rate(m_total[5m]))`, at(100, 179), []string{"100-179 eu remote us remote"}},
		{"kept since 60 minutes", `m_total`, at(100, 179), []string{"100-179 eu local us local"}},
		{"kept since 60 minutes", `sum(rate(m_total{region="us"}[5m]))`, at(100, 179), []string{"100-179 us remote"}},
		{"kept since 60 minutes", `limitk(10, foo)`, at(100, 179), []string{"100-179 no parts"}}, // only parts prove anything
		{"kept for different times", `sum(rate(m_total[5m]))`, at(20, 179), []string{"20-90 no parts", "91-179 eu remote us remote"}},
		{"with blocks", `sum(rate(m_total[5m]))`, at(20, 179), []string{"20-53 archive remote", "54-100 no parts", "101-179 eu remote us remote"}},
		{"a block is lost", `sum(rate(m_total[5m]))`, at(20, 179), []string{"20-30 no parts", "31-53 eu remote us remote", "54-130 no parts", "131-179 eu remote us remote"}},
		{"one was away at a time", `sum(rate(m_total[5m]))`, at(20, 179), []string{"20-20 no parts", "21-179 eu remote remote us remote"}},
		{"both were away at once", `sum(rate(m_total[5m]))`, at(20, 179), []string{"20-20 no parts", "21-104 eu remote remote us remote", "105-130 no parts", "131-179 eu remote us remote"}},
		{"both were away at once", `m_total`, at(20, 179), []string{"20-179 no parts"}},
		{"the only one was away", `sum(rate(m_total[5m]))`, at(20, 179), []string{
			"20-20 no parts", "21-94 eu remote us remote", "95-130 no parts", "131-134 eu remote us remote", "135-151 no parts", "152-179 eu remote us remote",
		}},
		{"away for hours", `sum(rate(m_total[5m]))`, at(20, 179), []string{"20-160 no parts", "161-179 eu remote us remote"}},
		{"one of them is gone", `sum(rate(m_total[5m]))`, at(20, 179), []string{"20-179 no parts"}},
	} {
		require.Equal(t, c.want, stretchesOf(t, engines[c.layout], c.text, c.at), "%s: %s", c.layout, c.text)
	}
}

// TestCopies_BesideWhatIsHeld: what an archive alone holds is asked for although the rest are copies.
func TestCopies_BesideWhatIsHeld(t *testing.T) {
	whole := targets(`,region="eu"`, true) + targets(`,region="us"`, true) + "\n  foo{source=\"oneprom\",instance=\"t9\",job=\"j\",region=\"eu\"} 4x720"
	archive := copying(newStore(t, whole), "eu", "us")
	archive.Holds = []string{`{source="oneprom"}`}
	require.NoError(t, archive.Validate())
	e := engineOver(t, config.PartialWarn,
		groupAt("eu", map[string]string{"region": "eu"}, newStore(t, from("", 60)), newStore(t, from("", 60))),
		groupAt("us", map[string]string{"region": "us"}, newStore(t, from("", 60))), archive)
	all := truthOf(t, whole)
	for _, text := range []string{
		`sum(foo)`, `sum by (region) (foo)`, `count by (source) (foo)`, `foo{source="oneprom"}`, `sum(foo{source!="oneprom"})`, `foo + on (instance, region) m_total`, `sum(rate(m_total[5m]))`,
		`max_over_time(sum(foo)[10m:1m])`, `topk(1, foo)`,
	} {
		for _, when := range []times{at(20, 179), at(90, 150), instantAt(179)} {
			requireTruth(t, e, all, text, when)
		}
	}
	require.Equal(t, []string{"100-179 eu remote us remote archive remote"}, stretchesOf(t, e, `sum(foo)`, at(100, 179)))
	old := at(40, 50)
	out, _, err := e.Analyze(t.Context(), Question{Query: `sum(foo)`, Start: old.start, End: old.end, Interval: old.interval})
	require.NoError(t, err)
	require.Contains(t, out.Text(), "asked for copies: archive: others do not keep all samples up to 1970-01-01T01:00:00.000Z\n")
	require.Equal(t, []string{"100-179 eu remote us remote archive remote"}, stretchesOf(t, e, `sum(rate(m_total[5m]))`, at(100, 179)))
}

// TestCopies_OneStopsAnswering: copies are asked for as soon as a server is gone that was there when the query
// was planned.
func TestCopies_OneStopsAnswering(t *testing.T) {
	whole := targets(`,region="eu"`, true) + targets(`,region="us"`, true)
	a, all := newStore(t, whole), truthOf(t, whole)
	for _, text := range []string{`sum(rate(m_total[5m]))`, `sum by (region) (m_total)`, `m_total`} {
		for name, gone := range map[string]int{"one of a pair": 0, "the only one": 2} {
			t.Run(name+" "+text, func(t *testing.T) {
				stores := []*store{newStore(t, from("", 10)), newStore(t, scrapesFail(100, 104)), newStore(t, from("", 10))}
				e := engineOver(t, config.PartialWarn, groupAt("eu", map[string]string{"region": "eu"}, stores[:2]...), groupAt("us", map[string]string{"region": "us"}, stores[2]), copying(a, "eu", "us"))
				for i, when := range []times{at(150, 179), at(90, 140), at(150, 179)} {
					if i == 1 {
						require.Equal(t, []string{"160-170 eu remote us remote"}, stretchesOf(t, e, `sum(m_total)`, at(160, 170)))
						stores[gone].Close()
					}
					want, _ := all(text, when)
					got, _ := executed(t, e, text, when)
					enginetest.RequireSame(t, want, got, 1e-13, false, text)
				}
			})
		}
	}
}

// TestCopies_OneHasLostSeries: what a replica has lost while its twin was away is in the copies.
func TestCopies_OneHasLostSeries(t *testing.T) {
	const series = "\n  lost{instance=\"t0\",job=\"j\"%s} %s"
	whole := targets(`,region="eu"`, true) + fmt.Sprintf(series, `,region="eu"`, "1x720")
	e := engineOver(t, config.PartialWarn, groupAt("eu", map[string]string{"region": "eu"},
		newStore(t, from("", 0)+fmt.Sprintf(series, "", "1x239 _x241 1x239")),
		newStore(t, from("", 0, [2]int{90, 95})+fmt.Sprintf(series, "", "1x359 _x20 1x340"))), copying(newStore(t, whole), "eu"))
	for _, text := range []string{`sum(lost)`, `count_over_time(lost[5m])`} {
		for range 2 {
			requireTruth(t, e, truthOf(t, whole), text, at(70, 110))
		}
	}
}

// TestCopies_OfRecordings: what rules write is where a replica was, which is known though nobody scrapes it.
func TestCopies_OfRecordings(t *testing.T) {
	const recorded = "\n  total:foo{job=\"j\"%s} %s"
	whole := targets(`,region="eu"`, true) + fmt.Sprintf(recorded, `,region="eu"`, "0+2x720")
	all := truthOf(t, whole)
	a := newStore(t, whole)
	one := func(series string, holes ...[2]int) *store {
		return newStore(t, from("", 0, holes...)+fmt.Sprintf(recorded, "", series))
	}
	for name, c := range map[string]struct {
		pair []*store
		want []string
	}{
		"whole":             {[]*store{one("0+2x720"), one("0+2x720")}, []string{"80-179 eu local"}},
		"in turns":          {[]*store{one("0+2x399 _x40 880+2x280", [2]int{100, 110}), one("0+2x479 _x20 1000+2x220", [2]int{120, 125})}, []string{"80-93 eu local", "94-119 no parts", "120-179 eu local"}},
		"never all of them": {[]*store{one("0+2x399 _x40 880+2x280", [2]int{100, 110}), one("0+2x419 _x40 920+2x260", [2]int{105, 115})}, []string{"80-93 eu local", "94-124 no parts", "125-179 eu local"}},
		"only one":          {[]*store{one("0+2x720")}, []string{"80-179 eu remote"}},
		"only one, away":    {[]*store{one("0+2x399 _x40 880+2x280", [2]int{100, 110})}, []string{"80-94 eu remote", "95-120 no parts", "121-179 eu remote"}},
	} {
		t.Run(name, func(t *testing.T) {
			e := engineOver(t, config.PartialWarn, groupAt("eu", map[string]string{"region": "eu"}, c.pair...), copying(a, "eu"))
			for _, text := range []string{`sum(rate(total:foo[5m]))`, `total:foo`, `sum({__name__="total:foo"}) + count(up)`} {
				for _, when := range []times{at(80, 179), at(80, 179), instantAt(107)} {
					requireTruth(t, e, all, text, when)
				}
			}
			require.Equal(t, c.want, stretchesOf(t, e, `sum(total:foo)`, at(80, 179)))
		})
	}
}

// TestCopies_WhyTheyAreAsked: an explanation says why a group is asked for copies.
func TestCopies_WhyTheyAreAsked(t *testing.T) {
	layouts, _ := copied(t)
	for _, c := range []struct {
		layout string
		at     times
		want   string
	}{
		{"kept since 60 minutes", at(100, 179), ""},
		{"kept since 60 minutes", at(40, 50), "others do not keep all samples up to 1970-01-01T01:00:00.000Z"},
		{"a block is lost", at(100, 110), "others do not keep all samples up to 1970-01-01T02:00:00.000Z"},
		{"both were away at once", at(105, 110), "others may have lost samples, or cannot prove that they have all"},
		{"both are gone", at(100, 179), `server group "eu": it is not known for how long http://`},
	} {
		e := engineOver(t, config.PartialWarn, layouts[c.layout]...)
		var out *explain.Explanation
		for range 2 { // what servers keep is known from the first query on
			var err error
			out, _, err = e.Analyze(t.Context(), Question{Query: `sum(rate(m_total[5m]))`, Start: c.at.start, End: c.at.end, Interval: c.at.interval})
			require.NoError(t, err)
		}
		if c.want == "" {
			require.NotContains(t, out.Text(), "asked for copies")
			require.Contains(t, out.Text(), "not asked: archive: its samples of that time are copies (copies_of) of those that other groups keep\n")
		} else {
			require.Contains(t, out.Text(), "asked for copies: archive: "+c.want, c.layout)
		}
	}
}

// TestCopies_VolumeIsLost: a replica was started again with an empty volume since it was found to be there. Its
// samples are merged with its twin's, as each of them has missed some.
func TestCopies_VolumeIsLost(t *testing.T) {
	whole := targets(`,region="eu"`, true)
	missing := func(targets ...int) *store { // from 100 to 104 minutes
		var b strings.Builder
		hole := strings.Split(from("", 0, [2]int{100, 104}), "\n")
		for i, line := range strings.Split(from("", 0), "\n") {
			if slices.ContainsFunc(targets, func(n int) bool { return strings.Contains(line, fmt.Sprintf(`instance="t%d"`, n)) }) {
				line = hole[i]
			}
			b.WriteString("\n" + line)
		}
		return newStore(t, strings.TrimPrefix(b.String(), "\n"))
	}
	pair := []*store{missing(0, 1), missing(2)}
	e := engineOver(t, config.PartialWarn, groupAt("eu", map[string]string{"region": "eu"}, pair...), copying(newStore(t, whole), "eu"))
	const text, merged = `sum(rate(m_total[5m]))`, "101-104 eu local"
	all := truthOf(t, targets(`,region="eu"`, true))
	got, _ := executed(t, e, text, at(101, 104))
	require.NoError(t, got.Err)
	require.Equal(t, []string{merged}, stretchesOf(t, e, text, at(101, 104)))

	pair[1].everywhere(backendtest.NewHandler(backendtest.Options{Queryable: promqltest.LoadedStorage(t, "load 15s"), EarlyNames: true}).ServeHTTP)
	pair[1].CloseClientConnections()
	requireTruth(t, e, all, text, at(101, 104))
}
