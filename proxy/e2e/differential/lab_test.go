package differential

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"gopkg.in/yaml.v3"

	"github.com/oneprom/oneprom/proxy"
	"github.com/oneprom/oneprom/servergroup/backendtest"
	"github.com/oneprom/oneprom/servergroup/backendtest/dialect"
)

// kind is how a server can be read, and whether it has external labels, which it
// adds to what is read by remote read.
type kind struct {
	read     backendtest.RemoteRead
	external bool
	early    bool // names are dropped where a function drops them
}

func (k kind) queryAPI() bool { return k.read == backendtest.NoRemoteRead }

// startTimestamps reports whether they come along: only with chunks.
func (k kind) startTimestamps() bool { return k.read == backendtest.Streamed }

func (k kind) String() string {
	text := map[backendtest.RemoteRead]string{
		backendtest.Streamed: "streamed remote read", backendtest.SamplesOnly: "samples remote read", backendtest.NoRemoteRead: "query API",
	}[k.read]
	if k.external {
		text += ", external labels"
	}
	return text
}

// kindsOf returns the kinds of server in a world: often one only, so that what
// one of them does not carry can be in the worlds of the others.
func kindsOf(r *rand.Rand) []kind {
	streamed, samples, query := kind{read: backendtest.Streamed}, kind{read: backendtest.SamplesOnly}, kind{read: backendtest.NoRemoteRead}
	streamedExt, samplesExt := streamed, samples
	streamedExt.external, samplesExt.external = true, true
	all := []kind{streamed, streamedExt, samples, samplesExt, query}
	switch r.IntN(6) {
	case 0, 1:
		return []kind{streamed, streamedExt}
	case 2:
		return []kind{samples, samplesExt}
	case 3:
		return []kind{query}
	}
	return all
}

// lab makes running worlds. A handler is dear, so there is one for each kind of
// server, which finds the storage that it answers from in the request.
type lab struct {
	handlers map[serverKind]http.Handler
	client   *http.Client
	fronts   map[bool]*front // for worlds whose names are dropped early, and others
	worlds   int             // that were started
}

// serverKind is a kind of server at one moment.
type serverKind struct {
	kind
	external int  // of externalLabels
	old      bool // it is a Prometheus 2
}

// front is a oneprom, which serves one world after the other. A changing world has one of its own,
// whose clock is that of the world.
type front struct {
	server  *proxy.Server // nil before the first question
	config  string        // its file
	serving *running      // the world that it has in its configuration
}

func newLab(tb testing.TB) *lab {
	dir := tb.TempDir()
	l := &lab{
		handlers: map[serverKind]http.Handler{},
		client:   &http.Client{Transport: &http.Transport{DisableCompression: true}, Timeout: time.Minute},
		fronts:   map[bool]*front{false: {config: filepath.Join(dir, "late.yml")}, true: {config: filepath.Join(dir, "early.yml")}},
	}
	tb.Cleanup(func() {
		l.client.CloseIdleConnections()
		for _, f := range l.fronts {
			if err := f.stop(); err != nil {
				tb.Error(err)
			}
		}
	})
	return l
}

func (f *front) stop() error {
	if f.server == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return f.server.Stop(ctx)
}

// serve makes the groups of a world those of its oneprom, which it returns.
func (l *lab) serve(run *running) (*proxy.Server, error) {
	f := run.front
	if f.serving == run {
		return f.server, nil
	}
	if err := os.WriteFile(f.config, run.config, 0o600); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if f.server == nil {
		if err := f.start(ctx, run); err != nil {
			return nil, err
		}
	} else if err := f.server.Reload(ctx); err != nil {
		return nil, err
	}
	f.serving = run
	return f.server, nil
}

func (f *front) start(ctx context.Context, run *running) error {
	var o proxy.Options
	if run.first.changing {
		o.Now, o.Ticks = run.time, run.ticks
	}
	app := kingpin.New("oneprom", "")
	proxy.AddFlags(app, &o)
	// As backendtest.EngineOpts has it for the truth.
	features := "promql-experimental-functions,promql-extended-range-selectors,promql-binop-fill-modifiers,use-start-timestamps"
	if !run.early {
		features += ",promql-delayed-name-removal"
	}
	_, err := app.Parse([]string{"--config.file=" + f.config, "--web.listen-address=127.0.0.1:0", "--enable-feature=" + features})
	if err != nil {
		return err
	}
	if f.server, err = proxy.New(o); err != nil {
		return err
	}
	return f.server.Start(ctx)
}

