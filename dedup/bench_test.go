package dedup

import (
	"testing"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"
)

// benchRun is a day of a counter, scraped every 15 s, without the samples in away.
func benchRun(shift int64, away ...span) *Samples {
	s := &Samples{}
	for t := int64(1_700_000_000_000) + shift; t < 1_700_086_400_000; t += 15_000 {
		if !inAny(away, t) {
			s.Append(0, t, float64(t/1000))
		}
	}
	return s
}

func benchMerge(b *testing.B, runs ...*Samples) {
	dst := &Samples{}
	b.ReportAllocs()
	for b.Loop() {
		Merge(dst, runs)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(runs[0].Len()), "ns/sample")
}

func BenchmarkMergeIdentical(b *testing.B) { benchMerge(b, benchRun(0), benchRun(0)) }

func BenchmarkMergeShiftedWhole(b *testing.B) { benchMerge(b, benchRun(0), benchRun(7123)) }

// An hour of data, as most queries read.
func BenchmarkMergeShiftedWholeHour(b *testing.B) {
	short := func(s *Samples) *Samples { return clip(s, s.T[0], s.T[0]+3_600_000) }
	benchMerge(b, short(benchRun(0)), short(benchRun(7123)))
}

func BenchmarkMergeWithGaps(b *testing.B) {
	var a, c []span
	for t := int64(1_700_000_000_000); t < 1_700_086_400_000; t += 3_600_000 {
		a = append(a, span{t + 600_000, t + 900_000})
		c = append(c, span{t + 1_800_000, t + 1_900_000})
	}
	benchMerge(b, benchRun(0, a...), benchRun(7123, c...))
}

func BenchmarkChunksAppendTo(b *testing.B) {
	s := benchRun(0)
	chunks := xorChunks(b, s, 120)
	dst := &Samples{}
	b.ReportAllocs()
	for b.Loop() {
		dst.Reset()
		require.NoError(b, chunks.AppendTo(dst, s.T[0], s.T[len(s.T)-1]))
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(s.Len()), "ns/sample")
}

// xorChunks encodes float samples, n per chunk.
func xorChunks(t testing.TB, s *Samples, n int) Chunks {
	t.Helper()
	var out Chunks
	for i := 0; i < s.Len(); i += n {
		c := chunkenc.NewXORChunk()
		app, err := c.Appender()
		require.NoError(t, err)
		last := min(i+n, s.Len()) - 1
		for j := i; j <= last; j++ {
			app.Append(0, s.T[j], s.F[j])
		}
		out = append(out, Chunk{MinT: s.T[i], MaxT: s.T[last], Encoding: c.Encoding(), Data: c.Bytes()})
	}
	return out
}
