package proxy

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/proxy/admission"
	"github.com/oneprom/oneprom/servergroup/backendtest"
)

// doorway is a doorman without a server, before handlers that the test ends.
type doorway struct {
	*doorman
	working atomic.Int32  // handlers
	end     chan struct{} // ends one of them
}

func newDoorway(t *testing.T, flags ...string) *doorway {
	t.Helper()
	s := &Server{opts: options(t, flags...), parser: parser.NewParser(allSyntax), logger: slog.New(slog.DiscardHandler)}
	s.opts.Now = time.Now
	var err error
	s.corsOrigin, err = compileOrigin(".*")
	require.NoError(t, err)
	return &doorway{doorman: s.newDoorman(prometheus.NewRegistry()), end: make(chan struct{})}
}

// through sends a request of a route. The answer is there when the handler has ended.
func (d *doorway) through(route string, r *http.Request) <-chan *httptest.ResponseRecorder {
	answered := make(chan *httptest.ResponseRecorder, 1)
	h := d.admit(route, func(w http.ResponseWriter, r *http.Request) {
		d.working.Add(1)
		defer d.working.Add(-1)
		select {
		case <-d.end:
			_, _ = io.WriteString(w, r.FormValue("query"))
		case <-r.Context().Done():
			respondError(w, classify(r.Context().Err()), d.logger)
		}
	})
	go func() {
		w := httptest.NewRecorder()
		h(w, r)
		answered <- w
	}()
	return answered
}

func queryRequest(query string) *http.Request {
	return httptest.NewRequest(http.MethodGet, "/query?query="+url.QueryEscape(query), nil)
}

func TestAdmit_429AfterTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoorway(t, "--query.max-concurrency=1", "--query.queue-timeout=1500ms")
		first := d.through("/query", queryRequest("a"))
		synctest.Wait()
		began := time.Now()
		r := queryRequest("b")
		r.Header.Set("Origin", "http://grafana")
		w := <-d.through("/query", r)
		require.Equal(t, 1500*time.Millisecond, time.Since(began))
		require.Equal(t, http.StatusTooManyRequests, w.Code)
		require.Equal(t, "2", w.Header().Get("Retry-After"))
		require.Equal(t, "application/json", w.Header().Get("Content-Type"))
		require.Equal(t, "*", w.Header().Get("Access-Control-Allow-Origin"))
		require.Equal(t, apiFailure("unavailable", "too many requests: no slot of the 1 that --query.max-concurrency gives became free within 1.5s: "+
			"ask less at once, or raise it or --query.queue-timeout"), w.Body.String())

		// Those whose errors are text.
		for _, route := range []string{"/read", "/federate"} {
			w = <-d.through(route, httptest.NewRequest(http.MethodPost, route, strings.NewReader("x")))
			require.Equal(t, http.StatusTooManyRequests, w.Code)
			require.Equal(t, "2", w.Header().Get("Retry-After"))
			require.True(t, strings.HasPrefix(w.Body.String(), "too many requests: "), w.Body)
		}
		d.end <- struct{}{}
		require.Equal(t, "a", (<-first).Body.String())
	})
}

// Of ten times as many as are worked on at once, a tenth is answered.
func TestAdmit_Burst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoorway(t)
		began := time.Now()
		var answers []<-chan *httptest.ResponseRecorder
		for i := range 200 {
			answers = append(answers, d.through("/query", queryRequest(strconv.Itoa(i))))
		}
		synctest.Wait()
		require.EqualValues(t, 20, d.working.Load())
		require.Equal(t, began, time.Now())

		time.Sleep(10*time.Second + time.Nanosecond)
		synctest.Wait()
		require.EqualValues(t, 20, d.working.Load())
		for range 20 {
			d.end <- struct{}{}
		}
		codes := map[int]int{}
		for _, a := range answers {
			codes[(<-a).Code]++
		}
		require.Equal(t, map[int]int{http.StatusOK: 20, http.StatusTooManyRequests: 180}, codes)
		require.Equal(t, 10*time.Second+time.Nanosecond, time.Since(began))
	}) // which fails if a goroutine is left
}

