package dialect

import (
	"context"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/oneprom/oneprom/servergroup/backendtest"
)

// quotedName finds a label name in quotes in a selector.
var quotedName = regexp.MustCompile(`[{,]\s*"[^"]*"\s*[=!]`)

// probeOf2 has the engine of a Prometheus 3 answer transport's probe as that of a Prometheus 2 does:
// its windows are closed on the left.
var probeOf2 = strings.NewReplacer(`"."`, `"[^\\n]"`, "[1m:30s]", "[61s:30s]")

// NewPrometheus2 returns a Prometheus 2.42. Its regular expressions match no line break with a dot, its
// parser reads no label name in quotes, and the path of a label's values has the name as it is.
func NewPrometheus2(o backendtest.Options) http.Handler {
	o.Queryable = dotsWithoutBreaks{o.Queryable}
	if o.Exemplars != nil {
		o.Exemplars = dotsExemplars{o.Exemplars}
	}
	api := backendtest.NewHandler(o)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := strings.TrimPrefix(r.URL.Path, "/api/v1/")
		if path == "status/buildinfo" {
			writeData(w, map[string]string{"version": "2.42.0"})
			return
		}
		if path == "read" {
			api.ServeHTTP(w, r) // names need no parser
			return
		}
		if err := r.ParseForm(); err != nil {
			writeError(w, http.StatusBadRequest, "bad_data", err.Error())
			return
		}
		if slices.ContainsFunc(append(r.Form["match[]"], r.Form["query"]...), quotedName.MatchString) {
			writeError(w, http.StatusBadRequest, "bad_data", `1:2: parse error: unexpected string in label matching, expected identifier or "}"`)
			return
		}
		if query := r.Form.Get("query"); strings.Contains(query, "oneprom_probe") {
			r.Form.Set("query", probeOf2.Replace(query))
		}
		if strings.HasPrefix(path, "label/U__") {
			writeData(w, []string{})
			return
		}
		api.ServeHTTP(w, r)
	})
}

// dotsWithoutBreaks is a storage for whose matchers a dot matches no line break.
type dotsWithoutBreaks struct {
	storage.SampleAndChunkQueryable
}

func (s dotsWithoutBreaks) Querier(mint, maxt int64) (storage.Querier, error) {
	q, err := s.SampleAndChunkQueryable.Querier(mint, maxt)
	return dotsQuerier{q}, err
}

func (s dotsWithoutBreaks) ChunkQuerier(mint, maxt int64) (storage.ChunkQuerier, error) {
	q, err := s.SampleAndChunkQueryable.ChunkQuerier(mint, maxt)
	return dotsChunkQuerier{q}, err
}

type dotsQuerier struct{ storage.Querier }

func (q dotsQuerier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	return q.Querier.Select(ctx, sorted, hints, withoutBreaks(ms)...)
}

func (q dotsQuerier) LabelValues(ctx context.Context, name string, hints *storage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return q.Querier.LabelValues(ctx, name, hints, withoutBreaks(ms)...)
}

func (q dotsQuerier) LabelNames(ctx context.Context, hints *storage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return q.Querier.LabelNames(ctx, hints, withoutBreaks(ms)...)
}

type dotsChunkQuerier struct{ storage.ChunkQuerier }

func (q dotsChunkQuerier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.ChunkSeriesSet {
	return q.ChunkQuerier.Select(ctx, sorted, hints, withoutBreaks(ms)...)
}

type dotsExemplars struct{ storage.ExemplarQueryable }

func (s dotsExemplars) ExemplarQuerier(ctx context.Context) (storage.ExemplarQuerier, error) {
	q, err := s.ExemplarQueryable.ExemplarQuerier(ctx)
	return dotsExemplarQuerier{q}, err
}

type dotsExemplarQuerier struct{ storage.ExemplarQuerier }

func (q dotsExemplarQuerier) Select(start, end int64, selectors ...[]*labels.Matcher) ([]exemplar.QueryResult, error) {
	old := make([][]*labels.Matcher, len(selectors))
	for i, ms := range selectors {
		old[i] = withoutBreaks(ms)
	}
	return q.ExemplarQuerier.Select(start, end, old...)
}

// withoutBreaks returns the matchers with the meaning that Prometheus 2 gives them.
func withoutBreaks(ms []*labels.Matcher) []*labels.Matcher {
	out := make([]*labels.Matcher, len(ms))
	for i, m := range ms {
		out[i] = m
		if m.Type == labels.MatchRegexp || m.Type == labels.MatchNotRegexp {
			out[i] = labels.MustNewMatcher(m.Type, m.Name, "(?-s:"+m.Value+")")
		}
	}
	return out
}
