//go:build unix

package evidence

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/servergroup/backendtest"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/lifetime"
	"github.com/oneprom/oneprom/servergroup/replica"
	"github.com/oneprom/oneprom/servergroup/targets"
)

const (
	fleetTargets = 10_000
	fleetKinds   = 200                    // kinds of targets: those of a kind are scraped at the same moments
	fleetNow     = 20*24*hour + 20*minute // in the middle of a slice
	fleetDay     = 25 * hour              // how much there is before
)

// fleet is a pair of replicas in this process, of 10,000 targets that are scraped every
// 15 s. It keeps the answers that it has given, so that the second costs nothing.
type fleet struct {
	other   http.Handler // answers what is not of samples or of labels
	lookups map[string][]byte
	kinds   [2][fleetKinds][]prompb.Chunk

	mtx     sync.Mutex
	answers map[string][]byte
	bytes   atomic.Int64 // of the answers that were given
}

// newFleet makes a fleet on an ordinary day: in each replica three targets in a hundred
// lose four scrapes an hour, and the second is away for five minutes, six hours ago.
func newFleet(tb testing.TB) *fleet {
	f := &fleet{
		other:   backendtest.NewHandler(backendtest.Options{Queryable: backendtest.Empty{}}),
		answers: map[string][]byte{},
	}
	instances := make([]string, fleetTargets)
	for i := range instances {
		instances[i] = fleetInstance(i)
	}
	f.lookups = map[string][]byte{
		"/api/v1/label/instance/values": fleetJSON(tb, instances),
		"/api/v1/label/job/values":      fleetJSON(tb, []string{"node"}),
		"/api/v1/series":                fleetJSON(tb, []string{}),
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for r := range f.kinds {
		for k := range f.kinds[r] {
			shift := int64(k)*15_000/fleetKinds + int64(r)*7_000
			lost := 0.0
			if k%33 == 11*r {
				lost = 4.0 / 240
			}
			f.kinds[r][k] = fleetChunks(tb, rnd, shift, func(t int64) bool {
				away := r == 1 && t > fleetNow-6*hour && t < fleetNow-6*hour+5*minute
				return !away && rnd.Float64() >= lost
			})
		}
	}
	return f
}

func fleetInstance(i int) string { return fmt.Sprintf("10.0.%03d.%03d:9100", i/250, i%250) }

func fleetJSON(tb testing.TB, data any) []byte {
	out, err := json.Marshal(map[string]any{"status": "success", "data": data})
	require.NoError(tb, err)
	return out
}

// fleetChunks are the chunks of a target's `up`, of 120 samples each. One scrape in
// ten is some milliseconds late, the others are on time, as Prometheus writes them.
func fleetChunks(tb testing.TB, rnd *rand.Rand, shift int64, scraped func(t int64) bool) []prompb.Chunk {
	run := &dedup.Samples{}
	for t := fleetNow - fleetDay + shift; t <= fleetNow; t += 15_000 {
		if scraped(t) {
			late := int64(0)
			if rnd.IntN(10) == 0 {
				late = rnd.Int64N(8)
			}
			run.Append(0, min(t+late, fleetNow), 1)
		}
	}
	var out []prompb.Chunk
	for i := 0; i < run.Len(); i += 120 {
		c := xorRun(tb, run.Between(run.T[i], run.T[min(i+120, run.Len())-1])).(dedup.Chunks)[0]
		out = append(out, prompb.Chunk{MinTimeMs: c.MinT, MaxTimeMs: c.MaxT, Type: prompb.Chunk_XOR, Data: c.Data})
	}
	return out
}

// RoundTrip implements http.RoundTripper.
func (f *fleet) RoundTrip(r *http.Request) (*http.Response, error) {
	if known, ok := f.lookups[r.URL.Path]; ok {
		return f.answer("application/json", known), nil
	}
	if r.URL.Path == "/api/v1/read" {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		known, err := f.read(r.URL.Host, body)
		return f.answer("application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse", known), err
	}
	w := httptest.NewRecorder()
	f.other.ServeHTTP(w, r)
	return w.Result(), nil
}

func (f *fleet) answer(contentType string, body []byte) *http.Response {
	f.bytes.Add(int64(len(body)))
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {contentType}}, Body: io.NopCloser(bytes.NewReader(body))}
}

// read answers a remote read of one of the replicas.
func (f *fleet) read(host string, body []byte) ([]byte, error) {
	text, err := snappy.Decode(nil, body)
	if err != nil {
		return nil, err
	}
	var req prompb.ReadRequest
	if err := req.Unmarshal(text); err != nil {
		return nil, err
	}
	f.mtx.Lock()
	defer f.mtx.Unlock()
	key := host + string(text)
	if _, ok := f.answers[key]; !ok {
		replica := 0
		if host == "b" {
			replica = 1
		}
		if f.answers[key], err = f.frames(replica, req.Queries[0]); err != nil {
			return nil, err
		}
	}
	return f.answers[key], nil
}

