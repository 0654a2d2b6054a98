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
	"github.com/oneprom/oneprom/servergroup/partition"
	"github.com/oneprom/oneprom/servergroup/transport"
	"github.com/oneprom/oneprom/servergroup/view"
)

// fetches are the fetches of one execution. Series that several selectors need of the same
// replicas are fetched and merged once.
type fetches struct {
	plan  *plan.Routed
	trace *explain.Trace // nil if the query is not traced

	mtx     sync.Mutex      // guards the fields below but running
	ctx     context.Context // bounds all fetches; nil before the evaluation has begun
	cancel  context.CancelFunc
	known   map[string]*view.Fetch          // by selectionKey, with the key of a piece
	merged  map[transport.Steps]*containers // the selections of parts with these steps; see siblings
	own     *containers                     // those of the query itself; nil before they are asked for
	running sync.WaitGroup
}

func newFetches(p *plan.Routed, trace *explain.Trace) *fetches {
	return &fetches{plan: p, trace: trace, known: map[string]*view.Fetch{}, merged: map[transport.Steps]*containers{}}
}

// begin sets the context of the evaluation. All fetches end with it.
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

// series returns the series of a selection, for a piece unless that is nil. Where another
// selection that is fetched contains them, they are taken from that one.
func (f *fetches) series(sel view.Selection, piece *partition.Piece) storage.SeriesSet {
	recorded := f.trace.Fetch(piece, sel)
	all := f.siblings(piece).widest(sel)
	set := f.fetched(all, piece)
	if len(all.Matchers) < len(sel.Matchers) {
		set = &filteredSet{set, sel.Matchers}
	}
	return queryErrors{recorded.Record(set, &f.running)}
}

// siblings returns the selections that are fetched in the same way as those of a piece, or
// of the query itself if that is nil. Where a piece merges all replicas at all steps, the
// selectors of other parts with the same steps are fetched so as well.
func (f *fetches) siblings(piece *partition.Piece) *containers {
	f.mtx.Lock()
	defer f.mtx.Unlock()
	if piece == nil {
		if f.own == nil {
			f.own = f.selections(func(l plan.Leaf) []plan.Selector {
				if l.Selector == nil || l.Selector.Unused {
					return nil
				}
				return []plan.Selector{*l.Selector}
			})
		}
		return f.own
	}
	if piece.Replica() != "" || len(piece.Narrowed()) > 0 {
		return &containers{}
	}
	if f.merged[piece.Steps] == nil {
		f.merged[piece.Steps] = f.selections(func(l plan.Leaf) []plan.Selector {
			if l.Part == nil || l.Part.Steps != piece.Steps {
				return nil
			}
			return l.Part.Selectors
		})
	}
	return f.merged[piece.Steps]
}

// selections returns the selections that are taken from the leaves of the plan.
func (f *fetches) selections(of func(plan.Leaf) []plan.Selector) *containers {
	var list []view.Selection
	for _, leaf := range f.plan.Leaves {
		for _, s := range of(leaf) {
			list = append(list, s.Selection)
		}
	}
	return newContainers(list)
}

// fetched returns the series of a selection. It is fetched unless it has been.
func (f *fetches) fetched(sel view.Selection, piece *partition.Piece) storage.SeriesSet {
	f.mtx.Lock()
	defer f.mtx.Unlock()
	key := selectionKey(sel)
	if piece != nil {
		key = piece.Key() + " " + key
	}
	fetch, ok := f.known[key]
	if !ok && piece != nil {
		fetch = piece.Select(f.ctx, sel, &f.running)
	} else if !ok {
		fetch = f.plan.View.Select(f.ctx, sel, &f.running)
	}
	f.known[key] = fetch
	return fetch.Read()
}

// later calls fetch in the background and returns the series that it will return.
func (f *fetches) later(fetch func(ctx context.Context) ([]storage.Series, annotations.Annotations, error)) storage.SeriesSet {
	f.mtx.Lock()
	defer f.mtx.Unlock()
	ctx := f.ctx
	return view.StartFetch(ctx, &f.running, func() ([]storage.Series, annotations.Annotations, error) { return fetch(ctx) }).Read()
}

// selectionKey is equal for selections of the same series and samples.
func selectionKey(sel view.Selection) string {
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