// The same through everything, in front of a backend that hangs.
func TestAdmit_BurstOfQueries(t *testing.T) {
	data := promqltest.LoadedStorage(t, "load 30s\n  m 1x10")
	t.Cleanup(func() { require.NoError(t, data.Close()) })
	answer := backendtest.NewHandler(backendtest.Options{Queryable: data})
	var hangs atomic.Bool
	asked, goOn := make(chan struct{}, 1000), make(chan struct{})
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if hangs.Load() {
			asked <- struct{}{}
			<-goOn
		}
		answer.ServeHTTP(w, r)
	}))
	t.Cleanup(backend.Close)
	release := sync.OnceFunc(func() { close(goOn) })
	t.Cleanup(release)
	const limit = 3
	s, _ := startedServer(t, "server_groups:\n  - {name: a, static_configs: [{targets: ['"+strings.TrimPrefix(backend.URL, "http://")+"']}]}\n",
		fmt.Sprint("--query.max-concurrency=", limit), "--query.queue-timeout=200ms")
	require.Equal(t, http.StatusOK, get(s.Handler(), "/api/v1/query?query=m&time=60").Code)

	hangs.Store(true)
	answers := make(chan *httptest.ResponseRecorder, 10*limit)
	for i := range 10 * limit {
		go func() { answers <- get(s.Handler(), fmt.Sprintf("/api/v1/query?query=m%%2B%d&time=60", i)) }()
	}
	for range limit {
		<-asked
	}
	for range 9 * limit {
		w := <-answers
		require.Equal(t, http.StatusTooManyRequests, w.Code)
		require.Equal(t, "1", w.Header().Get("Retry-After"))
		require.Contains(t, w.Body.String(), "no slot of the 3 that --query.max-concurrency gives became free within 200ms")
	}
	release()
	for range limit {
		require.Equal(t, http.StatusOK, (<-answers).Code)
	}
	require.Empty(t, asked, "no others reached the backend")
	require.Equal(t, http.StatusOK, get(s.Handler(), "/api/v1/query?query=m&time=60").Code)
	require.NoError(t, testutil.GatherAndCompare(s.registry, strings.NewReader(`
# HELP oneprom_admission_slots_in_use How many requests are worked on.
# TYPE oneprom_admission_slots_in_use gauge
oneprom_admission_slots_in_use 0
`), "oneprom_admission_slots_in_use"))
	require.Contains(t, get(s.Handler(), "/metrics").Body.String(), fmt.Sprintf(`oneprom_http_requests_total{code="429",handler="/api/v1/query"} %d`, 9*limit))
}

// What asks the servers needs a slot, and what oneprom answers of itself does not.
func TestAdmit_OnlyWhatAsksTheServersWaits(t *testing.T) {
	s, _ := startedServer(t, oneGroup, "--query.max-concurrency=1", "--query.max-queued=0")
	leave, err := s.doorman.queue.Enter(t.Context(), admission.Request{})
	require.NoError(t, err)
	defer leave()
	for _, target := range []string{
		"/query?query=up", "/query_range?query=up&start=0&end=1&step=1", "/explain?analyze=true&query=up", "/series?match[]=up",
		"/labels", "/label/job/values", "/query_exemplars?query=up", "/metadata",
		"/rules", "/alerts", "/alertmanagers", "/notifications", "/features", "/targets", "/targets/metadata", "/targets/relabel_steps",
		"/scrape_pools", "/scrape_pools/config", "/status/tsdb", "/status/tsdb/blocks",
		"/search/metric_names", "/search/label_names", "/search/label_values",
	} {
		w := get(s.Handler(), "/api/v1"+target)
		require.Equal(t, http.StatusTooManyRequests, w.Code, target)
		require.Contains(t, w.Body.String(), `{"status":"error","errorType":"unavailable","error":"too many requests: no slot of the 1 that --query.max-concurrency gives is free, `+
			`and no more than 0 requests may wait: ask less at once, or raise it or --query.max-queued"}`, target)
	}
	for _, target := range []string{"/query", "/query_range", "/explain?analyze=true", "/series", "/labels", "/label/job/values", "/query_exemplars", "/read"} {
		require.Equal(t, http.StatusTooManyRequests, ask(s.Handler(), http.MethodPost, "/api/v1"+target, "query=up&match[]=up").Code, target)
	}
	require.Equal(t, http.StatusTooManyRequests, get(s.Handler(), "/federate?match[]=up").Code)

	for _, target := range []string{
		"/api/v1/explain?query=up", "/api/v1/format_query?query=up", "/api/v1/parse_query?query=up",
		"/api/v1/status/config", "/api/v1/status/groups", "/api/v1/status/flags", "/api/v1/status/buildinfo", "/api/v1/status/runtimeinfo",
		"/-/healthy", "/-/ready", "/metrics", "/query",
	} {
		require.Equal(t, http.StatusOK, get(s.Handler(), target).Code, target)
	}
}

