package cache

import (
	"context"
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
)

// BenchmarkKeep keeps an answer of many series and steps, and BenchmarkJoin reads it. Both tell the time per sample.
func BenchmarkKeep(b *testing.B) {
	m, q := benchAnswer(500, 360)
	store := NewMemory(1 << 30)
	c := New(store, nil)
	f := c.Find(b.Context(), q)
	b.ReportAllocs()
	for b.Loop() {
		c.Keep(f, Run{q.Start, q.End}, m, nil)
	}
	perSample(b, m)
	b.ReportMetric(float64(store.Bytes())/float64(m.TotalSamples()), "B/sample")
}

func BenchmarkJoin(b *testing.B) {
	m, q := benchAnswer(500, 360)
	c := New(NewMemory(1<<30), nil)
	c.Keep(c.Find(b.Context(), q), Run{q.Start, q.End}, m, nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := c.Find(context.Background(), q).Join(nil, nil); err != nil {
			b.Fatal(err)
		}
	}
	perSample(b, m)
}

func benchAnswer(series int, steps int64) (m promql.Matrix, q Question) {
	const step = 15_000
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range series {
		s := promql.Series{Metric: labels.FromStrings("instance", "10.0.0."+strconv.Itoa(i)+":9100", "job", "node", "mode", "idle", "region", "eu")}
		v := rnd.Float64() * 100
		for n := range steps {
			v += rnd.NormFloat64()
			s.Floats = append(s.Floats, promql.FPoint{T: n * step, F: v})
		}
		m = append(m, s)
	}
	now := steps * step * 10
	return m, Question{Key: "k", Start: 0, End: (steps - 1) * step, Step: step, Settled: now, Now: now, Believed: long}
}

// perSample reports the time per sample of an answer.
func perSample(b *testing.B, m promql.Matrix) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(m.TotalSamples()), "ns/sample")
}
