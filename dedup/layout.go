package dedup

import (
	"errors"
	"fmt"
	"io"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// checkLayout returns an error if a chunk of histograms announces more buckets than its data
// can hold: upstream's iterators allocate all of them at the first sample, which is gigabytes
// for a few hostile bytes. It also does so if spans overlap.
//
// The layout after the header is: zero threshold (a byte, and 8 more if it is 255), schema,
// positive spans, negative spans. Each list is its length and then length and offset of each
// span, as varbits. The bounds of custom buckets follow. It is written by writeHistogramChunkLayout in
// tsdb/chunkenc/histogram_meta.go, and described at
// https://github.com/prometheus/prometheus/blob/main/tsdb/docs/format/chunks.md#histogram-chunk-data.
func checkLayout(e chunkenc.Encoding, data []byte) error {
	switch e {
	case chunkenc.EncXOR, chunkenc.EncXOR2:
		return nil
	}
	_, err := readLayout(data[headerLen(e):])
	return err
}

// layout is how much a chunk of histograms has of what all its samples share, and of buckets in
// each sample.
type layout struct{ buckets, spans, bounds uint64 }

// readLayout reads the layout that follows the header of a chunk.
func readLayout(data []byte) (l layout, err error) {
	r := bitReader{data: data}
	if r.bits(8) == 255 {
		r.bits(64)
	}
	schema := int32(r.signedVarbit())
	backwards := false
	for range 2 {
		spans := r.varbit()
		for n := uint64(0); n < spans && !r.over; n++ {
			l.spans++
			l.buckets += uint64(uint32(r.varbit())) // upstream truncates it, too
			offset := int32(r.signedVarbit())
			backwards = backwards || n > 0 && offset < 0
		}
	}
	if histogram.IsCustomBucketsSchema(schema) {
		bounds := r.varbit()
		l.bounds = min(bounds, r.left()/4) // a bound takes at least four bits
	}
	switch left := r.left(); {
	case r.over:
		return l, io.ErrUnexpectedEOF
	case l.buckets > left: // a bucket takes at least one bit
		return l, fmt.Errorf("%d buckets in %d bits", l.buckets, left)
	case backwards: // upstream's histograms panic
		return l, errors.New("spans of buckets that overlap")
	}
	return l, nil
}

// bitReader reads bits, the most significant one of a byte first.
type bitReader struct {
	data []byte
	at   uint64 // in bits
	over bool   // whether a read went beyond the end
}

func (r *bitReader) left() uint64 { return uint64(len(r.data))*8 - r.at }

func (r *bitReader) bits(n int) uint64 {
	if r.over = r.over || r.left() < uint64(n); r.over {
		return 0
	}
	v := uint64(0)
	for range n {
		v = v<<1 | uint64(r.data[r.at/8]>>(7-r.at%8)&1)
		r.at++
	}
	return v
}

// varbitSizes are the numbers of bits that follow a prefix of 0, 1, … ones.
var varbitSizes = [...]int{0, 3, 6, 9, 12, 18, 25, 56, 64}

// varbit reads an unsigned integer as upstream's varbit.go writes it.
func (r *bitReader) varbit() uint64 {
	v, _ := r.sizedVarbit()
	return v
}

func (r *bitReader) signedVarbit() int64 {
	v, size := r.sizedVarbit()
	if size > 0 && size < 64 && v > 1<<(size-1) {
		return int64(v) - 1<<size
	}
	return int64(v)
}

func (r *bitReader) sizedVarbit() (v uint64, size int) {
	ones := 0
	for ones < 8 && r.bits(1) == 1 {
		ones++
	}
	size = varbitSizes[ones]
	return r.bits(size), size
}
