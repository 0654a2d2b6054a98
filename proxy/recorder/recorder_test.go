package recorder

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	upstream "github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/oneprom/oneprom/servergroup/backendtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// soon is how long a test waits for what happens at once.
const soon = 30 * time.Second

// receiver counts how often it has been sent each sample.
type receiver struct {
	*httptest.Server
	refuses atomic.Bool // what it is sent, for now

	mtx  sync.Mutex
	seen map[string]map[int64]int // by name and time
}

func newReceiver(t *testing.T) *receiver {
	rc := &receiver{seen: map[string]map[int64]int{}}
	rc.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rc.refuses.Load() {
			http.Error(w, "away", http.StatusServiceUnavailable)
			return
		}
		req, err := remote.DecodeWriteRequest(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		rc.mtx.Lock()
		defer rc.mtx.Unlock()
		for _, ts := range req.Timeseries {
			for _, l := range ts.Labels {
				if l.Name != labels.MetricName {
					continue
				}
				if rc.seen[l.Value] == nil {
					rc.seen[l.Value] = map[int64]int{}
				}
				for _, s := range ts.Samples {
					rc.seen[l.Value][s.Timestamp]++
				}
			}
		}
	}))
	t.Cleanup(rc.Close)
	return rc
}

// times returns how often a sample was sent.
func (rc *receiver) times(name string, at int64) int {
	rc.mtx.Lock()
	defer rc.mtx.Unlock()
	return rc.seen[name][at]
}

// total returns how many samples with a name were sent.
func (rc *receiver) total(name string) (n int) {
	rc.mtx.Lock()
	defer rc.mtx.Unlock()
	for _, times := range rc.seen[name] {
		n += times
	}
	return n
}

// bench is a recorder that writes to receivers.
type bench struct {
	*Recorder
	path   string
	reg    *prometheus.Registry
	logged *backendtest.Log
	last   atomic.Int64 // time of what was recorded
}

// newBench starts a recorder with a configuration of remote_write.
func newBench(t *testing.T, targets string) *bench {
	t.Helper()
	b := &bench{path: t.TempDir(), reg: prometheus.NewRegistry(), logged: &backendtest.Log{}}
	b.Recorder = New(Options{Logger: slog.New(slog.NewTextHandler(b.logged, nil)), Registerer: b.reg, Path: b.path, FlushDeadline: time.Second})
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	_, err := b.Open()
	require.NoError(t, err)
	cfg, err := upstream.Load("remote_write: "+targets, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	require.NoError(t, b.Apply(cfg))
	return b
}

// record records a sample of now of each of n series with a name, each time at another millisecond.
func (b *bench) record(t *testing.T, name string, n int) (at int64, err error) {
	t.Helper()
	for {
		last := b.last.Load()
		if at = max(time.Now().UnixMilli(), last+1); b.last.CompareAndSwap(last, at) {
			break
		}
	}
	return at, b.recordAt(t, name, n, at)
}

func (b *bench) recordAt(t *testing.T, name string, n int, at int64) error {
	t.Helper()
	app := b.Appender(t.Context())
	for i := range n {
		if _, err := app.Append(0, labels.FromStrings(labels.MetricName, name, "i", strconv.Itoa(i)), at, 1); err != nil {
			return errors.Join(err, app.Rollback())
		}
	}
	return app.Commit()
}

// recordUntilSent records samples until one has arrived: remote write leaves out those from before it
// has begun to read.
func (b *bench) recordUntilSent(t *testing.T, name string, rc *receiver) {
	t.Helper()
	require.Eventually(t, func() bool {
		at, err := b.record(t, name, 1)
		require.NoError(t, err)
		for range 20 {
			if rc.times(name, at) > 0 {
				return true
			}
			time.Sleep(time.Millisecond)
		}
		return false
	}, soon, time.Millisecond)
}

// TestRecorder_Stalled: a target that takes nothing has stalled, and is told without its secrets. One that
// drops everything has not, and nobody is asked for what was recorded before it was there.
func TestRecorder_Stalled(t *testing.T) {
	t.Parallel()
	rc, away := newReceiver(t), newReceiver(t)
	away.refuses.Store(true)
	const quick = "queue_config: {batch_send_deadline: 5ms, min_backoff: 5ms, max_backoff: 5ms}"
	const drop = "write_relabel_configs: [{source_labels: [__name__], regex: a, action: drop}]"
	b := newBench(t, fmt.Sprintf(`
  - {name: takes, url: '%[1]s', %[3]s}
  - {name: drops, url: '%[1]s', %[4]s, %[3]s}
  - {name: away, url: '%[2]s/?key=hunter2', %[3]s}
  - {name: away and drops, url: '%[2]s', %[4]s, %[3]s}`, rc.URL, away.URL, quick, drop))
	b.recordUntilSent(t, "a", rc)
	start := time.UnixMilli(b.last.Load())
	require.Empty(t, b.Stalled(start))

	// recorded has a sample of a recorded, and waits until the targets that take or drop it have done so.
	recorded := func(at time.Time) {
		t.Helper()
		before := b.queues()
		require.NoError(t, b.recordAt(t, "a", 1, at.UnixMilli()))
		require.Eventually(t, func() bool {
			b.remote.Notify() // as that of the appender may have come too early
			now := b.queues()
			return now[target{"takes", rc.URL}].sent == float64(at.Unix()) &&
				now[target{"drops", rc.URL}].dropped > before[target{"drops", rc.URL}].dropped &&
				now[target{"away and drops", away.URL}].dropped > before[target{"away and drops", away.URL}].dropped
		}, soon, time.Millisecond, b.logged)
	}
	recorded(start.Add(time.Minute))
	require.Empty(t, b.Stalled(start.Add(time.Minute)))
	require.Empty(t, b.Stalled(start.Add(Patience)), "it was recorded less long ago")
	behind := Stalled{"away", away.URL + "/?<secret>", time.Minute}
	require.Equal(t, []Stalled{behind}, b.Stalled(start.Add(time.Minute+Patience)))

	require.NoError(t, b.recordAt(t, "kept", 1, start.Add(2*time.Minute).UnixMilli()))
	require.Eventually(t, func() bool {
		b.remote.Notify()
		now, kept := b.queues(), float64(start.Add(2*time.Minute).Unix())
		return now[target{"away and drops", away.URL}].taken == kept && now[target{"drops", rc.URL}].sent == kept
	}, soon, time.Millisecond, b.logged)
	recorded(start.Add(11 * time.Minute))
	require.Len(t, b.Stalled(start.Add(11*time.Minute)), 1)
	behind.Behind = 11 * time.Minute
	require.Equal(t, []Stalled{behind, {"away and drops", away.URL, 10 * time.Minute}}, b.Stalled(start.Add(11*time.Minute+Patience)))

	away.refuses.Store(false)
	require.Eventually(t, func() bool { return len(b.Stalled(start.Add(12*time.Minute+Patience))) == 0 }, soon, time.Millisecond, b.logged)
}
