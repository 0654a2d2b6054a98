package e2e

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"
)

const (
	second = int64(1000) // ms
	minute = 60 * second
)

var (
	seamNow = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	// seam (ms) is where the archive ends or the recent groups begin.
	seam = seamNow.Add(-time.Hour).UnixMilli()
	// seamStart is the first moment (ms) that anybody holds.
	seamStart = seam - 80*minute
)

// seamSample is a float or, if h is set, a histogram.
type seamSample struct {
	t int64 // ms
	v float64
	h *histogram.Histogram
}

type seamSeries struct {
	labels  labels.Labels
	samples []seamSample
}

// scraped is a series that is scraped each interval, at a phase of its own (ms).
func scraped(interval, phase int64, value func(n int64) float64, lbls ...string) seamSeries {
	s := seamSeries{labels: labels.FromStrings(lbls...)}
	for n, t := int64(0), seamStart+phase; t <= seamNow.UnixMilli(); n, t = n+1, t+interval {
		s.samples = append(s.samples, seamSample{t: t, v: value(n)})
	}
	return s
}

// jittered puts every scrape some ms off its time.
func (s seamSeries) jittered(most int64) seamSeries {
	random := rand.New(rand.NewPCG(1, 2))
	for i := range s.samples {
		s.samples[i].t += random.Int64N(most)
	}
	return s
}

// alive leaves the samples in [from, to] (ms from the seam) and ends them with a
// stale marker after that, if there is one.
func (s seamSeries) alive(from, to int64, marker ...int64) seamSeries {
	s.samples = slices.DeleteFunc(s.samples, func(p seamSample) bool { return p.t < seam+from || p.t > seam+to })
	for _, t := range marker {
		s.samples = append(s.samples, seamSample{t: seam + t, v: math.Float64frombits(value.StaleNaN)})
	}
	return s
}

// and goes on with the samples of a later life.
func (s seamSeries) and(later seamSeries) seamSeries {
	s.samples = append(s.samples, later.samples...)
	return s
}

// seamWorld is all series. Their targets are scraped each 15 s, at 4.871 s or
// 0 s past, so that there are scrapes at -10.129 s, 4.871 s and 19.871 s, or at
// the very seam.
func seamWorld() []seamSeries {
	count := func(n int64) float64 { return float64(n*n%1009) + float64(n)*7 }
	reset := func(n int64) float64 { return float64(n%97) * 1.1 }
	sine := func(n int64) float64 { return math.Sin(float64(n)) }
	one := func(int64) float64 { return 1 }
	edge := func(life string) seamSeries { return scraped(15*second, 4871, count, "__name__", "edge", "life", life) }
	sharp := func(life string) seamSeries { return scraped(15*second, 0, count, "__name__", "edge", "life", life) }
	all := []seamSeries{
		scraped(15*second, 4871, count, "__name__", "requests_total", "instance", "a", "job", "api"),
		scraped(15*second, 0, reset, "__name__", "requests_total", "instance", "b", "job", "api"),
		scraped(15*second, 7003, count, "__name__", "requests_total", "instance", "c", "job", "api").jittered(9),
		scraped(15*second, 4871, sine, "__name__", "level", "instance", "a"),
		scraped(15*second, 14_999, sine, "__name__", "level", "instance", "b"),
		scraped(15*second, 1, sine, "__name__", "level", "instance", "c"),
		scraped(minute, 4871, count, "__name__", "slow_total", "every", "1m"),
		scraped(2*minute, 77_123, count, "__name__", "slow_total", "every", "2m"),
		scraped(15*second, 4871, one, "__name__", "target_info", "instance", "a", "job", "api", "version", "1").alive(-80*minute, -10129, 4871).and(
			scraped(15*second, 4871, one).alive(19_871, 60*minute)),
		scraped(15*second, 4871, one, "__name__", "up", "instance", "a", "job", "api"),
		scraped(15*second, 0, func(n int64) float64 { return float64(min(n%40, 1)) }, "__name__", "up", "instance", "b", "job", "api"),

		edge("ended long before").alive(-80*minute, -6*minute, -6*minute+4871),
		edge("ended before").alive(-80*minute, -25_129, -10_129),
		edge("ends before").alive(-80*minute, -10_129, 4871),
		edge("ends before, marked before").alive(-80*minute, -10_129, -1),
		edge("ends before, marked at").alive(-80*minute, -10_129, 0),
		edge("ends before, marked after").alive(-80*minute, -10_129, 1),
		edge("ends after").alive(-80*minute, 4871, 19_871),
		edge("ends later").alive(-80*minute, 49_871, 64_871),
		edge("begins before").alive(-10_129, 60*minute),
		edge("begins after").alive(4871, 60*minute),
		edge("begins later").alive(34_871, 60*minute),
		edge("vanishes").alive(-80*minute, -10_129),
		edge("is away").alive(-80*minute, -40_129, -25_129).and(edge("").alive(49_871, 60*minute)),
		edge("is short").alive(-25_129, 19_871, 34_871),
		sharp("at, ends before").alive(-80*minute, -15*second, 0),
		sharp("at, ends at").alive(-80*minute, 0, 15*second),
		sharp("at, begins at").alive(0, 60*minute),
		sharp("at, begins before").alive(-15*second, 60*minute),
	}
	all = append(all, latencies())
	slices.SortFunc(all, func(a, b seamSeries) int { return labels.Compare(a.labels, b.labels) })
	return all
}

// latencies is a native histogram that falls once, at a scrape after the seam.
func latencies() seamSeries {
	s := scraped(15*second, 4871, func(n int64) float64 { return float64(n) }, "__name__", "latency_seconds", "instance", "a")
	for i := range s.samples {
		n := int64(i)
		if s.samples[i].t > seam+30*second {
			n -= 300
		}
		s.samples[i].h = tsdbutil.GenerateTestHistogram(n)
	}
	return s
}
