//go:build e2e

package e2e

import (
	"fmt"
	"math"
	"net/http"
	"os"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/proxy/e2e/internal/world"
	"github.com/oneprom/oneprom/proxy/e2e/internal/world/exam"
)

// pairedRounds are how often each query is asked of both binaries, after a round that warms up.
const pairedRounds = 40

// studentT95 is the quantile of Student's t distribution, of 39 degrees of freedom, that a
// two-sided interval of 95 % takes.
const studentT95 = 2.023

// TestBenchPaired compares the processor time of this oneprom with that of another binary,
// ONEPROM_BENCH_BASELINE, over the queries of TestBenchRatios. Both stand in front of one
// world and are asked in turn, in pairs, so that a machine that gets slower is slower for
// both. It prints the ratios with their intervals, and judges nothing. Without another binary
// the harness itself is tried: this oneprom beside itself, in front of a small world.
func TestBenchPaired(t *testing.T) {
	baseline, rounds := os.Getenv("ONEPROM_BENCH_BASELINE"), pairedRounds
	worlds := []*world.World{world.Ordinary(10), world.Aligned(10)}
	if baseline == "" {
		rounds, worlds = 2, []*world.World{world.Ordinary(1)}
	}
	for _, w := range worlds {
		t.Run(w.Name, func(t *testing.T) {
			w.Start(t, t.TempDir())
			now := runWorldOneprom(t, w)
			if baseline != "" {
				t.Setenv("ONEPROM_BIN", baseline)
			}
			before := runWorldOneprom(t, w)
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4}}
			defer client.CloseIdleConnections()

			var b strings.Builder
			table := tabwriter.NewWriter(&b, 0, 1, 2, ' ', 0)
			fmt.Fprintln(table, "before ms\tnow ms\tratio\t95 % interval\trange/step\tquery")
			var all []float64
			for _, c := range benchCases {
				p := measurePair(t, client, w, c, before, now, rounds)
				mean, half := interval(p.logs)
				all = append(all, mean)
				fmt.Fprintf(table, "%.1f\t%.1f\t%.3f\t%.3f to %.3f\t%s/%s\t%s\n", p.before/1e6/float64(rounds), p.now/1e6/float64(rounds),
					math.Exp(mean), math.Exp(mean-half), math.Exp(mean+half), c.span, c.step, c.text)
			}
			table.Flush()
			t.Logf("processor time of oneprom, %d paired rounds\n%sgeometric mean of the ratios: %.3f", rounds, b.String(), expMean(all))
		})
	}
}

// pair is what one query took of both binaries.
type pair struct {
	before, now float64   // ns, of all rounds
	logs        []float64 // of now to before, one per round
}

// measurePair asks both binaries in turn. Who comes first alternates.
func measurePair(t *testing.T, client *http.Client, w *world.World, c benchCase, before, now *world.Process, rounds int) pair {
	t.Helper()
	q := exam.Query{Text: c.text}
	var p pair
	for round := range rounds + 1 {
		e := c.at(w, round)
		order := []*world.Process{before, now}
		if round%2 == 0 {
			order = []*world.Process{now, before}
		}
		took := map[*world.Process]float64{}
		for _, front := range order {
			began := busyTime(t, front.PID)
			timed(t, client, front.URL, e, q, nil)
			took[front] = float64(busyTime(t, front.PID) - began)
		}
		if round == 0 {
			continue
		}
		p.before, p.now = p.before+took[before], p.now+took[now]
		p.logs = append(p.logs, math.Log(took[now]/took[before]))
	}
	return p
}

// interval is the mean of numbers, and half the width of its interval of 95 %.
func interval(numbers []float64) (mean, half float64) {
	for _, x := range numbers {
		mean += x / float64(len(numbers))
	}
	squares := 0.0
	for _, x := range numbers {
		squares += (x - mean) * (x - mean)
	}
	n := float64(len(numbers))
	return mean, studentT95 * math.Sqrt(squares/(n-1)/n)
}

// busyTime is the time that the threads of a process have run so far, to the nanosecond; those
// of threads that have ended are not in it, which Go's threads hardly ever do.
func busyTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/task", pid)
	threads, err := os.ReadDir(dir)
	require.NoError(t, err)
	total := int64(0)
	for _, thread := range threads {
		text, err := os.ReadFile(dir + "/" + thread.Name() + "/schedstat")
		if os.IsNotExist(err) {
			continue // it has just ended
		}
		require.NoError(t, err)
		var ran int64
		_, err = fmt.Sscan(string(text), &ran)
		require.NoError(t, err)
		total += ran
	}
	return time.Duration(total)
}
