package servergroup

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/replica"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// pastServer tells what it keeps as a test says.
type pastServer struct {
	http.Handler
	started, blocks, metrics atomic.Pointer[string] // "" is refused, and 503 a passing failure
}

// say sets what it tells.
func (p *pastServer) say(started, blocks, metrics string) {
	p.started.Store(&started)
	p.blocks.Store(&blocks)
	p.metrics.Store(&metrics)
}

func (p *pastServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var said string
	switch r.URL.Path {
	default:
		p.Handler.ServeHTTP(w, r)
		return
	case "/api/v1/status/runtimeinfo":
		if said = *p.started.Load(); said != "" {
			said = fmt.Sprintf(`{"status":"success","data":{"startTime":%q}}`, said)
		}
	case "/api/v1/status/tsdb/blocks":
		if said = *p.blocks.Load(); said != "" {
			said = `{"status":"success","data":{"blocks":[` + strings.TrimSpace(said) + `]}}`
		}
	case "/metrics":
		said = *p.metrics.Load()
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	}
	switch {
	case said == "":
		http.Error(w, "404 page not found", http.StatusNotFound)
	case strings.Contains(said, "503"):
		http.Error(w, "busy", http.StatusServiceUnavailable)
	case r.URL.Path == "/metrics":
		_, _ = w.Write([]byte(said))
	default:
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(said))
	}
}

// blockJSON is a block as a Prometheus tells it. The letters of its ID are the blocks that it was made of.
func blockJSON(id string, from, to, tombstones int) string {
	sources := `"` + strings.Join(strings.Split(id, ""), `","`) + `"`
	return fmt.Sprintf(`{"ulid":%q,"minTime":%d,"maxTime":%d,"stats":{"numSamples":7,"numTombstones":%d},"compaction":{"level":1,"sources":[%s]}}`, id, from, to, tombstones, sources)
}

// TestPast_Generations: what a server tells of its samples shows that it may have lost some.
func TestPast_Generations(t *testing.T) {
	backend := overridden(t, "load 15s\n foo 1x3")
	a, b, c := blockJSON("A", 0, 20, 0), blockJSON("B", 20, 40, 0), blockJSON("C", 40, 60, 0)
	for name, row := range map[string]struct {
		before, after [3]string // runtimeinfo, blocks, metrics
		age           time.Duration
		want          uint64
	}{
		"nothing changes":             {[3]string{"x", a + "," + b, ""}, [3]string{"x", a + "," + b, ""}, 0, 0},
		"a new block":                 {[3]string{"x", a, ""}, [3]string{"x", a + "," + b, ""}, 0, 0},
		"the first block":             {[3]string{"x", " ", ""}, [3]string{"x", a, ""}, 0, 0},
		"a block was back-filled":     {[3]string{"x", b + "," + c, ""}, [3]string{"x", a + "," + b + "," + c, ""}, 0, 1},
		"late samples make a block":   {[3]string{"x", a + "," + b, ""}, [3]string{"x", a + "," + b + "," + blockJSON("L", 20, 40, 0), ""}, 0, 1},
		"they are compacted":          {[3]string{"x", a + "," + b, ""}, [3]string{"x", a + "," + blockJSON("BL", 20, 40, 0), ""}, 0, 1},
		"they were known":             {[3]string{"x", a + "," + blockJSON("BL", 20, 40, 0), ""}, [3]string{"x", blockJSON("ABL", 0, 40, 0), ""}, 0, 0},
		"blocks are compacted":        {[3]string{"x", a + "," + b, ""}, [3]string{"x", blockJSON("AB", 0, 40, 0) + "," + c, ""}, 0, 0},
		"tombstones are cleaned":      {[3]string{"x", blockJSON("A", 0, 20, 3), ""}, [3]string{"x", blockJSON("A", 0, 20, 0), ""}, 0, 0},
		"another process":             {[3]string{"x", a, ""}, [3]string{"y", a, ""}, 0, 1},
		"retention":                   {[3]string{"x", a + "," + b, ""}, [3]string{"x", b, ""}, 0, 1},
		"a block in the middle":       {[3]string{"x", a + "," + b + "," + c, ""}, [3]string{"x", c + "," + a, ""}, 0, 1},
		"the end of a block":          {[3]string{"x", a + "," + b, ""}, [3]string{"x", a + "," + blockJSON("B", 20, 39, 0), ""}, 0, 1},
		"all blocks":                  {[3]string{"x", a, ""}, [3]string{"x", " ", ""}, 0, 1},
		"a deletion":                  {[3]string{"x", a + "," + b, ""}, [3]string{"x", a + "," + blockJSON("B", 20, 40, 1), ""}, 0, 1},
		"the lowest time stays":       {[3]string{"x", "", "# HELP\nprometheus_tsdb_lowest_timestamp 1e+12\n"}, [3]string{"x", "", "prometheus_tsdb_lowest_timestamp 1e+12\n"}, 0, 0},
		"the lowest time falls":       {[3]string{"x", "", "prometheus_tsdb_lowest_timestamp 1e+12\n"}, [3]string{"x", "", "prometheus_tsdb_lowest_timestamp 9e+11\n"}, 0, 1},
		"no samples are left":         {[3]string{"x", "", "prometheus_tsdb_lowest_timestamp 1e+12\n"}, [3]string{"x", "", "prometheus_tsdb_lowest_timestamp 9.223372036854776e+18\n"}, 0, 1},
		"the lowest time rises":       {[3]string{"x", "", "prometheus_tsdb_lowest_timestamp 1e+12\n"}, [3]string{"x", "", "other 1\nprometheus_tsdb_lowest_timestamp 1.1e+12\n"}, 0, 1},
		"passing failures":            {[3]string{"x", a + "," + b, ""}, [3]string{"503", "503", "503"}, 0, 0},
		"nothing is told":             {[3]string{"", "", ""}, [3]string{"", "", ""}, time.Minute, 0},
		"nothing is told for long":    {[3]string{"", "", ""}, [3]string{"", "", ""}, 5 * time.Minute, 1},
		"a start is told, after long": {[3]string{"x", "", ""}, [3]string{"x", "", ""}, 5 * time.Minute, 0},
		"nothing is told any more":    {[3]string{"x", a, ""}, [3]string{"", a, ""}, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			srv := &pastServer{Handler: backend}
			srv.say(row.before[0], row.before[1], row.before[2])
			s, clock := setAt(t, groupOf("a", serve(t, srv)))
			r := firstReplica(s)
			_, err := r.Ready(t.Context())
			require.NoError(t, err)
			require.Zero(t, r.Generation())
			srv.say(row.after[0], row.after[1], row.after[2])
			clock.ms.Add(row.age.Milliseconds())
			reprobe(s, clock)
			require.Equal(t, row.want, r.Generation())
		})
	}
}