func (l *lab) handler(k serverKind) http.Handler {
	if l.handlers[k] == nil {
		o := backendtest.Options{Queryable: requestStorage{}, RemoteRead: k.read, EarlyNames: k.early, ExternalLabels: externalLabels[k.external]}
		if k.old {
			l.handlers[k] = dialect.NewPrometheus2(o)
		} else {
			l.handlers[k] = backendtest.NewHandler(o)
		}
	}
	return l.handlers[k]
}

// running is a world with its truth and its servers.
type running struct {
	lab     *lab
	front   *front
	truth   http.Handler
	dir     string
	config  []byte // oneprom's file
	early   bool   // names are dropped early, so that push-down is possible
	weak    bool   // some transport does not carry all that annotations are made of
	closers []func() error

	first *world // as it was at first
	// Of a changing world:
	now       *world // as it is now
	processes []*process
	started   int // processes and storages
	clock     atomic.Int64
	ticks     chan time.Time
	ticked    int64 // ms: when it ticked last
}

// start brings a world to life. The caller closes it.
func (l *lab) start(w *world) (_ *running, err error) {
	run := &running{
		lab: l, early: w.early, weak: w.any(func(k kind) bool { return k.read != backendtest.Streamed }),
		front: l.fronts[w.early], first: w, now: w.clone(), ticks: make(chan time.Time),
	}
	run.clock.Store(w.end + w.later)
	run.ticked = run.clock.Load()
	defer func() {
		if err != nil {
			err = errors.Join(err, run.close())
		}
	}()
	dir, err := os.MkdirTemp("", "differential")
	if err != nil {
		return nil, err
	}
	run.closers = append(run.closers, func() error { return os.RemoveAll(dir) })
	run.dir = dir
	if w.changing {
		run.front = &front{config: filepath.Join(dir, "oneprom.yml")}
		run.closers = append(run.closers, run.front.stop)
	}
	if err := run.openTruth(); err != nil {
		return nil, err
	}
	var addresses []string
	for i, s := range w.servers {
		if w.changing {
			address, err := run.addProcess(i, dir)
			if err != nil {
				return nil, err
			}
			addresses = append(addresses, address)
			continue
		}
		db, err := run.open(w, filepath.Join(dir, strconv.Itoa(i)), i)
		if err != nil {
			return nil, err
		}
		s.kind.early = w.early
		k := serverKind{kind: s.kind}
		if s.kind.external {
			k.external = 1
		}
		addresses = append(addresses, run.listen(over(l.handler(k), db)).Listener.Addr().String())
	}
	l.worlds++
	run.config, err = configOf(w, addresses, l.worlds)
	return run, err
}

// openTruth makes the truth of the samples that there are now.
func (run *running) openTruth() error {
	run.started++
	truth, err := run.open(run.now, filepath.Join(run.dir, fmt.Sprintf("truth-%d", run.started)), -1)
	if err == nil {
		run.truth = over(run.lab.handler(serverKind{kind: kind{early: run.early}}), truth)
	}
	return err
}

// listen starts a server.
func (run *running) listen(h http.Handler) *httptest.Server {
	server := httptest.NewUnstartedServer(h)
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // upstream complains of clients that go away
	server.Start()
	run.closers = append(run.closers, func() error { server.Close(); return nil })
	return server
}

// open returns the TSDB of a server, that of the truth if n is -1.
func (run *running) open(w *world, dir string, n int) (*tsdb.DB, error) {
	var options []func(*tsdb.Options)
	if w.st {
		options = append(options, backendtest.StartTimestamps)
	}
	if w.changing {
		options = append(options, func(o *tsdb.Options) {
			o.OutOfOrderTimeWindow = (24 * time.Hour).Milliseconds()
			if n >= 0 { // as a Prometheus has it: no chunk goes beyond the end of a block
				o.MinBlockDuration, o.MaxBlockDuration = w.blockLength, w.blockLength
			}
		})
	}
	db, err := backendtest.OpenDB(dir, options...)
	if err != nil {
		return nil, err
	}
	run.closers = append(run.closers, db.Close)
	db.DisableCompactions() // they are made here
	length := w.end - w.start + 24*60*minute
	if w.changing && n >= 0 {
		length = w.blockLength / 2 // a head takes what is not older than that, compared with its newest sample
	}
	for from := w.start - 60*minute; from < w.end+60*minute; from += length {
		app := db.AppenderV2(context.Background())
		if err := w.fill(app, n, span{from, from + length}); err != nil {
			return nil, errors.Join(err, app.Rollback())
		}
		if err := app.Commit(); err != nil {
			return db, err
		}
	}
	if n < 0 {
		return db, nil
	}
	return db, w.compact(db)
}

