package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/proxy"
	"github.com/oneprom/oneprom/servergroup/backendtest"
)

var seamTransports = []backendtest.RemoteRead{backendtest.Streamed, backendtest.SamplesOnly, backendtest.NoRemoteRead}

// seamRig is what all cases of the seam run on. Handlers and a oneprom are dear to
// make, so the cases change their data and their configuration.
type seamRig struct {
	recent   []*seamBackend
	archives map[backendtest.RemoteRead]*seamBackend
	truth    http.Handler // one Prometheus with all that is held
	whole    *seamBackend // behind truth
	server   *proxy.Server
	file     string // its configuration
	parts    bool   // whether there may be parts: names are removed at once
}

// startSeamRig starts what the cases run on. parts reports whether names of metrics are removed at once,
// as Prometheus does by default: only then are there parts and stretches.
func startSeamRig(t *testing.T, parts bool) *seamRig {
	t.Helper()
	rig := &seamRig{archives: map[backendtest.RemoteRead]*seamBackend{}, whole: &seamBackend{}, parts: parts}
	rig.whole.serve(backendtest.Empty{})
	rig.truth = backendtest.NewHandler(backendtest.Options{Queryable: &rig.whole.splitBackend, EarlyNames: parts})
	for _, replica := range []string{"a", "b"} {
		rig.recent = append(rig.recent, startSeamBackend(t, parts, backendtest.Streamed, labels.FromStrings("cluster", "new", "replica", replica)))
	}
	for _, read := range seamTransports {
		rig.archives[read] = startSeamBackend(t, parts, read, labels.FromStrings("cluster", "old", "store", "s3"))
	}
	rig.file = filepath.Join(t.TempDir(), "oneprom.yml")
	require.NoError(t, os.WriteFile(rig.file, nil, 0o600))
	rig.configure(t, seamCases()[0], backendtest.Streamed, "warn")
	return rig
}

// load gives a case's data to the backends until the test ends.
func (rig *seamRig) load(t *testing.T, c seamCase) {
	t.Helper()
	serve := func(data storage.SampleAndChunkQueryable, backends ...*seamBackend) {
		for _, b := range backends {
			b.serve(data)
			t.Cleanup(func() { b.serve(backendtest.Empty{}) })
		}
	}
	copies := []seamCopy{{}}
	if c.pair {
		copies = []seamCopy{{replica: "a"}, {replica: "b", shift: seamShift}}
		serve(openSeamStore(t, c.recent.held, seamCopy{shift: seamShift}), rig.recent[1])
	}
	serve(openSeamStore(t, c.recent.held, seamCopy{}), rig.recent[0])
	archive := openSeamStore(t, c.archive.held, copies...)
	for _, b := range rig.archives {
		serve(archive, b)
	}
	serve(openSeamStore(t, c.held, seamCopy{}), rig.whole)
}

// configure makes oneprom ask both sides of a case, the archive in one way. Its
// clock stands still.
func (rig *seamRig) configure(t *testing.T, c seamCase, read backendtest.RemoteRead, partial string) {
	t.Helper()
	recent := "'" + rig.recent[0].address + "'"
	if c.pair {
		recent += ", '" + rig.recent[1].address + "'"
	}
	groups := []string{
		fmt.Sprintf("  - {name: recent, time_range: %s, static_configs: [{targets: [%s]}]}\n", c.recent.timeRange, recent),
		fmt.Sprintf("  - {name: archive, time_range: %s, replica_labels: [replica], static_configs: [{targets: ['%s']}]}\n",
			c.archive.timeRange, rig.archives[read].address),
	}
	if c.archiveFirst {
		groups[0], groups[1] = groups[1], groups[0]
	}
	text := "global: {partial_response: " + partial + "}\nserver_groups:\n" + groups[0] + groups[1]
	require.NoError(t, os.WriteFile(rig.file, []byte(text), 0o600))
	if rig.server != nil {
		require.NoError(t, rig.server.Reload(t.Context()))
		return
	}
	var o proxy.Options
	app := kingpin.New("oneprom", "")
	proxy.AddFlags(app, &o)
	features := "promql-experimental-functions,promql-extended-range-selectors"
	if !rig.parts {
		features += ",promql-delayed-name-removal"
	}
	_, err := app.Parse([]string{"--config.file=" + rig.file, "--web.listen-address=127.0.0.1:0", "--enable-feature=" + features})
	require.NoError(t, err)
	o.Now = func() time.Time { return seamNow }
	rig.server, err = proxy.New(o)
	require.NoError(t, err)
	require.NoError(t, rig.server.Start(t.Context()))
	t.Cleanup(func() { require.NoError(t, rig.server.Stop(context.Background())) })
}

// seamBackend is a backend whose data changes and that remembers what it is asked.
type seamBackend struct {
	splitBackend
	log  sync.Mutex // guards ends
	ends []int64    // of the times (ms) that samples were asked for
}

func startSeamBackend(t *testing.T, parts bool, read backendtest.RemoteRead, external labels.Labels) *seamBackend {
	t.Helper()
	b := &seamBackend{}
	b.serve(backendtest.Empty{})
	handler := backendtest.NewHandler(backendtest.Options{Queryable: &b.splitBackend, RemoteRead: read, ExternalLabels: external, EarlyNames: parts})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.mu.RLock()
		defer b.mu.RUnlock()
		b.note(r)
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	b.address = strings.TrimPrefix(server.URL, "http://")
	return b
}

// note remembers up to when a request asks for samples. The steps of range queries
// are not noted: they tell where series end.
func (b *seamBackend) note(r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client went away
	}
	copied := r.Clone(r.Context())
	r.Body, copied.Body = io.NopCloser(bytes.NewReader(body)), io.NopCloser(bytes.NewReader(body))
	b.log.Lock()
	defer b.log.Unlock()
	switch r.URL.Path {
	case "/api/v1/read":
		req, err := remote.DecodeReadRequest(copied)
		if err != nil {
			return
		}
		for _, q := range req.Queries {
			b.ends = append(b.ends, q.EndTimestampMs)
		}
	case "/api/v1/query":
		at, err := strconv.ParseFloat(copied.FormValue("time"), 64)
		if err != nil {
			at = math.Inf(1)
		}
		b.ends = append(b.ends, int64(math.Round(at*1000)))
	}
}

func (b *seamBackend) asked() []int64 {
	b.log.Lock()
	defer b.log.Unlock()
	return b.ends
}

func (b *seamBackend) forget() {
	b.log.Lock()
	defer b.log.Unlock()
	b.ends = nil
}

// seamShift (ms) is how much later than the first the second of a pair scrapes.
const seamShift = 7*second + 3

// seamCopy is one copy of every series in a store.
type seamCopy struct {
	replica string // value of the label `replica`; empty: no such label
	shift   int64  // ms by which its scrapes are later
}

// openSeamStore opens a store that holds the samples that held says, in the
// copies given, until the test ends.
func openSeamStore(t *testing.T, held func(ms int64) bool, copies ...seamCopy) storage.SampleAndChunkQueryable {
	t.Helper()
	db, err := backendtest.OpenDB(t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	app := db.AppenderV2(t.Context())
	for _, s := range seamWorld() {
		for _, c := range copies {
			lset := labels.NewBuilder(s.labels).Set("replica", c.replica).Labels()
			for _, p := range s.samples {
				if !held(p.t + c.shift) {
					continue
				}
				_, err := app.Append(0, lset, 0, p.t+c.shift, p.v, p.h, nil, storage.AOptions{})
				require.NoError(t, err)
			}
		}
	}
	require.NoError(t, app.Commit())
	return db
}
