package servergroup

import (
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/util/teststorage"
	"github.com/stretchr/testify/assert" //nolint:depguard // in goroutines
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest"
	"github.com/oneprom/oneprom/servergroup/backendtest/scraper"
	"github.com/oneprom/oneprom/servergroup/evidence"
	"github.com/oneprom/oneprom/servergroup/replica"
)

const (
	minute = int64(60_000)
	hour   = 60 * minute
)

const (
	away  = scraper.Away
	there = scraper.There
)

// evidenceSet returns a set of one group of the servers, whose clock stands at a
// time (ms).
func evidenceSet(t *testing.T, now int64, servers ...*httptest.Server) (*Set, *clock) {
	t.Helper()
	s, c := setAt(t, groupOf("g", servers...))
	c.ms.Store(now)
	return s, c
}

// evidenceOf returns what scrapes and counts show.
func evidenceOf(t *testing.T, s *Set, selector string, from, to int64) evidence.Shown {
	t.Helper()
	v := s.View(t.Context())
	sh, err := v.Evidence(t.Context(), v.Groups[0], matchersOf(t, selector), from, to)
	require.NoError(t, err)
	if c := sh.Counting; c != nil {
		sh.Missed, sh.Lacking, _ = c.Await(t.Context())
		sh.Counting = nil
	}
	return sh
}

func TestEvidence_WhatAReplicaMissed(t *testing.T) {
	samples := func(o *backendtest.Options) { o.RemoteRead = backendtest.SamplesOnly }
	for name, change := range map[string]func(*backendtest.Options){"streamed": func(*backendtest.Options) {}, "samples": samples} {
		t.Run(name, func(t *testing.T) {
			a := backend(t, "load 15s"+away, change, external("replica", "a"))
			b := backend(t, "load 15s"+there, change, external("replica", "b"))
			cfg := groupOf("g", a, b)
			cfg.Labels = map[string]string{"region": "eu"}
			s, c := setAt(t, cfg)
			c.ms.Store(3 * hour)
			f := func(selector string, from, to int64, targets int, want map[string][]evidence.Span) {
				t.Helper()
				sh := evidenceOf(t, s, selector, from, to)
				require.Empty(t, sh.Unavailable)
				require.Empty(t, sh.Failed)
				require.Equal(t, targets, sh.Targets)
				require.Equal(t, []map[string][]evidence.Span{want, {}}, sh.Missed)
			}
			f(`foo{path="/"}`, 2*hour-10*minute, 2*hour, 0, map[string][]evidence.Span{})                                                 // of no target
			f("foo", 0, 2*hour, 2, map[string][]evidence.Span{"b": {{From: 1_500_000, To: 1_785_000}, {From: 1_800_000, To: 2_085_000}}}) // in two slices
			f("foo", 0, 25*minute-1, 2, map[string][]evidence.Span{})
			f("foo", 26*minute, 27*minute, 2, map[string][]evidence.Span{"b": {{From: 26 * minute, To: 27 * minute}}})
			f(`foo{instance="a"}`, 0, 2*hour, 1, map[string][]evidence.Span{})
			f(`foo{region="eu",job=~"j|k",path=""}`, 2*hour-10*minute, 2*hour, 2, map[string][]evidence.Span{})
			require.Contains(t, evidenceOf(t, s, `foo{region="us"}`, 0, 2*hour).Unavailable, `region="eu" does not match`)
		})
	}
}

func TestEvidence_SettledSlicesAreAskedForOnce(t *testing.T) {
	a, b := scraper.New(t, away), scraper.New(t, there)
	s, c := evidenceSet(t, 3*hour, a.Server, b.Server)
	asked := func(want int64) {
		t.Helper()
		require.Equal(t, []int64{want, want}, []int64{a.Ups.Load(), b.Ups.Load()})
	}
	first := evidenceOf(t, s, "foo", 10*minute, 2*hour-1) // four slices at once
	asked(1)
	c.ms.Add(hour)
	require.Equal(t, first, evidenceOf(t, s, "foo", 10*minute, 2*hour-1))
	evidenceOf(t, s, `bar{instance="x"}`, 40*minute, hour) // another selector, the same scrapes
	asked(1)
	evidenceOf(t, s, "foo", hour, 3*hour-1) // two more
	asked(2)
}

