package remoteread

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"testing"
	"testing/iotest"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/servergroup/transport/meter"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type flusher struct{}

func (flusher) Flush() {}

// xor returns a chunk with value i at from+i seconds.
func xor(from, n int64) prompb.Chunk {
	c := chunkenc.NewXORChunk()
	app, _ := c.Appender()
	for i := range n {
		app.Append(0, (from+i)*1000, float64(i))
	}
	return prompb.Chunk{MinTimeMs: from * 1000, MaxTimeMs: (from + n - 1) * 1000, Type: prompb.Chunk_XOR, Data: c.Bytes()}
}

func named(name string, chunks ...prompb.Chunk) *prompb.ChunkedSeries {
	return &prompb.ChunkedSeries{Labels: []prompb.Label{{Name: "__name__", Value: name}, {Name: "a", Value: "b"}}, Chunks: chunks}
}

// frames encodes series as upstream's server does, one frame for each.
func frames(t testing.TB, series ...*prompb.ChunkedSeries) []byte {
	t.Helper()
	var b bytes.Buffer
	w := remote.NewChunkedWriter(&b, flusher{})
	for _, s := range series {
		data, err := (&prompb.ChunkedReadResponse{ChunkedSeries: []*prompb.ChunkedSeries{s}}).Marshal()
		require.NoError(t, err)
		_, err = w.Write(data)
		require.NoError(t, err)
	}
	w.Close()
	return b.Bytes()
}

// decoded is a decoder with the series that it has emitted.
type decoded struct {
	decoder
	series []series
}

type series struct {
	labels  labels.Labels
	replica string
	run     dedup.Run
}

func newDecoder() *decoded {
	d := &decoded{}
	d.Options = Options{
		MinT: math.MinInt64, MaxT: math.MaxInt64, Labels: sortedLabels,
		Emit: func(l labels.Labels, replica string, run dedup.Run) {
			d.series = append(d.series, series{l, replica, run})
		},
	}
	return d
}

func sortedLabels(raw []labels.Label) (labels.Labels, string) {
	b := labels.NewScratchBuilder(len(raw))
	for _, l := range raw {
		b.Add(l.Name, l.Value)
	}
	b.Sort()
	return b.Labels(), ""
}