// A client that reads its answer slowly holds no slot. It does while the answer is
// still being made.
func TestAdmit_SlotIsFreeWhenTheAnswerBegins(t *testing.T) {
	d := newDoorway(t, "--query.max-concurrency=1", "--query.max-queued=0")
	f := func(route string, held bool, begin func(http.ResponseWriter)) {
		t.Helper()
		d.admit(route, func(w http.ResponseWriter, _ *http.Request) {
			_, err := d.queue.Enter(t.Context(), admission.Request{})
			require.Error(t, err)
			begin(w)
			leave, err := d.queue.Enter(t.Context(), admission.Request{})
			require.Equal(t, held, err != nil)
			if err == nil {
				leave()
			}
		})(httptest.NewRecorder(), queryRequest("a"))
	}
	write := func(w http.ResponseWriter) { _, _ = io.WriteString(w, "half") }
	f("/query", false, write)
	f("/query", false, func(w http.ResponseWriter) { w.WriteHeader(http.StatusOK) })
	f("/federate", false, func(w http.ResponseWriter) { w.(http.Flusher).Flush() })
	f("/read", true, write)
	require.Panics(t, func() { f("/query", true, func(http.ResponseWriter) { panic("boom") }) })
	f("/query", false, write) // nor does one that panicked
}

// A client that sends slowly holds no slot, and has waited when it has sent.
func TestAdmit_SlowBodies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoorway(t, "--query.max-concurrency=1")
		slow := func() (<-chan *httptest.ResponseRecorder, *io.PipeWriter) {
			body, send := io.Pipe()
			r := httptest.NewRequest(http.MethodPost, "/query", body)
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			return d.through("/query", r), send
		}
		first, send := slow()
		synctest.Wait()
		quick := d.through("/query", queryRequest("quick"))
		d.end <- struct{}{}
		require.Equal(t, "quick", (<-quick).Body.String())

		_, _ = io.WriteString(send, "query=sl")
		time.Sleep(time.Minute)
		_, _ = io.WriteString(send, "ow")
		require.NoError(t, send.Close())
		synctest.Wait()
		second, send := slow()
		time.Sleep(8 * time.Second)
		sent := time.Now()
		require.NoError(t, send.Close())
		require.Equal(t, http.StatusTooManyRequests, (<-second).Code)
		require.Equal(t, 2*time.Second, time.Since(sent))

		third, send := slow()
		require.NoError(t, send.CloseWithError(io.ErrUnexpectedEOF))
		require.Equal(t, apiFailure("bad_data", "reading the request: unexpected EOF"), (<-third).Body.String())

		d.end <- struct{}{}
		require.Equal(t, "slow", (<-first).Body.String())
	})
}

