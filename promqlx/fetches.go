package promqlx

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/oneprom/oneprom/servergroup"
)

// fetches are those of one execution of a query. What several of its selectors need
// of the same replicas is fetched once, and merged once.
type fetches struct {
	view *servergroup.View

	mtx     sync.Mutex      // guards the fields below but running
	ctx     context.Context // of the evaluation; nil before it has begun
	cancel  context.CancelFunc
	known   map[string]*servergroup.Fetch
	running sync.WaitGroup
}

func newFetches(view *servergroup.View) *fetches {
	return &fetches{view: view, known: map[string]*servergroup.Fetch{}}
}

// begin tells the context of the evaluation, with which all fetches end.
func (f *fetches) begin(ctx context.Context) {
	f.mtx.Lock()
	defer f.mtx.Unlock()
	if f.ctx == nil {
		f.ctx, f.cancel = context.WithCancel(ctx)
	}
}

// end ends the fetches that are still under way and waits for them.
func (f *fetches) end() {
	f.mtx.Lock()
	if f.cancel != nil {
		f.cancel()
	}
	f.mtx.Unlock()
	f.running.Wait()
}

// of returns the series of a selection, for a piece unless that is nil.
func (f *fetches) of(sel servergroup.Selection, piece *servergroup.Piece) storage.SeriesSet {
	f.mtx.Lock()
	defer f.mtx.Unlock()
	key := keyOf(sel)
	if piece != nil {
		key = piece.Key() + " " + key
	}
	fetch, ok := f.known[key]
	if !ok && piece != nil {
		fetch = f.view.SelectPiece(f.ctx, sel, piece, &f.running)
	} else if !ok {
		fetch = f.view.Select(f.ctx, sel, &f.running)
	}
	f.known[key] = fetch
	return fetch.Read()
}

// later returns the series that fetch will return.
func (f *fetches) later(fetch func(ctx context.Context) ([]storage.Series, annotations.Annotations, error)) storage.SeriesSet {
	f.mtx.Lock()
	defer f.mtx.Unlock()
	ctx := f.ctx
	return servergroup.Later(ctx, &f.running, func() ([]storage.Series, annotations.Annotations, error) { return fetch(ctx) }).Read()
}

// keyOf tells selections apart.
func keyOf(sel servergroup.Selection) string {
	texts := make([]string, len(sel.Matchers))
	for i, m := range sel.Matchers {
		texts[i] = m.String()
	}
	slices.Sort(texts)
	key := fmt.Sprintf("%s %d %d %t", strings.Join(texts, ","), sel.MinT, sel.MaxT, sel.Every)
	if sel.Steps != nil {
		key += fmt.Sprintf(" %+v", *sel.Steps)
	}
	return key
}
