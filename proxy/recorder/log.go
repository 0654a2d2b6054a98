package recorder

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/agent"
	"github.com/prometheus/prometheus/tsdb/wlog"
)

// When the log cannot be written, as on a disk that is full, it may end within a record. If
// another record follows, remote write cannot read on, and upstream tries that again for ever:
// https://github.com/prometheus/prometheus/blob/v3.15.0/tsdb/wlog/wlog.go#L764. So nothing is
// written any more until the log was opened again. It is cut off first where its last whole
// record ends, and goes on in a new segment. Remote write is not stopped for that, and misses
// nothing: to those who read it, it is a log whose segment has ended.
const (
	// retryAfter is how long it takes at least to try again to open the log.
	retryAfter = time.Second
	// probeFile is what is written to the directory of the log to find out whether it has room.
	probeFile = "probe"
	// probeSize is how much room the log needs: some pages, so that it does not fail again at once.
	probeSize = 1 << 20
)

// ErrLost is that of samples that are not written, because the log cannot be.
var ErrLost = errors.New(lostText)

const lostText = "what rules record is lost until the log of samples can be written"

type metrics struct{ lost, reopened prometheus.Counter }

func newMetrics(r prometheus.Registerer) *metrics {
	f := promauto.With(r)
	return &metrics{
		lost: f.NewCounter(prometheus.CounterOpts{
			Name: "oneprom_remote_write_lost_samples_total",
			Help: "Samples of rules that remote_write does not write, because the log in --storage.agent.path could not be written.",
		}),
		reopened: f.NewCounter(prometheus.CounterOpts{
			Name: "oneprom_remote_write_log_reopened_total",
			Help: "How often the log in --storage.agent.path was opened again, after it could not be written.",
		}),
	}
}

// openLog opens the log. Needs mtx.
func (r *Recorder) openLog() (err error) {
	r.logMetrics = &revocable{Registerer: r.registerer}
	r.log, err = agent.Open(r.logger, r.logMetrics, r.remote, r.path, agent.DefaultOptions())
	if err != nil {
		r.log = nil
		r.logMetrics.revoke()
		return fmt.Errorf("--storage.agent.path=%s: %w", r.path, err)
	}
	r.log.SetWriteNotified(r.remote)
	return nil
}

// closeLog closes the log, if it is open. Needs mtx.
func (r *Recorder) closeLog() error {
	if r.log == nil {
		return nil
	}
	err := r.log.Close()
	r.logMetrics.revoke()
	r.log = nil
	return err
}

// route has samples go into the log, if they are written. Needs mtx.
func (r *Recorder) route() {
	r.to = r.remote
	if r.writes && r.log != nil {
		r.to = storage.NewFanout(r.logger, r.log, r.remote)
	}
}

// Appender implements storage.Appendable. The appender must be committed or rolled back.
func (r *Recorder) Appender(ctx context.Context) storage.Appender {
	r.mend()
	r.mtx.RLock()
	return &appender{Appender: r.to.Appender(ctx), recorder: r}
}

// appender counts the samples that it is given.
type appender struct {
	storage.Appender
	recorder *Recorder
	samples  int
	newest   int64 // time of a sample that is no histogram: targets are not sent those unless they ask for them
}

// Append implements storage.Appender.
func (a *appender) Append(ref storage.SeriesRef, ls labels.Labels, t int64, v float64) (storage.SeriesRef, error) {
	ref, err := a.Appender.Append(ref, ls, t, v)
	if err == nil {
		a.samples++
		a.newest = max(a.newest, t)
	}
	return ref, err
}

// AppendHistogram implements storage.Appender.
func (a *appender) AppendHistogram(ref storage.SeriesRef, ls labels.Labels, t int64, h *histogram.Histogram, fh *histogram.FloatHistogram) (storage.SeriesRef, error) {
	ref, err := a.Appender.AppendHistogram(ref, ls, t, h, fh)
	if err == nil {
		a.samples++
	}
	return ref, err
}

