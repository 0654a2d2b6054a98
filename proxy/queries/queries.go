// Package queries knows the queries that run, and logs those that were answered.
//
// Observe is what a query's request goes through first: it gives the query an id, lists it
// until it is answered, and then has it logged. List and Cancel are the API for that. A query
// of a rule is listed and logged in the same way by EvaluateRule. Log writes the lines in the
// background: a file that is slow or cannot be written costs lines, and no query its time.
package queries

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/common/route"
	"github.com/prometheus/prometheus/util/annotations"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/oneprom/oneprom/promqlx"
	"github.com/oneprom/oneprom/promqlx/explain"
	"github.com/oneprom/oneprom/proxy/api"
	"github.com/oneprom/oneprom/proxy/tenant"
)

const (
	// maxListed is how many running queries are listed.
	maxListed = 1000
	// What is kept of what clients write, in bytes.
	maxQueryText = 16 << 10
	maxErrorText = 1 << 10
)

// Options are what Queries need.
type Options struct {
	Log *Log
	// Logged returns whether queries are logged, and how long one must take for that.
	Logged func() (on bool, atLeast time.Duration)
	Now    func() time.Time // what queries without a time mean
	Logger *slog.Logger
}

// Queries are those that run. They are safe for concurrent use.
type Queries struct {
	Options

	mtx     sync.Mutex // guards the fields below
	last    int64      // id that was given out
	running map[int64]*query
}

// New begins the ids with the time, so that one from before a restart does not name
// another query.
func New(o Options) *Queries {
	return &Queries{Options: o, last: o.Now().UnixMilli(), running: map[int64]*query{}}
}

// query is a request that asks a query, from when it comes until it is answered.
type query struct {
	id     int64 // unique within the server
	came   time.Time
	path   string // of the API
	from   caller
	cancel context.CancelFunc
	record promqlx.Record

	mtx   sync.Mutex // guards asked
	asked *promqlx.Question
}

// caller is who asks, as far as the request says it: nobody has checked that. There
// are no secrets in it.
type caller struct {
	client, tenant, user, userAgent           string
	dashboard, panel, grafanaOrg, grafanaUser string
}

func callerOf(r *http.Request) caller {
	said := func(header string) string { return api.Clip(r.Header.Get(header), api.MaxHeaderText) }
	user, _, _ := r.BasicAuth()
	return caller{
		client: api.RemoteAddress(r), tenant: tenant.NameOf(r.Context()), user: api.Clip(user, api.MaxHeaderText), userAgent: said("User-Agent"),
		dashboard: said("X-Dashboard-Uid"), panel: said("X-Panel-Id"), grafanaOrg: said("X-Grafana-Org-Id"), grafanaUser: said("X-Grafana-User"),
	}
}

// add begins a query.
func (qs *Queries) add(q *query) {
	qs.mtx.Lock()
	defer qs.mtx.Unlock()
	qs.last++
	q.id = qs.last
	qs.running[q.id] = q
}

// remove ends it.
func (qs *Queries) remove(q *query) {
	qs.mtx.Lock()
	defer qs.mtx.Unlock()
	delete(qs.running, q.id)
}

// list returns the queries that are known to be some, and that somebody may see, the
// oldest first.
func (qs *Queries) list(by *tenant.Tenant) []*query {
	qs.mtx.Lock()
	defer qs.mtx.Unlock()
	var out []*query
	for _, q := range qs.running {
		if q.question() != nil && q.seenBy(by) {
			out = append(out, q)
		}
	}
	slices.SortFunc(out, func(a, b *query) int { return cmp.Compare(a.id, b.id) })
	return out
}

func (qs *Queries) get(id int64, by *tenant.Tenant) *query {
	qs.mtx.Lock()
	defer qs.mtx.Unlock()
	if q := qs.running[id]; q != nil && q.seenBy(by) {
		return q
	}
	return nil
}

// seenBy reports whether a tenant may see a query: one of its own.
func (q *query) seenBy(t *tenant.Tenant) bool { return !t.Restricted() || q.from.tenant == t.Name }

// question is what is asked; nil as long as that is not known, and if it is no query.
func (q *query) question() *promqlx.Question {
	q.mtx.Lock()
	defer q.mtx.Unlock()
	return q.asked
}

