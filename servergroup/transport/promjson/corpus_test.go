package promjson

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strconv"
)

// A shape makes the values of one series.
type shape func(rng *rand.Rand, series int) func(i int) float64

// mix is what a dashboard asks for: 40 % rates, 20 % each of gauges and
// counters, 10 % each of constants and of values with 3 decimals.
func mix(rng *rand.Rand, series int) func(i int) float64 {
	switch k := series % 10; {
	case k < 4:
		return digits17(rng, series)
	case k < 6:
		return func(int) float64 { return float64(rng.IntN(100000)) }
	case k < 8:
		c := float64(rng.IntN(1e9))
		return func(int) float64 { c += float64(rng.IntN(1000)); return c }
	case k < 9:
		return func(int) float64 { return 1 }
	default:
		return func(int) float64 { return float64(rng.IntN(1e6)) / 1000 }
	}
}

// digits17 is like rates: as many digits as a float64 has.
func digits17(rng *rand.Rand, _ int) func(i int) float64 {
	level := rng.Float64() * 1000
	return func(int) float64 { return level * (1 + rng.Float64()/10) / 3 }
}

// matrixBody is a response of query_range with 12 labels a series.
func matrixBody(series, points int, s shape) []byte {
	rng := rand.New(rand.NewPCG(1, 2))
	var b bytes.Buffer
	b.WriteString(`{"status":"success","data":{"resultType":"matrix","result":[`)
	for i := range series {
		if i > 0 {
			b.WriteByte(',')
		}
		writeMetric(&b, i)
		b.WriteString(`,"values":[`)
		next := s(rng, i)
		for j := range points {
			if j > 0 {
				b.WriteByte(',')
			}
			writeSample(&b, 1_700_000_000_000+int64(j)*15000, next(j))
		}
		b.WriteString(`]}`)
	}
	b.WriteString(`]}}`)
	return b.Bytes()
}

// vectorBody is a response of query with 12 labels a sample.
func vectorBody(series int) []byte {
	rng := rand.New(rand.NewPCG(1, 2))
	var b bytes.Buffer
	b.WriteString(`{"status":"success","data":{"resultType":"vector","result":[`)
	for i := range series {
		if i > 0 {
			b.WriteByte(',')
		}
		writeMetric(&b, i)
		b.WriteString(`,"value":`)
		writeSample(&b, 1_700_000_000_123, mix(rng, i)(0))
		b.WriteByte('}')
	}
	b.WriteString(`]}}`)
	return b.Bytes()
}

func writeMetric(b *bytes.Buffer, i int) {
	fmt.Fprintf(b, `{"metric":{"__name__":"http_requests_total","cluster":"eu-west-1a","code":"200","container":"api","endpoint":"web",`+
		`"handler":"/api/v1/query_range","instance":"10.0.%d.%d:9090","job":"api-server","method":"GET","namespace":"production","pod":"api-server-7c9d8b-%05d","service":"api"}`,
		i/250, i%250, i)
}

func writeSample(b *bytes.Buffer, t int64, f float64) {
	b.WriteByte('[')
	writeTime(b, t)
	b.WriteString(`,"`)
	b.Write(strconv.AppendFloat(nil, f, 'f', -1, 64))
	b.WriteString(`"]`)
}

// writeTime prints ms as seconds.
func writeTime(b *bytes.Buffer, t int64) {
	if b.Write(strconv.AppendInt(nil, t/1000, 10)); t%1000 != 0 {
		fmt.Fprintf(b, ".%03d", t%1000)
	}
}