func TestEvidence_YoungSlicesAreAskedForAgain(t *testing.T) {
	a, b := scraper.New(t, away), scraper.New(t, there)
	now := 2 * hour
	s, c := evidenceSet(t, now, a.Server, b.Server)
	f := func(want, to int64) {
		t.Helper()
		evidenceOf(t, s, "foo", to-minute, to)
		require.Equal(t, want, a.Ups.Load())
	}
	f(1, now-1)
	f(1, now-1) // nothing is newer
	c.ms.Add(1000)
	f(2, now-1)    // the next slice, which has begun just now, as samples may be older than their scrapes
	f(2, now+1000) // nothing is newer
	c.ms.Add(1000)
	f(3, now+2000) // both have gone on; the first is the one before
	c.ms.Add(evidence.ProvisionalAge)
	f(4, now+2000)
	f(4, now+2000)
	// Ten minutes after its end a slice is settled, and so is the next one.
	c.ms.Store(now + 40*minute)
	f(5, now-1)
	c.ms.Add(evidence.ProvisionalAge)
	f(6, now-1)
	c.ms.Add(evidence.ProvisionalAge)
	f(6, now-1)
}

func TestEvidence_LongRangesAreAskedForInRuns(t *testing.T) {
	a, b := scraper.New(t, away), scraper.New(t, there)
	s, _ := evidenceSet(t, 100*hour, a.Server, b.Server)
	evidenceOf(t, s, "foo", 30*minute, hour-1)
	evidenceOf(t, s, "foo", 0, 2*hour-1) // what is before that, and after
	require.EqualValues(t, 3, a.Ups.Swap(0))
	evidenceOf(t, s, "foo", 5*hour, 19*hour-1) // an hour, six, six, and one
	require.EqualValues(t, 4, a.Ups.Load())
	require.Contains(t, evidenceOf(t, s, "foo", -33*24*hour, 0).Unavailable, "longer than 32 days")
}

func TestEvidence_FailedReplicaIsNotCompared(t *testing.T) {
	a, b := scraper.New(t, away), scraper.New(t, there)
	s, c := evidenceSet(t, 3*hour, a.Server, b.Server)
	b.Close()
	for want := range int64(2) {
		sh := evidenceOf(t, s, "foo", 10*minute, hour)
		require.Empty(t, sh.Unavailable)
		require.Len(t, sh.Failed, 1)
		require.ErrorContains(t, sh.Failed[1], b.URL)
		require.Equal(t, []map[string][]evidence.Span{{}, nil}, sh.Missed)
		evidenceOf(t, s, "foo", 10*minute, hour)
		require.Equal(t, want+1, a.Ups.Load())
		c.ms.Add(evidence.ProvisionalAge) // until then nobody waits for it again
	}
	a.Close()
	c.ms.Add(hour)
	require.Equal(t, "no replica tells of its scrapes", evidenceOf(t, s, "foo", 10*minute, hour).Unavailable)
}

func TestEvidence_BrokenSamplesAreAFailure(t *testing.T) {
	a := scraper.New(t, away)
	b := overridden(t, "load 15s"+there)
	up := &prompb.TimeSeries{
		Labels:  []prompb.Label{{Name: "__name__", Value: "up"}, {Name: "instance", Value: "a"}},
		Samples: []prompb.Sample{{Timestamp: 1000, Value: 1}},
	}
	b.replace = map[string]http.HandlerFunc{"/read": func(w http.ResponseWriter, _ *http.Request) {
		body, err := (&prompb.ReadResponse{Results: []*prompb.QueryResult{{Timeseries: []*prompb.TimeSeries{up, up}}}}).Marshal()
		assert.NoError(t, err)
		w.Header().Set("Content-Type", "application/x-protobuf")
		w.Header().Set("Content-Encoding", "snappy")
		_, _ = w.Write(snappy.Encode(nil, body))
	}}
	s, _ := evidenceSet(t, 3*hour, a.Server, serve(t, b))
	require.ErrorContains(t, evidenceOf(t, s, "foo", 0, hour).Failed[1], "is in the answer twice")
}

