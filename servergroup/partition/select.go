package partition

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/fanout"
	"github.com/oneprom/oneprom/servergroup/replica"
	"github.com/oneprom/oneprom/servergroup/routing"
	"github.com/oneprom/oneprom/servergroup/view"
)

// Select starts to fetch the selection, narrowed to the series of the piece, from its replicas. It
// returns at once. See view.View.Select.
func (p *Piece) Select(ctx context.Context, sel view.Selection, done *sync.WaitGroup) *view.Fetch {
	return view.StartFetch(ctx, done, func() ([]storage.Series, annotations.Annotations, error) { return view.Listed(p.fetch(ctx, sel)) })
}

// fetch gets the selection from the piece's replicas. If those that can answer alone may have lost
// samples, it merges all.
func (p *Piece) fetch(ctx context.Context, sel view.Selection) ([]*dedup.Series, annotations.Annotations, error) {
	list, ws, err := p.tryFetch(ctx, sel)
	if p.partition.proves() || p.single == nil || !isLoss(err) {
		return list, ws, p.orCopies(err)
	}
	all := *p
	all.single, all.allNeeded = nil, true
	return all.tryFetch(ctx, sel)
}

// tryFetch is fetch, but fails where replicas may have lost samples.
func (p *Piece) tryFetch(ctx context.Context, sel view.Selection) ([]*dedup.Series, annotations.Annotations, error) {
	v := p.partition.view
	ts := p.routedGroups(sel)
	asked := sel.Matchers
	if len(p.narrowed) > 0 {
		sel.Matchers = slices.Concat(sel.Matchers, p.narrowed)
		for i := range ts {
			ts[i].Route = routing.To(ts[i].Config, ts[i].With(sel.Matchers), ts[i].Route.MinT, ts[i].Route.MaxT, v.Now)
		}
	}
	switch {
	case !p.partition.Single():
		return v.FetchFrom(ctx, sel, ts, v.RecordFetch(sel))
	case p.single == nil:
		return p.fetchAll(ctx, sel, ts)
	}
	return p.fetchSingle(ctx, sel, asked, ts)
}

// fetchAll gets the selection from all replicas of the only group.
func (p *Piece) fetchAll(ctx context.Context, sel view.Selection, ts []view.RoutedGroup) ([]*dedup.Series, annotations.Annotations, error) {
	v, failed := p.partition.view, false
	list, ws, err := v.FetchFrom(ctx, sel, ts, func(o completeness.Outcome) {
		failed = failed || len(o.Failed) > 0
		v.Ledger.RecordPartial(o, sel.MinT, sel.MaxT)
	})
	switch {
	case err != nil || !p.partition.proves():
	case failed && p.partition.insists():
		err = p.partition.needsCopies(always)
	case !failed:
		err = p.confirmAll(ctx)
	}
	return list, ws, err
}

// fetchSingle gets the selection from the piece's replica, or from another one that can answer
// alone. If none of them answers, and one may have lost samples, it fails with an error that isLoss
// reports. If they just do not answer, it merges the others, which have missed something: the answer
// is then partial. asked are the matchers of the selection before it was narrowed.
func (p *Piece) fetchSingle(ctx context.Context, sel view.Selection, asked []*labels.Matcher, ts []view.RoutedGroup) ([]*dedup.Series, annotations.Annotations, error) {
	v := p.partition.view
	if len(ts) == 0 {
		return v.FetchFrom(ctx, sel, ts, nil)
	}
	type answer struct {
		list []*dedup.Series
		ws   annotations.Annotations
	}
	from := func(ctx context.Context, list []*replica.Replica) (a answer, err error) {
		some := slices.Clone(ts)
		for i := range some {
			some[i].Replicas, some[i].Holders = list, len(list)
		}
		a.list, a.ws, err = v.FetchFrom(ctx, sel, some, nil)
		return a, err
	}
	candidates := p.candidates()
	answers := make([]answer, len(candidates))
	winner, errs := p.askWhole(ctx, candidates, func(ctx context.Context, i int) (err error) {
		if answers[i], err = from(ctx, candidates[i:i+1]); err != nil {
			return err
		}
		return p.confirm(ctx, candidates[i])
	})
	if i := slices.IndexFunc(errs, isLoss); winner < 0 && i >= 0 {
		return nil, nil, errs[i]
	}
	lost := completeness.Outcome{Group: v.CompletenessOf(ts[0].Group), Asked: len(p.partition.members[0].Replicas)}
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
		p.offer(ctx, candidates[winner], func() []Reach { return p.reachesOf(asked) })
		return a.list, a.ws, nil
	}
	if err := fanout.AllOver(lost.Failed); err != nil {
		return nil, nil, err
	}
	first := errs[0]
	if p.partition.insists() {
		return nil, nil, first
	}
	others := slices.DeleteFunc(slices.Clone(p.partition.members[0].Replicas), func(r *replica.Replica) bool { return slices.Contains(candidates, r) })
	if len(others) == 0 || !slices.ContainsFunc(errs, retryable) || ctx.Err() != nil {
		return nil, nil, first
	}
	a, err := from(ctx, others)
	if err != nil {
		return nil, a.ws, err
	}
	lost.AllNeeded = true
	if lost.Group.Strict {
		return nil, a.ws, &completeness.UnavailableError{Lacks: []completeness.Lack{lost.Lack()}, Causes: lost.Failed}
	}
	a.ws.Add(&completeness.PartialWarning{Lack: lost.Lack()})
	v.Ledger.AddGap(lost.Group, sel.MinT, sel.MaxT, lost.String())
	return a.list, a.ws, nil
}

// routedGroups returns the groups that a selection of the piece is fetched from.
func (p *Piece) routedGroups(sel view.Selection) []view.RoutedGroup {
	v := p.partition.view
	ts := v.RouteMergeAmong(p.partition.members, sel.Matchers, sel.MinT, sel.MaxT)
	for i := range ts {
		switch {
		case p.single != nil:
			ts[i].Replicas, ts[i].Holders = []*replica.Replica{p.single}, 1
		case p.allNeeded:
			ts[i].AllNeeded, ts[i].WholeReplicas = true, p.wholeReplicas
			fallthrough
		case len(p.partition.members) == 1:
			ts[i].Replicas = order(ts[i].Replicas, p.first)
		}
	}
	return ts
}

// order returns the replicas with one of them first.
func order(replicas []*replica.Replica, first int) []*replica.Replica {
	if first == 0 {
		return replicas
	}
	out := []*replica.Replica{replicas[first]}
	out = append(out, replicas[:first]...)
	return append(out, replicas[first+1:]...)
}
