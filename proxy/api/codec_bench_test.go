package api

import (
	"runtime"
	"testing"

	v1 "github.com/prometheus/prometheus/web/api/v1"
	"github.com/stretchr/testify/require"
)

// BenchmarkCodecs compares the codec with upstream's, which is given a buffer that has grown
// for an answer before (warm), or not (cold): buffers of old answers are kept until garbage
// is collected twice.
func BenchmarkCodecs(b *testing.B) {
	for _, c := range []struct {
		name           string
		series, points int
	}{{"10x240", 10, 240}, {"1000x240", 1000, 240}, {"4000x500", 4000, 500}} {
		resp := success(floats(c.series, c.points, func(i int) float64 { return float64(i) / 7 }))
		for _, by := range []struct {
			name  string
			codec v1.Codec
		}{{"oneprom", Codec{}}, {"upstream", v1.JSONCodec{}}} {
			b.Run(c.name+"/warm/"+by.name, func(b *testing.B) { benchmarkEncode(b, by.codec, resp, func() {}) })
			b.Run(c.name+"/cold/"+by.name, func(b *testing.B) {
				benchmarkEncode(b, by.codec, resp, func() {
					b.StopTimer()
					runtime.GC()
					runtime.GC()
					b.StartTimer()
				})
			})
		}
	}
}

func benchmarkEncode(b *testing.B, codec v1.Codec, resp *v1.Response, before func()) {
	out, err := codec.Encode(resp)
	require.NoError(b, err)
	b.SetBytes(int64(len(out)))
	b.ReportAllocs()
	for b.Loop() {
		before()
		_, err := codec.Encode(resp)
		require.NoError(b, err)
	}
}
