package servergroup

import (
	"bytes"
	"context"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/assert" //nolint:depguard // in goroutines
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest"
	"github.com/oneprom/oneprom/servergroup/lifetime"
	"github.com/oneprom/oneprom/servergroup/transport"
)

const (
	minute = int64(60_000)
	hour   = 60 * minute
)

// scraper is a backend that counts what it is asked for.
type scraper struct {
	*httptest.Server
	ups     atomic.Int64 // queries of samples of `up`
	lookups atomic.Int64 // of series and of values of labels
	rules   atomic.Int64
	held    atomic.Pointer[chan struct{}] // queries of `up` wait until it is closed
	arrived chan struct{}                 // gets one for each that waits
	records atomic.Pointer[http.HandlerFunc]
}

// newScraper serves data of every 15 s by samples remote read.
func newScraper(t *testing.T, load string) *scraper {
	t.Helper()
	h := backendtest.NewHandler(backendtest.Options{Queryable: promqltest.LoadedStorage(t, "load 15s"+load), RemoteRead: backendtest.SamplesOnly})
	s := &scraper{arrived: make(chan struct{}, 100)}
	s.Server = serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch path := strings.TrimPrefix(r.URL.Path, "/api/v1"); {
		case path == "/read" && readsUp(t, r):
			s.ups.Add(1)
			if held := s.held.Load(); held != nil {
				s.arrived <- struct{}{}
				<-*held
			}
		case strings.HasPrefix(r.URL.Query().Get("match[]")+r.FormValue("match[]"), "{"):
			s.lookups.Add(1)
		case path == "/rules":
			s.rules.Add(1)
			if records := s.records.Load(); records != nil {
				(*records)(w, r)
				return
			}
		}
		h.ServeHTTP(w, r)
	}))
	return s
}

// readsUp tells whether remote read is asked for `up`. The body can be read again.
func readsUp(t *testing.T, r *http.Request) bool {
	body, err := io.ReadAll(r.Body)
	assert.NoError(t, err) //nolint:testifylint // in goroutines
	r.Body = io.NopCloser(bytes.NewReader(body))
	text, err := snappy.Decode(nil, body)
	assert.NoError(t, err)                        //nolint:testifylint // in goroutines
	return bytes.Contains(text, []byte("\x02up")) // with its length
}

// hold makes queries of `up` wait until the returned function is called.
func (s *scraper) hold() (release func()) {
	held := make(chan struct{})
	s.held.Store(&held)
	return func() {
		s.held.Store(nil)
		close(held)
	}
}

func (s *scraper) answerRules(f http.HandlerFunc) { s.records.Store(&f) }

// away is the data of two targets over three hours of which 40 scrapes of b are missing.
const away = `
  up{instance="a",job="j"} 1x720
  up{instance="b",job="j"} 1x99 _x40 1x580
  foo{instance="a",job="j"} 1x720
  foo{instance="b",job="j"} 1x99 _x40 1x580`

// there is the same with nothing missing.
const there = `
  up{instance="a",job="j"} 1x720
  up{instance="b",job="j"} 1x720
  foo{instance="a",job="j"} 1x720
  foo{instance="b",job="j"} 1x720`

// evidenceSet returns a set of one group of the servers, whose clock stands at a
// time (ms).
func evidenceSet(t *testing.T, now int64, servers ...*httptest.Server) (*Set, *clock) {
	t.Helper()
	s, c := setAt(t, groupOf("g", servers...))
	c.ms.Store(now)
	return s, c
}

