package promqlx

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/promqlx/enginetest"
	"github.com/oneprom/oneprom/servergroup/backendtest"
	"github.com/oneprom/oneprom/servergroup/backendtest/dialect"
	"github.com/oneprom/oneprom/servergroup/config"
)

// spelled is the data of two targets over two hours: a histogram, a summary, and what targets give no
// type. of returns the values of a series that counts up; it may be of several lines.
func spelled(lset string, line func(series, values string) string) string {
	var b strings.Builder
	for i := range 2 {
		target := fmt.Sprintf(`job="j",instance="i%d"%s`, i, lset)
		for j, le := range []string{"0.5", "1.0", "2.0", "1000.0", "1e+06", "+Inf"} {
			b.WriteString(line(fmt.Sprintf(`x_bucket{%s,le="%s"}`, target, le), fmt.Sprintf("%d+%dx480", j, j+1+i)))
		}
		for j, q := range []string{"0.0", "0.5", "1.0"} {
			b.WriteString(line(fmt.Sprintf(`s{%s,quantile="%s"}`, target, q), fmt.Sprintf("%d+%dx480", j, j+i)))
		}
		// as the target spells it
		fmt.Fprintf(&b, "\n  u{%s,le=\"1\"} %d+1x480\n  u{%s,le=\"3.0\"} %d+1x480\n  v_bucket{%s,le=\"1\"} 0+%dx480\n  g{%s,quantile=\"1\"} 1x480", target, i, target, i, target, i+1, target)
		fmt.Fprintf(&b, "\n  x_sum{%s} 0+1x480\n  x_count{%s} 0+6x480\n  up{%s} 1x480", target, target, target)
	}
	return b.String()
}

func asIs(series, values string) string { return "\n  " + series + " " + values }

var verbatim = strings.NewReplacer(`"1.0"`, `"1"`, `"2.0"`, `"2"`, `"0.0"`, `"0"`, `"1000.0"`, `"1e3"`, `"1e+06"`, `"1000000"`)

func oldSpelling(series, values string) string { return asIs(verbatim.Replace(series), values) }

// respelled is in the old spelling in the first hour.
func respelled(series, values string) string {
	old := verbatim.Replace(series)
	if old == series {
		return asIs(series, values)
	}
	var from, by, n int
	if _, err := fmt.Sscanf(values, "%d+%dx%d", &from, &by, &n); err != nil {
		panic(err)
	}
	return asIs(old, fmt.Sprintf("%d+%dx239 _x241", from, by)) + asIs(series, fmt.Sprintf("_x240 %d+%dx240", from+240*by, by))
}

var spelledTypes = map[string][]metadata.Metadata{
	"x": {{Type: model.MetricTypeHistogram}}, "s": {{Type: model.MetricTypeSummary}},
	"u": {{Type: model.MetricTypeUnknown}}, "v": {{Type: model.MetricTypeGaugeHistogram}}, "g": {{Type: model.MetricTypeGauge}},
}

// spelling is how a replica has the data.
type spelling struct {
	line func(series, values string) string
	as2  bool
	read backendtest.RemoteRead
}

func (s spelling) store(t *testing.T, lset string) *store {
	t.Helper()
	o := backendtest.Options{Queryable: promqltest.LoadedStorage(t, "load 15s"+spelled(lset, s.line)), EarlyNames: true, RemoteRead: s.read, Metadata: spelledTypes}
	var h http.Handler
	if s.as2 {
		h = dialect.NewPrometheus2(o)
	} else {
		h = backendtest.NewHandler(o)
	}
	return newStoreServing(t, h)
}

