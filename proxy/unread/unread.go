// Package unread keeps clients that do not read their answers from holding memory: an answer is in
// memory until its client has taken it, long after its request has left its slot.
//
// Answers are written piece by piece. A client gets a time for each piece, so that slow clients have
// as much time as they need, as long as they make progress. If more bytes wait for clients in all than
// there may be, those that have stopped to read are cut off at once, longest first.
package unread

import (
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

const (
	// piece is how much is written at a time (bytes).
	piece = 64 << 10
	// stalled is how long a client may take for a piece when too much waits.
	stalled = time.Second
)

// Options are the limits. Zero is none.
type Options struct {
	Timeout    time.Duration // for a piece
	Most       int64         // bytes that wait in all
	Registerer prometheus.Registerer
}

// Answers are those that wait for their clients.
type Answers struct {
	timeout time.Duration
	most    int64
	cut     prometheus.Counter

	mtx   sync.Mutex // guards the fields below, and those of all writers
	bytes int64      // that wait
	open  []*writer  // whose bytes they are
}

// New returns answers of which none waits.
func New(o Options) *Answers {
	a := &Answers{timeout: o.Timeout, most: o.Most}
	f := promauto.With(o.Registerer)
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "oneprom_http_unread_bytes",
		Help: "Bytes of answers that wait for their clients to read them.",
	}, func() float64 { return float64(a.Bytes()) })
	a.cut = f.NewCounter(prometheus.CounterOpts{
		Name: "oneprom_http_unread_answers_total",
		Help: "Answers that were cut off because their clients did not read them.",
	})
	return a
}

// Bytes returns how many bytes wait.
func (a *Answers) Bytes() int64 {
	a.mtx.Lock()
	defer a.mtx.Unlock()
	return a.bytes
}

// Serve gives the answers of h to their clients.
func (a *Answers) Serve(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		own := &writer{ResponseWriter: w, answers: a, conn: http.NewResponseController(w)}
		own.extend(0) // the connection may have the deadline of the answer before
		defer own.extend(0)
		h.ServeHTTP(own, r)
	})
}

// Whole has h write whole texts to a writer between it and that of Serve, such as one that compresses:
// they wait whole.
func Whole(between, to http.ResponseWriter) http.ResponseWriter {
	for under := to; ; {
		switch at := under.(type) {
		case *writer:
			return &whole{ResponseWriter: between, own: at}
		case interface{ Unwrap() http.ResponseWriter }:
			under = at.Unwrap()
			continue
		}
		return between
	}
}

type whole struct {
	http.ResponseWriter
	own *writer
}

func (w *whole) Write(b []byte) (int, error) { return w.own.wait(w.ResponseWriter, b) }

// writer is an http.ResponseWriter whose client has a time for each piece.
type writer struct {
	http.ResponseWriter
	answers *Answers
	conn    *http.ResponseController

	// Guarded by answers.mtx.
	left int64     // bytes that wait
	last time.Time // when the client took the last piece
}

// Unwrap is for http.ResponseController.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Flush implements http.Flusher.
func (w *writer) Flush() {
	w.extend(0)
	_ = w.conn.Flush()
}

// Write implements http.ResponseWriter.
func (w *writer) Write(b []byte) (int, error) {
	if len(b) <= piece {
		w.extend(0)
		return w.ResponseWriter.Write(b)
	}
	return w.wait(w.ResponseWriter, b)
}

// wait writes b to a writer piece by piece.
func (w *writer) wait(to http.ResponseWriter, b []byte) (n int, err error) {
	a := w.answers
	a.begin(w, len(b))
	defer func() { a.end(w, err) }()
	for len(b) > 0 && err == nil {
		next := b[:min(len(b), piece)]
		var done int
		done, err = to.Write(next)
		n += done
		b = b[len(next):]
		w.extend(done)
	}
	return n, err
}

// extend gives the client time for the next piece, when it has taken so many of the bytes that wait.
func (w *writer) extend(taken int) {
	a := w.answers
	a.mtx.Lock()
	defer a.mtx.Unlock()
	taken = int(min(int64(taken), w.left))
	w.left -= int64(taken)
	a.bytes -= int64(taken)
	w.last = time.Now()
	timeout := a.timeout
	if a.most > 0 && a.bytes > a.most && w.left > 0 {
		timeout = stalled
	}
	var deadline time.Time
	if timeout > 0 {
		deadline = w.last.Add(timeout)
	}
	_ = w.conn.SetWriteDeadline(deadline) // what has no connection waits for nobody
}

// begin has bytes wait.
func (a *Answers) begin(w *writer, bytes int) {
	a.mtx.Lock()
	a.bytes += int64(bytes)
	if w.left == 0 {
		a.open = append(a.open, w)
	}
	w.left += int64(bytes)
	a.press()
	a.mtx.Unlock()
	w.extend(0)
}

// press cuts off those that have stopped to read, as many as it takes that no more wait than may.
func (a *Answers) press() {
	over := a.bytes - a.most
	if a.most == 0 || over <= 0 {
		return
	}
	slices.SortStableFunc(a.open, func(x, y *writer) int { return x.last.Compare(y.last) })
	for _, w := range a.open {
		if over <= 0 {
			return
		}
		over -= w.left
		_ = w.conn.SetWriteDeadline(w.last.Add(stalled))
	}
}

// end is called when nothing of w waits any more.
func (a *Answers) end(w *writer, err error) {
	if err != nil {
		a.cut.Inc()
	}
	a.mtx.Lock()
	defer a.mtx.Unlock()
	a.bytes -= w.left
	w.left = 0
	a.open = slices.DeleteFunc(a.open, func(o *writer) bool { return o == w })
}