func printed(t testing.TB, d *decoded) string {
	t.Helper()
	var b bytes.Buffer
	for _, s := range d.series {
		var all dedup.Samples
		require.NoError(t, s.run.AppendTo(&all, math.MinInt64, math.MaxInt64))
		fmt.Fprintf(&b, "%s%q", s.labels, s.replica)
		for i, ts := range all.T {
			fmt.Fprintf(&b, " %d:%g", ts/1000, all.F[i])
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func TestStream_SeriesGoesOnInTheNextFrame(t *testing.T) {
	d := newDecoder()
	body := frames(t, named("m", xor(0, 2)), named("m", xor(2, 1), xor(3, 1)), named("n", xor(0, 1)))
	require.NoError(t, d.stream(bytes.NewReader(body)))
	require.Equal(t, `{__name__="m", a="b"}"" 0:0 1:1 2:0 3:0`+"\n"+`{__name__="n", a="b"}"" 0:0`+"\n", printed(t, d))
}

func TestStream_OverlappingChunksBecomeRunsOfTheirOwn(t *testing.T) {
	d := newDecoder()
	require.NoError(t, d.stream(bytes.NewReader(frames(t, named("m", xor(0, 3), xor(2, 2), xor(5, 1))))))
	require.Equal(t, `{__name__="m", a="b"}"" 0:0 1:1 2:2 5:0`+"\n"+`{__name__="m", a="b"}"\xff1" 2:0 3:1`+"\n", printed(t, d))
}

func TestStream_ChunksOutsideTheWindowAreNotHeld(t *testing.T) {
	d := newDecoder()
	d.MinT, d.MaxT = 2000, 3000
	require.NoError(t, d.stream(bytes.NewReader(frames(t, named("m", xor(0, 2), xor(2, 2), xor(4, 2)), named("n", xor(9, 1))))))
	require.Equal(t, `{__name__="m", a="b"}"" 2:0 3:1`+"\n", printed(t, d))
}

func TestStream_TruncatedAnywhereIsAnError(t *testing.T) {
	body := frames(t, named("m", xor(0, 2)), named("n", xor(0, 2)))
	first := len(frames(t, named("m", xor(0, 2))))
	for i := 1; i < len(body); i++ {
		err := newDecoder().stream(bytes.NewReader(body[:i]))
		if i == first {
			continue // a complete response of one frame
		}
		require.ErrorIs(t, err, io.ErrUnexpectedEOF, "cut at %d", i)
	}
}

func TestStream_FlippedBitsAreAnError(t *testing.T) {
	body := frames(t, named("m", xor(0, 2)))
	for i := range body {
		broken := bytes.Clone(body)
		broken[i] ^= 0x10
		require.Error(t, newDecoder().stream(bytes.NewReader(broken)), "byte %d", i)
	}
}

// A server that fails after the first frame can only write its error into the stream.
func TestStream_ErrorTextBehindAFrame(t *testing.T) {
	body := append(frames(t, named("x", xor(0, 5))), "iterate chunk while re-encoding: detected unexpected counter reset in histogram\n"...)
	err := newDecoder().stream(bytes.NewReader(body))
	var said *ServerError
	require.ErrorAs(t, err, &said)
	require.ErrorContains(t, err, "iterate chunk while re-encoding: detected")
}

func TestStream_BadFrames(t *testing.T) {
	f := func(want string, body []byte) {
		t.Helper()
		err := newDecoder().stream(bytes.NewReader(body))
		var format *FormatError
		require.ErrorAs(t, err, &format)
		require.ErrorContains(t, err, want)
	}
	huge := []byte{0xff, 0xff, 0xff, 0xff, 0x0f}
	f("a frame of 4294967295 bytes is larger than", huge)
	bad := xor(0, 1)
	bad.Type = 99
	f("unknown chunk encoding 99", frames(t, named("m", bad)))
	f("chunk without encoding or data", frames(t, named("m", prompb.Chunk{Type: prompb.Chunk_XOR})))
	f("label without a name", frames(t, &prompb.ChunkedSeries{Labels: []prompb.Label{{Value: "x"}}}))
}

// TestStream_NeverHoldsWhatIsOnlyPromised sends the length of a large frame and
// nothing else.
// Labels that no series of a Prometheus has are the mistake of their server, by either kind of
// response.
func TestLabelsThatNoSeriesHas(t *testing.T) {
	for want, list := range map[string][]prompb.Label{
		`label "a" twice`:           {{Name: "a", Value: "1"}, {Name: "a", Value: "2"}},
		`label "b" without a value`: {{Name: "a", Value: "1"}, {Name: "b"}},
		"without a name":            {{Value: "1"}, {Name: "b", Value: "1"}},
		`label "a" is not UTF-8`:    {{Name: "a", Value: "\xff"}},
		`label "\xff" is not UTF-8`: {{Name: "\xff", Value: "1"}},
		"not sorted":                {{Name: "b", Value: "1"}, {Name: "a", Value: "1"}},
		"":                          {{Name: "a", Value: "1"}, {Name: "b.ü", Value: "1"}},
	} {
		for kind, decode := range map[string]func(Options) error{
			"stream": func(o Options) error {
				return DecodeStream(bytes.NewReader(frames(t, &prompb.ChunkedSeries{Labels: list, Chunks: []prompb.Chunk{xor(0, 1)}})), o)
			},
			"samples": func(o Options) error {
				return DecodeSamples(bytes.NewReader(samplesBody(t, &prompb.TimeSeries{Labels: list, Samples: []prompb.Sample{{}}})), o)
			},
		} {
			d := newDecoder()
			err := decode(d.Options)
			if want == "" || want == "not sorted" && kind == "samples" {
				require.NoError(t, err)
				continue
			}
			require.ErrorContains(t, err, want, kind)
			require.ErrorAs(t, err, new(*FormatError), kind)
		}
	}
}

func TestStream_NeverHoldsWhatIsOnlyPromised(t *testing.T) {
	promise := []byte{0x80, 0x80, 0x80, 0x18} // 48 MiB
	allocated := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			require.Error(b, newDecoder().stream(bytes.NewReader(promise)))
		}
	}).AllocedBytesPerOp()
	require.Less(t, allocated, int64(4<<20))
}

