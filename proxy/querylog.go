package proxy

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.opentelemetry.io/otel/trace"
)

// This file logs the queries that were answered.

const (
	// maxWaitingLines bounds the lines that wait to be written.
	maxWaitingLines = 1024
	// maxFailureBody is how much (bytes) of an error's body is looked at.
	maxFailureBody = 16 << 10
)

// queryLog writes lines to a file in the background: a file that is slow or cannot be
// written costs lines, and no query its time.
type queryLog struct {
	logger  *slog.Logger
	handler slog.Handler // whose lines end up in lines
	lines   chan []byte
	lost    prometheus.Counter
	quit    chan struct{}
	ended   chan struct{}

	mtx     sync.Mutex     // guards the fields below, and is held while a line is written
	file    io.WriteCloser // nil: nobody wants lines
	torn    bool           // the last line was not written to its end
	failing bool           // the last line was lost, and that was said
}

// newQueryLog returns a log without a file. It must be closed.
func newQueryLog(logger *slog.Logger, r prometheus.Registerer) *queryLog {
	l := &queryLog{
		logger: logger, lines: make(chan []byte, maxWaitingLines), quit: make(chan struct{}), ended: make(chan struct{}),
		lost: promauto.With(r).NewCounter(prometheus.CounterOpts{
			Name: "oneprom_query_log_lost_lines_total",
			Help: "Lines of the query log that were lost because the file could not be written, or not fast enough.",
		}),
	}
	l.handler = slog.NewJSONHandler(lineWriter{l}, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.LevelKey || a.Key == slog.MessageKey {
			return slog.Attr{} // the same in each line
		}
		return a
	}})
	go l.write()
	return l
}

// openQueryLog opens the file of a query log; nil if path is "".
func openQueryLog(path string) (io.WriteCloser, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		return nil, fmt.Errorf("global.query_log_file: %w", err)
	}
	return f, nil
}

// use has the lines written to another file from now on, and returns the one before; nil is
// none.
func (l *queryLog) use(f io.WriteCloser) (before io.WriteCloser) {
	l.mtx.Lock()
	defer l.mtx.Unlock()
	before = l.file
	l.file, l.torn, l.failing = f, false, false
	return before
}

// closeFile closes a file that is not in use; nil is none.
func (l *queryLog) closeFile(f io.WriteCloser) {
	if f == nil {
		return
	}
	if err := f.Close(); err != nil {
		l.logger.Warn("closing the query log failed", "err", err)
	}
}

// log logs a line, or loses it.
func (l *queryLog) log(at time.Time, attrs []slog.Attr) {
	record := slog.NewRecord(at, slog.LevelInfo, "", 0)
	record.AddAttrs(attrs...)
	_ = l.handler.Handle(context.Background(), record) // lineWriter has no errors
}

// lineWriter takes whole lines, as handlers of slog write them. It does not wait.
type lineWriter struct{ *queryLog }

func (w lineWriter) Write(line []byte) (int, error) {
	select {
	case w.lines <- bytes.Clone(line):
	default:
		w.lost.Inc()
	}
	return len(line), nil
}

// write writes lines until the log is closed.
func (l *queryLog) write() {
	defer close(l.ended)
	for {
		select {
		case line := <-l.lines:
			l.writeLine(line)
		case <-l.quit:
			for len(l.lines) > 0 {
				l.writeLine(<-l.lines)
			}
			return
		}
	}
}

func (l *queryLog) writeLine(line []byte) {
	l.mtx.Lock()
	defer l.mtx.Unlock()
	if l.file == nil {
		return
	}
	if l.torn {
		line = append([]byte("\n"), line...)
	}
	n, err := l.file.Write(line)
	if err == nil {
		l.torn, l.failing = false, false
		return
	}
	l.torn = l.torn || n > 0
	l.lost.Inc()
	if !l.failing {
		l.failing = true
		l.logger.Error("writing the query log failed; further failures are only counted until a line is written again", "err", err)
	}
}

