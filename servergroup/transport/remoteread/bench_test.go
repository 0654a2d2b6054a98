package remoteread

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"testing"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/dedup"
)

// The data of the benchmarks: an hour of a fleet that is scraped every 15 seconds.
const (
	benchSeries   = 1000
	benchSamples  = 240 // of a series
	benchPerChunk = 120
)

func benchLabels(i int) []prompb.Label {
	return []prompb.Label{
		{Name: "__name__", Value: "http_requests_total"},
		{Name: "code", Value: "200"},
		{Name: "container", Value: "checkout"},
		{Name: "handler", Value: "/api/v1/orders"},
		{Name: "instance", Value: fmt.Sprintf("10.%d.%d.7:9102", i/256, i%256)},
		{Name: "job", Value: "kubernetes-pods"},
		{Name: "namespace", Value: "shop-production"},
		{Name: "pod", Value: fmt.Sprintf("checkout-6f7d9c5b8-%05d", i)},
	}
}

func benchSample(series, i int) (t int64, v float64) {
	return 1_700_000_000_000 + int64(i)*15_000 + int64(series%7), float64(series*1000 + i*i)
}

// benchStream is what a server streams: one series for each frame, as Prometheus does.
func benchStream(tb testing.TB) []byte {
	list := make([]*prompb.ChunkedSeries, benchSeries)
	for i := range list {
		list[i] = &prompb.ChunkedSeries{Labels: benchLabels(i)}
		for from := 0; from < benchSamples; from += benchPerChunk {
			c := chunkenc.NewXORChunk()
			app, err := c.Appender()
			require.NoError(tb, err)
			for j := range benchPerChunk {
				t, v := benchSample(i, from+j)
				app.Append(0, t, v)
			}
			first, _ := benchSample(i, from)
			last, _ := benchSample(i, from+benchPerChunk-1)
			list[i].Chunks = append(list[i].Chunks, prompb.Chunk{MinTimeMs: first, MaxTimeMs: last, Type: prompb.Chunk_XOR, Data: c.Bytes()})
		}
	}
	return frames(tb, list...)
}

func benchResponse(tb testing.TB) []byte {
	list := make([]*prompb.TimeSeries, benchSeries)
	for i := range list {
		list[i] = &prompb.TimeSeries{Labels: benchLabels(i)}
		for j := range benchSamples {
			t, v := benchSample(i, j)
			list[i].Samples = append(list[i].Samples, prompb.Sample{Timestamp: t, Value: v})
		}
	}
	return samplesBody(tb, list...)
}

func benchOptions(series *[]series) Options {
	b := labels.NewScratchBuilder(0)
	return Options{
		MinT: math.MinInt64, MaxT: math.MaxInt64,
		Labels: func(raw []labels.Label) (labels.Labels, string) {
			b.Reset()
			for _, l := range raw {
				b.Add(l.Name, l.Value)
			}
			b.Sort()
			return b.Labels(), ""
		},
		Emit: func(l labels.Labels, replica string, run dedup.Run) {
			*series = append(*series, entry(l, replica, run))
		},
	}
}

func entry(l labels.Labels, replica string, run dedup.Run) series { return series{l, replica, run} }

// generatedStream is DecodeStream with upstream's reader of frames and the generated types.
func generatedStream(r io.Reader, o Options) error {
	frames := remote.NewChunkedReader(bufio.NewReaderSize(r, 64<<10), maxFrame, nil)
	var raw []labels.Label
	for {
		var frame prompb.ChunkedReadResponse
		if err := frames.NextProto(&frame); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		for _, s := range frame.ChunkedSeries {
			raw = raw[:0]
			for _, l := range s.Labels {
				raw = append(raw, labels.Label{Name: l.Name, Value: l.Value})
			}
			chunks := make(dedup.Chunks, len(s.Chunks))
			for i, c := range s.Chunks {
				chunks[i] = dedup.Chunk{From: o.From, MinT: c.MinTimeMs, MaxT: c.MaxTimeMs, Encoding: chunkenc.Encoding(c.Type), Data: c.Data}
			}
			l, replica := o.Labels(raw)
			o.Emit(l, replica, chunks)
		}
	}
}

// generatedSamples is DecodeSamples with the generated types.
func generatedSamples(r io.Reader, o Options) error {
	compressed, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	b, err := snappy.Decode(nil, compressed)
	if err != nil {
		return err
	}
	var resp prompb.ReadResponse
	if err := resp.Unmarshal(b); err != nil {
		return err
	}
	var raw []labels.Label
	for _, s := range resp.Results[0].Timeseries {
		raw = raw[:0]
		for _, l := range s.Labels {
			raw = append(raw, labels.Label{Name: l.Name, Value: l.Value})
		}
		run := &dedup.Samples{T: make([]int64, 0, len(s.Samples)), F: make([]float64, 0, len(s.Samples))}
		for _, p := range s.Samples {
			run.Append(0, p.Timestamp, p.Value)
		}
		l, replica := o.Labels(raw)
		o.Emit(l, replica, run)
	}
	return nil
}

func benchDecode(b *testing.B, body []byte, decode func(io.Reader, Options) error) {
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		var list []series
		require.NoError(b, decode(bytes.NewReader(body), benchOptions(&list)))
		require.Len(b, list, benchSeries)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchSeries/benchSamples, "ns/sample")
}

func BenchmarkStream(b *testing.B) {
	body := benchStream(b)
	b.Run("remoteread", func(b *testing.B) { benchDecode(b, body, DecodeStream) })
	b.Run("generated", func(b *testing.B) { benchDecode(b, body, generatedStream) })
}

func BenchmarkSamples(b *testing.B) {
	body := benchResponse(b)
	b.Run("remoteread", func(b *testing.B) { benchDecode(b, body, DecodeSamples) })
	b.Run("generated", func(b *testing.B) { benchDecode(b, body, generatedSamples) })
}
