package promqlx

import (
	"context"
	"fmt"
	"sync"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/oneprom/oneprom/promqlx/cache"
	"github.com/oneprom/oneprom/servergroup"
	"github.com/oneprom/oneprom/servergroup/lookup"
	"github.com/oneprom/oneprom/servergroup/view"
)

// Storage serves the server groups as a storage, for the endpoints that run no query:
// series, labels, remote read, federation.
type Storage struct {
	groups *servergroup.Set
	cache  *cache.Cache // nil: answers are not kept
}

var _ storage.SampleAndChunkQueryable = (*Storage)(nil)

// NewStorage returns the groups as a storage.
func NewStorage(groups *servergroup.Set) *Storage { return &Storage{groups: groups} }

// UseCache has answers to lookups kept in a cache. It is called before the first lookup.
func (s *Storage) UseCache(c *cache.Cache) { s.cache = c }

// Querier implements storage.Queryable.
func (s *Storage) Querier(mint, maxt int64) (storage.Querier, error) {
	return &groupQuerier{groups: s.groups, cache: s.cache, mint: mint, maxt: maxt}, nil
}

// ChunkQuerier implements storage.ChunkQueryable.
func (s *Storage) ChunkQuerier(mint, maxt int64) (storage.ChunkQuerier, error) {
	return &chunkQuerier{groupQuerier{groups: s.groups, cache: s.cache, mint: mint, maxt: maxt}}, nil
}

var _ storage.Searcher = (*groupQuerier)(nil)

// groupQuerier asks the groups for all series in [mint, maxt] (ms).
type groupQuerier struct {
	groups     *servergroup.Set
	mint, maxt int64

	mtx     sync.Mutex   // guards the fields below
	cache   *cache.Cache // nil: lookups are answered at once
	seen    *view.View   // the view of all calls, with one budget; nil before the first
	cancels []context.CancelFunc
	running sync.WaitGroup
}

// view returns the view that all calls of the querier share.
func (q *groupQuerier) view(ctx context.Context) *view.View {
	q.mtx.Lock()
	defer q.mtx.Unlock()
	if q.seen == nil {
		q.seen = q.groups.View(ctx)
	}
	return q.seen
}

// keptIn returns the cache that lookups are answered of; nil if they are answered at once.
func (q *groupQuerier) keptIn() *cache.Cache {
	q.mtx.Lock()
	defer q.mtx.Unlock()
	return q.cache
}

// atOnce has all lookups from now on answered at once, from another view, with a budget of its own.
func (q *groupQuerier) atOnce() {
	q.mtx.Lock()
	defer q.mtx.Unlock()
	q.cache, q.seen = nil, nil
}

// Select implements storage.Querier.
func (q *groupQuerier) Select(ctx context.Context, _ bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	if hints != nil && hints.Func == "series" {
		list, ws, err := lookUp(ctx, q, foundSeries, "series", q.lookup(hints.Limit, ms), lookup.Series)
		if err != nil {
			return storage.ErrSeriesSet(queryError(err))
		}
		return &labelSets{list: list, warnings: ws, at: -1}
	}
	v := q.view(ctx)
	q.mtx.Lock()
	defer q.mtx.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	q.cancels = append(q.cancels, cancel)
	sel := view.Selection{Matchers: ms, MinT: q.mint, MaxT: q.maxt}
	return queryErrors{v.Select(ctx, sel, &q.running).Read()}
}

func (q *groupQuerier) lookup(limit int, ms []*labels.Matcher) lookup.Lookup {
	return lookup.Lookup{Matchers: ms, MinT: q.mint, MaxT: q.maxt, Limit: limit}
}

func limitOf(hints *storage.LabelHints) int {
	if hints == nil {
		return 0
	}
	return hints.Limit
}

// LabelValues implements storage.LabelQuerier.
func (q *groupQuerier) LabelValues(ctx context.Context, name string, hints *storage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	values, ws, err := lookUp(ctx, q, foundStrings, fmt.Sprintf("values of %q", name), q.lookup(limitOf(hints), ms),
		func(ctx context.Context, v *view.View, l lookup.Lookup) ([]string, annotations.Annotations, error) {
			return lookup.LabelValues(ctx, v, name, l)
		})
	return values, ws, queryError(err)
}

// LabelNames implements storage.LabelQuerier.
func (q *groupQuerier) LabelNames(ctx context.Context, hints *storage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	names, ws, err := lookUp(ctx, q, foundStrings, "names", q.lookup(limitOf(hints), ms), lookup.LabelNames)
	return names, ws, queryError(err)
}

// SearchLabelValues implements storage.Searcher. All values are fetched and merged before
// they are searched: limits and scores are about the merged values.
func (q *groupQuerier) SearchLabelValues(ctx context.Context, name string, hints *storage.SearchHints, ms ...*labels.Matcher) storage.SearchResultSet {
	values, ws, err := q.LabelValues(ctx, name, nil, ms...)
	return searchAmong(values, ws, err, hints)
}

// SearchLabelNames implements storage.Searcher.
func (q *groupQuerier) SearchLabelNames(ctx context.Context, hints *storage.SearchHints, ms ...*labels.Matcher) storage.SearchResultSet {
	names, ws, err := q.LabelNames(ctx, nil, ms...)
	return searchAmong(names, ws, err, hints)
}

func searchAmong(sorted []string, ws annotations.Annotations, err error, hints *storage.SearchHints) storage.SearchResultSet {
	if err != nil {
		return storage.ErrSearchResultSet(err, ws)
	}
	return storage.NewSearchResultSetFromSlice(storage.ApplySearchHints(sorted, hints), ws)
}

// Close ends the fetches that are still under way and waits for them.
func (q *groupQuerier) Close() error {
	q.mtx.Lock()
	defer q.mtx.Unlock()
	for _, cancel := range q.cancels {
		cancel()
	}
	q.running.Wait()
	return nil
}

// chunkQuerier is a groupQuerier whose series are encoded as chunks.
type chunkQuerier struct{ groupQuerier }

// Select implements storage.ChunkQuerier. Hints are ignored: a client that looks up series
// by remote read wants their chunks all the same.
func (q *chunkQuerier) Select(ctx context.Context, sorted bool, _ *storage.SelectHints, ms ...*labels.Matcher) storage.ChunkSeriesSet {
	return storage.NewSeriesSetToChunkSet(q.groupQuerier.Select(ctx, sorted, nil, ms...))
}

// labelSets is a series set of labels without samples.
type labelSets struct {
	list     []labels.Labels
	warnings annotations.Annotations
	at       int
}

func (s *labelSets) Next() bool {
	s.at++
	return s.at < len(s.list)
}

func (s *labelSets) At() storage.Series {
	return storage.NewListSeries(s.list[s.at], nil)
}

func (s *labelSets) Err() error                        { return nil }
func (s *labelSets) Warnings() annotations.Annotations { return s.warnings }