func evidenceOf(t *testing.T, s *Set, selector string, from, to int64) shown {
	t.Helper()
	v := s.View(t.Context())
	sh, err := v.evidence(t.Context(), v.groups[0], matchersOf(t, selector), from, to)
	require.NoError(t, err)
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
			f := func(selector string, from, to int64, targets int, want map[string][]span) {
				t.Helper()
				sh := evidenceOf(t, s, selector, from, to)
				require.Empty(t, sh.none)
				require.Empty(t, sh.failed)
				require.Equal(t, targets, sh.targets)
				require.Equal(t, []map[string][]span{want, {}}, sh.missed)
			}
			f("foo", 0, 2*hour, 2, map[string][]span{"b": {{1_500_000, 1_785_000}, {1_800_000, 2_085_000}}})
			f("foo", 0, 25*minute-1, 2, map[string][]span{})
			f("foo", 26*minute, 27*minute, 2, map[string][]span{"b": {{26 * minute, 27 * minute}}})
			f(`foo{instance="a"}`, 0, 2*hour, 1, map[string][]span{})
			f(`foo{region="eu",job=~"j|k",path=""}`, 2*hour-10*minute, 2*hour, 2, map[string][]span{})
			f(`foo{path="/"}`, 2*hour-10*minute, 2*hour, 0, map[string][]span{}) // of no target
			require.Contains(t, evidenceOf(t, s, `foo{region="us"}`, 0, 2*hour).none, `region="eu" does not match`)
		})
	}
}

func TestEvidence_SettledSlicesAreAskedForOnce(t *testing.T) {
	a, b := newScraper(t, away), newScraper(t, there)
	s, c := evidenceSet(t, 3*hour, a.Server, b.Server)
	asked := func(want int64) {
		t.Helper()
		require.Equal(t, []int64{want, want}, []int64{a.ups.Load(), b.ups.Load()})
	}
	first := evidenceOf(t, s, "foo", 0, 2*hour-1) // four slices at once
	asked(1)
	c.ms.Add(hour)
	require.Equal(t, first, evidenceOf(t, s, "foo", 0, 2*hour-1))
	evidenceOf(t, s, `bar{instance="x"}`, 40*minute, hour) // another selector, the same scrapes
	asked(1)
	evidenceOf(t, s, "foo", hour, 3*hour-1) // two more
	asked(2)
}

func TestEvidence_YoungSlicesAreAskedForAgain(t *testing.T) {
	a, b := newScraper(t, away), newScraper(t, there)
	now := 2 * hour
	s, c := evidenceSet(t, now, a.Server, b.Server)
	f := func(want, to int64) {
		t.Helper()
		evidenceOf(t, s, "foo", to-minute, to)
		require.Equal(t, want, a.ups.Load())
	}
	f(1, now-1)
	f(1, now-1) // nothing is newer
	c.ms.Add(1000)
	f(1, now-1)
	f(2, now+1000) // the next slice, which has begun just now
	c.ms.Add(1000)
	f(3, now+2000) // both have gone on; the first is the one before
	c.ms.Add(youngAge)
	f(4, now+2000)
	f(4, now+2000)
	// Ten minutes after its end a slice is settled.
	c.ms.Store(now + 10*minute)
	f(5, now-1)
	c.ms.Add(youngAge)
	f(6, now-1)
	c.ms.Add(youngAge)
	f(6, now-1)
}

func TestEvidence_LongRangesAreAskedForInRuns(t *testing.T) {
	a, b := newScraper(t, away), newScraper(t, there)
	s, _ := evidenceSet(t, 100*hour, a.Server, b.Server)
	evidenceOf(t, s, "foo", 30*minute, hour-1)
	evidenceOf(t, s, "foo", 0, 2*hour-1) // what is before that, and after
	require.EqualValues(t, 3, a.ups.Swap(0))
	evidenceOf(t, s, "foo", 5*hour, 19*hour-1) // an hour, six, six, and one
	require.EqualValues(t, 4, a.ups.Load())
	require.Contains(t, evidenceOf(t, s, "foo", -33*24*hour, 0).none, "longer than 32 days")
}