func TestAdmit_BodyIsBounded(t *testing.T) {
	d := newDoorway(t)
	w := <-d.through("/read", httptest.NewRequest(http.MethodPost, "/read", strings.NewReader(strings.Repeat("x", maxBody+1))))
	require.Equal(t, http.StatusRequestEntityTooLarge, w.Code)
	require.Equal(t, "the body of the request has more than 10485760 bytes\n", w.Body.String())
}

// The time of a query begins when it comes: what it waited is gone.
func TestAdmit_TimeoutBoundsWaitAndWork(t *testing.T) {
	for target, want := range map[string]time.Duration{
		"/query?timeout=4s": 4 * time.Second, "/query?timeout=5m": 6 * time.Second, "/query": 6 * time.Second, "/query?timeout=x": 6 * time.Second,
	} {
		synctest.Test(t, func(t *testing.T) {
			d := newDoorway(t, "--query.max-concurrency=1", "--query.timeout=6s")
			held := d.through("/labels", httptest.NewRequest(http.MethodGet, "/labels", nil))
			synctest.Wait()
			began := time.Now()
			waits := d.through("/query", httptest.NewRequest(http.MethodGet, target, nil))
			w := <-d.through("/query", httptest.NewRequest(http.MethodGet, target, nil))
			require.Equal(t, want, time.Since(began))
			require.Equal(t, http.StatusServiceUnavailable, w.Code)
			require.Equal(t, apiFailure("timeout", "query timed out in query queue"), w.Body.String())
			require.Equal(t, http.StatusServiceUnavailable, (<-waits).Code)

			began = time.Now()
			waits = d.through("/query", httptest.NewRequest(http.MethodGet, target, nil))
			time.Sleep(3 * time.Second)
			d.end <- struct{}{}
			<-held
			synctest.Wait()
			require.EqualValues(t, 1, d.working.Load())
			w = <-waits
			require.Equal(t, want, time.Since(began))
			require.Equal(t, http.StatusServiceUnavailable, w.Code)
		})
	}
}

func TestAdmit_ClientThatLeavesIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoorway(t, "--query.max-concurrency=1", "--query.max-queued=1")
		held := d.through("/query", queryRequest("held"))
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		gone := d.through("/query", queryRequest("gone").WithContext(ctx))
		synctest.Wait()
		cancel()
		require.Equal(t, statusClientClosed, (<-gone).Code)
		next := d.through("/query", queryRequest("next"))
		synctest.Wait()
		d.end <- struct{}{}
		d.end <- struct{}{}
		require.Equal(t, "held", (<-held).Body.String())
		require.Equal(t, "next", (<-next).Body.String())
	})
}

func TestAdmit_Client(t *testing.T) {
	f := func(want, header string, set ...func(*http.Request)) {
		t.Helper()
		d := newDoorway(t, "--query.client-header="+header)
		r := queryRequest("a")
		r.RemoteAddr = "192.0.2.1:1234"
		for _, s := range set {
			s(r)
		}
		require.Equal(t, want, d.client(r))
	}
	user := func(r *http.Request) { r.SetBasicAuth("u", "p") }
	named := func(r *http.Request) { r.Header.Set("X-Scope-OrgID", "team") }
	f("address 192.0.2.1", "")
	f("address 192.0.2.1", "x-scope-orgid")
	f("user u", "", user, named)
	f("user u", "x-scope-orgid", user)
	f("name team", "x-scope-orgid", user, named)
	f("address 2001:db8::1", "", func(r *http.Request) { r.RemoteAddr = "[2001:db8::1]:1" })
	f("address @", "", func(r *http.Request) { r.RemoteAddr = "@" }) // a Unix socket
}

func TestAdmit_PerClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoorway(t, "--query.max-concurrency-per-client=1", "--query.client-header=X-Client", "--query.max-queued=1")
		from := func(client string) *http.Request {
			r := queryRequest(client)
			r.Header.Set("X-Client", client)
			return r
		}
		a, b := d.through("/query", from("a")), d.through("/query", from("b"))
		synctest.Wait()
		require.EqualValues(t, 2, d.working.Load())
		w := <-d.through("/query", from("a"))
		require.Equal(t, http.StatusTooManyRequests, w.Code)
		require.Contains(t, w.Body.String(), "no slot of the 1 that --query.max-concurrency-per-client gives became free within 10s")
		d.end <- struct{}{}
		d.end <- struct{}{}
		<-a
		<-b
	})
}