// frames are the samples of a replica in the window of a query, a frame for each
// series; none for another metric than `up`.
func (f *fleet) frames(replica int, q *prompb.Query) ([]byte, error) {
	var out bytes.Buffer
	if q.Matchers[0].Value != "up" {
		return nil, nil
	}
	w := remote.NewChunkedWriter(&out, nil)
	for i := range fleetTargets {
		series := &prompb.ChunkedSeries{Labels: []prompb.Label{
			{Name: "__name__", Value: "up"}, {Name: "instance", Value: fleetInstance(i)}, {Name: "job", Value: "node"}, {Name: "zone", Value: fmt.Sprint("eu-", i%3)},
		}}
		for _, c := range f.kinds[replica][i%fleetKinds] {
			if c.MinTimeMs <= q.EndTimestampMs && c.MaxTimeMs >= q.StartTimestampMs {
				series.Chunks = append(series.Chunks, c)
			}
		}
		frame, err := (&prompb.ChunkedReadResponse{ChunkedSeries: []*prompb.ChunkedSeries{series}}).Marshal()
		if err != nil {
			return nil, err
		}
		if _, err := w.Write(frame); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}

// groupView is a group of the fleet's replicas, which nothing is known of.
func (f *fleet) group(tb testing.TB, now func() time.Time) Group {
	cfg := config.DefaultGroup
	cfg.Name = "fleet"
	life := lifetime.New()
	tb.Cleanup(life.End)
	logger := slog.New(slog.DiscardHandler)
	registry := replica.NewRegistry(replica.RegistryOptions{Life: life, Now: now, Logger: logger}, replica.NewMetrics(prometheus.NewRegistry()))
	g := Group{Config: &cfg}
	for _, host := range []string{"a", "b"} {
		g.Replicas = append(g.Replicas, registry.NewReplica(replica.Group{Config: &cfg, Client: &http.Client{Transport: f}, Logger: logger}, targets.Endpoint{URL: &url.URL{Scheme: "http", Host: host}}))
	}
	return g
}

// fleetQuery is a query over some time until now.
type fleetQuery struct {
	clock  clock
	group  Group
	cache  Cache
	length int64 // ms
	metric int   // of many that all targets have
}

func (q *fleetQuery) selector() []*labels.Matcher {
	return []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, labels.MetricName, fmt.Sprint("metric_", q.metric))}
}

// learn asks for evidence, however long it takes.
func (q *fleetQuery) learn(b *testing.B) {
	now := q.clock.ms.Load()
	sh, err := q.cache.Show(b.Context(), q.group, q.selector(), now-q.length, now, now, 0)
	require.NoError(b, err)
	require.Empty(b, sh.Unavailable)
	require.Empty(b, sh.Failed)
	require.Equal(b, fleetTargets, sh.Targets)
}

// choose chooses the replicas of a query that sees as much.
// BenchmarkEvidence_10000 is what a query on a pair of 10,000 targets takes to know
// what its replicas missed: with nothing known (cold), with all known (warm), with all known but of
// which targets the metric is (another), where the newest slice must be asked for again,
// as by each query that reaches until now (recent), and that slice alone for twenty of
// these, a millisecond apart (dashboard).
func BenchmarkEvidence_10000(b *testing.B) {
	f := newFleet(b)
	for _, length := range []int64{hour, 24 * hour} {
		q := &fleetQuery{length: length}
		q.clock.ms.Store(fleetNow)
		q.group = f.group(b, q.clock.now)
		bench := func(name string, one func(b *testing.B)) {
			b.Run(fmt.Sprintf("%dh/%s", length/hour, name), func(b *testing.B) {
				q.learn(b) // and f its answers
				f.bytes.Store(0)
				before := processorTime(b)
				for b.Loop() {
					one(b)
				}
				b.ReportMetric(float64((processorTime(b)-before).Microseconds())/1e3/float64(b.N), "cpu-ms/op")
				b.ReportMetric(float64(f.bytes.Load())/1e6/float64(b.N), "fetched-MB/op")
			})
		}
		bench("cold", func(b *testing.B) {
			q.cache.history = nil
			q.learn(b)
		})
		bench("warm", q.learn)
		bench("another", func(b *testing.B) {
			q.metric++
			q.learn(b)
		})
		bench("recent", func(b *testing.B) {
			q.clock.ms.Add(1)
			q.learn(b)
		})
		bench("dashboard", func(b *testing.B) {
			var fetches []*sliceFetch
			for range 20 {
				now := q.clock.ms.Add(1)
				fetches = append(fetches, q.cache.history.claim(make([]*sliceScrapes, 1), sliceBegin(now), now)...)
			}
			for _, f := range fetches {
				<-f.done
				require.NoError(b, f.err)
			}
		})
		b.Run(fmt.Sprintf("%dh/kept", length/hour), func(b *testing.B) {
			for b.Loop() {
				q.learn(b)
			}
			h := q.cache.history
			with := heap()
			b.ReportMetric(float64(h.slices.Bytes())/float64(h.slices.Len()), "B/slice")
			b.ReportMetric(float64(h.lookups.Bytes())/float64(h.lookups.Len()), "B/lookup")
			b.ReportMetric(float64(h.table.size()), "B/table")
			h, q.cache.history = nil, nil
			b.ReportMetric(float64(with-heap()), "B/heap")
		})
	}
}

// heap is how many bytes are in use.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// processorTime is how long the process has computed: on a machine that others use it
// tells more than the time that has gone by.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