// TestEvidence_QueriesShareAFetch, which does not end with the query that began it.
func TestEvidence_QueriesShareAFetch(t *testing.T) {
	a, b := newScraper(t, away), newScraper(t, there)
	s, _ := evidenceSet(t, 3*hour, a.Server, b.Server)
	release := a.hold()
	v := s.View(t.Context())
	ctx, cancel := context.WithCancel(t.Context())
	var first sync.WaitGroup
	first.Go(func() {
		_, err := v.evidence(ctx, v.groups[0], matchersOf(t, "foo"), 0, hour)
		require.ErrorIs(t, err, context.Canceled)
	})
	<-a.arrived
	book := v.groups[0].scrapes.book
	waits := book.claim(make([]*sliceScrapes, 2), 0, hour-1)
	require.NotNil(t, waits[0])
	require.Same(t, waits[0], waits[1])
	cancel()
	first.Wait()

	var others sync.WaitGroup
	for range 5 {
		others.Go(func() {
			sh, err := v.evidence(t.Context(), v.groups[0], matchersOf(t, "foo"), 0, hour-1)
			require.NoError(t, err)
			require.Len(t, sh.missed[0], 1)
		})
	}
	release()
	others.Wait()
	require.EqualValues(t, 1, a.ups.Load())
	require.EqualValues(t, 1, b.ups.Load())
}

// TestEvidence_FetchUnderWayMayBeTooOld for a query that reaches further.
func TestEvidence_FetchUnderWayMayBeTooOld(t *testing.T) {
	a, b := newScraper(t, away), newScraper(t, there)
	s, c := evidenceSet(t, 3*hour+minute, a.Server, b.Server)
	defer a.hold()()
	v := s.View(t.Context())
	book := v.groups[0].scrapes.of(v.groups[0], 0)
	claim := func(to int64) *flight { return book.claim(make([]*sliceScrapes, 1), 3*hour, to)[0] }
	first := claim(4 * hour)
	c.ms.Add(1000)
	require.Same(t, first, claim(3*hour+minute))
	second := claim(4 * hour)
	require.NotSame(t, first, second)
	require.Same(t, second, claim(3*hour+minute))
}

// TestEvidence_QueriesShareTheNextFetch: those that come while one is under way that is
// too old for them.
func TestEvidence_QueriesShareTheNextFetch(t *testing.T) {
	a, b := newScraper(t, away), newScraper(t, there)
	s, c := evidenceSet(t, 3*hour+minute, a.Server, b.Server)
	release := sync.OnceFunc(a.hold())
	defer release()
	v := s.View(t.Context())
	book := v.groups[0].scrapes.of(v.groups[0], 0)
	claim := func() *flight { return book.claim(make([]*sliceScrapes, 1), 3*hour, c.ms.Load())[0] }
	first := claim()
	<-a.arrived
	c.ms.Add(1)
	next := claim()
	for range 5 {
		c.ms.Add(1)
		require.Same(t, next, claim())
	}
	release()
	<-first.done
	<-next.done
	require.EqualValues(t, 2, a.ups.Load())
	require.Equal(t, c.ms.Load(), next.slices[0].asked)
	_, known := book.slices.Get(3 * hour)
	require.True(t, known)
	require.Nil(t, claim(), "the newest is known")
}

// TestEvidence_NoFetchWaitsForLong: one that hangs holds up no other.
func TestEvidence_NoFetchWaitsForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hangs := &flight{done: make(chan struct{})}
		next := &flight{after: []*flight{hangs, hangs}, asked: math.MaxInt64, slices: slicesFrom(0, 1)}
		book := newEvidenceBook(groupView{replicas: []*replica{{now: time.Now}}}, "", 0)
		began := time.Now()
		book.await(t.Context(), next)
		require.Equal(t, mostWait, time.Since(began))
		require.Equal(t, time.Now().UnixMilli(), next.asked)
		require.Equal(t, next.asked, next.slices[0].asked)
		require.Empty(t, next.after)
	})
}

func TestEvidence_CloseEndsAFetch(t *testing.T) {
	a, b := newScraper(t, away), newScraper(t, there)
	s, _ := evidenceSet(t, 3*hour, a.Server, b.Server)
	defer a.hold()()
	v := s.View(t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		_, err := v.evidence(t.Context(), v.groups[0], matchersOf(t, "foo"), 0, hour)
		require.Error(t, err)
	})
	<-a.arrived
	s.Close()
	done.Wait()
	_, err := v.groups[0].scrapes.book.between(t.Context(), 0, hour)
	require.ErrorIs(t, err, lifetime.ErrEnded)
}

