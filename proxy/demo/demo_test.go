package demo

import (
	"bytes"
	"context"
	"math"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// handClock is a clock that stands still until it is told to go on.
type handClock struct {
	mu    sync.Mutex
	t     time.Time
	ticks chan time.Time
}

func newHandClock() *handClock {
	return &handClock{t: time.Date(2026, 3, 10, 12, 0, 7, 0, time.UTC), ticks: make(chan time.Time)}
}

func (c *handClock) clock() clock { return clock{now: c.now, ticks: c.ticks} }

func (c *handClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *handClock) goOn(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// emptyTemp makes the directory for temporary files an empty one.
func emptyTemp(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	return dir
}

func requireEmpty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries)
}

// shown hands over what is written.
type shown chan string

func (s shown) Write(p []byte) (int, error) {
	s <- string(p)
	return len(p), nil
}

func TestRun_ShowsServesGoesOnAndLeavesNothing(t *testing.T) {
	temp := emptyTemp(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c, out, ended := newHandClock(), make(shown), make(chan error, 1)
	go func() { ended <- run(ctx, out, taken.Addr().String(), c.clock()) }()

	var text string
	select {
	case text = <-out:
	case err := <-ended:
		require.FailNow(t, "ended early", "%v", err)
	}
	require.Contains(t, text, taken.Addr().String()+" is taken")
	require.Contains(t, text, "    server_groups:\n      - name: eu\n")
	url := regexp.MustCompile(`(?m)^oneprom:  (http://127\.0\.0\.1:\d+)$`).FindStringSubmatch(text)[1]
	require.Contains(t, text, "Grafana:  data source of type Prometheus, URL "+url+"\n")
	require.Contains(t, text, "curl -s "+url+"/api/v1/query")
	require.Regexp(t, `(?m)^count\(up\) +12 +5 +12 += `, text)
	require.NotContains(t, text, "oneprom warns")
	dirs, err := os.ReadDir(temp)
	require.NoError(t, err)
	require.Len(t, dirs, 1)

	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	c.goOn(3 * interval) // as after a short sleep of the machine
	for range 2 {        // the second is taken once the first has been served
		select {
		case c.ticks <- c.now():
		case err := <-ended:
			require.FailNow(t, "ended early", "%v", err)
		}
	}
	got, err := ask(ctx, client, url, `sum(count_over_time(up{region="us",job="api"}[45s]))`, c.now().Truncate(interval))
	require.NoError(t, err)
	require.Equal(t, "12", show(got.vector), "4 targets, 3 new scrapes")

	cancel()
	require.NoError(t, <-ended)
	requireEmpty(t, temp)
}

func TestRun_EndsWhileItStarts(t *testing.T) {
	temp := emptyTemp(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out bytes.Buffer
	require.NoError(t, run(ctx, &out, "127.0.0.1:0", newHandClock().clock()))
	require.Empty(t, out.String())
	requireEmpty(t, temp)
}

func TestRun_AddressMakesNoSense(t *testing.T) {
	temp := emptyTemp(t)
	require.ErrorContains(t, run(t.Context(), &bytes.Buffer{}, "127.0.0.1", newHandClock().clock()), "missing port")
	requireEmpty(t, temp)
}

func TestRows_OnepromEqualsTheTruthAndTheReplicaDoesNot(t *testing.T) {
	emptyTemp(t)
	d := &demo{client: &http.Client{Transport: &http.Transport{}}}
	defer func() { require.NoError(t, d.stop()) }()
	require.NoError(t, d.start(t.Context(), "127.0.0.1:0", newHandClock().clock()))
	rows, err := d.compare(t.Context())
	require.NoError(t, err)
	require.Len(t, rows, len(questions))
	for _, r := range rows {
		require.NotEmpty(t, r.truth.vector, r.query)
		require.Empty(t, r.oneprom.warnings, r.query)
		require.Greater(t, math.Abs(deviation(r.truth.vector, r.alone.vector)), 0.05, "%s: the replica alone is right", r.query)
		bound := 0.005 // what half a scrape interval may make
		if r.clockFree {
			bound = tolerance
		}
		require.LessOrEqual(t, math.Abs(deviation(r.truth.vector, r.oneprom.vector)), bound, "%s: %s instead of %s",
			r.query, show(r.oneprom.vector), show(r.truth.vector))
	}
	var b strings.Builder
	require.NoError(t, writeTable(&b, rows, d.world.end))
	t.Log(b.String())
}
