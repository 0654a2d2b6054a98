package dedup

import (
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"
)

// madeOf is what samples take, where what histograms share counts once.
func madeOf(s *Samples) int {
	n := floatBytes*len(s.T) + 8*(len(s.ST)+len(s.H)+len(s.FH))
	shared := map[any]int{}
	share := func(h *histogram.Histogram) {
		shared[unsafe.SliceData(h.PositiveSpans)] = spanBytes * len(h.PositiveSpans)
		shared[unsafe.SliceData(h.NegativeSpans)] = spanBytes * len(h.NegativeSpans)
		shared[unsafe.SliceData(h.CustomValues)] = bucketBytes * len(h.CustomValues)
	}
	for _, h := range s.H {
		if h != nil {
			n += int(unsafe.Sizeof(*h)) + bucketBytes*(len(h.PositiveBuckets)+len(h.NegativeBuckets))
			share(h)
		}
	}
	for _, h := range s.FH {
		if h != nil {
			n += int(unsafe.Sizeof(*h)) + bucketBytes*(len(h.PositiveBuckets)+len(h.NegativeBuckets))
			share(&histogram.Histogram{PositiveSpans: h.PositiveSpans, NegativeSpans: h.NegativeSpans, CustomValues: h.CustomValues})
		}
	}
	for _, b := range shared {
		n += b
	}
	return n
}

// requireBounded decodes a chunk, also if it is broken on the way.
func requireBounded(t *testing.T, c Chunk) {
	t.Helper()
	var all Samples
	func() {
		defer func() { _ = recover() }()
		_ = Chunks{c}.AppendTo(&all, math.MinInt64, math.MaxInt64)
	}()
	require.LessOrEqual(t, madeOf(&all), ColumnBytes(Chunks{c}), "%v %x: %d samples", c.Encoding, c.Data, all.Len())
}

// TestColumnBytes_NoLessThanWhatIsMade of good chunks, broken ones, and any bytes.
func TestColumnBytes_NoLessThanWhatIsMade(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for _, e := range []chunkenc.Encoding{chunkenc.EncXOR, chunkenc.EncXOR2, chunkenc.EncHistogram, chunkenc.EncFloatHistogram, chunkenc.EncHistogramST, chunkenc.EncFloatHistogramST} {
		for i := range 20_000 {
			data := make([]byte, 3+rng.IntN(80))
			for j := range data {
				if data[j] = byte(rng.Uint32()); i%2 == 0 && j > 8 {
					data[j] = 0
				}
			}
			requireBounded(t, Chunk{MinT: math.MinInt64, MaxT: math.MaxInt64, Encoding: e, Data: data})
		}
	}
}