// compact makes blocks of what is older than the last of their ends.
func (w *world) compact(db *tsdb.DB) error {
	for _, end := range w.blocks {
		head := db.Head()
		if head.NumSeries() == 0 || head.MinTime() >= end {
			continue
		}
		if err := db.CompactHead(tsdb.NewRangeHead(head, head.MinTime(), min(end, head.MaxTime()+1)-1)); err != nil {
			return err
		}
	}
	return nil
}

// close stops everything, last things first.
func (run *running) close() error {
	if run.front.serving == run {
		run.front.serving = nil
	}
	var errs []error
	for _, v := range slices.Backward(run.closers) {
		errs = append(errs, v())
	}
	return errors.Join(errs...)
}

// fill appends what server n holds in a span, what the truth does if n is -1. Series go in
// sorted by labels: the order of the storage decides the last digit of a sum and
// which series limitk takes, and oneprom's order is that of labels.
func (w *world) fill(app storage.AppenderV2, n int, in span) error {
	if n < 0 {
		for i := range w.series {
			s := &w.series[i]
			if err := w.append(app, s, s.labels, func(p *sample) bool { return p.shadow == 0 && p.late == 0 && within([]span{in}, p.t) }); err != nil {
				return err
			}
		}
		return nil
	}
	for i := range w.series {
		s := &w.series[i]
		for c, h := range w.copies {
			if h.server != n {
				continue
			}
			if err := w.append(app, s, w.labelsAt(s, c), func(p *sample) bool { return p.held&(1<<c) != 0 && within([]span{in}, p.t) }); err != nil {
				return err
			}
		}
	}
	return nil
}

// append appends the samples that are there. Histograms are copied, as a storage
// may change them.
func (w *world) append(app storage.AppenderV2, s *series, l labels.Labels, there func(*sample) bool) error {
	for _, p := range s.samples {
		if !there(&p) {
			continue
		}
		if p.h != nil {
			p.h = p.h.Copy()
		}
		if p.fh != nil {
			p.fh = p.fh.Copy()
		}
		if !w.st {
			p.st = 0
		}
		if _, err := app.Append(0, l, p.st, p.t, p.f, p.h, p.fh, storage.AOptions{}); err != nil {
			return fmt.Errorf("%s at %d: %w", l, p.t, err)
		}
	}
	return nil
}

// configOf is oneprom's configuration file. The number of the world makes all its
// groups new ones: another one's server may have had the same port.
func configOf(w *world, addresses []string, number int) ([]byte, error) {
	type m = map[string]any
	var groups []m
	for _, g := range w.groups {
		if len(g.copies) == 0 {
			continue
		}
		entry := m{"name": g.name, "region": strconv.Itoa(number), "labels": m{}}
		if g.inject != "" {
			entry["labels"] = m{"shard": g.inject}
		}
		var targets []string
		last := -1
		for _, c := range g.copies {
			h := w.copies[c]
			if h.server != last {
				targets = append(targets, addresses[h.server])
			}
			last = h.server
			if h.replica != "" {
				entry["replica_labels"] = []string{"replica"}
			}
		}
		bounds := m{}
		if g.from != 0 {
			bounds["start"] = seconds(g.from)
		}
		if g.to != 0 {
			bounds["end"] = seconds(g.to)
		}
		entry["time_range"] = bounds
		if slices.ContainsFunc(w.groups, func(o group) bool { return o.name == g.copyOf && len(o.copies) > 0 }) {
			entry["copies_of"] = []string{g.copyOf}
		}
		entry["static_configs"] = []m{{"targets": targets}}
		groups = append(groups, entry)
	}
	return yaml.Marshal(m{"server_groups": groups})
}

