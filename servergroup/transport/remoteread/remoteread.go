// Package remoteread speaks the remote-read protocol of Prometheus: it writes requests, and
// decodes both kinds of responses, streamed chunks and samples, into runs of samples. It
// knows neither HTTP nor which replica it reads from.
//
// The decoder is written by hand. Compared with the generated types of prompb, and upstream's
// reader of frames, it decodes a stream of 1,000 series of 240 samples 2.0 times as fast in
// 45 % of the memory (BenchmarkStream: 2.3 and 4.4 ms, 1.2 and 2.7 MB), and a response of the
// same samples 1.3 times as fast in 38 % of the memory (BenchmarkSamples: 25 and 33 ms, 18 and
// 47 MB). These are medians of 6 runs on two cores of an Intel Xeon with Go 1.26.8, 2026-11-29.
//
// The protocol: https://prometheus.io/docs/prometheus/latest/querying/remote_read_api/, with
// its messages in prompb/remote.proto and prompb/types.proto of Prometheus. The chunks:
// https://github.com/prometheus/prometheus/blob/main/tsdb/docs/format/chunks.md.
package remoteread

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

const (
	// maxFrame bounds a frame of a stream (bytes), maxSamples a response of samples, both
	// compressed and not.
	maxFrame   = 64 << 20
	maxSamples = 2 << 30
)

// Options are what is decoded, and into what.
type Options struct {
	// From names the server in the errors of chunks that turn out to be damaged when they
	// are iterated.
	From string
	// MinT and MaxT are the window (ms, inclusive). Chunks outside it are left out, chunks
	// across its ends are not cut. Responses of samples are not filtered.
	MinT, MaxT int64
	// Labels turns the labels of a series as the server has them into those of the caller.
	// The argument is only valid during the call. The second result, passed on to Emit,
	// distinguishes series that become equal by it.
	Labels func(raw []labels.Label) (labels.Labels, string)
	// Emit is given each series. Chunks that overlap are several series with the same labels,
	// whose second result is distinct.
	Emit func(l labels.Labels, replica string, run dedup.Run)
	// Charge is called with the number of bytes of a response of samples without compression;
	// its error ends the decoding. Bytes that are read are not charged. Nil means no budget.
	Charge func(bytes int) error
}

// FormatError is a body that is not what its content type promises.
type FormatError struct{ msg string }

func (e *FormatError) Error() string { return e.msg }

func badFormat(format string, args ...any) error {
	return &FormatError{msg: "broken remote read response: " + fmt.Sprintf(format, args...)}
}

// ServerError is the text of an error that a server wrote into its stream: it had sent the
// status by then.
type ServerError struct{ text string }

func (e *ServerError) Error() string { return e.text }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// decoder reads the two messages of responses (prompb: ChunkedReadResponse and
// ReadResponse) without the generated types, which make an object of every label and sample.
type decoder struct {
	Options

	raw     []labels.Label // scratch: labels of the current series
	open    bool           // whether there is a current series, which may continue
	last    []byte         // its labels as they came
	lset    labels.Labels  // its labels as Options.Labels has them
	replica string         // what distinguishes it
	chunks  []dedup.Chunk  // its chunks
	arena   []byte         // room for chunk data
	head    [64]byte       // scratch: the first bytes of the current frame
}

// DecodeStream reads a stream of frames to its end. A frame is its length as a uvarint, a
// big-endian CRC-32C, and a ChunkedReadResponse (storage/remote/chunked.go of Prometheus).
// The error is a *ServerError or a *FormatError, wraps io.ErrUnexpectedEOF if the stream is
// cut off, or is that of r.
func DecodeStream(r io.Reader, o Options) error {
	p := decoder{Options: o}
	return p.stream(r)
}

// DecodeSamples reads a response of samples, a ReadResponse compressed by snappy, to its end.
// The error is a *FormatError, or that of r or of Options.Charge.
func DecodeSamples(r io.Reader, o Options) error {
	p := decoder{Options: o}
	return p.samples(r)
}

