package demo

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/storage"
)

// regions, each with the same targets.
var regions = []string{"eu", "us"}

// jobs and how many targets each has in a region.
var jobs = []struct {
	name  string
	count int
}{{"api", 4}, {"node", 2}}

// help is what /api/v1/metadata says of the metrics.
var help = map[string][]metadata.Metadata{
	"http_requests_total":              {{Type: model.MetricTypeCounter, Help: "Requests answered."}},
	"http_request_duration_seconds":    {{Type: model.MetricTypeHistogram, Help: "How long requests took.", Unit: "seconds"}},
	"inflight_requests":                {{Type: model.MetricTypeGauge, Help: "Requests under way."}},
	"node_network_receive_bytes_total": {{Type: model.MetricTypeCounter, Help: "Bytes received.", Unit: "bytes"}},
	"node_memory_used_bytes":           {{Type: model.MetricTypeGauge, Help: "Memory in use.", Unit: "bytes"}},
}

// series is one series of a server. Its value is a function of time (unix ms), the
// same for all servers.
type series struct {
	labels    labels.Labels
	ref       storage.SeriesRef
	value     func(ms int64) float64
	histogram func(ms int64) *histogram.Histogram // instead of value
}

func (s *series) appendTo(app storage.Appender, ms int64) (err error) {
	if s.histogram != nil {
		s.ref, err = app.AppendHistogram(s.ref, s.labels, ms, s.histogram(ms), nil)
	} else {
		s.ref, err = app.Append(s.ref, s.labels, ms, s.value(ms))
	}
	return err
}

// seriesOf makes the series of all targets that a server reaches.
func (p *plan) seriesOf(end time.Time) []*series {
	var all []*series
	for r, region := range regions {
		for j, job := range jobs {
			for i := range job.count {
				instance := fmt.Sprintf("%s-%s-%d", region, job.name, i+1)
				if !slices.Contains(p.regions, region) || instance == p.without {
					continue
				}
				b := labels.NewBuilder(labels.FromStrings("job", job.name, "instance", instance))
				if p.regionLabel {
					b.Set("region", region)
				}
				t := target{labels: b.Labels(), seed: uint64(1 + i + 10*j + 100*r), slow: 1 + 2*float64(r), end: end}
				all = append(all, t.series(job.name)...)
			}
		}
	}
	return all
}

// target is one scraped process.
type target struct {
	labels labels.Labels
	seed   uint64
	slow   float64 // how long its requests take, relative to others
	end    time.Time
}

func (t target) series(job string) []*series {
	up := t.one("up", func(int64) float64 { return 1 })
	if job == "node" {
		received, used := t.wave(1, 2e6), t.wave(2, 6e9)
		return []*series{
			up,
			t.one("node_network_receive_bytes_total", func(ms int64) float64 { return math.Floor(received.total(ms)) }),
			t.one("node_memory_used_bytes", func(ms int64) float64 { return math.Floor(used.level(ms)) }),
		}
	}
	ok, failed, inflight, requests := t.wave(3, 40), t.wave(4, 0.6), t.wave(5, 12), t.wave(3, 40)
	return []*series{
		up,
		t.one("http_requests_total", func(ms int64) float64 { return math.Floor(t.sinceRestart(ok, ms)) }, "code", "200"),
		t.one("http_requests_total", func(ms int64) float64 { return math.Floor(t.sinceRestart(failed, ms)) }, "code", "500"),
		t.one("inflight_requests", func(ms int64) float64 { return math.Floor(inflight.level(ms) + t.rush(ms)) }),
		{labels: t.named("http_request_duration_seconds"), histogram: func(ms int64) *histogram.Histogram {
			return latencies(t.sinceRestart(requests, ms), t.slow)
		}},
	}
}

func (t target) named(name string, pairs ...string) labels.Labels {
	b := labels.NewBuilder(t.labels).Set(model.MetricNameLabel, name)
	for i := 0; i < len(pairs); i += 2 {
		b.Set(pairs[i], pairs[i+1])
	}
	return b.Labels()
}

func (t target) one(name string, value func(ms int64) float64, pairs ...string) *series {
	return &series{labels: t.named(name, pairs...), value: value}
}

// sinceRestart is what a wave added since the process was last started. Each target
// restarts once, between three and four hours before the end of the history.
func (t target) sinceRestart(w wave, ms int64) float64 {
	restart := t.end.Add(-3*time.Hour - time.Duration(noise(t.seed, 0)*float64(time.Hour))).UnixMilli()
	if ms < restart {
		return w.total(ms)
	}
	return w.total(ms) - w.total(restart)
}

// rush is what a rush of requests adds for ten minutes, four hours before the end
// of the history.
func (t target) rush(ms int64) float64 {
	begin := t.end.Add(-4 * time.Hour)
	if (span{begin, begin.Add(10 * time.Minute)}).has(time.UnixMilli(ms)) {
		return 100 + math.Floor(50*noise(t.seed, 1))
	}
	return 0
}

// noise is a fixed number in [0,1) for a seed and a moment.
func noise(seed uint64, at int64) float64 {
	x := (seed<<32 ^ uint64(at)) + 0x632be59bd9b4e019
	for range 3 {
		x ^= x >> 29
		x *= 0xd6e8feb86659fd93
	}
	return float64(x>>11) / (1 << 53)
}

// wave is a rate (per second) that swings by a fifth around its mean.
type wave struct {
	mean   float64
	period float64 // s
	start  float64 // unix s; where total is 0
}

const swing = 0.2

func (t target) wave(n int64, mean float64) wave {
	return wave{
		mean:   mean * (0.6 + 0.8*noise(t.seed, 10+n)),
		period: 900 + 1800*noise(t.seed, 20+n),
		start:  float64(t.end.Add(-2*history).UnixMilli()) / 1000,
	}
}

// level is the rate at a moment.
func (w wave) level(ms int64) float64 {
	s := float64(ms)/1000 - w.start
	return w.mean * (1 + swing*math.Sin(2*math.Pi*s/w.period))
}

// total is the integral of level since start.
func (w wave) total(ms int64) float64 {
	s := float64(ms)/1000 - w.start
	return w.mean * (s + swing*w.period/(2*math.Pi)*(1-math.Cos(2*math.Pi*s/w.period)))
}

// shares are the parts of all requests in adjacent buckets, from fast to slow.
var shares = []float64{0.02, 0.08, 0.2, 0.3, 0.2, 0.1, 0.05, 0.03, 0.015, 0.005}

// latencies is a native histogram of n requests. The buckets begin at 10 ms; each
// is wider than the one before by the square root of two.
func latencies(n, slow float64) *histogram.Histogram {
	const schema = 1
	h := &histogram.Histogram{
		Schema: schema, ZeroThreshold: 0x1p-128,
		PositiveSpans: []histogram.Span{{Offset: int32(math.Floor(2 * math.Log2(0.01*slow))), Length: uint32(len(shares))}},
	}
	var before int64
	for _, share := range shares {
		count := int64(n * share)
		h.PositiveBuckets = append(h.PositiveBuckets, count-before)
		h.Count += uint64(count)
		before = count
	}
	h.Sum = 0.05 * slow * n
	return h
}