// Commit implements storage.Appender.
func (a *appender) Commit() error {
	defer a.recorder.mtx.RUnlock()
	return a.recorder.write(a, a.Appender.Commit)
}

// Rollback implements storage.Appender. Upstream's writes to the log, too.
func (a *appender) Rollback() error {
	defer a.recorder.mtx.RUnlock()
	return a.recorder.write(&appender{}, a.Appender.Rollback)
}

// write does what writes the samples of an appender to the log, unless that has failed before: then
// the appender below is forgotten. Needs mtx for reading.
func (r *Recorder) write(a *appender, do func() error) error {
	r.committing.Lock()
	defer r.committing.Unlock()
	if !r.writes {
		return do()
	}
	r.newest = max(r.newest, a.newest)
	if r.failure == nil {
		err := do()
		if err == nil {
			return nil
		}
		r.failure = err
		r.damaged.Store(true)
		r.logger.Error(lostText, "dir", r.path, "err", err)
	}
	r.lost += a.samples
	r.metrics.lost.Add(float64(a.samples))
	return fmt.Errorf("%w: --storage.agent.path=%s: %w", ErrLost, r.path, r.failure)
}

// mend opens the log again if it is damaged and its disk has room.
func (r *Recorder) mend() {
	if !r.damaged.Load() {
		return
	}
	r.mtx.Lock()
	defer r.mtx.Unlock()
	if !r.damaged.Load() || time.Since(r.tried) < retryAfter {
		return
	}
	r.tried = time.Now()
	if err := r.reopen(); err != nil {
		r.logger.Debug("the log of samples cannot be opened again yet", "err", err)
		return
	}
	r.metrics.reopened.Inc()
	r.logger.Warn("the log of samples was opened again, and what rules record is written", "lost_samples", r.lost)
	r.failure, r.lost = nil, 0
	r.damaged.Store(false)
}

// reopen opens the log again. Needs mtx.
func (r *Recorder) reopen() error {
	if err := hasRoom(r.path); err != nil {
		return err
	}
	if err := r.closeLog(); err != nil {
		r.logger.Warn("closing the log of samples failed", "err", err)
	}
	if err := cutOff(filepath.Join(r.path, "wal")); err != nil {
		return err
	}
	if err := r.openLog(); err != nil {
		return err
	}
	r.route()
	return nil
}

// hasRoom says why a directory cannot be written to.
func hasRoom(dir string) error {
	f, err := os.Create(filepath.Join(dir, probeFile))
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, probeSize))
	return errors.Join(err, f.Close(), os.Remove(f.Name()))
}

// cutOff removes from the segments of a log what comes after their last whole record. Upstream's
// repair is not for a log that somebody reads: it replaces segments.
func cutOff(dir string) error {
	first, last, err := wlog.Segments(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for i := max(first, 0); err == nil && i <= last; i++ {
		err = cutOffSegment(wlog.SegmentName(dir, i))
	}
	return err
}

func cutOffSegment(name string) error {
	segment, err := wlog.OpenReadSegment(name)
	if err != nil {
		return err
	}
	records := wlog.NewSegmentBufReader(segment)
	defer records.Close()
	r := wlog.NewReader(records)
	whole := int64(0)
	for r.Next() {
		whole = r.Offset()
	}
	if r.Err() == nil {
		return nil
	}
	return os.Truncate(name, whole)
}

// revocable takes metrics back that were registered with it. The log's own way leaves some.
type revocable struct {
	prometheus.Registerer
	registered []prometheus.Collector
}

// Register implements prometheus.Registerer.
func (r *revocable) Register(c prometheus.Collector) error {
	if err := r.Registerer.Register(c); err != nil {
		return err
	}
	r.registered = append(r.registered, c)
	return nil
}

// MustRegister implements prometheus.Registerer.
func (r *revocable) MustRegister(list ...prometheus.Collector) {
	for _, c := range list {
		if err := r.Register(c); err != nil {
			panic(err)
		}
	}
}

func (r *revocable) revoke() {
	for _, c := range r.registered {
		r.Unregister(c)
	}
	r.registered = nil
}