func samplesBody(t testing.TB, series ...*prompb.TimeSeries) []byte {
	t.Helper()
	data, err := (&prompb.ReadResponse{Results: []*prompb.QueryResult{{Timeseries: series}}}).Marshal()
	require.NoError(t, err)
	return snappy.Encode(nil, data)
}

// TestSamples_KeepsTheSampleWhereFloatsTurnIntoHistograms is what upstream's
// client loses.
func TestSamples_KeepsTheSampleWhereFloatsTurnIntoHistograms(t *testing.T) {
	h := tsdbutil.GenerateTestHistogram(3)
	fh := tsdbutil.GenerateTestFloatHistogram(4)
	d := newDecoder()
	require.NoError(t, d.samples(bytes.NewReader(samplesBody(t, &prompb.TimeSeries{
		Labels:     []prompb.Label{{Name: "__name__", Value: "m"}},
		Samples:    []prompb.Sample{{Timestamp: 1, Value: 1}, {Timestamp: 2, Value: math.Float64frombits(0x7ff0000000000002)}, {Timestamp: 5, Value: 5}},
		Histograms: []prompb.Histogram{prompb.FromIntHistogram(3, h), prompb.FromFloatHistogram(4, fh)},
	}))))
	run := d.series[0].run.(*dedup.Samples)
	require.Equal(t, []int64{1, 2, 3, 4, 5}, run.T)
	require.True(t, run.Stale(1))
	require.Equal(t, chunkenc.ValHistogram, run.Type(2))
	require.True(t, h.Equals(run.H[2]))
	require.Equal(t, histogram.UnknownCounterReset, run.H[2].CounterResetHint)
	require.Equal(t, chunkenc.ValFloatHistogram, run.Type(3))
	require.True(t, fh.Equals(run.FH[3]))
	require.Equal(t, 5.0, run.F[4])
}

func TestSamples_BrokenResponses(t *testing.T) {
	good := samplesBody(t, &prompb.TimeSeries{Labels: []prompb.Label{{Name: "a", Value: "b"}}, Samples: []prompb.Sample{{Timestamp: 1, Value: 1}, {Timestamp: 2, Value: 2}}})
	for i := range good {
		if i > 0 {
			require.Error(t, newDecoder().samples(bytes.NewReader(good[:i])), "cut at %d", i)
		}
	}
	f := func(want string, body []byte) {
		t.Helper()
		require.ErrorContains(t, newDecoder().samples(bytes.NewReader(body)), want)
	}
	f("not snappy", nil)
	f("samples out of order: one at 1 ms after one at 2 ms",
		samplesBody(t, &prompb.TimeSeries{Samples: []prompb.Sample{{Timestamp: 2}, {Timestamp: 1}}}))
	bad := tsdbutil.GenerateTestHistogram(1)
	bad.PositiveBuckets = bad.PositiveBuckets[:1]
	f("histogram", samplesBody(t, &prompb.TimeSeries{Histograms: []prompb.Histogram{prompb.FromIntHistogram(1, bad)}}))
}

// charged lets d charge up to a limit, and returns how much it has.
func (d *decoded) charged(limit int) *int {
	n := new(int)
	d.Meter = meter.New(context.Background(), func(bytes int) error {
		if *n += bytes; *n > limit {
			return errOver
		}
		return nil
	})
	return n
}