// text is that of the query; "" if there is none. q may be nil.
func (q *query) text() string {
	if q == nil {
		return ""
	}
	if asked := q.question(); asked != nil {
		return asked.Query
	}
	return ""
}

type runningKey struct{}

// TextOf returns the text of the query that a request asks; "" if that is not known, or it
// asks none.
func TextOf(ctx context.Context) string { return runningOf(ctx).text() }

// runningOf returns the query that a request asks; nil if it does not.
func runningOf(ctx context.Context) *query {
	q, _ := ctx.Value(runningKey{}).(*query)
	return q
}

// Observe has queries listed while they run, and logged when they are answered. What they
// ask in a body is known when that has been read, which is the business of the handlers:
// they may bound how long that takes, and call Asked. recovered answers panics.
func (qs *Queries) Observe(recovered func(http.Handler) http.Handler, h http.Handler) http.Handler {
	// A panic has its answer here, so that it is known which query it was.
	watched := recovered(h)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !api.AsksQuery(r) {
			h.ServeHTTP(w, r)
			return
		}
		q := &query{came: time.Now(), path: r.URL.Path, from: callerOf(r)}
		ctx, cancel := context.WithCancel(context.WithValue(promqlx.WithRecord(r.Context(), &q.record), runningKey{}, q))
		defer cancel()
		q.cancel = cancel
		qs.add(q)
		defer qs.remove(q)

		r = r.WithContext(ctx)
		if r.Method == http.MethodGet {
			qs.Asked(r)
		}
		rec, w := api.RecorderOf(w)
		defer rec.OnBegin(func(header http.Header, code int) (int, []byte) {
			if what := q.record.Cache(); what != "" && code == http.StatusOK {
				header.Set(api.CacheHeader, what)
			}
			return code, nil
		})()
		complete := false
		defer func() {
			if span := trace.SpanFromContext(ctx); span.IsRecording() {
				span.SetAttributes(attribute.String("query", q.text()))
			}
			qs.log(ctx, q, outcomeOf(rec, complete))
		}()
		watched.ServeHTTP(w, r)
		complete = true
	})
}

// Asked takes in what a request asks whose form can be read now. Parameters that cannot be
// read are left out: the handler says what is wrong with them. To explain a query without
// analyze is not to ask it.
func (qs *Queries) Asked(r *http.Request) {
	q := runningOf(r.Context())
	if q == nil || q.path == "/explain" && r.FormValue("analyze") != "true" {
		return
	}
	asked, _ := api.Question(r, qs.Now())
	asked.Query = api.Clip(asked.Query, maxQueryText)
	q.mtx.Lock()
	defer q.mtx.Unlock()
	q.asked = &asked
}

// Listed is a running query as List shows it. Times are in seconds.
type Listed struct {
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

func (q *query) listed() Listed {
	asked := q.question()
	out := Listed{
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

// List is GET /api/v1/status/queries.
func (qs *Queries) List(r *http.Request) (api.Result, error) {
	running := qs.list(tenant.Of(r.Context()))
	a := api.Result{}
	if more := len(running) - maxListed; more > 0 {
		running = running[:maxListed]
		a.Warnings.Add(fmt.Errorf("%w: %d younger queries are not listed", annotations.PromQLInfo, more))
	}
	list := make([]Listed, len(running))
	for i, q := range running {
		list[i] = q.listed()
	}
	a.Data = list
	return a, nil
}

// Cancel is DELETE /api/v1/status/queries/:id.
func (qs *Queries) Cancel(r *http.Request) (api.Result, error) {
	text := route.Param(r.Context(), "id")
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return api.Result{}, api.BadData(fmt.Errorf("%q is not the id of a query", api.Clip(text, api.MaxHeaderText)))
	}
	q := qs.get(id, tenant.Of(r.Context()))
	if q == nil {
		return api.Result{}, api.NewError(http.StatusNotFound, "not_found", fmt.Errorf("no query with the id %d is running", id))
	}
	q.cancel()
	qs.Logger.Info("a query was cancelled by request", "id", id, "query", q.text(), "by", api.RemoteAddress(r))
	return api.Result{}, nil
}