func TestEvidence_RecordedSeriesHaveNone(t *testing.T) {
	a, b := scraper.New(t, away), scraper.New(t, there)
	rules := `{"status":"success","data":{"groups":[{"rules":[{"type":"recording","name":"job:foo:sum"},{"type":"alerting","name":"foo"}]}]}}`
	b.AnswerRules(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(rules))
	})
	s, c := evidenceSet(t, 3*hour, a.Server, b.Server)
	f := func(want, selector string) {
		t.Helper()
		sh := evidenceOf(t, s, selector, 0, hour)
		require.Empty(t, sh.Unavailable)
		require.Equal(t, want, strings.Join(sh.Unscraped, " "))
		if strings.Contains(selector, "!~") {
			require.Equal(t, evidenceOf(t, s, "foo", 0, hour).Missed, sh.Missed)
		}
	}
	f("job:foo:sum", `job:foo:sum`)
	f("job:foo:sum", `{__name__=~"job:.+",__name__!="job:bar:sum"}`)
	f("ALERTS", `ALERTS`)
	f("ALERTS ALERTS_FOR_STATE job:foo:sum", `{job="j"}`)
	f("job:foo:sum", `{__name__!~"ALERTS.*"}`)
	f("", `{__name__!~"ALERTS.*|job:.*"}`)
	f("", "foo")
	require.EqualValues(t, 1, b.Rules.Load(), "asked once in a while")

	rules = `{"status":"success","data":{"groups":[]}}`
	c.ms.Add(replica.ProfileAge.Milliseconds())
	f("", `{__name__="job:foo:sum"}`)
	require.EqualValues(t, 2, b.Rules.Load())
}

func TestEvidence_UnknownRules(t *testing.T) {
	a, b := scraper.New(t, away), scraper.New(t, there)
	status := http.StatusNotFound
	b.AnswerRules(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "busy", status) })
	s, c := evidenceSet(t, 3*hour, a.Server, b.Server)
	require.Contains(t, evidenceOf(t, s, "foo", 0, hour).Unavailable, b.URL+": it does not tell its recording rules: ")
	status = http.StatusServiceUnavailable
	c.ms.Add(replica.ProfileAge.Milliseconds())
	for range 2 {
		sh := evidenceOf(t, s, "foo", 0, hour)
		require.Empty(t, sh.Unavailable)
		require.ErrorContains(t, sh.Failed[1], "status 503")
	}
	require.EqualValues(t, 2, b.Rules.Load(), "not by each query")
}

func TestEvidence_PushedSeriesHaveNone(t *testing.T) {
	a := scraper.New(t, away)
	b := scraper.New(t, there+`
  foo{pushed="1"} 1x720
  bar{instance="a"} 1x720
  baz{instance="elsewhere",job="j"} 1x720
  qux{instance="a",job="gone"} 1x720`)
	s, c := evidenceSet(t, 3*hour, a.Server, b.Server)
	for selector, want := range map[string]string{
		`foo`:                       "",
		`foo{instance="a"}`:         "",
		`foo{pushed=""}`:            "",
		`bar`:                       "",
		`baz`:                       `there are series with instance="elsewhere", and no target`,
		`qux`:                       `there are series with job="gone", and no target`,
		`{__name__=~"foo",job="j"}`: "",
		`nothing_at_all`:            "",
	} {
		none := evidenceOf(t, s, selector, 0, hour).Unavailable
		if want == "" {
			require.Empty(t, none, selector)
		}
		require.Contains(t, none, want, selector)
	}
	for selector, want := range map[string]string{`foo`: "foo", `foo{pushed=""}`: "", `bar`: "bar", `{__name__=~"foo|bar|up"}`: "bar foo", `{__name__=~"foo|up",instance="a"}`: ""} {
		require.Equal(t, want, strings.Join(evidenceOf(t, s, selector, 0, hour).Unscraped, " "), selector)
	}

	before := b.Lookups.Load()
	evidenceOf(t, s, `foo{pushed=""}`, hour, 2*hour-1) // the same two hours
	require.Equal(t, before, b.Lookups.Load())
	evidenceOf(t, s, `foo{pushed=""}`, hour, 3*hour) // and the next, which are not over
	require.Equal(t, before+4, b.Lookups.Load())
	c.ms.Add(replica.ProfileAge.Milliseconds())
	evidenceOf(t, s, `foo{pushed=""}`, hour, 3*hour)
	require.Equal(t, before+8, b.Lookups.Load(), "only what may have changed")
	evidenceOf(t, s, `bar`, hour, 2*hour-1)
	require.Less(t, before+8, b.Lookups.Load(), "and what may have been mended")
}

