package promqlx

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/oneprom/oneprom/promqlx/explain"
	"github.com/oneprom/oneprom/promqlx/plan"
	"github.com/oneprom/oneprom/servergroup"
)

// fetches are those of one execution of a query. What several of its selectors need
// of the same replicas is fetched once, and merged once.
type fetches struct {
	plan  *plan.Routed
	trace *explain.Trace // nil: nobody wants to know

	mtx     sync.Mutex      // guards the fields below but running
	ctx     context.Context // of the evaluation; nil before it has begun
	cancel  context.CancelFunc
	known   map[string]*servergroup.Fetch
	running sync.WaitGroup
}

func newFetches(p *plan.Routed, trace *explain.Trace) *fetches {
	return &fetches{plan: p, trace: trace, known: map[string]*servergroup.Fetch{}}
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

// series returns the series of a selection, for a piece unless that is nil. If they are
// among those of another one that is fetched as well, they are taken from there.
func (f *fetches) series(sel servergroup.Selection, piece *servergroup.Piece) storage.SeriesSet {
	recorded := f.trace.Fetch(piece, sel)
	all := container(f.together(piece), sel)
	set := f.fetched(all, piece)
	if len(all.Matchers) < len(sel.Matchers) {
		set = &among{set, sel.Matchers}
	}
	return queryErrors{recorded.Record(set, &f.running)}
}

// together are the selections that are fetched together with those of a piece, or of
// the query itself if that is nil: what one piece merges of all replicas, at all steps,
// the pieces of other parts do as well.
func (f *fetches) together(piece *servergroup.Piece) []servergroup.Selection {
	var out []servergroup.Selection
	for _, leaf := range f.plan.Leaves {
		switch {
		case piece == nil && leaf.Selector != nil && !leaf.Selector.Unused:
			out = append(out, leaf.Selector.Selection)
		case piece != nil && leaf.Part != nil && piece.Steps == leaf.Part.Steps && piece.Replica() == "" && len(piece.Narrowed()) == 0:
			for _, s := range leaf.Part.Selectors {
				out = append(out, s.Selection)
			}
		}
	}
	return out
}

// fetched returns the series of a selection, which is fetched unless it has been.
func (f *fetches) fetched(sel servergroup.Selection, piece *servergroup.Piece) storage.SeriesSet {
	f.mtx.Lock()
	defer f.mtx.Unlock()
	key := keyOf(sel)
	if piece != nil {
		key = piece.Key() + " " + key
	}
	fetch, ok := f.known[key]
	if !ok && piece != nil {
		fetch = f.plan.View.SelectPiece(f.ctx, sel, piece, &f.running)
	} else if !ok {
		fetch = f.plan.View.Select(f.ctx, sel, &f.running)
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
