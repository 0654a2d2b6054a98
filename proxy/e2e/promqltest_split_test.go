package e2e

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest"
)

// placement tells which backends hold the sample of a series at t (ms).
type placement func(series labels.Labels, t int64) []int

// splitBackend is one replica: a server that outlives the storages it serves one after the other. It is
// itself the storage of its handler, because a handler is too dear to be made for each `clear`.
type splitBackend struct {
	address string // host:port

	mu      sync.RWMutex // held for reading by every request, so that no storage is closed under one
	current storage.SampleAndChunkQueryable

	evaluations atomic.Int64 // requests to evaluate: see evaluates
}

// startSplitBackends starts n backends without data, with these options but for the data. They stop when
// the test ends.
func startSplitBackends(t *testing.T, n int, o backendtest.Options) []*splitBackend {
	t.Helper()
	backends := make([]*splitBackend, n)
	for i := range backends {
		b := &splitBackend{current: backendtest.Empty{}}
		o.Queryable = b
		handler := backendtest.NewHandler(o)
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b.mu.RLock()
			defer b.mu.RUnlock()
			if evaluates(r) {
				b.evaluations.Add(1)
			}
			handler.ServeHTTP(w, r)
		}))
		t.Cleanup(server.Close)
		b.address = strings.TrimPrefix(server.URL, "http://")
		backends[i] = b
	}
	return backends
}

// evaluates reports whether a request asks for more than samples, which the query API gives for a selector and
// their times for timestamp() of one. The simplest question is a probe of the server's health.
func evaluates(r *http.Request) bool {
	if r.URL.Path != "/api/v1/query" && r.URL.Path != "/api/v1/query_range" {
		return false
	}
	switch e := rootOf(r.FormValue("query")).(type) {
	case nil, *parser.VectorSelector, *parser.MatrixSelector:
		return false
	case *parser.Call:
		return e.Func.Name != "timestamp" && e.String() != "vector(1)"
	}
	return true
}

// evaluationsOf is the number of requests to evaluate that backends have got.
func evaluationsOf(backends []*splitBackend) (n int64) {
	for _, b := range backends {
		n += b.evaluations.Load()
	}
	return n
}

// serve replaces the backend's data, once the requests under way are done.
func (b *splitBackend) serve(data storage.SampleAndChunkQueryable) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.current = data
}

// Querier implements storage.Queryable, for the handler alone.
func (b *splitBackend) Querier(mint, maxt int64) (storage.Querier, error) {
	return b.current.Querier(mint, maxt)
}

// ChunkQuerier implements storage.ChunkQueryable, for the handler alone.
func (b *splitBackend) ChunkQuerier(mint, maxt int64) (storage.ChunkQuerier, error) {
	return b.current.ChunkQuerier(mint, maxt)
}

// splitStorage is what promqltest loads into. It reads as the one Prometheus that holds everything;
// every sample also goes to the parts that the topology names, and each part is served by a backend.
type splitStorage struct {
	*tsdb.DB
	shown    *tsdb.DB // the same with the labels that groups inject: DB itself if they inject none
	parts    []*tsdb.DB
	backends []*splitBackend
	topology topology
}

func openSplitStorage(tb testing.TB, backends []*splitBackend, tp topology) *splitStorage {
	tb.Helper()
	open := func() *tsdb.DB {
		db, err := backendtest.OpenDB(tb.TempDir(), backendtest.StartTimestamps)
		require.NoError(tb, err)
		return db
	}
	s := &splitStorage{DB: open(), backends: backends, topology: tp}
	if s.shown = s.DB; tp.labelled {
		s.shown = open()
	}
	for _, b := range backends {
		part := open()
		s.parts = append(s.parts, part)
		b.serve(part)
	}
	return s
}

// Close takes the parts away from the backends before it closes them.
func (s *splitStorage) Close() error {
	errs := []error{s.DB.Close()}
	if s.shown != s.DB {
		errs = append(errs, s.shown.Close())
	}
	for i, part := range s.parts {
		s.backends[i].serve(backendtest.Empty{})
		errs = append(errs, part.Close())
	}
	return errors.Join(errs...)
}