func TestEvidence_FailedReplicaIsNotCompared(t *testing.T) {
	a, b := newScraper(t, away), newScraper(t, there)
	s, c := evidenceSet(t, 3*hour, a.Server, b.Server)
	b.Close()
	for want := range int64(2) {
		sh := evidenceOf(t, s, "foo", 0, hour)
		require.Empty(t, sh.none)
		require.Len(t, sh.failed, 1)
		require.ErrorContains(t, sh.failed[1], b.URL)
		require.Equal(t, []map[string][]span{{}, nil}, sh.missed)
		evidenceOf(t, s, "foo", 0, hour)
		require.Equal(t, want+1, a.ups.Load())
		c.ms.Add(youngAge) // until then nobody waits for it again
	}
	a.Close()
	c.ms.Add(hour)
	require.Equal(t, "no replica tells of its scrapes", evidenceOf(t, s, "foo", 0, hour).none)
}

func TestEvidence_BrokenSamplesAreAFailure(t *testing.T) {
	a := newScraper(t, away)
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
	require.ErrorContains(t, evidenceOf(t, s, "foo", 0, hour).failed[1], "is in the answer twice")
}

func TestEvidence_RecordedSeriesHaveNone(t *testing.T) {
	a, b := newScraper(t, away), newScraper(t, there)
	rules := `{"status":"success","data":{"groups":[{"rules":[{"type":"recording","name":"job:foo:sum"},{"type":"alerting","name":"foo"}]}]}}`
	b.answerRules(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(rules))
	})
	s, c := evidenceSet(t, 3*hour, a.Server, b.Server)
	f := func(want, selector string) {
		t.Helper()
		sh := evidenceOf(t, s, selector, 0, hour)
		require.Empty(t, sh.none)
		require.Equal(t, want, strings.Join(sh.others, " "))
		if strings.Contains(selector, "!~") {
			require.Equal(t, evidenceOf(t, s, "foo", 0, hour).missed, sh.missed)
		}
	}
	f("job:foo:sum", `job:foo:sum`)
	f("job:foo:sum", `{__name__=~"job:.+",__name__!="job:bar:sum"}`)
	f("ALERTS", `ALERTS`)
	f("ALERTS ALERTS_FOR_STATE job:foo:sum", `{job="j"}`)
	f("job:foo:sum", `{__name__!~"ALERTS.*"}`)
	f("", `{__name__!~"ALERTS.*|job:.*"}`)
	f("", "foo")
	require.EqualValues(t, 1, b.rules.Load(), "asked once in a while")

	rules = `{"status":"success","data":{"groups":[]}}`
	c.ms.Add(profileAge.Milliseconds())
	f("", `{__name__="job:foo:sum"}`)
	require.EqualValues(t, 2, b.rules.Load())
}

func TestEvidence_UnknownRules(t *testing.T) {
	a, b := newScraper(t, away), newScraper(t, there)
	status := http.StatusNotFound
	b.answerRules(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "busy", status) })
	s, c := evidenceSet(t, 3*hour, a.Server, b.Server)
	require.Contains(t, evidenceOf(t, s, "foo", 0, hour).none, b.URL+": it does not tell its recording rules: ")
	status = http.StatusServiceUnavailable
	c.ms.Add(profileAge.Milliseconds())
	for range 2 {
		sh := evidenceOf(t, s, "foo", 0, hour)
		require.Empty(t, sh.none)
		require.ErrorContains(t, sh.failed[1], "status 503")
	}
	require.EqualValues(t, 2, b.rules.Load(), "not by each query")
}

