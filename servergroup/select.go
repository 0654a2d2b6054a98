package servergroup

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/oneprom/oneprom/dedup"
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

// fetchPiece gets the selection for a piece. Where the replica that was to answer alone
// fails, the others of its group are merged instead. That they are known to have missed
// something then makes the answer partial.
func (v *View) fetchPiece(ctx context.Context, sel Selection, p *Piece) ([]*dedup.Series, annotations.Annotations, error) {
	if !p.twins() {
		return v.fetchFrom(ctx, p.narrow(sel), p.targets(sel))
	}
	loss := v.lossOf(p.alone)
	if loss == nil {
		list, ws, err := v.fetchFrom(ctx, p.narrow(sel), p.targets(sel))
		if loss = v.lossOf(p.alone); err == nil || loss == nil || ctx.Err() != nil {
			return list, ws, err
		}
	}
	list, ws, err := v.fetchFrom(ctx, p.narrow(sel), p.others(sel, loss))
	if err != nil || !p.sole {
		return list, ws, err
	}
	without := outcome{group: p.partition.members[0].cfg, asked: 2, failed: []error{loss}}
	text := without.String() + ", and each other one has missed something"
	if v.partial == PartialError {
		return nil, ws, &UnavailableError{Groups: []string{text}}
	}
	ws.Add(errors.New("partial answer: " + text))
	return list, ws, nil
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
		f.list, f.warnings, f.err = fetch()
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

var anySeries = []*labels.Matcher{labels.MustNewMatcher(labels.MatchNotEqual, labels.MetricName, "")}