func TestAdmit_RemoteReadHasALimitOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoorway(t, "--storage.remote.read-concurrent-limit=1")
		read := func() *http.Request { return httptest.NewRequest(http.MethodPost, "/read", nil) }
		first := d.through("/read", read())
		synctest.Wait()
		waits := d.through("/read", read())
		query := d.through("/query", queryRequest("a"))
		synctest.Wait()
		require.EqualValues(t, 2, d.working.Load())
		w := <-waits
		require.Equal(t, http.StatusTooManyRequests, w.Code)
		require.Contains(t, w.Body.String(), "no slot of the 1 that --storage.remote.read-concurrent-limit gives became free within 10s")
		d.end <- struct{}{}
		d.end <- struct{}{}
		<-first
		<-query
	})
}

// Upstream's own gate does not take 0 for no limit.
func TestAdmit_RemoteReadWithoutALimit(t *testing.T) {
	data := promqltest.LoadedStorage(t, "load 30s\n  m 1x10")
	t.Cleanup(func() { require.NoError(t, data.Close()) })
	backend := httptest.NewServer(backendtest.NewHandler(backendtest.Options{Queryable: data}))
	t.Cleanup(backend.Close)
	s, _ := startedServer(t, "server_groups:\n  - {name: a, static_configs: [{targets: ['"+strings.TrimPrefix(backend.URL, "http://")+"']}]}\n",
		"--storage.remote.read-concurrent-limit=0")
	require.Equal(t, http.StatusOK, ask(s.Handler(), http.MethodPost, "/api/v1/read", readRequest(t, "m")).Code)
}

const someRules = oneGroup + `
query_rules:
  - name: long
    max_range: 1d
    action: refuse
    reason: a day at most
  - name: scans
    selector_without_matchers: true
    action: refuse
    reason: name it
  - name: fine
    min_step: 10s
    action: refuse
    reason: 10s at least
  - name: wall
    header: {X-Dashboard-Uid: wall}
    max_concurrency: 1
`

func TestQueryRules_Refuse(t *testing.T) {
	s, _ := startedServer(t, someRules)
	const long, scans, fine = `the query rule \"long\" refuses this query: a day at most`,
		`the query rule \"scans\" refuses this query: name it`, `the query rule \"fine\" refuses this query: 10s at least`
	day := "start=0&end=86400&step=60"
	for target, want := range map[string]string{
		"/query?query=rate(up[2d])":                           long,
		"/query?query=rate(up[1d*2])":                         long,
		"/query_range?query=1&start=0&end=86401&step=60":      long,
		"/explain?query=1&start=0&end=86401&step=60":          long,
		"/explain?query=rate(up[2d])&analyze=true":            long,
		"/query_range?query=1&start=0&end=86400&step=60":      "",
		"/query?query=1&start=0&end=86401&step=60":            "", // which are not looked at
		"/query?query=" + url.QueryEscape(`{job=~".+"}`):      scans,
		"/explain?query=" + url.QueryEscape(`{job=~".+"}`):    scans,
		"/query_range?query=1&start=0&end=60&step=9":          fine,
		"/query_range?query=1&start=0&end=60&step=9s&limit=1": fine,
		"/query?query=1&step=9":                               "",
		"/query_range?query=1&" + day:                         "",
		"/query_range?query=1&time=1&" + day:                  "",
	} {
		method, path := http.MethodGet, "/api/v1"+target
		for range 2 {
			form := ""
			if method == http.MethodPost {
				path, form, _ = strings.Cut(path, "?")
			}
			w := ask(s.Handler(), method, path, form)
			if want == "" {
				require.Equal(t, http.StatusOK, w.Code, target)
			} else {
				require.Equal(t, http.StatusUnprocessableEntity, w.Code, target)
				require.Equal(t, apiFailure("execution", want), w.Body.String(), target)
			}
			method = http.MethodPost
		}
	}

	// The body counts before the URL, as for the handler.
	w := ask(s.Handler(), http.MethodPost, "/api/v1/query?query=1", "query=rate(up[2d])")
	require.Equal(t, http.StatusUnprocessableEntity, w.Code)
	w = ask(s.Handler(), http.MethodPost, "/api/v1/query?query=rate(up[2d])", "query=1")
	require.Equal(t, http.StatusOK, w.Code)

	// What is wrong with a request is said as without rules, and what is no query
	// is not judged.
	require.Equal(t, apiFailure("bad_data", `invalid parameter \"query\": 1:2: parse error: unexpected end of input inside braces`), get(s.Handler(), "/api/v1/query?query=%7B").Body.String())
	require.Equal(t, apiFailure("bad_data", `invalid parameter \"step\": cannot parse \"\" to a valid duration`), get(s.Handler(), "/api/v1/query_range?query=up&start=0&end=90000").Body.String())
	require.Equal(t, http.StatusServiceUnavailable, get(s.Handler(), "/api/v1/series?match[]="+url.QueryEscape(`{job=~".+"}`)).Code)
}

