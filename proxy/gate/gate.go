// Package gate lets requests to the server groups in when it is their turn.
//
// A route has a class of work. A request whose class needs the server groups is read whole,
// body and form, which happens nowhere else; query rules judge what it asks; then it waits
// for a slot, with the other requests of its client and of its tenant (package admission),
// or is refused with 429. The slot is free again when the answer begins. At the servers, too, it takes
// turns as a request of its client.
package gate

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/grafana/regexp"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/httputil"

	"github.com/oneprom/oneprom/promqlx/bounds"
	"github.com/oneprom/oneprom/proxy/admission"
	"github.com/oneprom/oneprom/proxy/api"
	"github.com/oneprom/oneprom/proxy/tenant"
	"github.com/oneprom/oneprom/servergroup/health"
	"github.com/oneprom/oneprom/servergroup/request"
)

// maxBody bounds the body of a request that may have to wait, in bytes. It is what
// Go takes for a form.
const maxBody = 10 << 20

// Options are what a Gate needs.
type Options struct {
	Queue          *admission.Queue
	ConcurrentRead int // slots of remote read; 0 is no limit
	Rules          func() *admission.Rules
	Parser         parser.Parser // of queries
	Timeout        time.Duration // of a query
	ClientHeader   string        // that names the client; "" is none
	CORSOrigin     *regexp.Regexp
	// Asked is called with the request of a query once its form can be read without waiting
	// for the client.
	Asked  func(*http.Request)
	Now    func() time.Time // what queries without a time mean
	Logger *slog.Logger
}

// Gate lets requests to the server groups in when it is their turn.
type Gate struct {
	Options
	reads []*admission.Pool // slots of remote read; none if there is no limit
}

// New returns a gate with all slots free.
func New(o Options) *Gate {
	g := &Gate{Options: o}
	if o.ConcurrentRead > 0 {
		g.reads = []*admission.Pool{admission.NewPool("read", "--storage.remote.read-concurrent-limit", o.ConcurrentRead)}
	}
	return g
}

// Class is the class of work of a route: what its requests want of the server groups.
type Class int

const (
	// NoWork is answered without them, and never waits.
	NoWork Class = iota
	// Query is a query, or is about one: query rules apply.
	Query
	// Lookup asks for anything else.
	Lookup
	// Scrape is answered in text, not in JSON.
	Scrape
	// Read is the same, and as a stream.
	Read
)

// PlainText reports whether the errors of a route of the class are plain text.
func (c Class) PlainText() bool { return c == Scrape || c == Read }

// Admit has the requests of a route wait for a slot, if they are for the server groups. The
// slot is free again when the answer begins, so that a client that reads slowly holds none;
// but with the end of an answer that is made while it is sent.
func (g *Gate) Admit(class Class, h http.HandlerFunc) http.HandlerFunc {
	if class == NoWork {
		return h
	}
	return func(w http.ResponseWriter, r *http.Request) {
		arrived := time.Now()
		client := g.client(r)
		r = r.WithContext(request.With(r.Context(), func(req *request.Request) { req.Asker = &health.Asker{Client: client} }))
		// First the body, so that a client that sends slowly holds no slot. The time
		// that it takes counts as waiting.
		body, err := readBody(r)
		if err != nil {
			g.refuse(w, r, class, err)
			return
		}
		r = withBody(r, body)
		var pools []*admission.Pool
		if class == Read {
			pools = g.reads
		}
		if class == Query {
			form, wrong := parsed(r)
			g.Asked(form)
			if pools, err = g.judge(form); err != nil {
				g.refuse(w, r, class, err)
				return
			}
			next := form
			if wrong {
				next = withBody(r, body)
			}
			ctx, cancel := g.queryContext(form)
			defer cancel()
			r = next.WithContext(ctx)
		}
		if pool := tenant.Of(r.Context()).Pool(); pool != nil {
			pools = append(slices.Clip(pools), pool)
		}
		leave, err := g.Queue.Enter(r.Context(), admission.Request{Client: client, Arrived: arrived, Pools: pools})
		if err != nil {
			g.refuse(w, r, class, err)
			return
		}
		defer leave()
		if class != Read {
			var rec *api.Recorder
			rec, w = api.RecorderOf(w)
			defer rec.OnBegin(func(_ http.Header, code int) (int, []byte) {
				leave()
				return code, nil
			})()
		}
		h(w, r)
	}
}