// question is one request to the query API; instant if step is 0.
type question struct {
	query            string
	start, end, step int64 // ms
	lookback         int64 // ms; 0: the server's
	local            bool  // pushdown is off
	fresh            bool  // nothing that is kept is used
}

func (q question) String() string {
	text := fmt.Sprintf("%s\n  at %s", q.query, seconds(q.start))
	if q.step > 0 {
		text = fmt.Sprintf("%s\n  from %s to %s, step %s", q.query, seconds(q.start), seconds(q.end), seconds(q.step))
	}
	if q.lookback > 0 {
		text += ", lookback " + seconds(q.lookback)
	}
	if q.local {
		text += ", pushdown off"
	}
	if q.fresh {
		text += ", not of the cache"
	}
	return text
}

func (q question) request(base string) (*http.Request, error) {
	path, form := "/api/v1/query", url.Values{"query": {q.query}}
	if q.step == 0 {
		form.Set("time", seconds(q.start))
	} else {
		path = "/api/v1/query_range"
		form.Set("start", seconds(q.start))
		form.Set("end", seconds(q.end))
		form.Set("step", seconds(q.step))
	}
	if q.lookback > 0 {
		form.Set("lookback_delta", seconds(q.lookback))
	}
	req, err := http.NewRequest(http.MethodPost, base+path, strings.NewReader(form.Encode()))
	if err == nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if q.local {
			req.Header.Set("X-Oneprom-Pushdown", "off")
		}
		if q.fresh {
			req.Header.Set("X-Oneprom-Cache", "off")
		}
	}
	return req, err
}

// explain returns how oneprom answers a question, which it asks again for that.
func (run *running) explain(q question) string {
	server, err := run.lab.serve(run)
	if err != nil {
		return err.Error()
	}
	req, err := q.request("http://" + server.Addr())
	if err != nil {
		return err.Error()
	}
	req.URL.Path, req.URL.RawQuery = "/api/v1/explain", "format=text"
	resp, err := run.lab.client.Do(req)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func (run *running) askTruth(q question) (a answer, body string, err error) {
	req, err := q.request("http://truth")
	if err != nil {
		return a, "", err
	}
	rec := httptest.NewRecorder()
	run.truth.ServeHTTP(rec, req)
	if err := json.Unmarshal(rec.Body.Bytes(), &a); err != nil {
		return a, "", fmt.Errorf("the truth is not JSON: %w: %.200s", err, rec.Body)
	}
	return a, rec.Body.String(), nil
}

// askOneprom returns an error if there is no answer.
func (run *running) askOneprom(q question) (a answer, body string, err error) {
	server, err := run.lab.serve(run)
	if err != nil {
		return a, "", err
	}
	req, err := q.request("http://" + server.Addr())
	if err != nil {
		return a, "", err
	}
	resp, err := run.lab.client.Do(req)
	if err != nil {
		return a, "", err
	}
	defer resp.Body.Close()
	a.cache = resp.Header.Get("X-Oneprom-Cache")
	a.completeness = resp.Header.Get("X-Oneprom-Completeness")
	raw, err := io.ReadAll(resp.Body)
	if err == nil {
		err = json.Unmarshal(raw, &a)
	}
	return a, string(raw), err
}

var extraAttempt = regexp.MustCompile(`(?m)^oneprom_replica_extra_attempts_total\{.*\} (\d+)$`)

// turns shows whether the oneprom of a changing world asks the first replicas first.
type turns struct {
	extra   int  // how often it has asked another one because one was late or failed
	doubted bool // whether it asks another one because the last request has failed
}

// turns returns the present ones.
func (run *running) turns() (t turns) {
	if !run.first.changing || run.front.server == nil {
		return t
	}
	page := func(path string) string {
		rec := httptest.NewRecorder()
		run.front.server.Handler().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, path, nil))
		return rec.Body.String()
	}
	for _, m := range extraAttempt.FindAllStringSubmatch(page("/metrics"), -1) {
		times, _ := strconv.Atoi(m[1])
		t.extra += times
	}
	t.doubted = strings.Contains(page("/api/v1/status/groups"), `"doubted":true`)
	return t
}
