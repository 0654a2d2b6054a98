package dedup

import (
	"math/rand/v2"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"
)

// mixed is a series of all three types with start timestamps and a marker.
func mixed() *Samples {
	s := &Samples{}
	for i := range int64(40) {
		t := 1000 + 15_000*i
		switch {
		case i == 17:
			s.Append(0, t, StaleNaN)
		case i < 20:
			s.Append(t/2, t, float64(i))
		case i < 30:
			s.AppendHistogram(t/2, t, tsdbutil.GenerateTestHistogram(i))
		default:
			s.AppendFloatHistogram(0, t, tsdbutil.GenerateTestFloatHistogram(i))
		}
	}
	return s
}

// encode makes chunks of n samples at most, with start timestamps.
func encode(t testing.TB, s *Samples, n int) Chunks {
	t.Helper()
	var out Chunks
	var c chunkenc.Chunk
	var app chunkenc.Appender
	for i := range s.T {
		typ := s.Type(i)
		enc := typ.ChunkEncoding(true, true)
		if c == nil || c.Encoding() != enc || c.NumSamples() == n {
			var err error
			c, err = chunkenc.NewEmptyChunk(enc)
			require.NoError(t, err)
			app, err = c.Appender()
			require.NoError(t, err)
			out = append(out, Chunk{MinT: s.T[i], Encoding: enc})
		}
		switch typ {
		case chunkenc.ValHistogram:
			next, _, _, err := app.AppendHistogram(nil, s.ST[i], s.T[i], s.H[i], true)
			require.NoError(t, err)
			require.Nil(t, next)
		case chunkenc.ValFloatHistogram:
			next, _, _, err := app.AppendFloatHistogram(nil, s.ST[i], s.T[i], s.FH[i], true)
			require.NoError(t, err)
			require.Nil(t, next)
		default:
			app.Append(s.ST[i], s.T[i], s.F[i])
		}
		last := &out[len(out)-1]
		last.MaxT, last.Data = s.T[i], c.Bytes()
	}
	return out
}

// at reads the current sample of it.
func at(t testing.TB, it chunkenc.Iterator, typ chunkenc.ValueType, into *Samples) {
	t.Helper()
	switch typ {
	case chunkenc.ValFloat:
		ts, f := it.At()
		require.Equal(t, ts, it.AtT())
		into.Append(it.AtST(), ts, f)
	case chunkenc.ValHistogram:
		ts, h := it.AtHistogram(nil)
		require.Equal(t, ts, it.AtT())
		_, same := it.AtHistogram(&histogram.Histogram{})
		require.Equal(t, h.Count, same.Count)
		_, fh := it.AtFloatHistogram(nil)
		require.Equal(t, float64(h.Count), fh.Count)
		h.CounterResetHint = histogram.UnknownCounterReset
		into.AppendHistogram(it.AtST(), ts, h)
	case chunkenc.ValFloatHistogram:
		ts, h := it.AtFloatHistogram(nil)
		require.Equal(t, ts, it.AtT())
		_, same := it.AtFloatHistogram(&histogram.FloatHistogram{})
		require.Equal(t, h.Count, same.Count)
		h.CounterResetHint = histogram.UnknownCounterReset
		into.AppendFloatHistogram(it.AtST(), ts, h)
	}
}

// Runs of both kinds and a merged series behave as chunkenc.Iterator says, with
// every walk of Next and Seek, clipped anywhere, re-used.
func TestIterators(t *testing.T) {
	truth := mixed()
	chunks := encode(t, truth, 7)
	require.Greater(t, len(chunks), 4)
	kinds := map[string]func(it chunkenc.Iterator, mint, maxt int64) chunkenc.Iterator{
		"columns": truth.Iterator,
		"chunks":  chunks.Iterator,
		"series": func(it chunkenc.Iterator, mint, maxt int64) chunkenc.Iterator {
			return NewSeries(labels.EmptyLabels(), []Run{chunks, truth}, mint, maxt, nil).Iterator(it)
		},
		"series of one": func(it chunkenc.Iterator, mint, maxt int64) chunkenc.Iterator {
			return NewSeries(labels.EmptyLabels(), []Run{chunks}, mint, maxt, nil).Iterator(it)
		},
	}
	for name, iterator := range kinds {
		t.Run(name, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(1, 2))
			var it chunkenc.Iterator
			for range 500 {
				mint := rnd.Int64N(700_000) - 50_000
				maxt := mint + rnd.Int64N(700_000) - 50_000
				want := clip(truth, mint, maxt)
				it = iterator(it, mint, maxt)
				walk(t, rnd, it, want)
			}
		})
	}
}

// walk compares it with want, by Next and Seek at random.
func walk(t *testing.T, rnd *rand.Rand, it chunkenc.Iterator, want *Samples) {
	t.Helper()
	pos := -1
	for pos < want.Len() {
		var typ chunkenc.ValueType
		if rnd.IntN(2) == 0 {
			typ = it.Next()
			pos++
		} else {
			to := rnd.Int64N(700_000) - 50_000
			typ = it.Seek(to)
			pos = max(pos, 0)
			for pos < want.Len() && want.T[pos] < to {
				pos++
			}
		}
		if pos >= want.Len() {
			require.Equal(t, chunkenc.ValNone, typ)
			break
		}
		require.Equal(t, want.Type(pos), typ)
		got := &Samples{}
		at(t, it, typ, got)
		require.True(t, equalSample(want, pos, got, 0), "sample %d", pos)
	}
	require.Equal(t, chunkenc.ValNone, it.Next(), "stays exhausted")
	require.Equal(t, chunkenc.ValNone, it.Seek(0), "stays exhausted")
	require.NoError(t, it.Err())
}

