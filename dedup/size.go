package dedup

import (
	"math"
	"unsafe"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

const (
	// floatBytes is what a float takes in columns: a time and a value.
	floatBytes = 16
	// histogramBytes is what a histogram takes in columns without its buckets, of either kind.
	histogramBytes = floatBytes + 8 + int(max(unsafe.Sizeof(histogram.Histogram{}), unsafe.Sizeof(histogram.FloatHistogram{})))
	startBytes     = 8 // of a start timestamp
	bucketBytes    = 8 // of the count of a bucket, or of a bound
	spanBytes      = int(unsafe.Sizeof(histogram.Span{}))
)

// ColumnBytes returns how many bytes the samples of a run take at most in columns. It decodes no
// samples of chunks, and believes only as many of them as the data can hold.
func ColumnBytes(r Run) int {
	switch r := Unbounded(r).(type) {
	case Chunks:
		n := 0
		for i := range r {
			n += r[i].columnBytes()
		}
		return n
	case *Samples:
		return r.bytes()
	}
	return floatBytes * r.Len()
}

// columnBytes is ColumnBytes for a chunk, 0 if it is broken: nothing is made of it then.
func (c *Chunk) columnBytes() int {
	// Behind the end of broken data, upstream's reader may see that many bits that are 0.
	bits := 8*len(c.Data) + math.MaxUint8
	samples := min(Chunks{*c}.Len(), bits/2+1) // a sample takes a bit for its time, and one for its value
	switch c.Encoding {
	case chunkenc.EncXOR:
		return samples * floatBytes
	case chunkenc.EncXOR2:
		return samples * (floatBytes + startBytes)
	}
	if len(c.Data) < headerLen(c.Encoding) {
		return 0
	}
	l, err := readLayout(c.Data[headerLen(c.Encoding):])
	if err != nil {
		return 0
	}
	buckets := min(samples*int(l.buckets), bits) // a bucket takes a bit in each sample
	return samples*(histogramBytes+startBytes) + buckets*bucketBytes + int(l.spans)*spanBytes + int(l.bounds)*bucketBytes
}

// bytes is what s takes.
func (s *Samples) bytes() int {
	n := floatBytes*len(s.T) + 8*(len(s.ST)+len(s.H)+len(s.FH))
	for _, h := range s.H {
		if h != nil {
			n += HistogramBytes(h)
		}
	}
	for _, h := range s.FH {
		if h != nil {
			n += FloatHistogramBytes(h)
		}
	}
	return n
}

// HistogramBytes returns how many bytes a histogram takes.
func HistogramBytes(h *histogram.Histogram) int {
	return int(unsafe.Sizeof(*h)) + spanBytes*(len(h.PositiveSpans)+len(h.NegativeSpans)) +
		bucketBytes*(len(h.PositiveBuckets)+len(h.NegativeBuckets)+len(h.CustomValues))
}

// FloatHistogramBytes returns how many bytes a float histogram takes.
func FloatHistogramBytes(h *histogram.FloatHistogram) int {
	return int(unsafe.Sizeof(*h)) + spanBytes*(len(h.PositiveSpans)+len(h.NegativeSpans)) +
		bucketBytes*(len(h.PositiveBuckets)+len(h.NegativeBuckets)+len(h.CustomValues))
}