func TestQueryRules_Bound(t *testing.T) {
	s, _ := startedServer(t, someRules, "--query.max-queued=0")
	wall := http.Header{"X-Dashboard-Uid": {"wall"}}
	r := queryRequest("1")
	r.Header = wall
	pools, err := s.doorman.judge("/query", r)
	require.NoError(t, err)
	leave, err := s.doorman.queue.Enter(t.Context(), admission.Request{Pools: pools})
	require.NoError(t, err)

	send := func() *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodGet, "/api/v1/query?query=1", nil)
		r.Header = wall
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		return w
	}
	w := send()
	require.Equal(t, http.StatusTooManyRequests, w.Code)
	require.Contains(t, w.Body.String(), `no slot of the 1 that max_concurrency of the query rule \"wall\" gives is free`)
	require.Equal(t, http.StatusOK, get(s.Handler(), "/api/v1/query?query=1").Code)
	require.Contains(t, get(s.Handler(), "/metrics").Body.String(), `oneprom_admission_refused_total{reason="queue_full",slots="rule"} 1`)

	// What is under way counts after a reload.
	require.NoError(t, s.Reload(t.Context()))
	require.Equal(t, http.StatusTooManyRequests, send().Code)
	leave()
	require.Equal(t, http.StatusOK, send().Code)
}

func TestQueryRules_Reload(t *testing.T) {
	s, file := startedServer(t, someRules)
	require.Equal(t, http.StatusUnprocessableEntity, get(s.Handler(), "/api/v1/query?query=rate(up[2d])").Code)
	writeConfig(t, file, strings.Replace(someRules, "max_range: 1d", "max_range: 3d", 1))
	require.NoError(t, s.Reload(t.Context()))
	require.Equal(t, http.StatusServiceUnavailable, get(s.Handler(), "/api/v1/query?query=rate(up[2d])").Code)
	require.Equal(t, http.StatusUnprocessableEntity, get(s.Handler(), "/api/v1/query?query=rate(up[4d])").Code)

	// A bad file changes nothing.
	writeConfig(t, file, strings.Replace(someRules, "max_range: 1d", "max_range: 9d\n    regex: (", 1))
	require.ErrorContains(t, s.Reload(t.Context()), "query_rules[0].regex: not a regular expression: missing closing )")
	require.Equal(t, http.StatusUnprocessableEntity, get(s.Handler(), "/api/v1/query?query=rate(up[4d])").Code)

	writeConfig(t, file, oneGroup)
	require.NoError(t, s.Reload(t.Context()))
	require.Equal(t, http.StatusServiceUnavailable, get(s.Handler(), "/api/v1/query?query=rate(up[4d])").Code)
}