func TestAppendTo(t *testing.T) {
	truth := mixed()
	for _, r := range []Run{truth, encode(t, truth, 7)} {
		dst := &Samples{}
		require.NoError(t, r.AppendTo(dst, 100_000, 300_000))
		require.NoError(t, r.AppendTo(dst, 300_001, 500_000))
		requireTimes(t, clip(truth, 100_000, 500_000).T, dst.T)
		for i := range dst.T {
			require.True(t, equalSample(clip(truth, 100_000, 500_000), i, dst, i))
		}
		dst.Reset()
		require.NoError(t, r.AppendTo(dst, 0, 200_000))
		require.Nil(t, dst.H)
		require.Nil(t, dst.FH)
	}
}

func TestBrokenChunks(t *testing.T) {
	floats := clip(mixed(), 0, 200_000)
	good := encode(t, floats, 7)
	failing := func(t *testing.T, c Chunks) {
		t.Helper()
		require.Error(t, c.AppendTo(&Samples{}, 0, 1_000_000), "%d bytes", len(c[0].Data))
		it := c.Iterator(nil, 0, 1_000_000)
		for it.Next() != chunkenc.ValNone {
		}
		require.Error(t, it.Err())
		it = c.Iterator(it, 0, 1_000_000)
		require.NoError(t, it.Err(), "a new start")
		for typ := it.Seek(90_000); typ != chunkenc.ValNone; typ = it.Next() {
		}
		require.Error(t, it.Err())

		s := NewSeries(labels.EmptyLabels(), []Run{c, c}, 0, 1_000_000, nil)
		it = s.Iterator(nil)
		require.Equal(t, chunkenc.ValNone, it.Next(), "no shorter series")
		require.Error(t, it.Err())
		var told error
		it = NewSeries(labels.EmptyLabels(), []Run{c, floats}, 0, 1_000_000, func(err error) { told = err }).Iterator(it)
		require.Equal(t, chunkenc.ValFloat, it.Next(), "the other run stands in")
		require.NoError(t, it.Err())
		require.Error(t, told)
		it = NewSeries(labels.EmptyLabels(), []Run{floats, good}, 0, 1_000_000, nil).Iterator(it)
		require.Equal(t, chunkenc.ValFloat, it.Next(), "the error is forgotten")
	}
	change := func(i int, f func(c *Chunk)) Chunks {
		out := append(Chunks{}, good...)
		f(&out[i])
		out[i].MaxT = 1_000_000
		return out
	}
	t.Run("truncated", func(t *testing.T) {
		c := xorChunks(t, floats, 20)[0]
		for n := range c.Data {
			failing(t, Chunks{{MaxT: c.MaxT, Encoding: c.Encoding, Data: c.Data[:n]}})
		}
	})
	t.Run("less than a header", func(t *testing.T) {
		for _, c := range encode(t, mixed(), 20) {
			for n := range 3 {
				failing(t, Chunks{{MaxT: c.MaxT, Encoding: c.Encoding, Data: c.Data[:n]}})
			}
		}
	})
	t.Run("unknown encoding", func(t *testing.T) {
		failing(t, change(1, func(c *Chunk) { c.Encoding = 99 }))
	})
	t.Run("out of order", func(t *testing.T) {
		failing(t, change(1, func(c *Chunk) { c.Data = good[0].Data }))
		failing(t, Chunks{good[1], change(0, func(*Chunk) {})[0]})
	})
}

// Not all damage can be seen, but none may end the process.
func TestDamagedChunksDoNotPanic(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for _, c := range append(encode(t, mixed(), 20), xorChunks(t, clip(mixed(), 0, 200_000), 20)...) {
		for range 500 {
			data := append([]byte{}, c.Data[:3+rnd.IntN(len(c.Data)-2)]...)
			for range rnd.IntN(3) {
				data[2+rnd.IntN(len(data)-2)] ^= 1 << rnd.IntN(8)
			}
			require.NotPanics(t, func() {
				_ = Chunks{{MaxT: 1_000_000, Encoding: c.Encoding, Data: data}}.AppendTo(&Samples{}, 0, 1_000_000)
			}, "%s %x", c.Encoding, data)
		}
	}
}

func TestSeriesLooksBeyondItsWindow(t *testing.T) {
	a, b := run(t, "0..45/15 120..180/15"), run(t, "7..187/15")
	got := &Samples{}
	s := NewSeries(labels.FromStrings("a", "b"), []Run{a, b}, 60_000, 70_000, nil)
	require.Equal(t, labels.FromStrings("a", "b"), s.Labels())
	it := s.Iterator(nil)
	for it.Next() != chunkenc.ValNone {
		got.Append(0, it.AtT(), 0)
	}
	require.Equal(t, []int64{67_000}, got.T)
	for _, mint := range []int64{5_000, 20_000, 185_000} {
		it = NewSeries(s.Labels(), []Run{a, b}, mint, mint+5000, nil).Iterator(it)
		require.Equal(t, chunkenc.ValNone, it.Next(), "a is whole at %d, which only its samples around tell", mint)
	}

	// The widest window there is does not overflow.
	it = NewSeries(s.Labels(), []Run{a, b}, -1<<63, 1<<63-1, nil).Iterator(it)
	n := 0
	for it.Next() != chunkenc.ValNone {
		n++
	}
	require.Equal(t, merge(a, b).Len(), n)
	require.Equal(t, chunkenc.ValNone, NewSeries(s.Labels(), nil, 0, 1, nil).Iterator(it).Next())
}

func TestSamplesCheck(t *testing.T) {
	require.NoError(t, mixed().Check())
	require.Error(t, (&Samples{T: []int64{1, 1}}).Check())
	require.Error(t, (&Samples{T: []int64{2, 1}}).Check())
}
