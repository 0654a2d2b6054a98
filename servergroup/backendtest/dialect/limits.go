package dialect

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/oneprom/oneprom/servergroup/backendtest"
)

// Limits are what a backend refuses. Zero refuses nothing.
type Limits struct {
	// Points is how many steps after the first a range query may have.
	Points int64
	// Samples is how many samples a query may load, or a remote-read response of samples may hold.
	Samples int
	// Series and ChunkBytes bound what all selectors of a query, or a remote read, may find.
	Series, ChunkBytes int
	// Words are the texts with which it refuses.
	Words Words

	refused atomic.Int64
}

// Refused is how many requests were answered with 400 or 422.
func (l *Limits) Refused() int { return int(l.refused.Load()) }

// Words say how a server refuses what is over a limit. Each is a format with one number, the limit.
type Words struct {
	Points, Samples, ReadSamples, Series, ChunkBytes string
	// PointsStatus is the HTTP status of the first, PointsType its errorType.
	PointsStatus int
	PointsType   string
	// PerSelect reports whether samples are counted as they are selected, not while the engine evaluates.
	PerSelect bool
}

const mimirAdvice = " Consider reducing the time range and/or number of series selected by the query." +
	" Otherwise, to adjust the related per-tenant limit, configure -querier.%s, or contact your service administrator."

const pointsText = "exceeded maximum resolution of %d points per timeseries. Try decreasing the query resolution (?step=XX)"

// The words of the servers.
var (
	PrometheusWords = Words{
		Points: pointsText, PointsStatus: 400, PointsType: "bad_data",
		ReadSamples: "exceeded sample limit (%d)",
	}
	ThanosWords = Words{
		Points: pointsText, PointsStatus: 400, PointsType: "bad_data", PerSelect: true,
		Samples: "proxy Series(): rpc error: code = ResourceExhausted desc = failed to send samples: limit %d violated",
		Series:  "proxy Series(): rpc error: code = ResourceExhausted desc = failed to send series: limit %d violated",
	}
	MimirWords = Words{
		Points: pointsText, PointsStatus: 400, PointsType: "bad_data",
		Series: "the query exceeded the maximum number of series (limit: %d series) (err-mimir-max-series-per-query)." +
			fmt.Sprintf(mimirAdvice, "max-fetched-series-per-query"),
		ChunkBytes: "the query exceeded the aggregated chunks size limit (limit: %d bytes) (err-mimir-max-chunks-bytes-per-query)." +
			fmt.Sprintf(mimirAdvice, "max-fetched-chunk-bytes-per-query"),
	}
	CortexWords = Words{
		Points: pointsText, PointsStatus: 400, PointsType: "bad_data",
		Series:     "the query hit the max number of series limit (limit: %d series)",
		ChunkBytes: "the query hit the aggregated chunks size limit (limit: %d bytes)",
	}
	VictoriaMetricsWords = Words{
		Points:       "too many points for the given start, end and step: the maximum number of points is %d; see -search.maxPointsPerTimeseries",
		PointsStatus: 422, PointsType: "422", PerSelect: true,
		Samples: "cannot select more than -search.maxSamplesPerQuery=%d samples; possible solutions: increase the -search.maxSamplesPerQuery;" +
			" reduce time range for the query; use more specific label filters in order to select fewer series",
		Series: "the number of matching timeseries exceeds %d; either narrow down the search or increase -search.max* command-line flag values",
	}
)

// NewPrometheus returns a Prometheus with limits, nil for none.
func NewPrometheus(o backendtest.Options, l *Limits) http.Handler {
	if l == nil {
		return backendtest.NewHandler(o)
	}
	store := o.Queryable
	o.Queryable = guard{store, l}
	if l.Samples > 0 && !l.Words.PerSelect {
		opts := backendtest.EngineOpts(backendtest.NewParser())
		opts.MaxSamples = l.Samples
		o.Engine = promql.NewEngine(opts)
	}
	next := backendtest.NewHandler(o)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cw := &countingWriter{ResponseWriter: w, refused: &l.refused}
		switch {
		case strings.HasSuffix(r.URL.Path, "/api/v1/query_range") && l.refusesPoints(cw, r):
		case strings.HasSuffix(r.URL.Path, "/api/v1/read") && l.refusesRead(cw, r, store):
		default:
			next.ServeHTTP(cw, r)
		}
	})
}

