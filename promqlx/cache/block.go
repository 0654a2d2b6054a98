package cache

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"slices"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// A block is encoded as
//
//	version, CRC-32C of all that follows (4 bytes),
//	key (with its length), first evaluated, made, until (ms), first and last step that it covers (from 0, of the block),
//	body (snappy): notes, symbols, series
//
// where numbers are unsigned varints; notes, symbols and series come after their number; texts and bytes come
// after their length. A note is 1 for an info or 0 for a warning, its text, and its position. A series is the number
// of its labels, two symbols for each, an XOR chunk of its floats, the number of its histograms, and for each of
// these a chunk of its own: a chunk of several gives them the same buckets, and protobuf messages have no -0.

// version is that of the encoding. Another one is another key of the store: see Found.storeKey.
const version = 1

// Block is what is known of an answer at some steps of a block, without a hole.
type Block struct {
	First    int64 // ms: since when evaluations have given the same
	Made     int64 // ms: when the oldest part of it was evaluated last
	Until    int64 // ms: how long it is used
	From, To int64 // ms: the first and the last step that it covers
	body     []byte
	notes    []Note
	series   []byte // what follows the notes in the body
}

// Note is an annotation of an answer.
type Note struct {
	Info bool   // otherwise it is a warning
	Text string // without its position
	At   string // its position in the canonical text of the query, as "line:column"
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// fill gives a block its samples, from an answer.
func (b *Block) fill(answer promql.Matrix) (err error) {
	notes := appendNotes(nil, b.notes)
	if b.body, err = appendSeries(notes, answer, b.From, b.To); err == nil {
		b.series = b.body[len(notes):]
	}
	return err
}

// encode returns the bytes of a block of a grid.
func (b *Block) encode(g Grid, block int64, key string) []byte {
	out := make([]byte, 5, 64+len(key)+snappy.MaxEncodedLen(len(b.body)))
	out[0] = version
	out = appendText(out, key)
	begin := g.Begin(block)
	for _, n := range []int64{b.First, b.Made, b.Until, (b.From - begin) / g.Step, (b.To - begin) / g.Step} {
		out = binary.AppendUvarint(out, uint64(n))
	}
	out = append(out, snappy.Encode(nil, b.body)...)
	binary.BigEndian.PutUint32(out[1:], crc32.Checksum(out[5:], castagnoli))
	return slices.Clip(slices.Clone(out))
}

func appendText[T string | []byte](to []byte, text T) []byte {
	return append(binary.AppendUvarint(to, uint64(len(text))), text...)
}

func appendNotes(to []byte, notes []Note) []byte {
	to = binary.AppendUvarint(to, uint64(len(notes)))
	for _, n := range notes {
		kind := byte(0)
		if n.Info {
			kind = 1
		}
		to = appendText(appendText(append(to, kind), n.Text), n.At)
	}
	return to
}

// appendSeries encodes the samples of an answer from one time to another one (ms, inclusive).
func appendSeries(to []byte, answer promql.Matrix, from, until int64) ([]byte, error) {
	symbols, numbers := []string{}, map[string]uint64{}
	number := func(s string) uint64 {
		n, ok := numbers[s]
		if !ok {
			n = uint64(len(symbols))
			numbers[s], symbols = n, append(symbols, s)
		}
		return n
	}
	var series []byte
	count := uint64(0)
	for _, s := range answer {
		chunk := chunkenc.NewXORChunk()
		app, err := chunk.Appender()
		if err != nil {
			return nil, err
		}
		for _, p := range s.Floats {
			if p.T >= from && p.T <= until {
				app.Append(0, p.T, p.F)
			}
		}
		var histograms [][]byte
		for _, p := range s.Histograms {
			if p.T >= from && p.T <= until {
				one := chunkenc.NewFloatHistogramChunk()
				app, err := one.Appender()
				if err != nil {
					return nil, err
				}
				if _, _, _, err = app.AppendFloatHistogram(nil, 0, p.T, p.H, true); err != nil {
					return nil, err
				}
				histograms = append(histograms, one.Bytes())
			}
		}
		if chunk.NumSamples() == 0 && len(histograms) == 0 {
			continue
		}
		count++
		series = binary.AppendUvarint(series, uint64(s.Metric.Len()))
		s.Metric.Range(func(l labels.Label) {
			series = binary.AppendUvarint(series, number(l.Name))
			series = binary.AppendUvarint(series, number(l.Value))
		})
		series = appendText(series, chunk.Bytes())
		series = binary.AppendUvarint(series, uint64(len(histograms)))
		for _, raw := range histograms {
			series = appendText(series, raw)
		}
	}
	to = binary.AppendUvarint(to, uint64(len(symbols)))
	for _, s := range symbols {
		to = appendText(to, s)
	}
	to = binary.AppendUvarint(to, count)
	return append(to, series...), nil
}

// errNoBlock says that bytes are no block of the key: they are of another version, broken, or those of another
// key with the same hash.
var errNoBlock = errors.New("not a block of this key")

// maxBody is the most bytes of a body that is decoded.
const maxBody = 256 << 20

// decode returns the block of a grid and a key that is encoded in value. Its series are decoded by
// joined.addBlock.
func decode(g Grid, block int64, key string, value []byte) (*Block, error) {
	if len(value) < 5 || value[0] != version || crc32.Checksum(value[5:], castagnoli) != binary.BigEndian.Uint32(value[1:]) {
		return nil, errNoBlock
	}
	r := reader{rest: value[5:]}
	own := r.bytes()
	since, made, until, first, last := r.number(), r.number(), r.number(), r.number(), r.number()
	if r.failed || string(own) != key || last >= blockSteps || first > last || max(since, made, until) > math.MaxInt64 {
		return nil, errNoBlock
	}
	size, err := snappy.DecodedLen(r.rest)
	if err != nil || size > maxBody {
		return nil, errNoBlock
	}
	begin := g.Begin(block)
	b := &Block{First: int64(since), Made: int64(made), Until: int64(until), From: begin + int64(first)*g.Step, To: begin + int64(last)*g.Step}
	if b.body, err = snappy.Decode(nil, r.rest); err != nil {
		return nil, errNoBlock
	}
	r = reader{rest: b.body}
	for n := r.number(); n > 0 && !r.failed; n-- {
		b.notes = append(b.notes, Note{Info: r.number() == 1, Text: string(r.bytes()), At: string(r.bytes())})
	}
	if r.failed {
		return nil, errNoBlock
	}
	b.series = r.rest
	return b, nil
}

// reader reads what is encoded. Once it has failed, all that it reads is empty.
type reader struct {
	rest   []byte
	failed bool
}

func (r *reader) number() uint64 {
	n, size := binary.Uvarint(r.rest)
	if size <= 0 {
		r.fail()
		return 0
	}
	r.rest = r.rest[size:]
	return n
}

func (r *reader) bytes() []byte {
	n := r.number()
	if n > uint64(len(r.rest)) {
		r.fail()
		return nil
	}
	out := r.rest[:n]
	r.rest = r.rest[n:]
	return out
}

func (r *reader) fail() { r.rest, r.failed = nil, true }