// close writes the lines that wait, and closes the file.
func (l *queryLog) close() {
	close(l.quit)
	<-l.ended
	l.closeFile(l.use(nil))
}

// outcome is what a query was answered with.
type outcome struct {
	status                         int    // of HTTP
	failure, completeness, missing string // "" is none
}

// logQuery logs a query that was answered; more is what else the line has.
func (s *Server) logQuery(ctx context.Context, q *runningQuery, o outcome, more ...slog.Attr) {
	asked, global, took := q.question(), &s.config.Load().Global, time.Since(q.came)
	if asked == nil || global.QueryLogFile == "" || took < time.Duration(global.QueryLogMinDuration) {
		return
	}
	attrs := []slog.Attr{slog.String("query", asked.Query), slog.String("api", strings.TrimPrefix(q.path, "/"))}
	add := func(key, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(key, value))
		}
	}
	if start, end := secondsOf(asked.Start), secondsOf(asked.End); start != nil && end != nil {
		attrs = append(attrs, slog.Float64("start", float64(*start)), slog.Float64("end", float64(*end)), slog.Float64("step", asked.Interval.Seconds()))
	}
	attrs = append(attrs, slog.Float64("duration", took.Seconds()))
	if began := q.record.Began(); !began.IsZero() {
		attrs = append(attrs, slog.Float64("queued", max(0, began.Sub(q.came).Seconds())))
	}
	attrs = append(attrs, slog.Int("status", o.status))
	add("error", clipped(o.failure, maxErrorText))
	add("completeness", clipped(o.completeness, maxErrorText))
	add("missing", clipped(o.missing, maxErrorText))
	add("plan", q.record.PlanDigest())
	if series, samples := q.record.Result(); o.status == http.StatusOK {
		attrs = append(attrs, slog.Int64("series", series), slog.Int64("samples", samples))
	}
	add("client", q.from.client)
	add("tenant", q.from.tenant)
	add("user", q.from.user)
	add("user_agent", q.from.userAgent)
	add("dashboard", q.from.dashboard)
	add("panel", q.from.panel)
	add("grafana_org", q.from.grafanaOrg)
	add("grafana_user", q.from.grafanaUser)
	if span := trace.SpanContextFromContext(ctx); span.HasTraceID() {
		add("trace_id", span.TraceID().String())
	}
	s.queryLog.log(time.Now().UTC(), append(attrs, more...))
}

// answerWriter knows what was answered: the status, and the body of a failure.
type answerWriter struct {
	watchedWriter
	code int
	body []byte // its beginning, if it is that of a failure
}

func (w *answerWriter) WriteHeader(code int) {
	if w.code == 0 {
		w.code = code
	}
	w.watchedWriter.WriteHeader(code)
}

func (w *answerWriter) Write(b []byte) (int, error) {
	if w.status() >= http.StatusBadRequest && len(w.body) < maxFailureBody {
		w.body = append(w.body, b[:min(len(b), maxFailureBody-len(w.body))]...)
	}
	return w.watchedWriter.Write(b)
}

func (w *answerWriter) status() int {
	if w.code == 0 {
		return http.StatusOK
	}
	return w.code
}

// outcome is what was answered; whole tells that it was answered to the end.
func (w *answerWriter) outcome(whole bool) outcome {
	o := outcome{w.status(), w.failure(), w.Header().Get(completenessHeader), w.Header().Get(missingHeader)}
	if !whole {
		o.failure = "the answer was cut off"
	}
	return o
}

// failure is the text of an error; "" if it is none, or too long.
func (w *answerWriter) failure() string {
	var body io.Reader = bytes.NewReader(w.body)
	var err error
	switch w.Header().Get("Content-Encoding") {
	case "gzip":
		body, err = gzip.NewReader(body)
	case "deflate":
		body, err = zlib.NewReader(body)
	}
	if err != nil {
		return ""
	}
	text, err := io.ReadAll(io.LimitReader(body, maxFailureBody))
	if err != nil {
		return ""
	}
	var envelope struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(text, &envelope) == nil {
		return envelope.Error
	}
	return strings.TrimSpace(string(text))
}
