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
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.opentelemetry.io/otel/trace"

	"github.com/oneprom/oneprom/proxy/api"
)

const (
	// maxWaitingLines bounds the lines that wait to be written.
	maxWaitingLines = 1024
	// fileWait is how long opening a file may take, and writing the last lines of one: a mount that
	// is dead, or a FIFO that nobody reads, answers never.
	fileWait = 5 * time.Second
)

// Log writes lines to a file in the background: a file that is slow or cannot be
// written costs lines, and no query, reload or stop its time.
type Log struct {
	logger  *slog.Logger
	handler slog.Handler // whose lines end up in the file
	lost    prometheus.Counter

	mtx  sync.Mutex // guards file, and is held while a line is given to it; never while one is written
	file *File      // nil: nobody wants lines
}

// File is where lines are written. Its fields are those of its last use.
type File struct {
	io.WriteCloser
	lines chan []byte
	ended chan struct{} // closed when nothing is written any more; nil: it was never in use
}

// NewLog returns a log without a file. It must be closed.
func NewLog(logger *slog.Logger, r prometheus.Registerer) *Log {
	l := &Log{
		logger: logger,
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
	return l
}

// OpenLog opens the file of a query log; nil if path is "".
func OpenLog(path string) (*File, error) {
	if path == "" {
		return nil, nil
	}
	return openWithin(func() (io.WriteCloser, error) {
		// O_NONBLOCK has a FIFO without a reader fail at once.
		return os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY|syscall.O_NONBLOCK, 0o640)
	})
}

// openWithin opens a file, unless that takes too long. The file is then closed once it is open.
func openWithin(open func() (io.WriteCloser, error)) (*File, error) {
	type result struct {
		file io.WriteCloser
		err  error
	}
	opened := make(chan result)
	late := make(chan struct{})
	go func() {
		f, err := open()
		select {
		case opened <- result{f, err}:
		case <-late:
			if err == nil {
				_ = f.Close()
			}
		}
	}()
	timeout := time.NewTimer(fileWait)
	defer timeout.Stop()
	select {
	case r := <-opened:
		if r.err != nil {
			return nil, fmt.Errorf("global.query_log_file: %w", r.err)
		}
		return &File{WriteCloser: r.file}, nil
	case <-timeout.C:
		close(late)
		return nil, fmt.Errorf("global.query_log_file: opening it takes longer than %s: is it on a mount that does not answer?", fileWait)
	}
}

// Use has the lines written to another file from now on, and returns the one before; nil is
// none. Lines that wait are still written to the one before.
func (l *Log) Use(f *File) (before *File) {
	l.mtx.Lock()
	defer l.mtx.Unlock()
	if before = l.file; before != nil {
		close(before.lines)
	}
	if l.file = f; f != nil {
		f.lines, f.ended = make(chan []byte, maxWaitingLines), make(chan struct{})
		go l.write(f.WriteCloser, f.lines, f.ended)
	}
	return before
}

// CloseFile closes a file that is not in use; nil is none. It writes the lines that wait, unless that
// takes too long: the file is then closed all the same, and they are lost.
func (l *Log) CloseFile(f *File) {
	if f == nil {
		return
	}
	l.mtx.Lock()
	lines, ended := f.lines, f.ended
	l.mtx.Unlock()
	closed := make(chan error, 1)
	timeout := time.NewTimer(fileWait)
	defer timeout.Stop()
	if ended != nil {
		select {
		case <-ended:
		case <-timeout.C:
			waiting := 0
			for range lines {
				waiting++
			}
			l.lost.Add(float64(waiting))
			l.logger.Error("the query log takes too long to be written; the lines that wait are lost", "lines", waiting)
			timeout.Reset(fileWait)
		}
	}
	go func() { closed <- f.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			l.logger.Warn("closing the query log failed", "err", err)
		}
	case <-timeout.C:
		l.logger.Warn("closing the query log takes too long, and is not waited for")
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
	w.mtx.Lock()
	defer w.mtx.Unlock()
	if w.file == nil {
		return len(line), nil
	}
	select {
	case w.file.lines <- bytes.Clone(line):
	default:
		w.lost.Inc()
	}
	return len(line), nil
}

// write writes lines to a file until there are no more.
func (l *Log) write(f io.Writer, lines <-chan []byte, ended chan<- struct{}) {
	defer close(ended)
	torn := false    // the last line was not written to its end
	failing := false // the last line was lost, and that was said
	for line := range lines {
		if torn {
			line = append([]byte("\n"), line...)
		}
		n, err := f.Write(line)
		if err == nil {
			torn, failing = false, false
			continue
		}
		torn = torn || n > 0
		l.lost.Inc()
		if !failing {
			failing = true
			l.logger.Error("writing the query log failed; further failures are only counted until a line is written again", "err", err)
		}
	}
}

// Close writes the lines that wait, and closes the file.
func (l *Log) Close() { l.CloseFile(l.Use(nil)) }

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
	add("cache", q.record.Cache())
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
