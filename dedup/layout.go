package dedup

import (
	"errors"
	"fmt"
	"io"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// checkLayout returns an error if a chunk of histograms promises more buckets
// than its data can hold: upstream's iterators make room for all of them at the
// first sample, which is gigabytes for a few hostile bytes. So it does for spans
// that go backwards.
//
// The layout, after the header: zero threshold (a byte, and 8 more if it is 255),
// schema, positive spans, negative spans; each list is its length and then
// (length, offset) of each span, as varbits. Source of the format: writeHistogramChunkLayout in
// tsdb/chunkenc/histogram_meta.go.
func checkLayout(e chunkenc.Encoding, data []byte) error {
	switch e {
	case chunkenc.EncXOR, chunkenc.EncXOR2:
		return nil
	}
	r := bitReader{data: data[headerLen(e):]}
	if r.bits(8) == 255 {
		r.bits(64)
	}
	r.varbit() // schema
	buckets, backwards := uint64(0), false
	for range 2 {
		spans := r.varbit()
		for n := uint64(0); n < spans && !r.over; n++ {
			buckets += uint64(uint32(r.varbit())) // as upstream cuts it
			offset := int32(r.signedVarbit())
			backwards = backwards || n > 0 && offset < 0
		}
	}
	switch left := r.left(); {
	case r.over:
		return io.ErrUnexpectedEOF
	case buckets > left: // a bucket takes a bit at the least
		return fmt.Errorf("%d buckets in %d bits", buckets, left)
	case backwards: // over which upstream's histograms panic
		return errors.New("spans of buckets that overlap")
	}
	return nil
}

// bitReader reads bits, the most significant of a byte first.
type bitReader struct {
	data []byte
	at   uint64 // in bits
	over bool   // whether more was read than there is
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

// varbitSizes are how many bits follow a prefix of so many ones.
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