func (l *Limits) refusesPoints(w http.ResponseWriter, r *http.Request) bool {
	t, ok := rangeOf(r)
	if !ok || l.Points == 0 || (t.end-t.start)/t.step <= l.Points {
		return false
	}
	text := fmt.Sprintf(l.Words.Points, l.Points)
	writeError(w, l.Words.PointsStatus, l.Words.PointsType, strings.Replace(text, "11000", "11,000", 1))
	return true
}

// refusesRead answers a remote read that is over a limit. All servers do so with 400 and plain text.
func (l *Limits) refusesRead(w http.ResponseWriter, r *http.Request, store storage.ChunkQueryable) bool {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return false
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	req, err := remote.DecodeReadRequest(r)
	r.Body = io.NopCloser(bytes.NewReader(body))
	if err != nil {
		return false // upstream's handler says so
	}
	var all usage
	for _, q := range req.Queries {
		ms, err := remote.FromLabelMatchers(q.Matchers)
		if err != nil {
			return false
		}
		if err := all.add(r.Context(), store, q.StartTimestampMs, q.EndTimestampMs, ms); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return true
		}
	}
	err = all.over(l)
	streamed := slices.Contains(req.AcceptedResponseTypes, prompb.ReadRequest_STREAMED_XOR_CHUNKS)
	if err == nil && l.Samples > 0 && all.samples > l.Samples && l.Words.ReadSamples != "" && !streamed {
		err = fmt.Errorf(l.Words.ReadSamples, l.Samples)
	}
	if err == nil {
		return false
	}
	http.Error(w, err.Error(), http.StatusBadRequest)
	return true
}

// usage is what a request reads.
type usage struct{ series, samples, bytes int }

// add counts what the matchers find in a window (ms, inclusive).
func (u *usage) add(ctx context.Context, store storage.ChunkQueryable, mint, maxt int64, ms []*labels.Matcher) error {
	q, err := store.ChunkQuerier(mint, maxt)
	if err != nil {
		return err
	}
	defer q.Close()
	set := q.Select(ctx, false, nil, ms...)
	var it chunks.Iterator
	for set.Next() {
		u.series++
		it = set.At().Iterator(it)
		for it.Next() {
			u.samples += it.At().Chunk.NumSamples()
			u.bytes += len(it.At().Chunk.Bytes())
		}
		if err := it.Err(); err != nil {
			return err
		}
	}
	return set.Err()
}

// over is the error for what is over the limits that are counted where data is selected.
func (u *usage) over(l *Limits) error {
	switch {
	case l.Series > 0 && u.series > l.Series:
		return fmt.Errorf(l.Words.Series, l.Series)
	case l.ChunkBytes > 0 && u.bytes > l.ChunkBytes:
		return fmt.Errorf(l.Words.ChunkBytes, l.ChunkBytes)
	case l.Words.PerSelect && l.Samples > 0 && u.samples > l.Samples:
		return fmt.Errorf(l.Words.Samples, l.Samples)
	}
	return nil
}

// guard is a storage that refuses queries which are over the limits.
type guard struct {
	storage.SampleAndChunkQueryable
	limits *Limits
}

func (g guard) Querier(mint, maxt int64) (storage.Querier, error) {
	q, err := g.SampleAndChunkQueryable.Querier(mint, maxt)
	return &guardQuerier{Querier: q, guard: g, mint: mint, maxt: maxt}, err
}

// guardQuerier belongs to one query, whose selectors are counted together.
type guardQuerier struct {
	storage.Querier
	guard      guard
	mint, maxt int64
	used       usage
}

func (q *guardQuerier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	mint, maxt := q.mint, q.maxt
	if hints != nil {
		mint, maxt = max(mint, hints.Start), min(maxt, hints.End)
	}
	if maxt < mint {
		return storage.EmptySeriesSet()
	}
	err := q.used.add(ctx, q.guard.SampleAndChunkQueryable, mint, maxt, ms)
	if err = errors.Join(err, q.used.over(q.guard.limits)); err != nil {
		return storage.ErrSeriesSet(err)
	}
	return q.Querier.Select(ctx, sorted, hints, ms...)
}

// countingWriter counts refusals.
type countingWriter struct {
	http.ResponseWriter
	refused *atomic.Int64
}

func (w *countingWriter) WriteHeader(code int) {
	if code == http.StatusBadRequest || code == http.StatusUnprocessableEntity {
		w.refused.Add(1)
	}
	w.ResponseWriter.WriteHeader(code)
}

// Flush implements http.Flusher, which streamed remote read demands.
func (w *countingWriter) Flush() {
	if f, ok := w.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}
