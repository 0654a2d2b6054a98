package proxy

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/julienschmidt/httprouter"
	"github.com/prometheus/prometheus/util/annotations"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/oneprom/oneprom/promqlx"
	"github.com/oneprom/oneprom/promqlx/explain"
)

// This file knows the queries that run.

const (
	// maxListed is how many running queries are listed.
	maxListed = 1000
	// What is kept of what clients write, in bytes.
	maxQueryText  = 16 << 10
	maxHeaderText = 256
	maxErrorText  = 1 << 10
	// maxFormText is Go's own bound of a form.
	maxFormText = 10 << 20
)

// queries are those that run. They are safe for concurrent use.
type queries struct {
	mtx     sync.Mutex // guards the fields below
	last    int64      // id that was given out
	running map[int64]*runningQuery
}

// newQueries begins the ids with the time, so that one from before a restart does not
// name another query.
func newQueries(now time.Time) *queries {
	return &queries{last: now.UnixMilli(), running: map[int64]*runningQuery{}}
}

// runningQuery is a request that asks a query, from when it comes until it is answered.
type runningQuery struct {
	id     int64 // unique within the server
	came   time.Time
	path   string // of the API
	from   origin
	cancel context.CancelFunc
	record promqlx.Record

	mtx   sync.Mutex // guards asked
	asked *promqlx.Question
}

// origin is who asks, as far as the request says it: nobody has checked that. There
// are no secrets in it.
type origin struct {
	client, tenant, user, userAgent           string
	dashboard, panel, grafanaOrg, grafanaUser string
}

func originOf(r *http.Request) origin {
	said := func(header string) string { return clipped(r.Header.Get(header), maxHeaderText) }
	user, _, _ := r.BasicAuth()
	return origin{
		client: remoteAddress(r), tenant: tenantOf(r.Context()).name(), user: clipped(user, maxHeaderText), userAgent: said("User-Agent"),
		dashboard: said("X-Dashboard-Uid"), panel: said("X-Panel-Id"), grafanaOrg: said("X-Grafana-Org-Id"), grafanaUser: said("X-Grafana-User"),
	}
}

// add begins a query.
func (qs *queries) add(q *runningQuery) {
	qs.mtx.Lock()
	defer qs.mtx.Unlock()
	qs.last++
	q.id = qs.last
	qs.running[q.id] = q
}

// remove ends it.
func (qs *queries) remove(q *runningQuery) {
	qs.mtx.Lock()
	defer qs.mtx.Unlock()
	delete(qs.running, q.id)
}

// list returns the queries that are known to be some, and that somebody may see, the
// oldest first.
func (qs *queries) list(by *tenant) []*runningQuery {
	qs.mtx.Lock()
	defer qs.mtx.Unlock()
	var out []*runningQuery
	for _, q := range qs.running {
		if q.question() != nil && q.seenBy(by) {
			out = append(out, q)
		}
	}
	slices.SortFunc(out, func(a, b *runningQuery) int { return cmp.Compare(a.id, b.id) })
	return out
}

func (qs *queries) get(id int64, by *tenant) *runningQuery {
	qs.mtx.Lock()
	defer qs.mtx.Unlock()
	if q := qs.running[id]; q != nil && q.seenBy(by) {
		return q
	}
	return nil
}

// seenBy tells whether a tenant may see a query: one of its own.
func (q *runningQuery) seenBy(t *tenant) bool { return !t.restricted() || q.from.tenant == t.Name }

// question is what is asked; nil as long as that is not known, and if it is no query.
func (q *runningQuery) question() *promqlx.Question {
	q.mtx.Lock()
	defer q.mtx.Unlock()
	return q.asked
}

// text is that of the query; "" if there is none. q may be nil.
func (q *runningQuery) text() string {
	if q == nil {
		return ""
	}
	if asked := q.question(); asked != nil {
		return asked.Query
	}
	return ""
}

// read takes in a form. Parameters that cannot be read are left out: the handler says
// what is wrong with them. To explain a query without analyze is not to ask it.
func (q *runningQuery) read(form *http.Request, now time.Time) {
	var asked promqlx.Question
	switch q.path {
	case "/query":
		asked.Start, _ = timeParam(form, "time", now)
		asked.End = asked.Start
	case "/query_range":
		_ = rangeParams(form, &asked)
	default:
		if form.FormValue("analyze") != "true" {
			return
		}
		asked, _ = question(form, now)
	}
	asked.Query = clipped(form.FormValue("query"), maxQueryText)
	q.mtx.Lock()
	defer q.mtx.Unlock()
	q.asked = &asked
}

// clipped shortens foreign text to a number of bytes.
func clipped(s string, most int) string {
	if len(s) > most {
		s = s[:most]
		return strings.ToValidUTF8(s, "") + "…"
	}
	return strings.ToValidUTF8(s, "�")
}