// TestPast_Confirm: only a new connection makes it ask, and in doubt it does not confirm.
func TestPast_Confirm(t *testing.T) {
	srv := &pastServer{Handler: overridden(t, "load 15s\n foo 1x3")}
	const x, y, busy = "x", "y", "503"
	srv.say(x, "", "")
	h := serve(t, srv)
	s, _ := setAt(t, groupOf("a", h))
	r := firstReplica(s)
	_, err := r.Ready(t.Context())
	require.NoError(t, err)
	require.Eventually(t, func() bool { // what the data shows may still be looked up, by new connections
		srv.say(x, "", "")
		require.NoError(t, r.Confirm(t.Context(), 0))
		srv.say(busy, "", "") // it would not confirm, but is not asked
		return r.Confirm(t.Context(), 0) == nil
	}, 10*time.Second, time.Millisecond)
	h.CloseClientConnections()
	var loss *replica.LossError
	require.Eventually(t, func() bool { // some request opens a connection
		_, _ = r.Ready(t.Context())
		_ = r.Alive(t.Context())
		return r.Confirm(t.Context(), 0) != nil
	}, 10*time.Second, time.Millisecond)
	require.ErrorAs(t, r.Confirm(t.Context(), 0), &loss)
	require.Zero(t, r.Generation(), "in doubt, nothing is lost for good")
	srv.say(x, "", "")
	require.NoError(t, r.Confirm(t.Context(), 0))

	srv.say(y, "", "")
	h.CloseClientConnections()
	require.Eventually(t, func() bool {
		_ = r.Alive(t.Context())
		return r.Confirm(t.Context(), 0) != nil
	}, 10*time.Second, time.Millisecond)
	require.EqualValues(t, 1, r.Generation())
	require.Error(t, r.Confirm(t.Context(), 0))
	require.NoError(t, r.Confirm(t.Context(), 1))
}

// TestPast_OfStores: a store, or another oneprom, may be several processes with the same samples.
func TestPast_OfStores(t *testing.T) {
	srv := &pastServer{Handler: overridden(t, "load 15s\n foo 1x3")}
	srv.say("x", "", "")
	cfg := groupOf("a", serve(t, srv))
	cfg.Kind = transport.Thanos
	s, clock := setAt(t, cfg)
	r := firstReplica(s)
	_, err := r.Ready(t.Context())
	require.NoError(t, err)
	srv.say("y", "", "")
	reprobe(s, clock)
	require.Zero(t, r.Generation())
	require.NoError(t, r.Confirm(t.Context(), 0))
}
