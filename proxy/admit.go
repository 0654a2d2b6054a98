package proxy

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
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/httputil"

	"github.com/oneprom/oneprom/promqlx"
	"github.com/oneprom/oneprom/proxy/admission"
)

// maxBody bounds the body of a request that may have to wait, in bytes. It is what
// Go takes for a form.
const maxBody = 10 << 20

// doorman lets requests to the server groups in when it is their turn.
type doorman struct {
	queue        *admission.Queue
	rules        func() *admission.Rules
	reads        []*admission.Pool // slots of remote read; none if there is no limit
	parser       parser.Parser     // of queries
	timeout      time.Duration     // of a query
	clientHeader string            // that names the client; "" is none
	corsOrigin   *regexp.Regexp
	now          func() time.Time // what queries without a time mean
	logger       *slog.Logger
}

// newDoorman returns a doorman with all slots free.
func (s *Server) newDoorman(r prometheus.Registerer) *doorman {
	o := s.opts
	d := &doorman{
		queue: admission.NewQueue(admission.Options{
			Slots: o.MaxConcurrency, SlotsPerClient: o.MaxConcurrencyPerClient,
			MaxQueued: o.MaxQueued, MaxWait: time.Duration(o.QueueTimeout), Registerer: r,
		}),
		rules: s.rules.Load, parser: s.parser, timeout: time.Duration(o.QueryTimeout), clientHeader: o.ClientHeader,
		corsOrigin: s.corsOrigin, now: o.Now, logger: s.logger,
	}
	if o.ReadConcurrentLimit > 0 {
		d.reads = []*admission.Pool{admission.NewPool("read", "--storage.remote.read-concurrent-limit", o.ReadConcurrentLimit)}
	}
	return d
}

// errand is what a request wants of the server groups.
type errand int

const (
	noErrand  errand = iota // it is answered without them, and never waits
	aQuery                  // query rules apply
	anExplain               // the same; without analyze it needs no slot
	aLookup
	aScrape // answered in text, not in JSON
	aRead   // the same, and as a stream
)

// errands are those of the routes.
var errands = map[string]errand{
	"/query": aQuery, "/query_range": aQuery, "/explain": anExplain,
	"/series": aLookup, "/labels": aLookup, "/label/:name/values": aLookup, "/query_exemplars": aLookup, "/metadata": aLookup,
	"/rules": aLookup, "/alerts": aLookup, "/alertmanagers": aLookup, "/notifications": aLookup, "/features": aLookup,
	"/targets": aLookup, "/targets/metadata": aLookup, "/targets/relabel_steps": aLookup,
	"/scrape_pools": aLookup, "/scrape_pools/config": aLookup, "/status/tsdb": aLookup, "/status/tsdb/blocks": aLookup,
	"/search/metric_names": aLookup, "/search/label_names": aLookup, "/search/label_values": aLookup,
	"/federate": aScrape, "/read": aRead,
}