// TestEvidence_TargetsOfOtherTimes: a backend tells labels of a whole block, so
// that targets turn up that the scrapes of the range do not show.
func TestEvidence_TargetsOfOtherTimes(t *testing.T) {
	const load = there + `
  up{instance="old",job="j"} _x600 1x100
  foo{instance="old",job="j"} _x600 1x100`
	a, b := scraper.New(t, load), scraper.New(t, load)
	s, _ := evidenceSet(t, 10*hour, a.Server, b.Server)
	sh := evidenceOf(t, s, "foo", 0, 10*minute)
	require.Empty(t, sh.Unavailable)
	require.Equal(t, 2, sh.Targets)
}

func TestEvidence_ReadOnlyBackendHasNone(t *testing.T) {
	influx := func() *httptest.Server {
		return serve(t, asInfluxDB(overridden(t, "load 15s"+there, samplesOnly)))
	}
	s, _ := evidenceSet(t, 3*hour, influx(), influx())
	require.Contains(t, evidenceOf(t, s, "foo", 0, hour).Unavailable, "it has remote read only")
}

func TestEvidence_LabelsOfTargetsThatTheGroupHides(t *testing.T) {
	cfg := groupOf("g", backend(t, "load 15s"+there), backend(t, "load 15s"+there))
	cfg.Labels = map[string]string{"job": "all"}
	s, _ := setAt(t, cfg)
	require.Contains(t, evidenceOf(t, s, "foo", 0, 1).Unavailable, `takes the label "job" from targets`)
}

func TestEvidence_TooManyScrapes(t *testing.T) {
	s, _ := evidenceSet(t, 3*hour, scraper.New(t, there).Server, scraper.New(t, there).Server)
	v := s.View(t.Context())
	v.Budget.Limit = 100
	sh, err := v.Evidence(t.Context(), v.Groups[0], matchersOf(t, "foo"), 0, hour)
	require.NoError(t, err)
	require.Equal(t, "the scrapes are more than 100 bytes", sh.Unavailable)
}

// By the query API the end of a target does not show: a replica that missed it
// would look whole.
func TestEvidence_NoneByTheQueryAPI(t *testing.T) {
	a, b := backend(t, "load 15s"+away), backend(t, "load 15s"+there, noRemoteRead)
	s, _ := evidenceSet(t, 3*hour, a, b)
	require.Contains(t, evidenceOf(t, s, "foo", 0, hour).Unavailable, b.URL+": the query API does not show when targets have gone")
}

// TestEvidence_ClockThatIsPutBack: what looked settled while the clock of oneprom's host was ahead is collected again.
func TestEvidence_ClockThatIsPutBack(t *testing.T) {
	const load = "load 15s\n up{instance=\"a\",job=\"j\"} 1x248\n foo{instance=\"a\",job=\"j\"} 1x248" // until 62 min
	dbs := []*teststorage.TestStorage{promqltest.LoadedStorage(t, load), promqltest.LoadedStorage(t, load)}
	var servers []*httptest.Server
	for i, db := range dbs {
		servers = append(servers, serve(t, backendtest.NewHandler(backendtest.Options{Queryable: db, ExternalLabels: labels.FromStrings("replica", strconv.Itoa(i))})))
	}
	whole := []map[string][]evidence.Span{{}, {}}
	scrape := func(db *teststorage.TestStorage, from, to int64) {
		app := db.Appender(t.Context())
		for at := from; at <= to; at += 15_000 {
			for _, name := range []string{"up", "foo"} {
				_, err := app.Append(0, labels.FromStrings("__name__", name, "instance", "a", "job", "j"), at, 1)
				require.NoError(t, err)
			}
		}
		require.NoError(t, app.Commit())
	}
	s, c := evidenceSet(t, 24*hour, servers...)
	require.Equal(t, whole, evidenceOf(t, s, "foo", 0, 80*minute).Missed)
	c.ms.Store(62 * minute)
	require.Equal(t, whole, evidenceOf(t, s, "foo", 0, 62*minute).Missed)
	scrape(dbs[0], 62*minute+15_000, 80*minute)
	scrape(dbs[1], 70*minute, 80*minute)
	c.ms.Store(80 * minute)
	require.NotEmpty(t, evidenceOf(t, s, "foo", 0, 78*minute).Missed[1])
}
