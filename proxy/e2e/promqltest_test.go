//go:build e2e

package e2e

import (
	"flag"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/oneprom/oneprom/servergroup/backendtest"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"
)

var updateKnown = flag.Bool("promqltest.update", false, "write the findings of TestPromqltest to testdata/promqltest instead of comparing them")

// allEvaluations is how many questions v0.315.0's files make. Fewer would mean that some were not asked.
const allEvaluations = 21_442

// splitReading is how the backends of a pass can be read.
type splitReading struct {
	name       string
	backends   backendtest.RemoteRead
	remoteRead string // as groupSpec has it
}

var (
	overStreamed = splitReading{name: "streamed", backends: backendtest.Streamed, remoteRead: "always"}
	overSamples  = splitReading{name: "samples", backends: backendtest.SamplesOnly, remoteRead: "always"}
	overQueryAPI = splitReading{name: "query-api", backends: backendtest.NoRemoteRead, remoteRead: "never"}
)

// TestPromqltest runs all of upstream's promqltest files through oneprom, over backends that hold the
// data in different ways, and compares every answer with that of one Prometheus that holds everything.
//
// The differences must be those in testdata/promqltest, no more and no fewer; docs/fidelity.md has the
// reasons. By streamed remote read oneprom sees all that there is, so that no list excuses a wrong value.
func TestPromqltest(t *testing.T) {
	rows := []string{tableHeader}
	t.Cleanup(func() { fmt.Println(strings.Join(rows, "\n")) })
	pass := func(tp topology, r splitReading) {
		name := tp.name + "-" + r.name
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			found := runPass(t, tp, r)
			rows = append(rows, fmt.Sprintf("%s  %s", found.row(name), time.Since(began).Round(time.Second)))
			fmt.Println(rows[len(rows)-1])
			checkFindings(t, name, r, found)
		})
	}
	for _, tp := range topologies {
		pass(tp, overStreamed)
		pass(tp, overQueryAPI)
	}
	pass(topologies[0], overSamples)
}

// runPass runs all files over one topology.
func runPass(t *testing.T, tp topology, r splitReading) *tally {
	below := r
	if tp.levels {
		below = overStreamed // what a oneprom is asked by is what is tried
	}
	backends := startSplitBackends(t, tp.backends(), below.backends)
	specs := tp.specs(backends, below.remoteRead)
	if tp.levels {
		for i := range specs {
			specs[i].targets = []string{hostPort(t, startOneprom(t, specs[i:i+1]))}
			specs[i].remoteRead = r.remoteRead
		}
	}
	base := startOneprom(t, specs)
	truth := promqltest.NewTestEngine(t, false, 0, promqltest.DefaultMaxSamplesPerQuery)
	engine := newCheckedEngine(t, truth, base)
	promqltest.RunBuiltinTestsWithStorage(t, engine, func(tb testing.TB) storage.Storage {
		engine.file = filepath.Base(tb.Name())
		return openSplitStorage(tb, backends, tp.place)
	})
	return engine.tally
}

// checkFindings compares a pass with its list, or writes the list.
func checkFindings(t *testing.T, name string, r splitReading, found *tally) {
	t.Helper()
	require.Equal(t, allEvaluations, found.evaluations, "evaluations")
	lines := found.lines()
	if *updateKnown {
		require.NoError(t, writeKnown(name, lines))
	}
	known, err := readKnown(name)
	require.NoError(t, err)
	if news := linesWithout(lines, known); len(news) > 0 {
		t.Errorf("%d new differences:\n%s\nthe first in full:\n%s", len(news), listed(news), found.detailsOf(news))
	}
	if gone := linesWithout(known, lines); len(gone) > 0 {
		t.Errorf("%d known differences are gone, take them out of %s:\n%s", len(gone), knownFile(name), listed(gone))
	}
	if r == overStreamed && found.wrong() > 0 {
		t.Errorf("%d wrong values although streamed remote read tells everything", found.wrong())
	}
}
