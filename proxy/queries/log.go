package queries

import (
	"bytes"
	"context"
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

	"github.com/oneprom/oneprom/proxy/api"
)

const (
	// maxWaitingLines bounds the lines that wait to be written.
	maxWaitingLines = 1024
)

// Log writes lines to a file in the background: a file that is slow or cannot be
// written costs lines, and no query its time.
type Log struct {
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

// NewLog returns a log without a file. It must be closed.
func NewLog(logger *slog.Logger, r prometheus.Registerer) *Log {
	l := &Log{
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

// OpenLog opens the file of a query log; nil if path is "".
func OpenLog(path string) (io.WriteCloser, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		return nil, fmt.Errorf("global.query_log_file: %w", err)
	}
	return f, nil
}

// Use has the lines written to another file from now on, and returns the one before; nil is
// none.
func (l *Log) Use(f io.WriteCloser) (before io.WriteCloser) {
	l.mtx.Lock()
	defer l.mtx.Unlock()
	before = l.file
	l.file, l.torn, l.failing = f, false, false
	return before
}

// CloseFile closes a file that is not in use; nil is none.
func (l *Log) CloseFile(f io.WriteCloser) {
	if f == nil {
		return
	}
	if err := f.Close(); err != nil {
		l.logger.Warn("closing the query log failed", "err", err)
	}
}

// log logs a line, or loses it.
func (l *Log) log(at time.Time, attrs []slog.Attr) {
	record := slog.NewRecord(at, slog.LevelInfo, "", 0)
	record.AddAttrs(attrs...)
	_ = l.handler.Handle(context.Background(), record) // lineWriter has no errors
}

// lineWriter takes whole lines, as handlers of slog write them. It does not wait.
type lineWriter struct{ *Log }

func (w lineWriter) Write(line []byte) (int, error) {
	select {
	case w.lines <- bytes.Clone(line):
	default:
		w.lost.Inc()
	}
	return len(line), nil
}

// write writes lines until the log is closed.
func (l *Log) write() {
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

func (l *Log) writeLine(line []byte) {
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

// Close writes the lines that wait, and closes the file.
func (l *Log) Close() {
	close(l.quit)
	<-l.ended
	l.CloseFile(l.Use(nil))
}

// outcome is what a query was answered with.
type outcome struct {
	status                         int    // of HTTP
	failure, completeness, missing string // "" is none
}

// log logs a query that was answered; more is what else the line has.
func (qs *Queries) log(ctx context.Context, q *query, o outcome, more ...slog.Attr) {
	asked, took := q.question(), time.Since(q.came)
	if on, slow := qs.Logged(); asked == nil || !on || took < slow {
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
	add("error", api.Clip(o.failure, maxErrorText))
	add("completeness", api.Clip(o.completeness, maxErrorText))
	add("missing", api.Clip(o.missing, maxErrorText))
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
	qs.Log.log(time.Now().UTC(), append(attrs, more...))
}

// outcomeOf is what was answered; complete says that it was answered to the end.
func outcomeOf(rec *api.Recorder, complete bool) outcome {
	o := outcome{rec.Status(), rec.Failure(), rec.Header().Get(api.CompletenessHeader), rec.Header().Get(api.MissingHeader)}
	if !complete {
		o.failure = "the answer was cut off"
	}
	return o
}
