package servergroup

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/routing"
)

// Select starts to fetch the selection and returns at once. The series are sorted by
// labels. The fetch ends when ctx does; done is told when it has ended.
func (v *View) Select(ctx context.Context, sel Selection, done *sync.WaitGroup) *Fetch {
	return Later(ctx, done, func() ([]storage.Series, annotations.Annotations, error) { return listed(v.fetch(ctx, sel)) })
}

// SelectPiece is Select for a piece: from its partition, its targets and its
// replicas only.
func (v *View) SelectPiece(ctx context.Context, sel Selection, p *Piece, done *sync.WaitGroup) *Fetch {
	return Later(ctx, done, func() ([]storage.Series, annotations.Annotations, error) { return listed(v.fetchPiece(ctx, sel, p)) })
}

func listed(series []*dedup.Series, ws annotations.Annotations, err error) ([]storage.Series, annotations.Annotations, error) {
	list := make([]storage.Series, len(series))
	for i, s := range series {
		list[i] = s
	}
	return list, ws, err
}

func (v *View) fetchPiece(ctx context.Context, sel Selection, p *Piece) ([]*dedup.Series, annotations.Annotations, error) {
	ts := p.routedGroups(sel)
	if len(p.narrowed) > 0 {
		sel.Matchers = slices.Concat(sel.Matchers, p.narrowed)
		for i := range ts {
			ts[i].route = routing.To(ts[i].cfg, ts[i].with(sel.Matchers), ts[i].route.MinT, ts[i].route.MaxT, v.now)
		}
	}
	switch {
	case !p.partition.Single():
		return v.fetchFrom(ctx, sel, ts, v.recordFetch(sel))
	case p.alone == nil:
		return v.fetchFrom(ctx, sel, ts, func(o completeness.Outcome) { v.Ledger.RecordPartial(o, sel.MinT, sel.MaxT) })
	}
	return v.fetchAlone(ctx, sel, p, ts)
}

// fetchAlone gets the selection from the piece's replica, or from another one that can
// answer alone. If none of them answers, it is merged of the others, and the answer
// says that it is partial: they have missed something.
func (v *View) fetchAlone(ctx context.Context, sel Selection, p *Piece, ts []routedGroup) ([]*dedup.Series, annotations.Annotations, error) {
	if len(ts) == 0 {
		return v.fetchFrom(ctx, sel, ts, nil)
	}
	type answer struct {
		list []*dedup.Series
		ws   annotations.Annotations
	}
	from := func(ctx context.Context, list []*replica) (a answer, err error) {
		some := slices.Clone(ts)
		for i := range some {
			some[i].replicas, some[i].holders = list, len(list)
		}
		a.list, a.ws, err = v.fetchFrom(ctx, sel, some, nil)
		return a, err
	}
	candidates := p.candidates()
	answers := make([]answer, len(candidates))
	winner, errs := First(ctx, candidates, v.extra, retryable, func(ctx context.Context, i int) (err error) {
		answers[i], err = from(ctx, candidates[i:i+1])
		return err
	})
	lost := completeness.Outcome{Group: v.about(ts[0].groupView), Asked: len(p.partition.members[0].replicas)}
	for _, err := range errs {
		if gone, ok := errors.AsType[*completeness.UnavailableError](err); ok {
			lost.Failed = append(lost.Failed, gone.Causes...)
		}
	}
	if winner >= 0 {
		a := answers[winner]
		if len(lost.Failed) > 0 {
			a.ws.Add(&completeness.LostReplicas{Outcome: lost})
		}
		return a.list, a.ws, nil
	}
	first := errs[0]
	others := slices.DeleteFunc(slices.Clone(p.partition.members[0].replicas), func(r *replica) bool { return slices.Contains(candidates, r) })
	if len(others) == 0 || !slices.ContainsFunc(errs, retryable) || ctx.Err() != nil {
		return nil, nil, first
	}
	a, err := from(ctx, others)
	if err != nil {
		return nil, a.ws, err
	}
	lost.Needed = true
	if lost.Group.Strict {
		return nil, a.ws, &completeness.UnavailableError{Lacks: []completeness.Lack{lost.Lack()}, Causes: lost.Failed}
	}
	a.ws.Add(&completeness.PartialWarning{Lack: lost.Lack()})
	v.Ledger.AddGap(lost.Group, sel.MinT, sel.MaxT, lost.String())
	return a.list, a.ws, nil
}

// Fetch is under way, or has ended. Its series may be read several times.
type Fetch struct {
	readers  atomic.Int64
	ready    chan struct{} // closed when the fields below are set
	list     []storage.Series
	warnings annotations.Annotations
	err      error
}

// Later is a fetch of the series that fetch returns. It runs in the background, and
// series are merged ahead of the readers. done is told when that has ended.
func Later(ctx context.Context, done *sync.WaitGroup, fetch func() ([]storage.Series, annotations.Annotations, error)) *Fetch {
	f := &Fetch{ready: make(chan struct{})}
	done.Go(func() {
		f.err = guarded(func() (err error) {
			f.list, f.warnings, err = fetch()
			return err
		})
		var unmerged []*dedup.Series
		for _, s := range f.list {
			if s, ok := s.(*dedup.Series); ok {
				s.ReadBy(int(max(1, f.readers.Load())))
				unmerged = append(unmerged, s)
			}
		}
		close(f.ready)
		dedup.MergeAhead(ctx, unmerged)
	})
	return f
}

// Read returns a set of the series, which waits for them. Each set reads all series
// once; they are merged once for all sets that are made before they are there.
func (f *Fetch) Read() storage.SeriesSet {
	f.readers.Add(1)
	return &seriesSet{Fetch: f, at: -1}
}

// seriesSet is a storage.SeriesSet whose series are still on their way.
type seriesSet struct {
	*Fetch
	at int
}

func (s *seriesSet) Next() bool {
	<-s.ready
	s.at++
	return s.err == nil && s.at < len(s.list)
}

func (s *seriesSet) At() storage.Series { return s.list[s.at] }

func (s *seriesSet) Err() error {
	<-s.ready
	return s.err
}

func (s *seriesSet) Warnings() annotations.Annotations {
	<-s.ready
	return s.warnings
}
