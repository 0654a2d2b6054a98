package transport

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"unsafe"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/oneprom/oneprom/dedup"
)

// formatError is a body that is not what its content type promises.
type formatError struct{ msg string }

func (e *formatError) Error() string { return e.msg }

func badFormat(format string, args ...any) error {
	return &formatError{msg: "broken remote read answer: " + fmt.Sprintf(format, args...)}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// seriesParser reads the two protobuf shapes of remote read answers
// (prompb: ChunkedReadResponse and ReadResponse) without the generated types:
// those make an object of every label and sample.
type seriesParser struct {
	from       string // names the backend in errors that show later
	labels     func([]labels.Label) (labels.Labels, string)
	mint, maxt int64
	series     []Series

	raw    []labels.Label // scratch: labels of the series at hand
	open   bool           // whether a series is at hand that may go on
	last   []byte         // its labels as they came
	chunks []dedup.Chunk  // its chunks
	arena  []byte         // room for chunk data
	head   [64]byte       // scratch: what the frame at hand begins with
}

// stream reads frames: uvarint length, big-endian CRC-32C, ChunkedReadResponse.
// Source of the format: prompb/remote.proto and storage/remote/chunked.go.
func (p *seriesParser) stream(r io.Reader) error {
	br := bufio.NewReaderSize(r, 64<<10)
	var frame []byte
	for n := 0; ; n++ {
		peeked, err := br.Peek(len(p.head)) // which forgets its error
		head := p.head[:copy(p.head[:], peeked)]
		if err == nil || err == io.EOF {
			frame, err = readFrame(br, frame[:0])
		}
		if err == io.EOF {
			return p.flush()
		}
		if err != nil {
			if text := plainText(head); text != "" {
				return &saidError{text}
			}
			return fmt.Errorf("frame %d: %w", n, err)
		}
		if err := p.frame(frame[4:]); err != nil {
			return fmt.Errorf("frame %d: %w", n, err)
		}
	}
}

// readFrame reads checksum and message of a frame into buf. The error is io.EOF
// where a stream may end.
func readFrame(br *bufio.Reader, buf []byte) ([]byte, error) {
	size, err := binary.ReadUvarint(br)
	if err != nil {
		return buf, err
	}
	if size > maxFrame {
		return buf, badFormat("a frame of %d bytes is larger than %d", size, maxFrame)
	}
	if buf, err = readFull(br, buf, int(size)+4); err != nil {
		return buf, noEOF(err)
	}
	if sum := crc32.Checksum(buf[4:], castagnoli); sum != binary.BigEndian.Uint32(buf) {
		return buf, badFormat("checksum mismatch")
	}
	return buf, nil
}

// saidError is the text of an error that a server wrote into its stream: the status
// had been sent by then.
type saidError struct{ text string }

func (e *saidError) Error() string { return e.text }

// plainText returns what a frame begins with if that is text, which the length, the
// checksum and the first tag of a real one are not.
func plainText(head []byte) string {
	if len(head) < 16 {
		return ""
	}
	for _, c := range bytes.TrimSpace(head) {
		if c < ' ' || c > '~' {
			return ""
		}
	}
	return clip(string(head))
}

// readFull reads n bytes into buf, growing it as bytes come and not as the
// sender promises.
func readFull(r io.Reader, buf []byte, n int) ([]byte, error) {
	for len(buf) < n {
		step := min(n-len(buf), max(cap(buf)-len(buf), 1<<20))
		at := len(buf)
		if cap(buf)-at < step {
			buf = append(buf[:cap(buf)], make([]byte, step)...)
		}
		buf = buf[:at+step]
		if _, err := io.ReadFull(r, buf[at:]); err != nil {
			return buf, err
		}
	}
	return buf, nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (p *seriesParser) frame(b []byte) error {
	return fields(b, func(num protowire.Number, v []byte, _ uint64) error {
		if num != 1 {
			return nil
		}
		return p.chunkedSeries(v)
	})
}

// chunkedSeries reads one ChunkedSeries. A series may go on in the next frame.
func (p *seriesParser) chunkedSeries(b []byte) error {
	key := labelPrefix(b)
	if !p.open || string(key) != string(p.last) {
		if err := p.flush(); err != nil {
			return err
		}
		p.raw = p.raw[:0]
		if err := p.parseLabels(key); err != nil {
			return err
		}
		p.open, p.last = true, append(p.last[:0], key...)
		l, replica := p.labels(p.raw)
		p.series = append(p.series, Series{Labels: l, Replica: replica})
		p.chunks = nil
	}
	return fields(b[len(key):], func(num protowire.Number, v []byte, _ uint64) error {
		if num != 2 {
			return badFormat("labels of a series after its chunks")
		}
		return p.chunk(v)
	})
}

// labelPrefix returns the leading bytes of a message that are fields number 1.
func labelPrefix(b []byte) []byte {
	i := 0
	for i < len(b) && b[i] == 1<<3|byte(protowire.BytesType) {
		_, n := protowire.ConsumeBytes(b[i+1:])
		if n < 0 {
			break
		}
		i += 1 + n
	}
	return b[:i]
}

func (p *seriesParser) chunk(b []byte) error {
	c := dedup.Chunk{From: p.from}
	var data []byte
	err := fields(b, func(num protowire.Number, v []byte, n uint64) error {
		switch num {
		case 1:
			c.MinT = int64(n)
		case 2:
			c.MaxT = int64(n)
		case 3:
			c.Encoding = chunkenc.Encoding(n)
			if n > math.MaxUint8 || !chunkenc.IsValidEncoding(c.Encoding) {
				return badFormat("unknown chunk encoding %d", n)
			}
		case 4:
			data = v
		}
		return nil
	})
	if err != nil {
		return err
	}
	if !chunkenc.IsValidEncoding(c.Encoding) || len(data) < 2 {
		return badFormat("chunk without encoding or data")
	}
	if c.MinT > c.MaxT {
		return badFormat("chunk out of order: from %d ms to %d ms", c.MinT, c.MaxT)
	}
	if c.MinT > p.maxt || c.MaxT < p.mint {
		return nil
	}
	c.Data = p.keep(data)
	p.chunks = append(p.chunks, c)
	return nil
}

// keep copies b into the arena: frames are overwritten by the next one.
func (p *seriesParser) keep(b []byte) []byte {
	if cap(p.arena)-len(p.arena) < len(b) {
		p.arena = make([]byte, 0, max(64<<10, len(b)))
	}
	at := len(p.arena)
	p.arena = append(p.arena, b...)
	return p.arena[at:len(p.arena):len(p.arena)]
}

// flush ends the series at hand. Chunks may overlap (prompb says so): then they
// are runs of their own, which are merged as replicas are.
func (p *seriesParser) flush() error {
	if !p.open {
		return nil
	}
	p.open = false
	s := &p.series[len(p.series)-1]
	runs := splitOverlaps(p.chunks)
	if len(runs) == 0 {
		p.series = p.series[:len(p.series)-1]
		return nil
	}
	s.Run = runs[0]
	first := *s
	for i, r := range runs[1:] {
		p.series = append(p.series, Series{Labels: first.Labels, Replica: fmt.Sprintf("%s\xff%d", first.Replica, i+1), Run: r})
	}
	return nil
}

func splitOverlaps(chunks []dedup.Chunk) []dedup.Chunks {
	overlap := false
	for i := 1; i < len(chunks); i++ {
		overlap = overlap || chunks[i].MinT <= chunks[i-1].MaxT
	}
	if !overlap {
		if len(chunks) == 0 {
			return nil
		}
		return []dedup.Chunks{chunks}
	}
	var runs []dedup.Chunks
next:
	for _, c := range chunks {
		for i, r := range runs {
			if r[len(r)-1].MaxT < c.MinT {
				runs[i] = append(r, c)
				continue next
			}
		}
		runs = append(runs, dedup.Chunks{c})
	}
	return runs
}

// samples reads a snappy-compressed ReadResponse.
func (p *seriesParser) samples(r io.Reader) error {
	compressed, err := io.ReadAll(io.LimitReader(r, maxSamples+1))
	if err != nil {
		return err
	}
	size, err := snappy.DecodedLen(compressed)
	if err != nil {
		return badFormat("not snappy: %v", err)
	}
	if len(compressed) > maxSamples || size > maxSamples {
		return badFormat("answer of %d bytes is larger than %d", size, maxSamples)
	}
	if cr, ok := r.(*chargingReader); ok && cr.charge != nil {
		if err := cr.charge(size); err != nil {
			return err
		}
	}
	b, err := snappy.Decode(nil, compressed)
	if err != nil {
		return badFormat("not snappy: %v", err)
	}
	results := 0
	err = fields(b, func(num protowire.Number, result []byte, _ uint64) error {
		if num != 1 {
			return nil
		}
		results++
		return fields(result, func(num protowire.Number, ts []byte, _ uint64) error {
			if num != 1 {
				return nil
			}
			return p.timeSeries(ts)
		})
	})
	if err == nil && results != 1 {
		return badFormat("%d results for one query", results)
	}
	return err
}

// timeSeries reads one TimeSeries. Floats and histograms come in two lists and
// are put in time order here.
func (p *seriesParser) timeSeries(b []byte) error {
	p.raw = p.raw[:0]
	floats, hists := &dedup.Samples{}, &dedup.Samples{}
	err := fields(b, func(num protowire.Number, v []byte, _ uint64) error {
		switch num {
		case 1:
			return p.label(v)
		case 2:
			return parseSample(floats, v)
		case 4:
			return parseHistogram(hists, v)
		}
		return nil
	})
	if err != nil {
		return err
	}
	all := interleave(floats, hists)
	if err := all.Check(); err != nil {
		return badFormat("%v", err)
	}
	if all.Len() == 0 {
		return nil
	}
	l, replica := p.labels(p.raw)
	p.series = append(p.series, Series{Labels: l, Replica: replica, Run: all})
	return nil
}

// interleave merges two lists of samples by time.
func interleave(a, b *dedup.Samples) *dedup.Samples {
	if b.Len() == 0 {
		return a
	}
	if a.Len() == 0 {
		return b
	}
	out := &dedup.Samples{}
	i, j := 0, 0
	for i < a.Len() || j < b.Len() {
		if j == b.Len() || i < a.Len() && a.T[i] <= b.T[j] {
			out.AppendFrom(a, i)
			i++
		} else {
			out.AppendFrom(b, j)
			j++
		}
	}
	return out
}

func parseSample(dst *dedup.Samples, b []byte) error {
	var value, t uint64
	err := fields(b, func(num protowire.Number, _ []byte, n uint64) error {
		switch num {
		case 1:
			value = n
		case 2:
			t = n
		}
		return nil
	})
	dst.Append(0, int64(t), math.Float64frombits(value))
	return err
}

func parseHistogram(dst *dedup.Samples, b []byte) error {
	var h prompb.Histogram
	if err := h.Unmarshal(b); err != nil {
		return badFormat("histogram: %v", err)
	}
	if h.IsFloatHistogram() {
		fh := h.ToFloatHistogram()
		if err := fh.Validate(); err != nil {
			return badFormat("histogram: %v", err)
		}
		dst.AppendFloatHistogram(0, h.Timestamp, fh)
		return nil
	}
	ih := h.ToIntHistogram()
	if err := ih.Validate(); err != nil {
		return badFormat("histogram: %v", err)
	}
	dst.AppendHistogram(0, h.Timestamp, ih)
	return nil
}

func (p *seriesParser) parseLabels(b []byte) error {
	return fields(b, func(_ protowire.Number, v []byte, _ uint64) error { return p.label(v) })
}

// label adds a label to p.raw. Its strings point into the message.
func (p *seriesParser) label(b []byte) error {
	var l labels.Label
	err := fields(b, func(num protowire.Number, v []byte, _ uint64) error {
		switch num {
		case 1:
			l.Name = unsafe.String(unsafe.SliceData(v), len(v))
		case 2:
			l.Value = unsafe.String(unsafe.SliceData(v), len(v))
		}
		return nil
	})
	if l.Name == "" {
		return badFormat("label without a name")
	}
	p.raw = append(p.raw, l)
	return err
}

// fields calls f for each field of a message: with its bytes if it is of bytes
// type, else with its bits.
func fields(b []byte, f func(num protowire.Number, v []byte, n uint64) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return badFormat("%v", protowire.ParseError(n))
		}
		b = b[n:]
		var v []byte
		var bits uint64
		switch typ {
		case protowire.BytesType:
			v, n = protowire.ConsumeBytes(b)
		case protowire.VarintType:
			bits, n = protowire.ConsumeVarint(b)
		case protowire.Fixed64Type:
			bits, n = protowire.ConsumeFixed64(b)
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return badFormat("%v", protowire.ParseError(n))
		}
		b = b[n:]
		if err := f(num, v, bits); err != nil {
			return err
		}
	}
	return nil
}
