// Package differential asks random questions of random worlds: oneprom, in front
// of servers that each hold a part of the samples, must give the answer of the one
// Prometheus that holds them all, to the bit.
package differential

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

var (
	seedFlag     = flag.Uint64("differential.seed", 1, "seed of the first world; the next world's is one more")
	worldsFlag   = flag.Int("differential.worlds", 16, "number of worlds, unless differential.duration is set")
	durationFlag = flag.Duration("differential.duration", 0, "ask until this time is over")
	queriesFlag  = flag.Int("differential.queries", 128, "questions to each world")
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
	}
}

// tryWorld asks the world of a seed its questions and reports the first
// difference. It reports whether there was none.
func (l *lab) tryWorld(t *testing.T, seed uint64, c *census) bool {
	r := rand.New(rand.NewPCG(seed, 0))
	w := newWorld(r)
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
	g := newExprs(r, w)
	for range *queriesFlag {
		q := g.question()
		o, err := run.compare(q)
		require.NoError(t, err, "seed %d: %s", seed, q)
		c.add(o)
		if o.kind == "" {
			continue
		}
		closeRun()
		s := &shrinker{lab: l, world: w, question: q, outcome: o}
		s.shrink()
		t.Errorf("seed %d: %s\n%s\n\nshrunk in %d steps to\n%s", seed, o, q, s.tries, s)
		return false
	}
	return true
}

// census counts what was tried.
type census struct {
	worlds, questions, found, failed, undetermined, notes int
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
}

func (c *census) String() string {
	return fmt.Sprintf("%d worlds, %d evaluations: %d with a result, %d errors, %d undetermined, %d with other annotations",
		c.worlds, c.questions, c.found, c.failed, c.undetermined, c.notes)
}