var errOver = errors.New("over")

func TestSamples_UnpackedSizeIsChargedBeforeItIsMade(t *testing.T) {
	body := snappy.Encode(nil, make([]byte, 1<<20))
	d := newDecoder()
	charged := d.charged(1 << 19)
	require.ErrorIs(t, d.samples(bytes.NewReader(body)), errOver)
	require.Greater(t, *charged, 1<<20)
}

// TestDecode_NeverMakesMoreThanItCharges decodes what becomes most: each response would be many times its budget in memory.
func TestDecode_NeverMakesMoreThanItCharges(t *testing.T) {
	const budget = 2 << 20
	many := func(n int, one ...byte) []byte { return bytes.Repeat(one, n) }
	field := func(num byte, message []byte) []byte {
		return append(protowire.AppendVarint([]byte{num<<3 | 2}, uint64(len(message))), message...)
	}
	label := field(1, append(field(1, []byte("a")), field(2, []byte("b"))...))
	response := func(series []byte) []byte { return snappy.Encode(nil, field(1, series)) }
	oneSeries := func(message []byte) []byte { return response(field(1, append(bytes.Clone(label), message...))) }
	framed := func(message []byte) []byte {
		var b bytes.Buffer
		_, _ = remote.NewChunkedWriter(&b, flusher{}).Write(message)
		return b.Bytes()
	}
	chunk := func(from, to byte, data ...byte) []byte {
		return field(2, append([]byte{1 << 3, from, 2 << 3, to, 3 << 3, 1}, field(4, data)...))
	}
	stamped := func(from int, one []byte) (all []byte) {
		for i := range 100_000 {
			all = append(all, field(4, append(protowire.AppendVarint([]byte{15 << 3}, uint64(from+i)), one...))...)
		}
		return all
	}
	for _, c := range []struct {
		name   string
		stream bool
		body   []byte
	}{
		{"samples: zeroes", false, snappy.Encode(nil, make([]byte, 64<<20))},
		{"samples: series of one sample", false, response(bytes.Repeat(field(1, append(bytes.Clone(label), field(2, []byte{2 << 3, 1})...)), 1<<20))},
		{"samples: a series of one label, again and again", false, response(field(1, bytes.Repeat(label, 1<<20)))},
		{"samples: empty histograms", false, oneSeries(stamped(1, nil))},
		{"samples: spans", false, oneSeries(field(4, many(4<<20, 11<<3|2, 0)))},
		{"samples: buckets", false, oneSeries(field(4, field(12, make([]byte, 8<<20))))},
		{"samples: fields that nobody knows", false, snappy.Encode(nil, many(8<<20, 9<<3, 1))},
		{"stream: series of one chunk", true, bytes.Repeat(framed(bytes.Repeat(append(
			field(1, append(bytes.Clone(label), chunk(1, 2, 0, 1, 2, 0)...)),
			field(1, append(field(1, field(1, []byte("c"))), chunk(1, 2, 0, 1, 2, 0)...))...), 1<<10)), 1<<7)},
		{"stream: chunks", true, framed(field(1, append(bytes.Clone(label), bytes.Repeat(chunk(1, 2, 0, 1), 1<<20)...)))},
		{"stream: a label, again and again", true, framed(field(1, bytes.Repeat(label, 1<<20)))},
		{"stream: chunks of 65535 samples in 16 KiB", true, framed(field(1, append(bytes.Clone(label), bytes.Repeat(chunk(1, 2, append([]byte{0xff, 0xff}, make([]byte, 16<<10)...)...), 8)...)))},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDecoder()
			charged := d.charged(budget)
			run := d.samples
			if c.stream {
				run = d.stream
			}
			runtime.GC()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err := run(bytes.NewReader(c.body))
			runtime.ReadMemStats(&after)
			require.Error(t, err)
			made := int(after.TotalAlloc - before.TotalAlloc)
			require.Less(t, made, 2*budget+1<<20, "%v: charged %d", err, *charged)
		})
	}
}