// bySpelling are queries to which the spelling of numbers matters. The second list finds nothing.
var bySpelling = []string{
	`x_bucket`, `s`, `u`, `v_bucket`, `g`,
	`sum by (le) (rate(x_bucket[5m]))`,
	`histogram_quantile(0.9, sum by (le) (rate(x_bucket[5m])))`,
	`histogram_quantile(0.5, rate(x_bucket[5m]))`,
	`x_bucket{le="1.0"}`, `sum(rate(x_bucket{le="2.0",job="j"}[5m]))`, `x_bucket{le="1000.0"}`, `x_bucket{le="1e+06"}`,
	`x_bucket{le="0.5"}`, `sum(x_bucket{le="+Inf"})`,
	`{le="1"}`, `{le="1.0"}`, `{le=~"1|2.0"}`, `{le=~"1.*",job="j"}`, `{__name__=~".*_bucket",le!="1"}`, `x_bucket{le!="1.0"}`, `x_bucket{le!~"1.*"}`, `x_bucket{le=~"1.0|[2-9].*"}`,
	`{quantile="1"}`, `{quantile="1.0"}`, `s{quantile="0.5"}`, `s{quantile!="1.0"}`, `max by (quantile) (s)`, `sum(s{quantile=~"0|1.0"})`,
	`count(x_bucket)`, `count by (__name__, le) ({job="j"})`, `sum(rate(x_bucket[5m]))`, `changes(x_bucket{le="2.0"}[30m])`,
	`sum by (le) (increase(x_bucket[10m])) / on () group_left () sum(increase(x_bucket{le="+Inf"}[10m]))`,
	`avg(u)`, `sum by (job) (rate(v_bucket{le="1"}[5m]))`, `max_over_time(x_bucket{le="1.0"}[20m:1m])`, `x_count / 2`,
}

var bySpellingNothing = []string{`x_bucket{le="1"}`, `x_bucket{le=~"1|2"}`, `s{quantile="1"}`, `s{quantile=~"0|1"}`, `u{le="1.0"}`}

func TestSpelling_IsThatOfPrometheus3(t *testing.T) {
	three, two := spelling{line: asIs}, spelling{line: oldSpelling, as2: true}
	kept := spelling{line: oldSpelling}           // blocks of a Prometheus 2
	middle := spelling{line: respelled}           // upgraded after an hour
	other := spelling{line: respelled, as2: true} // its exporters changed their format
	by := func(s spelling, read backendtest.RemoteRead) spelling {
		s.read = read
		return s
	}
	group := func(change func(*config.Group), spellings ...spelling) []config.Group {
		var stores []*store
		for _, s := range spellings {
			stores = append(stores, s.store(t, ""))
		}
		cfg := groupAt("g", nil, stores...)
		change(&cfg)
		return []config.Group{cfg}
	}
	on := func(*config.Group) {}
	all := truthOf(t, spelled("", asIs))
	for name, fleet := range map[string]func() []config.Group{
		"pair, one upgraded":       func() []config.Group { return group(on, three, two) },
		"pair, the other upgraded": func() []config.Group { return group(on, two, three) },
		"pair, merged":             func() []config.Group { return group(mergeAll, three, two) },
		"pair, just upgraded":      func() []config.Group { return group(on, kept, middle) },
		"upgraded":                 func() []config.Group { return group(on, middle) },
		"upgraded, no push-down":   func() []config.Group { return group(pushdownOff, middle) },
		"upgraded, samples":        func() []config.Group { return group(on, by(middle, backendtest.SamplesOnly)) },
		"upgraded, query API":      func() []config.Group { return group(on, by(middle, backendtest.NoRemoteRead)) },
		"Prometheus 2": func() []config.Group {
			return group(on, by(other, backendtest.NoRemoteRead), by(two, backendtest.SamplesOnly))
		},
		"all three": func() []config.Group {
			return group(mergeAll, by(two, backendtest.NoRemoteRead), middle, by(three, backendtest.SamplesOnly))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := engineOver(t, config.PartialError, fleet()...)
			for _, times := range []times{at(30, 50), at(55, 75), at(90, 100), instantAt(62)} {
				for _, text := range bySpelling {
					requireTruth(t, e, all, text, times)
				}
				for _, text := range bySpellingNothing {
					res, said := executed(t, e, text, times)
					require.NoError(t, res.Err, text)
					require.Empty(t, said, text)
					require.Empty(t, enginetest.Lines(res.Value), text)
				}
			}
		})
	}
}