// admit has the requests of a route wait for a slot, if they are for the server
// groups. The slot is free again when the answer begins, so that a client that
// reads slowly holds none; but with the end of an answer that is made while it is
// sent.
func (d *doorman) admit(route string, h http.HandlerFunc) http.HandlerFunc {
	wants := errands[route]
	if wants == noErrand {
		return h
	}
	return func(w http.ResponseWriter, r *http.Request) {
		arrived := time.Now()
		// First the body, so that a client that sends slowly holds no slot. The time
		// that it takes counts as waiting.
		body, err := readBody(r)
		if err != nil {
			d.refuse(w, r, wants, err)
			return
		}
		var pools []*admission.Pool
		if wants == aRead {
			pools = d.reads
		}
		owner := tenantOf(r.Context())
		if wants == aQuery || wants == anExplain {
			form := withBody(r, body)
			if pools, err = d.judge(route, form); err != nil {
				d.refuse(w, r, wants, err)
				return
			}
			if wants == anExplain && form.FormValue("analyze") != "true" {
				h(w, withBody(r, body))
				return
			}
			ctx, cancel := d.queryContext(form)
			defer cancel()
			r = r.WithContext(ctx)
		}
		if owner != nil && owner.pool != nil {
			pools = append(slices.Clip(pools), owner.pool)
		}
		leave, err := d.queue.Enter(r.Context(), admission.Request{Client: d.client(r), Arrived: arrived, Pools: pools})
		if err != nil {
			d.refuse(w, r, wants, err)
			return
		}
		defer leave()
		if wants != aRead {
			w = &leavingWriter{watchedWriter{ResponseWriter: w}, leave}
		}
		h(w, withBody(r, body))
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
		return nil, badData(fmt.Errorf("reading the request: %w", err))
	case len(body) > maxBody:
		return nil, &apiError{http.StatusRequestEntityTooLarge, "bad_data", fmt.Errorf("the body of the request has more than %d bytes", maxBody)}
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

// judge asks the query rules. What is no query has no rules: its handler says what
// is wrong.
func (d *doorman) judge(route string, form *http.Request) ([]*admission.Pool, error) {
	rules := d.rules()
	if !rules.Any() {
		return nil, nil
	}
	q, err := d.question(route, form)
	if err != nil {
		return nil, nil
	}
	expr, err := d.parser.ParseExpr(q.Query)
	if err != nil {
		return nil, nil
	}
	if expr, err = promql.PreprocessExpr(expr, q.Start, q.End, q.Interval); err != nil {
		return nil, nil
	}
	return rules.Judge(admission.Query{Text: q.Query, Expr: expr, Start: q.Start, End: q.End, Step: q.Interval, Header: form.Header, Tenant: tenantOf(form.Context()).name()})
}

// question reads the parameters that the handler of a route will look at.
func (d *doorman) question(route string, form *http.Request) (q promqlx.Question, err error) {
	switch route {
	case "/query":
		q.Query = form.FormValue("query")
		q.Start, err = timeParam(form, "time", d.now())
		q.End = q.Start
		return q, err
	case "/query_range":
		q.Query = form.FormValue("query")
		return q, rangeParams(form, &q)
	}
	return question(form, d.now())
}

// queryContext returns the context of a query. It bounds the wait and what follows
// together: the time of a query begins when it comes.
func (d *doorman) queryContext(form *http.Request) (context.Context, context.CancelFunc) {
	timeout := d.timeout
	if own, err := parseDuration(form.FormValue("timeout")); err == nil {
		timeout = min(timeout, own)
	}
	return context.WithTimeout(form.Context(), timeout)
}

// client tells who asks: by the tenant, else by the header that names clients, else by the user, else
// by the address. Users are known only as far as somebody asks for passwords.
func (d *doorman) client(r *http.Request) string {
	if t := tenantOf(r.Context()); t != nil {
		return "tenant " + t.Name
	}
	if name := r.Header.Get(d.clientHeader); name != "" {
		return "name " + name
	}
	if user, _, ok := r.BasicAuth(); ok {
		return "user " + user
	}
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	return "address " + cmp.Or(host, r.RemoteAddr)
}

// refuse answers a request that is not let in.
func (d *doorman) refuse(w http.ResponseWriter, r *http.Request, wants errand, err error) {
	e := classify(err)
	if refusal, ok := errors.AsType[*admission.Refusal](err); ok {
		e = &apiError{http.StatusTooManyRequests, "unavailable", err}
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(refusal.RetryAfter.Seconds()))))
	}
	if wants == aScrape || wants == aRead {
		http.Error(w, e.Error(), e.code)
		return
	}
	httputil.SetCORS(w, d.corsOrigin, r)
	respondError(w, e, d.logger)
}

// leavingWriter gives back the slot of a request when its answer begins.
type leavingWriter struct {
	watchedWriter
	leave func()
}

func (w *leavingWriter) WriteHeader(code int) {
	w.leave()
	w.watchedWriter.WriteHeader(code)
}

func (w *leavingWriter) Write(b []byte) (int, error) {
	w.leave()
	return w.watchedWriter.Write(b)
}

// Flush implements http.Flusher.
func (w *leavingWriter) Flush() {
	w.leave()
	w.watchedWriter.Flush()
}
