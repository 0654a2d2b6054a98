package dedup

import (
	"context"
	"sync"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/assert" //nolint:depguard // in goroutines
	"github.com/stretchr/testify/require"
)

// panicking is a run whose decoder panics.
type panicking struct{ *Samples }

func (panicking) AppendTo(*Samples, int64, int64) error { panic("damaged") }

func TestMergeAhead_PanicIsAnErrorOfTheSeries(t *testing.T) {
	good := &Samples{}
	good.Append(0, 1000, 1)
	bad := NewSeries(labels.FromStrings("a", "b"), []Run{panicking{good}, good}, 0, 2000, nil)
	fine := NewSeries(labels.FromStrings("a", "c"), []Run{good, good}, 0, 2000, nil)
	MergeAhead(t.Context(), []*Series{bad, fine})
	it := bad.Iterator(nil)
	require.Equal(t, chunkenc.ValNone, it.Next())
	require.ErrorContains(t, it.Err(), `broken samples of {a="b"}: damaged`)
	it = fine.Iterator(it)
	require.Equal(t, chunkenc.ValFloat, it.Next())
	require.NoError(t, it.Err())
}

// TestMergeAhead_SeveralReaders: what is merged is there for each of them, and its
// memory is not used again before the last is through. One leaves out what it was
// reckoned with for.
func TestMergeAhead_SeveralReaders(t *testing.T) {
	var list []*Series
	for i := range 50 {
		a, b := &Samples{}, &Samples{}
		for j := range int64(100) {
			if j < 40 || j > 60 {
				a.Append(0, j*15_000, float64(i))
			}
			b.Append(0, j*15_000, float64(i))
		}
		s := NewSeries(labels.EmptyLabels(), []Run{a, b}, 0, 1_500_000, nil)
		s.ReadBy(3)
		if i%3 == 0 {
			s.ReadBy(4)
		}
		list = append(list, s)
	}
	MergeAhead(t.Context(), list)
	var readers sync.WaitGroup
	for reader := range 4 { // one more than was told
		readers.Go(func() {
			var it chunkenc.Iterator
			for i, s := range list {
				if reader == 0 && i%3 == 0 {
					s.Leave()
					continue
				}
				it = s.Iterator(it)
				n := 0
				for ; it.Next() != chunkenc.ValNone; n++ {
					_, v := it.At()
					assert.Equal(t, float64(i), v)
				}
				assert.Equal(t, 100, n)
			}
		})
	}
	readers.Wait()
	require.Zero(t, list[0].ahead.held)
}

// TestMergeAhead_SameAsWithout iterates series that were merged ahead, in the
// order of their list and in another, and twice.
func TestMergeAhead_SameAsWithout(t *testing.T) {
	a, b := &Samples{}, &Samples{}
	for i := range int64(100) {
		if i < 40 || i > 60 {
			a.Append(0, i*15_000, float64(i))
		}
		b.Append(0, i*15_000, float64(i))
	}
	var list []*Series
	for range 50 {
		list = append(list, NewSeries(labels.EmptyLabels(), []Run{a, b}, 0, 1_500_000, nil))
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		MergeAhead(ctx, list)
	}()
	var it chunkenc.Iterator
	for _, s := range append(append([]*Series{list[49]}, list...), list...) {
		it = s.Iterator(it)
		n := 0
		for ; it.Next() != chunkenc.ValNone; n++ {
			ts, v := it.At()
			require.Equal(t, float64(ts/15_000), v)
		}
		require.Equal(t, 100, n)
	}
	cancel()
	<-done
}
