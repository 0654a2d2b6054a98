package dedup

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// aheadBytes bounds the merged samples that MergeAhead holds and that are not iterated yet.
const aheadBytes = 8 << 20

// merged is a series after its merge.
type merged struct {
	samples *Samples
	err     error
	bytes   int
	readers atomic.Int64 // iterators that need the samples, now or later
}

// ahead merges series before they are iterated, so that merging uses another core than the
// evaluation.
type ahead struct {
	free sync.Pool // of *Samples that no iterator needs

	mtx   sync.Mutex
	room  *sync.Cond // held has decreased, or ended is true
	held  int        // bytes that are merged and not iterated yet
	ended bool
}

// MergeAhead merges the series of list in order, a bounded number of bytes ahead of their
// iterators, until all are merged or ctx ends. A series that is iterated before its turn is
// merged by its iterator.
func MergeAhead(ctx context.Context, list []*Series) {
	a := &ahead{}
	a.free.New = func() any { return &Samples{} }
	a.room = sync.NewCond(&a.mtx)
	stop := context.AfterFunc(ctx, a.end)
	defer stop()
	var next atomic.Int64
	var workers sync.WaitGroup
	for range max(1, min(4, runtime.GOMAXPROCS(0)-1)) {
		workers.Go(func() {
			var m merger
			for i := next.Add(1) - 1; i < int64(len(list)) && a.wait(); i = next.Add(1) - 1 {
				a.merge(list[i], &m)
			}
		})
	}
	workers.Wait()
}

func (a *ahead) end() {
	a.mtx.Lock()
	defer a.mtx.Unlock()
	a.ended = true
	a.room.Broadcast()
}

// wait waits for room and reports whether to continue.
func (a *ahead) wait() bool {
	a.mtx.Lock()
	defer a.mtx.Unlock()
	for a.held >= aheadBytes && !a.ended {
		a.room.Wait()
	}
	return !a.ended
}

// merge merges s unless it has been iterated, or is cheaper to iterate as it is.
func (a *ahead) merge(s *Series, m *merger) {
	s.mtx.Lock()
	defer s.mtx.Unlock()
	if s.readers <= 0 || len(s.runs) == 1 && !floats(s.runs[0]) {
		return
	}
	if len(m.spare) == 0 {
		m.spare = append(m.spare, a.free.Get().(*Samples))
	}
	out, err := m.mergeAndRelease(s)
	s.ahead, s.ready = a, &merged{samples: out, err: err, bytes: 16*len(out.T) + 1024*(len(out.H)+len(out.FH))}
	s.ready.readers.Store(int64(s.readers))
	a.mtx.Lock()
	defer a.mtx.Unlock()
	a.held += s.ready.bytes
}

// mergeAndRelease turns a panic into an error of the series: upstream's iterators may panic at
// damaged chunks, and no engine recovers here.
func (m *merger) mergeAndRelease(s *Series) (out *Samples, err error) {
	defer func() {
		if p := recover(); p != nil {
			*m = merger{}
			out, err = &Samples{}, fmt.Errorf("broken samples of %s: %v", s.labels, p)
		}
	}()
	err = m.merge(s)
	return m.release(), err
}

// floats reports whether a run is of compressed floats. Histograms are cheaper to decode one at
// a time: an iterator re-uses their memory.
func floats(r Run) bool {
	c, ok := Unbounded(r).(Chunks)
	return ok && (c[0].Encoding == chunkenc.EncXOR || c[0].Encoding == chunkenc.EncXOR2)
}

// giveBack returns m from one of its iterators. The last one returns its memory.
func (a *ahead) giveBack(m *merged) {
	if m.readers.Add(-1) == 0 {
		a.free.Put(m.samples)
	}
}

// iterated makes room, because the last iterator of m has begun.
func (a *ahead) iterated(m *merged) {
	a.mtx.Lock()
	defer a.mtx.Unlock()
	a.held -= m.bytes
	a.room.Broadcast()
}