// Two regions, of which one has been upgraded.
func TestSpelling_OfShards(t *testing.T) {
	eu, us := map[string]string{"region": "eu"}, map[string]string{"region": "us"}
	all := truthOf(t, spelled(`,region="eu"`, asIs)+spelled(`,region="us"`, asIs))
	for _, read := range []backendtest.RemoteRead{backendtest.Streamed, backendtest.SamplesOnly, backendtest.NoRemoteRead} {
		two := spelling{line: oldSpelling, as2: true, read: read}.store(t, "")
		three := spelling{line: asIs}.store(t, "")
		e := engineOver(t, config.PartialError, groupAt("eu", eu, two), groupAt("us", us, three))
		three.asked()
		for _, text := range append([]string{`sum by (region, le) (rate(x_bucket[5m]))`, `sum by (region) (x_bucket{le="1.0",region=~"e.|us"})`}, bySpelling...) {
			requireTruth(t, e, all, text, at(30, 50))
		}
		queries, _ := three.asked()
		require.Contains(t, queries, `sum by (le) (rate({__name__="x_bucket"}[5m]))`, "what spells as Prometheus 3 evaluates")
	}
}

// A replica without metadata, as its series were not scraped: names tell.
func TestSpelling_WithoutMetadata(t *testing.T) {
	load := spelled("", oldSpelling)
	h := dialect.NewPrometheus2(backendtest.Options{Queryable: promqltest.LoadedStorage(t, "load 15s"+load), EarlyNames: true})
	s := newStoreServing(t, h)
	e := engineOver(t, config.PartialError, groupAt("g", nil, s))
	all := truthOf(t, spelled("", asIs))
	told := func(label, metric, kind string) []string {
		return []string{fmt.Sprintf(`warn: server group "g": %s: %s of %s is shown in the spelling of Prometheus 3, as it looks like a %s; the backend has no metadata that says so`, s.URL, label, metric, kind)}
	}
	f := func(text string, want []string) {
		t.Helper()
		wanted, _ := all(text, at(30, 50))
		got, said := executed(t, e, text, at(30, 50))
		enginetest.RequireSame(t, wanted, got, 1e-13, false, text)
		require.Len(t, said, len(want), text)
		for i := range want {
			require.Contains(t, want[i], said[i], text)
		}
	}
	f(`sum by (le) (rate(x_bucket[5m]))`, told("le", "x_bucket", "histogram"))
	f(`x_bucket{le="1.0"}`, told("le", "x_bucket", "histogram"))
	f(`x_bucket{le="1"}`, told("le", "x_bucket", "histogram")) // nothing, if it is a histogram
	f(`s{quantile="1.0"}`, told("quantile", "s", "summary"))
	f(`s{quantile="0.5"}`, nil)
	f(`u`, nil)
	f(`{le="1",__name__!~".*_bucket"}`, nil)
	f(`x_count`, nil)
}

// A Prometheus 3 has brought what it scraped to its spelling. Other spellings are old, or came as they
// are: without metadata nothing tells which, and it is believed.
func TestSpelling_WithoutMetadataInPrometheus3(t *testing.T) {
	serve := func(load string) *store {
		return newStoreServing(t, backendtest.NewHandler(backendtest.Options{Queryable: promqltest.LoadedStorage(t, "load 15s"+load), EarlyNames: true}))
	}
	for _, text := range []string{`sum by (le) (rate(x_bucket[5m]))`, `x_bucket{le="1"}`, `x_bucket{le="1.0"}`, `s`, `u`} {
		for _, line := range []func(series, values string) string{oldSpelling, respelled} {
			e := engineOver(t, config.PartialError, groupAt("g", nil, serve(spelled("", line))))
			want, _ := truthOf(t, spelled("", line))(text, at(55, 75))
			got, said := executed(t, e, text, at(55, 75))
			enginetest.RequireSame(t, want, got, 1e-13, false, text)
			require.Empty(t, said, text)
		}
	}
}

