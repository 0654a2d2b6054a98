//go:build e2e

package e2e

import (
	"flag"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest"
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

// fewestEvaluations is how many requests to evaluate backends must have got in a pass with push-down: the
// groups of tiers are those that get the fewest, about 11,500.
const fewestEvaluations = 10_000

// fewestHits is how many answers must be those that were kept, where they are.
const fewestHits = 1_200

// TestPromqltest runs all of upstream's promqltest files through oneprom, over backends that hold the
// data in different ways, and compares every answer with that of one Prometheus that holds everything.
// Where backends can be asked to evaluate, each question is asked with push-down and without it. By streamed
// remote read each question over a range is asked again: later answers are made of the first one, which is kept.
//
// The differences must be those in testdata/promqltest, no more and no fewer; docs/fidelity.md has the
// reasons. By streamed remote read oneprom sees all that there is, so that no list excuses a wrong value.
func TestPromqltest(t *testing.T) {
	shows(t, byPromqltest, 21)
	var mtx sync.Mutex // guards rows: a pass needs one core, so they run beside each other
	rows := []string{tableHeader}
	t.Cleanup(func() { fmt.Println(strings.Join(rows, "\n")) })
	report := func(format string, args ...any) {
		mtx.Lock()
		defer mtx.Unlock()
		rows = append(rows, fmt.Sprintf(format, args...))
	}
	pass := func(tp topology, r splitReading) {
		name := tp.name + "-" + r.name
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			found := runPass(t, tp, r)
			report("%s  %s", found.row(name), time.Since(began).Round(time.Second))
			checkFindings(t, name, r, found)
		})
	}
	pushedPass := func(tp topology, r splitReading) {
		name := tp.name + "-" + r.name
		t.Run(name+"-pushed", func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			engine := runPushedPass(t, tp, r)
			report("%s", engine.off.row(name+"-pushed, off"))
			report("%s  %s, %d requests to evaluate", engine.tally.row(name+"-pushed"), time.Since(began).Round(time.Second), engine.evaluations)
			checkPushed(t, engine)
			checkFindings(t, name, r, engine.off) // as where nothing is pushed
			checkFindings(t, name+"-pushed", r, engine.tally)
		})
	}
	for _, tp := range topologies {
		pass(tp, overStreamed)
		pass(tp, overQueryAPI)
	}
	pass(wholeBackend, overSamples)
	for _, tp := range pushedTopologies {
		pushedPass(tp, overStreamed)
		pushedPass(tp, overQueryAPI)
	}
}

// runPass runs all files over one topology.
func runPass(t *testing.T, tp topology, r splitReading) *tally {
	below := r
	if tp.levels {
		below = overStreamed // what a oneprom is asked by is what is tried
	}
	backends := startSplitBackends(t, tp.backends(), backendtest.Options{RemoteRead: below.backends})
	specs := tp.specs(backends, below.remoteRead)
	if tp.levels {
		for i := range specs {
			specs[i].targets = []string{hostPort(t, startOneprom(t, specs[i:i+1], keepsNothing))}
			specs[i].remoteRead = r.remoteRead
		}
	}
	flags, kept := []string{keepsNothing}, r == overStreamed // these passes have no list of what differs
	if kept {
		flags = keeps
	}
	base := startOneprom(t, specs, flags...)
	truth := promqltest.NewTestEngine(t, false, 0, promqltest.DefaultMaxSamplesPerQuery)
	engine := newCheckedEngine(t, truth, base)
	engine.kept = kept
	promqltest.RunBuiltinTestsWithStorage(t, engine, func(tb testing.TB) storage.Storage {
		engine.file = filepath.Base(tb.Name())
		return openSplitStorage(tb, backends, tp)
	})
	if kept {
		require.Greater(t, engine.hits, fewestHits, "answers that were kept")
	}
	return engine.tally
}

// runPushedPass runs all files over one topology whose backends can be asked to evaluate.
func runPushedPass(t *testing.T, tp topology, r splitReading) *pushedEngine {
	backends := startSplitBackends(t, tp.backends(), earlyNames(r.backends))
	engine := newPushedEngine(t, backends, startPushing(t, tp, tp.specs(backends, r.remoteRead)))
	promqltest.RunBuiltinTestsWithStorage(t, engine, func(tb testing.TB) storage.Storage {
		engine.file = filepath.Base(tb.Name())
		return openSplitStorage(tb, backends, tp)
	})
	return engine
}

// startPushing is startOneprom with what it takes that backends are asked to evaluate: names are removed
// early, and groups that share no series inject labels that tell so.
func startPushing(t *testing.T, tp topology, groups []groupSpec) (baseURL string) {
	config := onepromConfig(t, groups)
	if tp.labelled {
		for _, g := range groups {
			config = strings.Replace(config, "labels: {}", fmt.Sprintf("labels: {%s: %s}", shardLabel, g.name), 1)
		}
	}
	flags := slices.Clone(onepromFlags)
	for i := range flags {
		flags[i] = strings.Replace(flags[i], "promql-delayed-name-removal,", "", 1)
	}
	return oneprom(t, config, append(flags, keepsNothing)...)
}

// checkPushed demands that parts were pushed down, and that this has made no answer worse.
func checkPushed(t *testing.T, engine *pushedEngine) {
	t.Helper()
	require.Greater(t, engine.evaluations, int64(fewestEvaluations), "requests to evaluate")
	// Without push-down there are none, but for cancelled ones of the question before that come late.
	require.Less(t, engine.evaluationsOff, engine.evaluations/100, "requests to evaluate without push-down")
	if lines := engine.apart.lines(); len(lines) > 0 {
		t.Errorf("%d answers with push-down are neither true nor those without:\n%s\nthe first in full, where those without are wanted:\n%s",
			len(lines), listed(lines), engine.apart.detailsOf(lines))
	}
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