// TestDecode_EndsWithItsQuery decodes for a query that is over.
func TestDecode_EndsWithItsQuery(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	over := errors.New("the query is over")
	cancel(over)
	unknown := bytes.Repeat([]byte{9 << 3, 1}, 1<<20)
	d := newDecoder()
	d.Meter = meter.New(ctx, nil)
	require.ErrorIs(t, d.samples(bytes.NewReader(snappy.Encode(nil, unknown))), over)
	var b bytes.Buffer
	_, _ = remote.NewChunkedWriter(&b, flusher{}).Write(unknown)
	require.ErrorIs(t, d.stream(&b), over)
}

// The budget's error comes with the last bytes, which the reader looks ahead at.
func TestStream_ChargedToTheEnd(t *testing.T) {
	over := errors.New("over")
	body := frames(t, named("m", xor(0, 3)))
	r := iotest.DataErrReader(io.MultiReader(bytes.NewReader(body), iotest.ErrReader(over)))
	require.ErrorIs(t, newDecoder().stream(r), over)
}

// FuzzStream feeds any bytes as frames with right checksums: whatever comes, no
// panic, what is accepted can be decoded or says why not, and what is made is charged.
func FuzzStream(f *testing.F) {
	for _, s := range []*prompb.ChunkedSeries{named("m", xor(0, 3)), named("m", xor(0, 3), xor(2, 2)), {}} {
		data, err := (&prompb.ChunkedReadResponse{ChunkedSeries: []*prompb.ChunkedSeries{s, s}}).Marshal()
		require.NoError(f, err)
		f.Add(data, false)
		f.Add(frames(f, s), true)
	}
	f.Fuzz(func(t *testing.T, b []byte, raw bool) {
		if !raw {
			var buf bytes.Buffer
			_, _ = remote.NewChunkedWriter(&buf, flusher{}).Write(b)
			b = buf.Bytes()
		}
		d := newDecoder()
		charged := d.charged(math.MaxInt)
		if DecodeStream(bytes.NewReader(b), d.Options) != nil {
			return
		}
		made := 0
		for _, s := range d.series {
			var all dedup.Samples
			if decodes(s.run, &all) == nil {
				require.NoError(t, all.Check())
			}
			made += int(s.labels.ByteSize()) + len(s.replica)
			for _, c := range s.run.(dedup.Chunks) {
				made += len(c.Data) + chunkBytes
			}
		}
		require.LessOrEqual(t, made, *charged)
	})
}

// decodes decodes a run. A damaged chunk may make upstream's chunk iterators
// panic, which the engine turns into an error of the query.
func decodes(r dedup.Run, all *dedup.Samples) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	return r.AppendTo(all, math.MinInt64, math.MaxInt64)
}

// FuzzSamples does the same for responses of samples.
func FuzzSamples(f *testing.F) {
	data, err := (&prompb.ReadResponse{Results: []*prompb.QueryResult{{Timeseries: []*prompb.TimeSeries{{
		Labels:     []prompb.Label{{Name: "a", Value: "b"}},
		Samples:    []prompb.Sample{{Timestamp: 1, Value: 1}},
		Histograms: []prompb.Histogram{prompb.FromIntHistogram(3, tsdbutil.GenerateTestHistogram(3))},
	}}}}}).Marshal()
	require.NoError(f, err)
	f.Add(data)
	f.Fuzz(func(t *testing.T, b []byte) {
		d := newDecoder()
		charged := d.charged(math.MaxInt)
		if DecodeSamples(bytes.NewReader(snappy.Encode(nil, b)), d.Options) != nil {
			return
		}
		made := len(b)
		for _, s := range d.series {
			require.NoError(t, s.run.(*dedup.Samples).Check())
			made += int(s.labels.ByteSize()) + len(s.replica) + dedup.ColumnBytes(s.run)
		}
		require.LessOrEqual(t, made, *charged)
	})
}