func TestEvidence_PushedSeriesHaveNone(t *testing.T) {
	a := newScraper(t, away)
	b := newScraper(t, there+`
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
		none := evidenceOf(t, s, selector, 0, hour).none
		if want == "" {
			require.Empty(t, none, selector)
		}
		require.Contains(t, none, want, selector)
	}
	for selector, want := range map[string]string{`foo`: "foo", `foo{pushed=""}`: "", `bar`: "bar", `{__name__=~"foo|bar|up"}`: "bar foo", `{__name__=~"foo|up",instance="a"}`: ""} {
		require.Equal(t, want, strings.Join(evidenceOf(t, s, selector, 0, hour).others, " "), selector)
	}

	before := b.lookups.Load()
	evidenceOf(t, s, `foo{pushed=""}`, hour, 2*hour-1) // the same two hours
	require.Equal(t, before, b.lookups.Load())
	evidenceOf(t, s, `foo{pushed=""}`, hour, 3*hour) // and the next, which are not over
	require.Equal(t, before+4, b.lookups.Load())
	c.ms.Add(profileAge.Milliseconds())
	evidenceOf(t, s, `foo{pushed=""}`, hour, 3*hour)
	require.Equal(t, before+8, b.lookups.Load(), "only what may have changed")
	evidenceOf(t, s, `bar`, hour, 2*hour-1)
	require.Less(t, before+8, b.lookups.Load(), "and what may have been mended")
}

// TestEvidence_TargetsOfOtherTimes: a backend tells labels of a whole block, so
// that targets turn up that the scrapes of the range do not show.
func TestEvidence_TargetsOfOtherTimes(t *testing.T) {
	const load = there + `
  up{instance="old",job="j"} _x600 1x100
  foo{instance="old",job="j"} _x600 1x100`
	a, b := newScraper(t, load), newScraper(t, load)
	s, _ := evidenceSet(t, 10*hour, a.Server, b.Server)
	sh := evidenceOf(t, s, "foo", 0, 10*minute)
	require.Empty(t, sh.none)
	require.Equal(t, 2, sh.targets)
}

func TestEvidence_ReadOnlyBackendHasNone(t *testing.T) {
	influx := func() *httptest.Server {
		return serve(t, asInfluxDB(overridden(t, "load 15s"+there, samplesOnly)))
	}
	s, _ := evidenceSet(t, 3*hour, influx(), influx())
	require.Contains(t, evidenceOf(t, s, "foo", 0, hour).none, "it has remote read only")
}

func TestEvidence_LabelsOfTargetsThatTheGroupHides(t *testing.T) {
	cfg := groupOf("g", backend(t, "load 15s"+there), backend(t, "load 15s"+there))
	cfg.Labels = map[string]string{"job": "all"}
	s, _ := setAt(t, cfg)
	require.Contains(t, evidenceOf(t, s, "foo", 0, 1).none, `takes the label "job" from targets`)
}

func TestEvidence_TooManyScrapes(t *testing.T) {
	s, _ := evidenceSet(t, 3*hour, newScraper(t, there).Server, newScraper(t, there).Server)
	v := s.View(t.Context())
	v.budget.Limit = 100
	sh, err := v.evidence(t.Context(), v.groups[0], matchersOf(t, "foo"), 0, hour)
	require.NoError(t, err)
	require.Equal(t, "the scrapes are more than 100 bytes", sh.none)
}

func TestEvidenceCache_IsOfOneSetOfReplicas(t *testing.T) {
	replicaAt := func(host string) *replica {
		return &replica{client: &transport.Client{Base: &url.URL{Scheme: "http", Host: host}}}
	}
	a, b := replicaAt("a"), replicaAt("b")
	var c evidenceCache
	of := func(rs ...*replica) *evidenceBook { return c.of(groupView{replicas: rs}, 0) }
	book := of(a, b)
	require.Same(t, book, of(a, b))
	require.NotSame(t, book, of(b, a))
	book = of(a, b)
	book.table.bytes = keptTargets + 1
	require.NotSame(t, book, of(a, b), "labels are not kept without end")
}

// By the query API the end of a target does not show: a replica that missed it
// would look whole.
func TestEvidence_NoneByTheQueryAPI(t *testing.T) {
	a, b := backend(t, "load 15s"+away), backend(t, "load 15s"+there, noRemoteRead)
	s, _ := evidenceSet(t, 3*hour, a, b)
	require.Contains(t, evidenceOf(t, s, "foo", 0, hour).none, b.URL+": the query API does not show when targets have gone")
}
