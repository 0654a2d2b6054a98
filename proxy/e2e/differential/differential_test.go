// Package differential asks random questions of random worlds: oneprom, in front
// of servers that each hold a part of the samples, must give the answer of the one
// Prometheus that holds them all, to the bit.
package differential

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

var (
	seedFlag     = flag.Uint64("differential.seed", 1, "seed of the first world; the next world's is one more")
	worldsFlag   = flag.Int("differential.worlds", 16, "number of worlds, unless differential.duration is set")
	durationFlag = flag.Duration("differential.duration", 0, "ask until this time is over")
	queriesFlag  = flag.Int("differential.queries", 128, "questions to each world")
	onlyFlag     = flag.String("differential.only", "", "still: no world changes; changing: all do; empty: the seed decides")
	unshrunkFlag = flag.Bool("differential.unshrunk", false, "print the series of a difference as they are: a case that was made smaller may have another cause")
	cacheFlag    = flag.Bool("differential.cache", true, "ask most questions through the cache, and again for other times")
	keepFlag     = flag.Bool("differential.keep-going", false, "report every world with a difference, instead of the first only")
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestDifferential prints the seed and a shrunk case of what differs. That world
// alone is asked again with -differential.seed=… -differential.worlds=1.
func TestDifferential(t *testing.T) {
	l := newLab(t)
	var c census
	begin := time.Now()
	for n := 0; ; n++ {
		if *durationFlag > 0 && time.Since(begin) >= *durationFlag || *durationFlag == 0 && n >= *worldsFlag {
			break
		}
		seed := *seedFlag + uint64(n)
		if !l.tryWorld(t, seed, &c) && !*keepFlag {
			break
		}
	}
	t.Logf("%s in %s", &c, time.Since(begin).Round(time.Millisecond))
	if !t.Failed() {
		require.GreaterOrEqual(t, float64(c.found), 0.4*float64(c.questions), "too many answers are empty to mean anything")
		require.LessOrEqual(t, float64(c.undetermined), 0.02*float64(c.questions), "too many questions have several answers")
		if *cacheFlag {
			require.GreaterOrEqual(t, float64(c.cached), 0.1*float64(c.questions), "too few answers are made of kept ones to mean anything")
		}
		require.LessOrEqual(t, float64(c.said), 0.02*float64(c.questions), "too many answers are partial, as every server can be asked")
	}
}

// changes reports whether the world of a seed is a changing one.
func changes(seed uint64) bool {
	switch *onlyFlag {
	case "still":
		return false
	case "changing":
		return true
	}
	return seed%6 == 0
}

// tryWorld asks the world of a seed its questions and reports the first
// difference. It reports whether there was none.
func (l *lab) tryWorld(t *testing.T, seed uint64, c *census) bool {
	r := rand.New(rand.NewPCG(seed, 0))
	w := newWorld(r, changes(seed))
	var events []event
	if w.changing {
		w.write(r, *queriesFlag)
		events, w.script = w.script, nil
	} else {
		g := newExprs(r, w)
		for range *queriesFlag {
			events = append(events, event{question: g.question()})
		}
	}
	events = warmed(rand.New(rand.NewPCG(seed, 1)), w, events)
	run, err := l.start(w)
	require.NoError(t, err, "seed %d", seed)
	closed := false
	closeRun := func() {
		if !closed {
			closed = true
			require.NoError(t, run.close())
		}
	}
	defer closeRun()
	c.worlds++
	if w.changing {
		c.changing++
	}
	for i := range events {
		e := &events[i]
		o, err := run.play(e)
		require.NoError(t, err, "seed %d: %s", seed, e)
		if len(e.changes) > 0 {
			c.changes += len(e.changes)
			continue
		}
		c.add(o)
		if o.kind == "" {
			continue
		}
		if *unshrunkFlag {
			t.Errorf("seed %d: %s\n%s\n%s", seed, o, e.question, run.unshrunk(e.question, o))
			return false
		}
		closeRun()
		found := *w
		if w.changing {
			found.script = events[:i]
		}
		s := &shrinker{lab: l, world: &found, question: e.question, outcome: o}
		s.shrink()
		t.Errorf("seed %d: %s\n%s\n\nshrunk in %d steps to\n%s", seed, o, e.question, s.tries, s)
		return false
	}
	return true
}

// warmed are events of which most questions are asked through the cache, some of them also for other times. Where
// replicas have other clocks and are away now and then, what is kept is by the clock of whoever answered first:
// there the cache is not asked.
func warmed(r *rand.Rand, w *world, events []event) (out []event) {
	for _, e := range events {
		e.question.fresh = !*cacheFlag || w.changing && w.shifted() || r.IntN(4) == 0
		if e.peek != nil {
			peek := *e.peek
			peek.fresh, e.peek = !*cacheFlag, &peek
		}
		out = append(out, e)
		if q := e.question; len(e.changes) == 0 && q.step > 0 && !q.fresh && r.IntN(2) == 0 {
			for range 1 + r.IntN(2) {
				out = append(out, event{question: q.moved(r)})
			}
		}
	}
	return out
}

// moved is a question for other times, at steps of the same grid.
func (q question) moved(r *rand.Rand) question {
	by := func() int64 { return q.step * (r.Int64N(41) - 20) }
	switch r.IntN(4) {
	case 0: // the same again
	case 1:
		q.end = max(q.start, q.end+by())
	case 2:
		q.start = min(q.start+by(), q.end)
	default:
		n := by()
		q.start, q.end = q.start+n, q.end+n
	}
	return q
}

// unshrunk describes a difference with all samples of the series that the question may be about.
func (run *running) unshrunk(q question, o outcome) string {
	w := run.now.clone()
	w.series = slices.DeleteFunc(w.series, func(s series) bool {
		name := s.labels.Get(labels.MetricName)
		return name != "up" && !strings.Contains(q.query, name)
	})
	var b strings.Builder
	fmt.Fprintf(&b, "want %s\ngot  %s\n%s%s\n", o.want, o.got, w, run.explain(q))
	for i := range w.series {
		fmt.Fprintf(&b, "%s\n", w.series[i].labels)
		w.series[i].print(&b, len(w.copies))
	}
	return b.String()
}

// census counts what was tried.
type census struct {
	worlds, changing, changes                           int
	questions, found, failed, undetermined, notes, said int
	cached                                              int
}

func (c *census) add(o outcome) {
	c.questions++
	if o.failed {
		c.failed++
	}
	if !o.empty {
		c.found++
	}
	if o.undetermined {
		c.undetermined++
	}
	if o.notes {
		c.notes++
	}
	if o.said {
		c.said++
	}
	if o.cached {
		c.cached++
	}
}

func (c *census) String() string {
	return fmt.Sprintf("%d worlds, of which %d changed %d times, %d evaluations: %d with a result, %d errors, %d undetermined, %d with other annotations, %d said to be partial, %d made of kept answers",
		c.worlds, c.changing, c.changes, c.questions, c.found, c.failed, c.undetermined, c.notes, c.said, c.cached)
}