// readBody reads the body of a request.
func readBody(r *http.Request) ([]byte, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	switch {
	case err != nil:
		return nil, api.BadData(fmt.Errorf("reading the request: %w", err))
	case len(body) > maxBody:
		return nil, api.NewError(http.StatusRequestEntityTooLarge, "bad_data", fmt.Errorf("the body of the request has more than %d bytes", maxBody))
	}
	return body, nil
}

// withBody returns a copy of a request with its body still to be read.
func withBody(r *http.Request, body []byte) *http.Request {
	if body == nil {
		return r
	}
	again := *r
	again.Body = io.NopCloser(bytes.NewReader(body))
	return &again
}

// parsed returns a copy of a request with its form, which nobody parses again. If something
// is wrong with the form, the copy has what can be read of it, and is not for the handler:
// that says what is wrong when it parses the form itself.
func parsed(r *http.Request) (form *http.Request, wrong bool) {
	again := *r
	form = &again
	err := form.ParseForm()
	if multi := form.ParseMultipartForm(maxBody); err == nil && !errors.Is(multi, http.ErrNotMultipart) {
		err = multi
	}
	form.Body = http.NoBody
	return form, err != nil
}

// judge refuses what is too deep or too long to be parsed, and asks the query rules. What is no
// query has no rules: its handler says what is wrong.
func (g *Gate) judge(form *http.Request) ([]*admission.Pool, error) {
	if err := bounds.Check(form.FormValue("query")); err != nil {
		return nil, err
	}
	rules := g.Rules()
	if !rules.Any() {
		return nil, nil
	}
	q, err := api.Question(form, g.Now())
	if err != nil {
		return nil, nil
	}
	expr, err := g.Parser.ParseExpr(q.Query)
	if err != nil {
		return nil, nil
	}
	if expr, err = promql.PreprocessExpr(expr, q.Start, q.End, q.Interval); err != nil {
		return nil, nil
	}
	return rules.Judge(admission.Query{Text: q.Query, Expr: expr, Start: q.Start, End: q.End, Step: q.Interval, Header: form.Header, Tenant: tenant.NameOf(form.Context())})
}

// queryContext returns the context of a query. It bounds the wait and what follows
// together: the time of a query begins when it comes.
func (g *Gate) queryContext(form *http.Request) (context.Context, context.CancelFunc) {
	timeout := g.Timeout
	if own, err := api.ParseDuration(form.FormValue("timeout")); err == nil {
		timeout = min(timeout, own)
	}
	return context.WithTimeout(form.Context(), timeout)
}

// client says who asks: by the tenant, else by the header that names clients, else by the user, else
// by the address. Users are known only as far as somebody asks for passwords.
func (g *Gate) client(r *http.Request) string {
	if t := tenant.Of(r.Context()); t != nil {
		return "tenant " + t.Name
	}
	if name := r.Header.Get(g.ClientHeader); name != "" {
		return "name " + name
	}
	if user, _, ok := r.BasicAuth(); ok {
		return "user " + user
	}
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	return "address " + cmp.Or(host, r.RemoteAddr)
}

// refuse answers a request that is not let in.
func (g *Gate) refuse(w http.ResponseWriter, r *http.Request, class Class, err error) {
	e := api.Classify(err)
	if refusal, ok := errors.AsType[*admission.Refusal](err); ok {
		e = api.NewError(http.StatusTooManyRequests, "unavailable", err)
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(refusal.RetryAfter.Seconds()))))
	}
	if class.PlainText() {
		http.Error(w, e.Error(), e.Code)
		return
	}
	httputil.SetCORS(w, g.CORSOrigin, r)
	api.RespondError(w, e, g.Logger)
}
