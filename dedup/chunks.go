package dedup

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// Chunk is a compressed sequence of samples as remote read delivers it.
type Chunk struct {
	// MinT and MaxT are the timestamps (ms) of the first and the last sample, as
	// the sender gave them. Here they only serve to skip chunks, and are not trusted.
	MinT, MaxT int64
	Encoding   chunkenc.Encoding
	// Data is the chunk as upstream's chunkenc lays it out
	// (https://github.com/prometheus/prometheus/blob/main/tsdb/docs/format/chunks.md).
	Data []byte
	// From identifies the sender in errors.
	From string
}

// Chunks is a Run of compressed chunks in time order that do not overlap.
type Chunks []Chunk

// Len implements Run. All encodings begin with the number of samples in two bytes.
func (c Chunks) Len() int {
	n := 0
	for _, chunk := range c {
		if len(chunk.Data) >= 2 {
			n += int(binary.BigEndian.Uint16(chunk.Data))
		}
	}
	return n
}

// AppendTo implements Run. An unknown encoding, bytes that end early and samples
// that are not in time order are errors.
func (c Chunks) AppendTo(dst *Samples, mint, maxt int64) error {
	var it chunksIterator
	it.reset(c, mint, maxt)
	for {
		switch it.Next() {
		case chunkenc.ValFloat:
			t, f := it.At()
			dst.Append(it.AtST(), t, f)
		case chunkenc.ValHistogram:
			t, h := it.AtHistogram(nil)
			dst.AppendHistogram(it.AtST(), t, h)
		case chunkenc.ValFloatHistogram:
			t, fh := it.AtFloatHistogram(nil)
			dst.AppendFloatHistogram(it.AtST(), t, fh)
		default:
			return it.Err()
		}
	}
}

// Iterator implements Run.
func (c Chunks) Iterator(it chunkenc.Iterator, mint, maxt int64) chunkenc.Iterator {
	ci, ok := it.(*chunksIterator)
	if !ok {
		ci = &chunksIterator{}
	}
	ci.reset(c, mint, maxt)
	return ci
}

// chunksIterator walks the samples of chunks that lie in [mint, maxt].
type chunksIterator struct {
	rest       Chunks            // chunks after the open one
	from       string            // sender of the open chunk
	cur        chunkenc.Iterator // over the open chunk
	free       chunkenc.Iterator // of a chunk that is read, for re-use
	mint, maxt int64
	val        chunkenc.ValueType // type of the current sample
	lastT      int64              // timestamp of the current sample
	err        error
}

func (it *chunksIterator) reset(c Chunks, mint, maxt int64) {
	free := it.free
	if it.cur != nil {
		free = it.cur
	}
	*it = chunksIterator{rest: c, free: free, mint: mint, maxt: maxt, lastT: math.MinInt64}
}

func (it *chunksIterator) Next() chunkenc.ValueType {
	for {
		if it.cur == nil && !it.open() {
			return it.stop(it.err)
		}
		v := it.cur.Next()
		if v == chunkenc.ValNone {
			if err := it.cur.Err(); err != nil {
				return it.stop(it.fault("broken chunk: %w", err))
			}
			it.free, it.cur = it.cur, nil
			continue
		}
		t := it.cur.AtT()
		switch {
		case t <= it.lastT:
			return it.stop(it.fault("chunks out of order: sample at %d ms after one at %d ms", t, it.lastT))
		case t > it.maxt:
			return it.stop(nil)
		}
		it.lastT = t
		if t >= it.mint {
			it.val = v
			return v
		}
	}
}

func (it *chunksIterator) Seek(t int64) chunkenc.ValueType {
	if it.val != chunkenc.ValNone && it.lastT >= t {
		return it.val
	}
	it.mint = max(it.mint, t)
	return it.Next()
}

// open opens the first of the remaining chunks that reaches mint.
func (it *chunksIterator) open() bool {
	for len(it.rest) > 0 {
		c := it.rest[0]
		it.rest, it.from = it.rest[1:], c.From
		if c.MaxT < it.mint {
			continue
		}
		chk, err := chunkenc.FromData(c.Encoding, c.Data)
		if err == nil && len(c.Data) < headerLen(c.Encoding) {
			err = io.ErrUnexpectedEOF // upstream's iterators rely on the header
		}
		if err == nil {
			err = checkLayout(c.Encoding, c.Data)
		}
		if err != nil {
			it.err = it.fault("broken chunk: %w", err)
			return false
		}
		it.cur = chk.Iterator(it.free)
		it.free = nil
		return true
	}
	return false
}

// headerLen is the number of bytes that even an empty chunk has.
func headerLen(e chunkenc.Encoding) int {
	if e == chunkenc.EncXOR {
		return 2 // the number of samples
	}
	return 3 // and flags
}

func (it *chunksIterator) fault(format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	if it.from != "" {
		err = fmt.Errorf("%s: %w", it.from, err)
	}
	return err
}

func (it *chunksIterator) stop(err error) chunkenc.ValueType {
	it.err, it.val = err, chunkenc.ValNone
	it.rest = nil
	if it.cur != nil {
		it.free, it.cur = it.cur, nil
	}
	return chunkenc.ValNone
}

func (it *chunksIterator) At() (int64, float64) { return it.cur.At() }
func (it *chunksIterator) AtT() int64           { return it.lastT }
func (it *chunksIterator) AtST() int64          { return it.cur.AtST() }
func (it *chunksIterator) Err() error           { return it.err }

func (it *chunksIterator) AtHistogram(h *histogram.Histogram) (int64, *histogram.Histogram) {
	return it.cur.AtHistogram(h)
}

func (it *chunksIterator) AtFloatHistogram(fh *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	return it.cur.AtFloatHistogram(fh)
}