// A replica that stored nothing odd when it was probed.
func TestSpelling_ThatChanges(t *testing.T) {
	all := truthOf(t, spelled("", asIs))
	for _, text := range []string{`x_bucket{le="1.0"}`, `sum by (le) (rate(x_bucket[5m]))`, `x_bucket`, `s{quantile="1.0"}`} {
		for _, read := range []backendtest.RemoteRead{backendtest.Streamed, backendtest.NoRemoteRead} {
			s := spelling{line: asIs, as2: true, read: read}.store(t, "")
			e := engineOver(t, config.PartialError, groupAt("g", nil, s))
			requireTruth(t, e, all, text, at(30, 50))
			later := spelling{line: oldSpelling, as2: true, read: read}.store(t, "")
			s.everywhere(later.own.ServeHTTP)
			requireTruth(t, e, all, text, at(30, 50))
		}
	}
	// one that evaluates
	s := spelling{line: asIs}.store(t, "")
	e := engineOver(t, config.PartialError, groupAt("g", nil, s))
	requireTruth(t, e, all, `sum by (le) (rate(x_bucket[5m]))`, at(55, 75))
	s.everywhere(spelling{line: respelled}.store(t, "").own.ServeHTTP)
	requireTruth(t, e, all, `sum by (le) (rate(x_bucket[5m]))`, at(55, 75))
}

// Where all spell as Prometheus 3, a query sends what it always sent.
func TestSpelling_CanonicalCostsNothing(t *testing.T) {
	s := spelling{line: asIs}.store(t, "")
	lines := strings.NewReplacer(`le="1"`, `le="1.5"`, `quantile="1"`, `quantile="0.1"`).Replace(spelled("", asIs))
	own := backendtest.NewHandler(backendtest.Options{Queryable: promqltest.LoadedStorage(t, "load 15s"+lines), EarlyNames: true})
	s.everywhere(func(w http.ResponseWriter, r *http.Request) {
		s.note(&s.queries, r.URL.Path)
		own.ServeHTTP(w, r)
	})
	e := engineOver(t, config.PartialError, groupAt("g", nil, s))
	_, _ = executed(t, e, `up`, at(30, 50))
	for text, want := range map[string]string{
		`sum by (le) (rate(x_bucket[5m]))`:                          "/api/v1/query_range",
		`histogram_quantile(0.9, sum by (le) (rate(x_bucket[5m])))`: "/api/v1/query_range",
		`sum(x_bucket{le="1.0"})`:                                   "/api/v1/query_range",
		`x_bucket{le=~"1.0|2.0"}`:                                   "/api/v1/read",
	} {
		s.asked()
		res, said := executed(t, e, text, at(30, 50))
		require.NoError(t, res.Err)
		require.Empty(t, said)
		requests, _ := s.asked()
		require.Equal(t, []string{want}, requests, text)
	}
}

// What replicas missed is compared for all series, however they are spelled.
func TestSpelling_OfReplicasThatWereAway(t *testing.T) {
	hole := func(line func(series, values string) string) func(series, values string) string {
		return func(series, values string) string {
			var from, by, n int
			if _, err := fmt.Sscanf(values, "%d+%dx%d", &from, &by, &n); err != nil {
				return line(series, values)
			}
			return line(series, fmt.Sprintf("%d+%dx159 _x40 %d+%dx280", from, by, from+200*by, by))
		}
	}
	load := strings.ReplaceAll(spelled("", hole(oldSpelling)), "} 1x480", "} 1x159 _x40 1x280")
	all := truthOf(t, spelled("", asIs))
	a := newStoreServing(t, dialect.NewPrometheus2(backendtest.Options{Queryable: promqltest.LoadedStorage(t, "load 15s"+load), EarlyNames: true, Metadata: spelledTypes}))
	b := spelling{line: oldSpelling, as2: true}.store(t, "")
	e := engineOver(t, config.PartialError, groupAt("g", nil, a, b))
	for _, text := range []string{`x_bucket{le="2.0"}`, `x_bucket{le="1000.0"}`, `sum(rate(x_bucket{le="1.0"}[5m]))`, `s{quantile=~"1.0"}`} {
		requireTruth(t, e, all, text, at(40, 60))
	}
}
