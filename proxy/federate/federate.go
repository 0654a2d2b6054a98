// Package federate is /federate: it finds the last samples of the series that are asked for,
// arranges them in metric families, and writes them in the format that the scraper wants.
package federate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/oneprom/oneprom/proxy/api"
)

// Handler is /federate: the present samples of chosen series, to be scraped.
type Handler struct {
	Storage        storage.Queryable
	Parser         parser.Parser
	Lookback       time.Duration // how old a sample may be
	ExternalLabels func() labels.Labels
	Now            func() time.Time
	Logger         *slog.Logger

	failures failures
}

// quiet is how long a failure keeps those after it out of the log: whoever scrapes comes every few
// seconds.
const quiet = 10 * time.Minute

// failures says which failures are logged.
type failures struct {
	mtx    sync.Mutex
	until  time.Time // when the next one is logged
	hidden int       // since the last one that was
}

// logged reports whether a failure is to be logged, and how many were not since the last that was.
func (f *failures) logged(now time.Time) (hidden int, ok bool) {
	f.mtx.Lock()
	defer f.mtx.Unlock()
	if now.Before(f.until) {
		f.hidden++
		return 0, false
	}
	hidden = f.hidden
	f.until, f.hidden = now.Add(quiet), 0
	return hidden, true
}

// formats are on offer to clients, the most faithful first.
var formats = []expfmt.Format{
	expfmt.NewFormat(expfmt.TypeProtoDelim),
	expfmt.NewFormat(expfmt.TypeProtoText),
	expfmt.NewFormat(expfmt.TypeProtoCompact),
	expfmt.FmtOpenMetrics_1_0_0, //nolint:staticcheck // NewFormat has the newest version only
	expfmt.FmtOpenMetrics_0_0_1, //nolint:staticcheck // as above
	expfmt.NewFormat(expfmt.TypeTextPlain),
}

// ServeHTTP implements http.Handler.
func (f *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		http.Error(w, fmt.Sprintf("error parsing form values: %v", err), http.StatusBadRequest)
		return
	}
	selectors, err := f.Parser.ParseMetricSelectors(r.Form["match[]"])
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	samples, err := f.samples(r.Context(), selectors)
	if err != nil {
		f.logFailure(err)
		http.Error(w, err.Error(), api.Classify(err).Code)
		return
	}
	format := expfmt.NegotiateAccept(r.Header, formats...)
	w.Header().Set("Content-Type", string(format))
	if err := f.write(expfmt.NewEncoder(w, format), families(samples, f.ExternalLabels(), isProtobuf(format))); err != nil {
		f.Logger.Warn("writing a federation response failed", "err", err)
	}
}

// logFailure logs why a request had no answer, unless others have failed shortly before.
func (f *Handler) logFailure(err error) {
	if hidden, ok := f.failures.logged(f.Now()); ok {
		f.Logger.Warn("federation failed; further failures are not logged for a while", "err", err, "quiet", quiet, "not_logged_before", hidden)
		return
	}
	f.Logger.Debug("federation failed", "err", err)
}

// sample is the last sample of a series.
type sample struct {
	labels labels.Labels
	ts     int64 // ms
	float  float64
	hist   *histogram.FloatHistogram // nil if the sample is a float
}

func (s sample) stale() bool {
	if s.hist != nil {
		return value.IsStaleNaN(s.hist.Sum)
	}
	return value.IsStaleNaN(s.float)
}

// samples are the last ones of all series within the lookback window that ends
// now, sorted by metric name. Stale series are left out.
func (f *Handler) samples(ctx context.Context, selectors [][]*labels.Matcher) ([]sample, error) {
	maxt := f.Now().UnixMilli()
	mint := maxt - f.Lookback.Milliseconds()
	q, err := f.Storage.Querier(mint, maxt)
	if err != nil {
		return nil, err
	}
	defer func() { _ = q.Close() }()
	sets := make([]storage.SeriesSet, 0, len(selectors))
	for _, s := range selectors {
		sets = append(sets, q.Select(ctx, true, &storage.SelectHints{Start: mint, End: maxt}, s...))
	}
	set := storage.NewMergeSeriesSet(sets, 0, storage.ChainedSeriesMerge)
	var (
		found []sample
		it    chunkenc.Iterator
	)
	for set.Next() {
		series := set.At()
		it = series.Iterator(it)
		last, ok, err := lastSample(it, mint, maxt)
		if err != nil {
			return nil, err
		}
		if ok && !last.stale() {
			last.labels = series.Labels()
			found = append(found, last)
		}
	}
	if err := set.Err(); err != nil {
		return nil, err
	}
	if ws := set.Warnings(); len(ws) > 0 {
		f.Logger.Debug("federation came with warnings", "warnings", ws.AsErrors())
	}
	slices.SortStableFunc(found, func(a, b sample) int {
		return strings.Compare(a.labels.Get(labels.MetricName), b.labels.Get(labels.MetricName))
	})
	return found, nil
}

// lastSample reads the last sample in [mint, maxt] (ms), if there is one.
func lastSample(it chunkenc.Iterator, mint, maxt int64) (last sample, ok bool, err error) {
	for typ := it.Seek(mint); typ != chunkenc.ValNone && it.AtT() <= maxt; typ = it.Next() {
		ok = true
		if typ == chunkenc.ValFloat {
			last.ts, last.float = it.At()
			last.hist = nil
		} else {
			last.ts, last.hist = it.AtFloatHistogram(last.hist)
		}
	}
	return last, ok, it.Err()
}

// write sends the families and what the format wants at its end.
func (f *Handler) write(enc expfmt.Encoder, fams []*family) error {
	for _, fam := range fams {
		if err := enc.Encode(fam.dto); err != nil {
			return errors.Join(err, closeEncoder(enc))
		}
	}
	return closeEncoder(enc)
}

func closeEncoder(enc expfmt.Encoder) error {
	if c, ok := enc.(expfmt.Closer); ok {
		return c.Close()
	}
	return nil
}

func isProtobuf(f expfmt.Format) bool {
	switch f.FormatType() {
	case expfmt.TypeProtoDelim, expfmt.TypeProtoText, expfmt.TypeProtoCompact:
		return true
	}
	return false
}
