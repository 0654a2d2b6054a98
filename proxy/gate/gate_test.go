package gate

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/grafana/regexp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/proxy/admission"
	"github.com/oneprom/oneprom/proxy/api"
	"github.com/oneprom/oneprom/servergroup/health"
	"github.com/oneprom/oneprom/servergroup/request"
)

// doorway is a gate without a server, before handlers that the test ends.
type doorway struct {
	*Gate
	working atomic.Int32  // handlers
	end     chan struct{} // ends one of them
}

// setting changes the options of a gate from the defaults of the command line.
type setting func(q *admission.Options, o *Options)

func slots(n int) setting     { return func(q *admission.Options, _ *Options) { q.Slots = n } }
func maxQueued(n int) setting { return func(q *admission.Options, _ *Options) { q.MaxQueued = n } }
func clientHeader(name string) setting {
	return func(_ *admission.Options, o *Options) { o.ClientHeader = name }
}

func newDoorway(t *testing.T, settings ...setting) *doorway {
	t.Helper()
	q := admission.Options{Slots: 20, MaxQueued: 1000, MaxWait: 10 * time.Second, Registerer: prometheus.NewRegistry()}
	o := Options{
		ConcurrentRead: 10, Rules: func() *admission.Rules { return nil }, Parser: parser.NewParser(parser.Options{}), Timeout: 2 * time.Minute,
		CORSOrigin: regexp.MustCompile("^(?:.*)$"), Asked: func(*http.Request) {}, Now: time.Now, Logger: slog.New(slog.DiscardHandler),
	}
	for _, set := range settings {
		set(&q, &o)
	}
	o.Queue = admission.NewQueue(q)
	return &doorway{Gate: New(o), end: make(chan struct{})}
}

// classes are those of some routes.
var classes = map[string]Class{"/query": Query, "/labels": Lookup, "/federate": Scrape, "/read": Read}

// through sends a request of a route. The answer is there when the handler has ended.
func (d *doorway) through(route string, r *http.Request) <-chan *httptest.ResponseRecorder {
	answered := make(chan *httptest.ResponseRecorder, 1)
	h := d.Admit(classes[route], func(w http.ResponseWriter, r *http.Request) {
		d.working.Add(1)
		defer d.working.Add(-1)
		select {
		case <-d.end:
			_, _ = io.WriteString(w, r.FormValue("query"))
		case <-r.Context().Done():
			api.RespondError(w, api.Classify(r.Context().Err()), d.Logger)
		}
	})
	go func() {
		w := httptest.NewRecorder()
		h(w, r)
		answered <- w
	}()
	return answered
}

func apiFailure(typ, text string) string {
	return `{"status":"error","errorType":"` + typ + `","error":"` + text + `"}`
}

func queryRequest(query string) *http.Request {
	return httptest.NewRequest(http.MethodGet, "/query?query="+url.QueryEscape(query), nil)
}

func TestAdmit_429AfterTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoorway(t, slots(1), func(q *admission.Options, _ *Options) { q.MaxWait = 1500 * time.Millisecond })
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

// A client that reads its answer slowly holds no slot. It does while the answer is
// still being made.
func TestAdmit_SlotIsFreeWhenTheAnswerBegins(t *testing.T) {
	d := newDoorway(t, slots(1), maxQueued(0))
	f := func(route string, held bool, begin func(http.ResponseWriter)) {
		t.Helper()
		d.Admit(classes[route], func(w http.ResponseWriter, _ *http.Request) {
			_, err := d.Queue.Enter(t.Context(), admission.Request{})
			require.Error(t, err)
			begin(w)
			leave, err := d.Queue.Enter(t.Context(), admission.Request{})
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
		d := newDoorway(t, slots(1))
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
			d := newDoorway(t, slots(1), func(_ *admission.Options, o *Options) { o.Timeout = 6 * time.Second })
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
		d := newDoorway(t, slots(1), maxQueued(1))
		held := d.through("/query", queryRequest("held"))
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		gone := d.through("/query", queryRequest("gone").WithContext(ctx))
		synctest.Wait()
		cancel()
		require.Equal(t, api.StatusClientClosed, (<-gone).Code)
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
		d := newDoorway(t, clientHeader(header))
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
		d := newDoorway(t, func(q *admission.Options, _ *Options) { q.SlotsPerClient = 1 }, clientHeader("X-Client"), maxQueued(1))
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
		d := newDoorway(t, func(_ *admission.Options, o *Options) { o.ConcurrentRead = 1 })
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

// A form is parsed once, here, and what it asks is known before the request waits. One that
// is wrong is for the handler to refuse.
func TestAdmit_FormIsParsedOnce(t *testing.T) {
	post := func(form string) *http.Request {
		r := httptest.NewRequest(http.MethodPost, "/query?time=1", strings.NewReader(form))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		return r
	}
	var asked []*http.Request
	d := newDoorway(t, func(_ *admission.Options, o *Options) { o.Asked = func(r *http.Request) { asked = append(asked, r) } })
	served := 0
	serve := func(form string, check func(*http.Request)) {
		d.Admit(Query, func(_ http.ResponseWriter, r *http.Request) { served++; check(r) })(httptest.NewRecorder(), post(form))
	}
	serve("query=up", func(r *http.Request) {
		require.Equal(t, url.Values{"query": {"up"}, "time": {"1"}}, r.Form)
		require.Equal(t, http.NoBody, r.Body, "there is nothing left to parse")
	})
	serve("query=up&x=%zz", func(r *http.Request) {
		require.Nil(t, r.Form)
		require.ErrorContains(t, r.ParseForm(), "invalid URL escape")
		require.Equal(t, "up", r.Form.Get("query"))
	})
	require.Equal(t, 2, served)
	require.Len(t, asked, 2)
	for _, r := range asked {
		require.Equal(t, "up", r.FormValue("query"))
	}
}

// Requests take turns at the servers: each is one of its client.
func TestAdmit_SaysForWhomServersAreAsked(t *testing.T) {
	d := newDoorway(t, clientHeader("X-Client"))
	var askers []*health.Asker
	for range 2 {
		r := httptest.NewRequest(http.MethodGet, "/query?query=m", nil)
		r.Header.Set("X-Client", "grafana")
		d.Admit(Query, func(_ http.ResponseWriter, r *http.Request) {
			askers = append(askers, request.From(r.Context()).Asker)
		})(httptest.NewRecorder(), r)
	}
	require.Equal(t, &health.Asker{Client: "name grafana"}, askers[0])
	require.NotSame(t, askers[0], askers[1])
}
