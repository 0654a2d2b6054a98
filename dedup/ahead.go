package dedup

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// aheadBytes bounds what MergeAhead holds that nobody has iterated yet.
const aheadBytes = 8 << 20

// merged is what became of a series.
type merged struct {
	samples *Samples
	err     error
	bytes   int
	readers atomic.Int64 // iterators that walk the samples, or will
}

// ahead merges series before they are iterated, so that merging uses another
// core than evaluating.
type ahead struct {
	free sync.Pool // of *Samples that all have iterated

	mtx   sync.Mutex
	room  *sync.Cond // held has shrunk, or ended is true
	held  int        // bytes that are merged and not yet iterated
	ended bool
}

// MergeAhead merges the series of list in order, a bounded stretch ahead of their
// iterators, until all are merged or ctx ends. A series that is iterated before
// its turn is merged by its iterator.
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

// wait waits for room and reports whether to go on.
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

// mergeAndRelease turns a panic into an error of the series: upstream's iterators
// may panic over damaged chunks, and here no engine recovers.
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

// floats reports whether a run is of compressed floats. Histograms are cheaper
// one after the other: an iterator re-uses their memory.
func floats(r Run) bool {
	c, ok := Unbounded(r).(Chunks)
	return ok && (c[0].Encoding == chunkenc.EncXOR || c[0].Encoding == chunkenc.EncXOR2)
}

// giveBack tells that one of those that m is for needs it no more.
func (a *ahead) giveBack(m *merged) {
	if m.readers.Add(-1) == 0 {
		a.free.Put(m.samples)
	}
}

// iterated makes room: m is in the hands of its last iterator.
func (a *ahead) iterated(m *merged) {
	a.mtx.Lock()
	defer a.mtx.Unlock()
	a.held -= m.bytes
	a.room.Broadcast()
}
