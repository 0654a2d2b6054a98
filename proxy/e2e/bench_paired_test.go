//go:build e2e

package e2e

import (
	"fmt"
	"math"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/proxy/e2e/internal/world"
	"github.com/oneprom/oneprom/proxy/e2e/internal/world/exam"
	"github.com/oneprom/oneprom/servergroup/backendtest"
)

// pairedRounds are how often each query is asked of both binaries, after a round that warms up, and
// neverRounds how often over selectors that were never asked for.
const (
	pairedRounds = 40
	neverRounds  = 12
)

// studentT95 are the quantiles of Student's t distribution that a two-sided interval of 95 % takes, by
// how many numbers there are.
var studentT95 = map[int]float64{2: 12.706, neverRounds: 2.201, pairedRounds: 2.023}

// TestBenchPaired compares the processor time of this oneprom with that of another binary,
// ONEPROM_BENCH_BASELINE, over the queries of TestBenchRatios, and over the same queries with selectors
// and with metrics that were never asked for. Both stand in front of one world and are asked in turn, in pairs, so that
// a machine that gets slower is slower for both. It prints the ratios with their intervals of 95 %, and
// judges nothing. Without another binary the harness itself is tried: this oneprom beside itself, in
// front of a small world.
func TestBenchPaired(t *testing.T) {
	baseline, rounds, never := os.Getenv("ONEPROM_BENCH_BASELINE"), pairedRounds, neverRounds
	worlds := []*world.World{world.Ordinary(10), world.Aligned(10)}
	if baseline == "" {
		rounds, never, worlds = 2, 2, []*world.World{world.Ordinary(1)}
	}
	for _, w := range worlds {
		t.Run(w.Name, func(t *testing.T) {
			w.Start(t, t.TempDir())
			p := pairing{client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4}}, world: w, now: runFlaggedOneprom(t, w, []string{keepsNothing})}
			defer p.client.CloseIdleConnections()
			if baseline != "" {
				t.Setenv("ONEPROM_BIN", baseline)
			}
			p.before = runWorldOneprom(t, w)
			warm, narrower, cold := newPairedTable(), newPairedTable(), newPairedTable()
			for _, c := range benchCases {
				warm.add(c, p.measure(t, c, rounds, ""))
				narrower.add(c, p.measure(t, c, never, "never"))
				cold.add(c, p.measure(t, c, never, labels.MetricName))
			}
			t.Logf("queries that were asked before, %d paired rounds\n%s", rounds, warm)
			t.Logf("the same with a matcher that was never asked for, %d paired rounds\n%s", never, narrower)
			t.Logf("the same with a matcher of the name that was never asked for, as if the metric had not been, %d paired rounds\n%s", never, cold)
		})
	}
}

// pairing is two binaries in front of one world.
type pairing struct {
	client      *http.Client
	world       *world.World
	before, now *world.Process
	asked       int // selectors that were never asked for
}

// cost is what an answer took.
type cost struct {
	oneprom  float64 // processor time of oneprom, ns
	all      float64 // that of oneprom and all replicas, ns
	duration float64 // until the answer was there, ns
}

// pair is what one query took of both binaries.
type pair struct {
	before, now cost // means
	// Logarithms of the ratio of now to before, one per round.
	oneprom, all, duration []float64
}

// measure asks both binaries in turn. If never is the name of a label, it never asks for the same selector
// twice: each has another matcher of that label. Who comes first alternates.
func (p *pairing) measure(t *testing.T, c benchCase, rounds int, never string) (out pair) {
	t.Helper()
	for round := range rounds + 1 {
		e := c.at(p.world, round)
		order := []*world.Process{p.before, p.now}
		if round%2 == 0 {
			order = []*world.Process{p.now, p.before}
		}
		took := map[*world.Process]cost{}
		for _, front := range order {
			q := exam.Query{Text: c.text}
			if never != "" {
				p.asked++
				q.Text = withMatcher(t, c.text, labels.MustNewMatcher(labels.MatchNotEqual, never, strconv.Itoa(p.asked)))
			}
			took[front] = p.cost(t, front, e, q)
		}
		if round == 0 {
			continue
		}
		before, now, n := took[p.before], took[p.now], float64(rounds)
		out.before.oneprom, out.now.oneprom = out.before.oneprom+before.oneprom/n, out.now.oneprom+now.oneprom/n
		out.oneprom = append(out.oneprom, math.Log(now.oneprom/before.oneprom))
		out.all = append(out.all, math.Log(now.all/before.all))
		out.duration = append(out.duration, math.Log(now.duration/before.duration))
	}
	return out
}

// cost asks one query.
func (p *pairing) cost(t *testing.T, front *world.Process, e exam.Evaluation, q exam.Query) cost {
	t.Helper()
	busy := func() (own, all float64) {
		own = float64(busyTime(t, front.PID))
		all = own
		for _, g := range p.world.Groups {
			for _, r := range g.Replicas {
				all += float64(busyTime(t, r.PID))
			}
		}
		return own, all
	}
	ownBefore, allBefore := busy()
	took := timed(t, p.client, front.URL, e, q, nil)
	own, all := busy()
	return cost{own - ownBefore, all - allBefore, float64(took)}
}

// withMatcher returns an expression whose selectors have a further matcher.
func withMatcher(t *testing.T, text string, m *labels.Matcher) string {
	t.Helper()
	expr, err := backendtest.NewParser().ParseExpr(text)
	require.NoError(t, err)
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		if sel, ok := node.(*parser.VectorSelector); ok {
			sel.Name, sel.LabelMatchers = "", append(sel.LabelMatchers, m)
		}
		return nil
	})
	return expr.String()
}

// pairedTable is a table of pairs.
type pairedTable struct {
	text                   strings.Builder
	table                  *tabwriter.Writer
	oneprom, all, duration []float64 // means of the logarithms of the ratios, by case
}

func newPairedTable() *pairedTable {
	p := &pairedTable{}
	p.table = tabwriter.NewWriter(&p.text, 0, 1, 2, ' ', 0)
	fmt.Fprintln(p.table, "before ms\tnow ms\toneprom\tand replicas\tduration\trange/step\tquery")
	return p
}

func (p *pairedTable) add(c benchCase, got pair) {
	ratio := func(of *[]float64, logs []float64) string {
		mean, half := interval(logs)
		*of = append(*of, mean)
		return fmt.Sprintf("%.3f (%.3f to %.3f)", math.Exp(mean), math.Exp(mean-half), math.Exp(mean+half))
	}
	fmt.Fprintf(p.table, "%.1f\t%.1f\t%s\t%s\t%s\t%s/%s\t%s\n", got.before.oneprom/1e6, got.now.oneprom/1e6,
		ratio(&p.oneprom, got.oneprom), ratio(&p.all, got.all), ratio(&p.duration, got.duration), c.span, c.step, c.text)
}

func (p *pairedTable) String() string {
	p.table.Flush()
	return fmt.Sprintf("%sgeometric means of the ratios: processor time of oneprom %.3f, and of the replicas with it %.3f, duration %.3f",
		&p.text, expMean(p.oneprom), expMean(p.all), expMean(p.duration))
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
	return mean, studentT95[len(numbers)] * math.Sqrt(squares/(n-1)/n)
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
