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

// Select starts to fetch the selection and returns at once. The series are sorted by labels. The
// fetch ends when ctx does; done waits for its end.
func (v *View) Select(ctx context.Context, sel Selection, done *sync.WaitGroup) *Fetch {
	return StartFetch(ctx, done, func() ([]storage.Series, annotations.Annotations, error) { return Listed(v.fetch(ctx, sel)) })
}

// Listed converts series to the type that StartFetch wants.
func Listed(series []*dedup.Series, ws annotations.Annotations, err error) ([]storage.Series, annotations.Annotations, error) {
	list := make([]storage.Series, len(series))
	for i, s := range series {
		list[i] = s
	}
	return list, ws, err
}

// Fetch is a fetch of series that is running or has ended. Its series may be read several times.
type Fetch struct {
	readers  atomic.Int64
	ready    chan struct{} // closed when the fields below are set
	list     []storage.Series
	warnings annotations.Annotations
	err      error
}

// StartFetch starts to run fetch in the background. When it has returned series, these are merged
// ahead of their readers. done waits for the end of both.
func StartFetch(ctx context.Context, done *sync.WaitGroup, fetch func() ([]storage.Series, annotations.Annotations, error)) *Fetch {
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

// Read returns a set of the series, which waits for the fetch. Each set reads all series once.
// They are merged once for all sets that are made before the fetch has ended.
func (f *Fetch) Read() storage.SeriesSet {
	f.readers.Add(1)
	return &seriesSet{Fetch: f, at: -1}
}

// seriesSet is the storage.SeriesSet of a fetch that may be running.
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