// AppenderV2 implements storage.AppendableV2.
func (s *splitStorage) AppenderV2(ctx context.Context) storage.AppenderV2 {
	a := &splitAppender{whole: s.DB.AppenderV2(ctx), topology: s.topology}
	if s.shown != s.DB {
		a.shown = s.shown.AppenderV2(ctx)
	}
	for _, part := range s.parts {
		a.parts = append(a.parts, part.AppenderV2(ctx))
	}
	return a
}

// splitAppender keeps the samples of a `load` until they are committed and then appends them series by
// series, sorted by labels. promqltest loads in the order of a map; the order of the storage decides
// the last digit of a sum, the series named in an error, and which series limitk takes.
type splitAppender struct {
	samples  []splitSample
	whole    storage.AppenderV2
	shown    storage.AppenderV2 // nil: groups inject no labels
	parts    []storage.AppenderV2
	topology topology
}

type splitSample struct {
	series labels.Labels
	st, t  int64 // ms
	v      float64
	h      *histogram.Histogram
	fh     *histogram.FloatHistogram
	o      storage.AppendV2Options
}

// Append implements storage.AppenderV2. It takes a copy, as the caller may reuse a histogram.
func (a *splitAppender) Append(_ storage.SeriesRef, series labels.Labels, st, t int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram, o storage.AppendV2Options) (storage.SeriesRef, error) {
	a.samples = append(a.samples, splitSample{series: series, st: st, t: t, v: v, h: h, fh: fh, o: o}.copy())
	return 0, nil
}

func (s splitSample) copy() splitSample {
	if s.h != nil {
		s.h = s.h.Copy()
	}
	if s.fh != nil {
		s.fh = s.fh.Copy()
	}
	return s
}

// appendTo appends a copy, as an appender may keep and change a histogram.
func (s splitSample) appendTo(a storage.AppenderV2) error {
	c := s.copy()
	_, err := a.Append(0, c.series, c.st, c.t, c.v, c.h, c.fh, c.o)
	return err
}

// Commit implements storage.AppenderTransaction.
func (a *splitAppender) Commit() error {
	sortBySeries(a.samples)
	for _, s := range a.samples {
		errs := []error{s.appendTo(a.whole)}
		for _, i := range a.topology.place(s.series, s.t) {
			errs = append(errs, s.appendTo(a.parts[i]))
		}
		if err := errors.Join(errs...); err != nil {
			return errors.Join(err, a.Rollback())
		}
	}
	if err := a.show(); err != nil {
		return errors.Join(err, a.Rollback())
	}
	return a.each(storage.AppenderV2.Commit)
}

// show appends the samples with the labels of their groups, which may change the order.
func (a *splitAppender) show() error {
	if a.shown == nil {
		return nil
	}
	samples := slices.Clone(a.samples)
	for i, s := range samples {
		group := a.topology.place(s.series, s.t)[0] // groups that inject labels have one backend each
		samples[i].series = labels.NewBuilder(s.series).Set(shardLabel, groupName(group)).Labels()
	}
	sortBySeries(samples)
	for _, s := range samples {
		if err := s.appendTo(a.shown); err != nil {
			return err
		}
	}
	return nil
}

func sortBySeries(samples []splitSample) {
	slices.SortStableFunc(samples, func(x, y splitSample) int { return labels.Compare(x.series, y.series) })
}

// Rollback implements storage.AppenderTransaction.
func (a *splitAppender) Rollback() error {
	return a.each(storage.AppenderV2.Rollback)
}

func (a *splitAppender) each(end func(storage.AppenderV2) error) error {
	errs := []error{end(a.whole)}
	if a.shown != nil {
		errs = append(errs, end(a.shown))
	}
	for _, part := range a.parts {
		errs = append(errs, end(part))
	}
	return errors.Join(errs...)
}