func (p *decoder) stream(r io.Reader) error {
	br := bufio.NewReaderSize(r, 64<<10)
	var frame []byte
	for n := 0; ; n++ {
		peeked, err := br.Peek(len(p.head)) // which forgets its error
		head := p.head[:copy(p.head[:], peeked)]
		if err == nil || err == io.EOF {
			frame, err = readFrame(br, frame[:0])
		}
		if err == io.EOF {
			p.flush()
			return nil
		}
		if err != nil {
			if text := plainText(head); text != "" {
				return &ServerError{text}
			}
			return fmt.Errorf("frame %d: %w", n, err)
		}
		if err := p.frame(frame[4:]); err != nil {
			return fmt.Errorf("frame %d: %w", n, err)
		}
	}
}

// readFrame reads the checksum and the message of a frame into buf. The error is io.EOF if the
// stream ends before the frame.
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

// plainText returns the beginning of a frame if that is text. The length, the checksum and the
// first tag of a real frame are not.
func plainText(head []byte) string {
	if len(head) < 16 {
		return ""
	}
	for _, c := range bytes.TrimSpace(head) {
		if c < ' ' || c > '~' {
			return ""
		}
	}
	return string(bytes.TrimSpace(head))
}

// readFull reads n bytes into buf, which grows as bytes come and not as the sender announces.
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

func (p *decoder) frame(b []byte) error {
	return fields(b, func(num protowire.Number, v []byte, _ uint64) error {
		if num != 1 {
			return nil
		}
		return p.chunkedSeries(v)
	})
}

// chunkedSeries reads one ChunkedSeries. The series may continue in the next frame.
func (p *decoder) chunkedSeries(b []byte) error {
	key := labelPrefix(b)
	if !p.open || string(key) != string(p.last) {
		p.flush()
		p.raw = p.raw[:0]
		if err := p.parseLabels(key); err != nil {
			return err
		}
		p.open, p.last = true, append(p.last[:0], key...)
		p.lset, p.replica = p.Labels(p.raw)
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

func (p *decoder) chunk(b []byte) error {
	c := dedup.Chunk{From: p.From}
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
	if c.MinT > p.MaxT || c.MaxT < p.MinT {
		return nil
	}
	c.Data = p.keep(data)
	p.chunks = append(p.chunks, c)
	return nil
}

// keep copies b into the arena, because the next frame overwrites this one.
func (p *decoder) keep(b []byte) []byte {
	if cap(p.arena)-len(p.arena) < len(b) {
		p.arena = make([]byte, 0, max(64<<10, len(b)))
	}
	at := len(p.arena)
	p.arena = append(p.arena, b...)
	return p.arena[at:len(p.arena):len(p.arena)]
}

// flush ends the current series. Chunks may overlap (remote.proto says so): then they
// are runs of their own, which are merged as replicas are.
func (p *decoder) flush() {
	if !p.open {
		return
	}
	p.open = false
	for i, r := range splitOverlaps(p.chunks) {
		replica := p.replica
		if i > 0 {
			replica = fmt.Sprintf("%s\xff%d", replica, i)
		}
		p.Emit(p.lset, replica, r)
	}
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
func (p *decoder) samples(r io.Reader) error {
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
	if p.Charge != nil {
		if err := p.Charge(size); err != nil {
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

// timeSeries reads one TimeSeries. Floats and histograms come in two lists, which are merged
// by time here.
func (p *decoder) timeSeries(b []byte) error {
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
	l, replica := p.Labels(p.raw)
	p.Emit(l, replica, all)
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

func (p *decoder) parseLabels(b []byte) error {
	return fields(b, func(_ protowire.Number, v []byte, _ uint64) error { return p.label(v) })
}

// label adds a label to p.raw. Its strings point into the message.
func (p *decoder) label(b []byte) error {
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

// fields calls f for each field of a message
// (https://protobuf.dev/programming-guides/encoding/): with its bytes if it is
// length-delimited, else with its bits.
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
