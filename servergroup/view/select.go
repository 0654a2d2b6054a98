package view

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/servergroup/guard"
)

// Select starts to fetch the selection and returns at once. The series are sorted by
// labels. The fetch ends when ctx does; done is told when it has ended.
func (v *View) Select(ctx context.Context, sel Selection, done *sync.WaitGroup) *Fetch {
	return Later(ctx, done, func() ([]storage.Series, annotations.Annotations, error) { return Listed(v.fetch(ctx, sel)) })
}

// Listed returns series as the type that Later wants.
func Listed(series []*dedup.Series, ws annotations.Annotations, err error) ([]storage.Series, annotations.Annotations, error) {
	list := make([]storage.Series, len(series))
	for i, s := range series {
		list[i] = s
	}
	return list, ws, err
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
		f.err = guard.Call(func() (err error) {
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
