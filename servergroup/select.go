package servergroup

import (
	"context"
	"slices"
	"sync"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/oneprom/oneprom/dedup"
)

// Select starts to fetch the selection and returns at once. The set that it
// returns waits for the answer; its series are sorted by labels. The fetch ends
// when ctx does; done is told when it has ended.
func (v *View) Select(ctx context.Context, sel Selection, done *sync.WaitGroup) storage.SeriesSet {
	return Later(ctx, done, func() ([]*dedup.Series, annotations.Annotations, error) { return v.fetch(ctx, sel) })
}

// SelectPiece is Select for a piece: from its partition, its targets and its
// replicas only.
func (v *View) SelectPiece(ctx context.Context, sel Selection, p *Piece, done *sync.WaitGroup) storage.SeriesSet {
	return Later(ctx, done, func() ([]*dedup.Series, annotations.Annotations, error) { return v.fetchPiece(ctx, sel, p) })
}

func (v *View) fetchPiece(ctx context.Context, sel Selection, p *Piece) ([]*dedup.Series, annotations.Annotations, error) {
	ts := p.targets(sel)
	if p.instances != nil {
		sel.Matchers = append(slices.Clone(sel.Matchers), p.instances)
		for i := range ts {
			ts[i].route = ts[i].cfg.route(sel.Matchers, ts[i].route.MinT, ts[i].route.MaxT, v.now)
		}
	}
	return v.fetchFrom(ctx, sel, ts)
}

// Later is a set of the series that fetch returns. It runs in the background, and the
// series are merged ahead of the reader. done is told when that has ended.
func Later(ctx context.Context, done *sync.WaitGroup, fetch func() ([]*dedup.Series, annotations.Annotations, error)) storage.SeriesSet {
	s := &seriesSet{ready: make(chan struct{}), at: -1}
	done.Go(func() {
		s.list, s.warnings, s.err = fetch()
		close(s.ready)
		dedup.MergeAhead(ctx, s.list)
	})
	return s
}

// seriesSet is a storage.SeriesSet whose series are still on their way.
type seriesSet struct {
	ready    chan struct{} // closed when the fields below are set
	list     []*dedup.Series
	warnings annotations.Annotations
	err      error
	at       int
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

var anySeries = []*labels.Matcher{labels.MustNewMatcher(labels.MatchNotEqual, labels.MetricName, "")}