// remoteAddress is where a request comes from.
func remoteAddress(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

type runningKey struct{}

// runningOf returns the query that a request asks; nil if it does not.
func runningOf(ctx context.Context) *runningQuery {
	q, _ := ctx.Value(runningKey{}).(*runningQuery)
	return q
}

// observeQueries has queries listed while they run, and logged when they are answered.
// What they ask is known when their body has been read, which is the business of the
// handlers: they may bound how long that takes.
func (s *Server) observeQueries(h http.Handler) http.Handler {
	// A panic has its answer here, so that it is known which query it was.
	recovered := s.recoverPanics(h)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !maybeQuery(r) {
			h.ServeHTTP(w, r)
			return
		}
		q := &runningQuery{came: time.Now(), path: r.URL.Path, from: originOf(r)}
		ctx, cancel := context.WithCancel(context.WithValue(promqlx.WithRecord(r.Context(), &q.record), runningKey{}, q))
		defer cancel()
		q.cancel = cancel
		s.queries.add(q)
		defer s.queries.remove(q)

		r = r.WithContext(ctx)
		if r.Method == http.MethodGet {
			q.read(r, s.opts.Now())
		} else {
			r.Body = &copiedBody{ReadCloser: r.Body, read: func(body []byte) {
				q.read(&http.Request{Method: r.Method, URL: r.URL, Header: r.Header, Body: io.NopCloser(bytes.NewReader(body))}, s.opts.Now())
			}}
		}
		answered := &answerWriter{watchedWriter: watchedWriter{ResponseWriter: w}}
		whole := false
		defer func() {
			if span := trace.SpanFromContext(ctx); span.IsRecording() {
				span.SetAttributes(attribute.String("query", q.text()))
			}
			s.logQuery(ctx, q, answered.outcome(whole))
		}()
		recovered.ServeHTTP(answered, r)
		whole = true
	})
}

// maybeQuery tells whether a request below /api/v1 may ask a query.
func maybeQuery(r *http.Request) bool {
	switch r.URL.Path {
	case "/query", "/query_range", "/explain":
		return r.Method == http.MethodGet || r.Method == http.MethodPost
	}
	return false
}

// copiedBody has a copy of a body read once it has come to its end.
type copiedBody struct {
	io.ReadCloser
	copy []byte
	read func([]byte) // nil once it was called
}

func (b *copiedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.read == nil {
		return n, err
	}
	if len(b.copy)+n <= maxFormText {
		b.copy = append(b.copy, p[:n]...)
	}
	if err == io.EOF {
		b.read(b.copy)
		b.read, b.copy = nil, nil
	}
	return n, err
}

// listedQuery is a running query in an answer. Times are in seconds.
type listedQuery struct {
	ID    string           `json:"id"`
	Query string           `json:"query"`
	API   string           `json:"api"`
	Start *explain.Seconds `json:"start,omitempty"`
	End   *explain.Seconds `json:"end,omitempty"`
	Step  explain.Seconds  `json:"step"` // 0 for an instant query
	// Since is when it came, Duration how long ago that is.
	Since    time.Time       `json:"since"`
	Duration explain.Seconds `json:"duration"`
	// State is queued or running.
	State     string `json:"state"`
	Plan      string `json:"plan,omitempty"`
	Client    string `json:"client"`
	Tenant    string `json:"tenant,omitempty"`
	UserAgent string `json:"userAgent,omitempty"`
	Dashboard string `json:"dashboard,omitempty"`
	Panel     string `json:"panel,omitempty"`
}

func (q *runningQuery) listed() listedQuery {
	asked := q.question()
	out := listedQuery{
		ID: strconv.FormatInt(q.id, 10), Query: asked.Query, API: strings.TrimPrefix(q.path, "/"),
		Start: secondsOf(asked.Start), End: secondsOf(asked.End), Step: explain.Seconds(asked.Interval.Seconds()),
		Since: q.came.UTC(), Duration: explain.Seconds(time.Since(q.came).Seconds()), State: "queued", Plan: q.record.PlanDigest(),
		Client: q.from.client, Tenant: q.from.tenant, UserAgent: q.from.userAgent, Dashboard: q.from.dashboard, Panel: q.from.panel,
	}
	if !q.record.Began().IsZero() {
		out.State = "running"
	}
	return out
}

// secondsOf is nil for no time.
func secondsOf(t time.Time) *explain.Seconds {
	if t.IsZero() {
		return nil
	}
	s := explain.Seconds(float64(t.UnixMilli()) / 1000)
	return &s
}

// serveQueries is GET /api/v1/status/queries.
func (s *Server) serveQueries(r *http.Request) (answer, error) {
	running := s.queries.list(tenantOf(r.Context()))
	a := answer{}
	if more := len(running) - maxListed; more > 0 {
		running = running[:maxListed]
		a.warnings.Add(fmt.Errorf("%w: %d younger queries are not listed", annotations.PromQLInfo, more))
	}
	list := make([]listedQuery, len(running))
	for i, q := range running {
		list[i] = q.listed()
	}
	a.data = list
	return a, nil
}

// errNoAdmin is the answer to what only --web.enable-admin-api allows.
var errNoAdmin = &apiError{http.StatusServiceUnavailable, "unavailable", errors.New("admin APIs are disabled: start oneprom with --web.enable-admin-api")}

// serveCancelQuery is DELETE /api/v1/status/queries/:id.
func (s *Server) serveCancelQuery(r *http.Request) (answer, error) {
	if !s.opts.EnableAdminAPI {
		return answer{}, errNoAdmin
	}
	text := httprouter.ParamsFromContext(r.Context()).ByName("id")
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return answer{}, badData(fmt.Errorf("%q is not the id of a query", clipped(text, maxHeaderText)))
	}
	q := s.queries.get(id, tenantOf(r.Context()))
	if q == nil {
		return answer{}, &apiError{http.StatusNotFound, "not_found", fmt.Errorf("no query with the id %d is running", id)}
	}
	q.cancel()
	s.logger.Info("a query was cancelled by request", "id", id, "query", q.text(), "by", remoteAddress(r))
	return answer{}, nil
}
