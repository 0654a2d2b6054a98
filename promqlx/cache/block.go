package cache

import (
	"encoding/binary"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// A block is a value whose numbers are: first evaluated, made, until (ms), first and last step that it covers (from
// 0, of the block). Its body is notes, symbols, series, each after their number. A note is 1 for an info or 0 for a
// warning, its text, and its position. A series is the number of its labels, two symbols for each, its floats (see
// appendFloats), the number of its histograms, and for each of these a chunk of its own: a chunk of several gives them
// the same buckets, and protobuf messages have no -0.

// Block is what is known of an answer at some steps of a block, without a hole.
type Block struct {
	First    int64 // ms: since when evaluations have given the same
	Made     int64 // ms: when the oldest part of it was evaluated last
	Until    int64 // ms: how long it is used
	From, To int64 // ms: the first and the last step that it covers
	step     int64 // ms
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

// fill gives a block its samples, from an answer.
func (b *Block) fill(answer promql.Matrix) (err error) {
	notes := appendNotes(nil, b.notes)
	if b.body, err = appendSeries(notes, answer, b.From, b.To, b.step); err == nil {
		b.series = b.body[len(notes):]
	}
	return err
}

// encode returns the bytes of a block of a grid.
func (b *Block) encode(g Grid, block int64, key string) []byte {
	begin := g.Begin(block)
	return seal(key, []int64{b.First, b.Made, b.Until, (b.From - begin) / g.Step, (b.To - begin) / g.Step}, b.body)
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

// appendSeries encodes the samples of an answer from one step to another one (ms, inclusive).
func appendSeries(to []byte, answer promql.Matrix, from, until, step int64) ([]byte, error) {
	symbols, numbers := []string{}, map[string]uint64{}
	number := func(s string) uint64 {
		n, ok := numbers[s]
		if !ok {
			n = uint64(len(symbols))
			numbers[s], symbols = n, append(symbols, s)
		}
		return n
	}
	var series, samples []byte
	count := uint64(0)
	for _, s := range answer {
		var floats, histograms bool
		var err error
		if samples, floats, err = appendFloats(samples[:0], s.Floats, from, until, step); err != nil {
			return nil, err
		}
		if samples, histograms, err = appendHistograms(samples, s.Histograms, from, until); err != nil {
			return nil, err
		}
		if !floats && !histograms {
			continue
		}
		count++
		series = binary.AppendUvarint(series, uint64(s.Metric.Len()))
		s.Metric.Range(func(l labels.Label) {
			series = binary.AppendUvarint(series, number(l.Name))
			series = binary.AppendUvarint(series, number(l.Value))
		})
		series = append(series, samples...)
	}
	to = binary.AppendUvarint(to, uint64(len(symbols)))
	for _, s := range symbols {
		to = appendText(to, s)
	}
	to = binary.AppendUvarint(to, count)
	return append(to, series...), nil
}

// appendHistograms encodes those histograms of a series that are from one time to another one (ms, inclusive). found
// reports whether there are any.
func appendHistograms(to []byte, all []promql.HPoint, from, until int64) (out []byte, found bool, err error) {
	var chunks [][]byte
	for _, p := range all {
		if p.T < from || p.T > until {
			continue
		}
		one := chunkenc.NewFloatHistogramChunk()
		app, err := one.Appender()
		if err != nil {
			return nil, false, err
		}
		if _, _, _, err = app.AppendFloatHistogram(nil, 0, p.T, p.H, true); err != nil {
			return nil, false, err
		}
		chunks = append(chunks, one.Bytes())
	}
	to = binary.AppendUvarint(to, uint64(len(chunks)))
	for _, chunk := range chunks {
		to = appendText(to, chunk)
	}
	return to, len(chunks) > 0, nil
}

// decode returns the block of a grid and a key that is encoded in value. Its series are decoded by
// joined.addBlock.
func decode(g Grid, block int64, key string, value []byte) (*Block, error) {
	b := &Block{step: g.Step}
	var first, last int64
	var err error
	if b.body, err = unseal(key, value, &b.First, &b.Made, &b.Until, &first, &last); err != nil || last >= blockSteps || first > last {
		return nil, errNoBlock
	}
	begin := g.Begin(block)
	b.From, b.To = begin+first*g.Step, begin+last*g.Step
	r := reader{rest: b.body}
	for n := r.number(); n > 0 && !r.failed; n-- {
		b.notes = append(b.notes, Note{Info: r.number() == 1, Text: string(r.bytes()), At: string(r.bytes())})
	}
	if r.failed {
		return nil, errNoBlock
	}
	b.series = r.rest
	return b, nil
}
