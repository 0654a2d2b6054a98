package partition

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/evidence"
	"github.com/oneprom/oneprom/servergroup/replica"
	"github.com/oneprom/oneprom/servergroup/transport"
	"github.com/oneprom/oneprom/servergroup/view"
)

// stepsTo are the steps from 0 to n minutes, one each minute.
func stepsTo(n int64) transport.Steps {
	return transport.Steps{End: n * minute, Step: minute, Lookback: 5 * minute}
}

// chooserOf chooses among n replicas that nobody has asked. spoiled are the runs by
// replica and instance.
func chooserOf(steps, targets int, byTarget bool, spoiled ...map[string][]run) *chooser {
	p := &Partition{view: &view.View{}, members: []view.Group{{Config: &config.Group{Name: "g"}}}}
	for range spoiled {
		p.members[0].Replicas = append(p.members[0].Replicas, &replica.Replica{})
	}
	return &chooser{
		partition: p, steps: steps, targets: targets, spoiled: spoiled, lacking: make([][]run, len(spoiled)),
		need: Need{Steps: stepsTo(int64(steps) - 1), ByTarget: byTarget},
	}
}

// shownPieces prints pieces as `from-to,from-to replica targets`, of which merged ones
// have the replica that comes first in brackets.
func shownPieces(pieces []*Piece) []string {
	var out []string
	for _, p := range pieces {
		who := fmt.Sprintf("[%d]", p.first)
		if p.single != nil {
			who = strconv.Itoa(slices.Index(p.partition.members[0].Replicas, p.single))
		}
		var turns []string
		for _, turn := range p.Turns {
			turns = append(turns, fmt.Sprintf("%d-%d", turn.Start/minute, turn.End/minute))
		}
		text := strings.Join(turns, ",") + " " + who
		for _, m := range p.narrowed {
			text += " " + m.String()
		}
		out = append(out, text)
	}
	return out
}

type runs = map[string][]run

// some are n instances that have the same runs.
func some(n int, list ...run) runs {
	out := runs{}
	for i := range n {
		out[fmt.Sprintf("i%02d", i)] = list
	}
	return out
}

func TestPieces(t *testing.T) {
	f := func(c *chooser, want ...string) {
		t.Helper()
		pieces := c.pieces()
		require.Equal(t, want, shownPieces(pieces))
		for _, p := range pieces {
			require.NotEmpty(t, p.Why)
			require.Equal(t, p.Turns[0].Start, p.Steps.Start)
			require.Equal(t, p.Turns[len(p.Turns)-1].End, p.Steps.End)
			for _, steps := range append(p.Turns, p.Steps) {
				require.Equal(t, minute, steps.Step)
				require.Equal(t, 5*minute, steps.Lookback)
			}
		}
	}
	f(chooserOf(10, 4, true, runs{}, runs{}), "0-9 0")
	f(chooserOf(1, 4, true, runs{}, runs{}), "0-0 0")
	// The first is away: the second answers these steps, and only these.
	f(chooserOf(10, 4, false, some(4, run{3, 5}), runs{}), "0-2,6-9 0", "3-5 1")
	f(chooserOf(10, 4, false, some(4, run{0, 9}), runs{}), "0-9 1")
	f(chooserOf(10, 4, false, some(1, run{0, 0}, run{9, 9}), runs{}), "0-0,9-9 1", "1-8 0")
	f(chooserOf(10, 4, false, some(4, run{3, 5}), some(4, run{5, 6}), runs{}), "0-2,6-9 0", "3-4 1", "5-5 2")
	// Where the first is away for long, it is not asked for that time.
	f(chooserOf(40, 4, false, some(4, run{3, 12}), runs{}), "0-2,13-39 0", "3-12 1")
	f(chooserOf(40, 4, false, some(4, run{3, 13}), runs{}), "0-2 0", "3-13 1", "14-39 0")
	wide := chooserOf(40, 4, false, some(4, run{3, 15}, run{19, 35}), runs{})
	wide.need.Reaches = []Reach{{From: -3 * minute}, {From: -9 * minute, To: -8 * minute}, {To: 90 * minute, Fixed: true}}
	f(wide, "0-2,16-18 0", "3-15,19-35 1", "36-39 0")
	// Nobody is whole.
	f(chooserOf(10, 4, false, some(4, run{3, 5}), some(1, run{5, 6})), "0-2,6-9 0", "3-4 1", "5-5 [0]")

	// One target in twenty is cut out if that is possible.
	lacks := some(1, run{3, 5})
	f(chooserOf(10, 20, true, lacks, runs{}), `0-9 0 instance!~"i00"`, `0-9 [0] instance=~"i00"`)
	f(chooserOf(10, 20, false, lacks, runs{}), "0-2,6-9 0", "3-5 1")
	f(chooserOf(10, 19, true, lacks, runs{}), "0-2,6-9 0", "3-5 1")
	f(chooserOf(10, 20, true, some(2, run{3, 5}), runs{}), "0-2,6-9 0", "3-5 1")
	// Where all lack more, all are merged.
	f(chooserOf(10, 8, true, some(2, run{0, 9}), some(1, run{0, 9})), "0-9 [0]")
	f(chooserOf(10, 40, true, some(3, run{0, 9}), some(2, run{0, 9})), `0-9 1 instance!~"i00|i01"`, `0-9 [1] instance=~"i00|i01"`)
	// Few at each step, but other ones: they are counted for the whole run.
	f(chooserOf(10, 20, true, turns(10), runs{}), `0-9 0 instance!~"`+ten+`"`, `0-9 [0] instance=~"`+ten+`"`)
	f(chooserOf(11, 20, true, turns(11), runs{}), "0-10 [0]")
	f(chooserOf(11, 20, true, some(20, run{0, 10}), turns(11)), "0-10 [1]")
	// Where most steps are merged, all are.
	f(chooserOf(10, 4, false, some(4, run{0, 4}), some(1, run{0, 4})), "0-4 [0]", "5-9 0")
	f(chooserOf(10, 4, false, some(4, run{0, 5}), some(1, run{0, 5})), "0-9 [0]")
	f(chooserOf(10, 4, false, some(4, run{0, 7}), some(1, run{0, 5})), "0-9 [0]")
}

const ten = "i00|i01|i02|i03|i04|i05|i06|i07|i08|i09"

// turns are instances of which each misses one step.
func turns(n int) runs {
	out := runs{}
	for i := range n {
		out[fmt.Sprintf("i%02d", i)] = []run{{i, i}}
	}
	return out
}

// TestPieces_WhoElse: the replicas that could answer instead, and those without which a
// merged piece is not partial.
func TestPieces_WhoElse(t *testing.T) {
	f := func(c *chooser, want ...string) {
		t.Helper()
		var got []string
		all := c.partition.members[0].Replicas
		for _, p := range c.pieces() {
			text := strconv.FormatBool(p.allNeeded)
			for _, r := range append(p.alternatives, p.wholeReplicas...) {
				text += fmt.Sprint(" ", slices.Index(all, r))
			}
			got = append(got, text)
		}
		require.Equal(t, want, got)
	}
	f(chooserOf(10, 4, true, runs{}, runs{}, runs{}), "false 1 2")
	f(chooserOf(10, 4, false, some(4, run{3, 5}), some(1, run{9, 9}), runs{}), "false 2", "false 2")
	f(chooserOf(10, 4, false, some(4, run{3, 5}), some(1, run{4, 4})), "false 1", "false", "true")
	f(chooserOf(10, 20, true, some(1, run{3, 5}), runs{}), "false 1", "true 1")
	f(chooserOf(10, 20, true, some(1, run{3, 5}), some(1, run{7, 7})), "false 1", "true")
	lost := chooserOf(10, 4, true, runs{}, runs{}, runs{})
	lost.lost = map[int]error{0: errors.New("gone")}
	f(lost, "false 2")
}

func TestPieces_RunsThatAreTooMany(t *testing.T) {
	const long = 12 // steps, more than lie idle
	alternating := func(n int) *chooser {
		var list []run
		for i := 1; i < n; i += 2 {
			list = append(list, run{i * long, (i+1)*long - 1})
		}
		return chooserOf(n*long, 4, false, some(4, list...), runs{})
	}
	require.Len(t, alternating(maxAssignments).pieces(), maxAssignments)
	require.Equal(t, []string{fmt.Sprintf("0-%d [0]", (maxAssignments+1)*long-1)}, shownPieces(alternating(maxAssignments+1).pieces()))
	// What is cut out of a run does not count.
	c := alternating(maxAssignments)
	c.need.ByTarget, c.targets = true, 40
	c.spoiled = []map[string][]run{some(40), some(1, run{0, maxAssignments*long - 1})}
	for i := 1; i < maxAssignments; i += 2 {
		for name := range c.spoiled[0] {
			c.spoiled[0][name] = append(c.spoiled[0][name], run{i * long, (i+1)*long - 1})
		}
	}
	require.Len(t, c.pieces(), maxAssignments+maxAssignments/2)
}

// TestStepsOf holds a step's window against a span by trying each.
func TestStepsOf(t *testing.T) {
	f := func(st transport.Steps, r Reach, s evidence.Span) {
		t.Helper()
		var near []int
		for i := range int(st.Count()) {
			from, to := r.Window(st.Start+int64(i)*st.Step, st.Start+int64(i)*st.Step)
			if s.From <= to+evidence.ScrapeSlack && s.To >= from-evidence.ScrapeSlack {
				near = append(near, i)
			}
		}
		got, ok := r.stepsOf(st, s)
		require.Equal(t, len(near) > 0, ok)
		if ok {
			require.Equal(t, run{near[0], near[len(near)-1]}, got)
		}
	}
	// At the edges: the window of the step at 10 min is (5 min, 10 min].
	r, st := Reach{From: -5 * minute}, transport.Steps{Start: 10 * minute, End: 10 * minute, Step: 1}
	for _, at := range []struct {
		t  int64
		in bool
	}{{4 * minute, false}, {4*minute + 1, true}, {11 * minute, true}, {11*minute + 1, false}} {
		_, ok := r.stepsOf(st, evidence.Span{From: at.t, To: at.t})
		require.Equal(t, at.in, ok, at.t)
		f(st, r, evidence.Span{From: at.t, To: at.t})
	}
	fixed := Reach{From: 5 * minute, To: 10 * minute, Fixed: true}
	for _, at := range []int64{4 * minute, 4*minute + 1, 11 * minute, 11*minute + 1} {
		f(stepsTo(7), fixed, evidence.Span{From: at, To: at})
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		start, step := rnd.Int64N(40)-20, 1+rnd.Int64N(9)
		st := transport.Steps{Start: start * 20_000, End: (start + step*rnd.Int64N(8)) * 20_000, Step: step * 20_000}
		r := Reach{From: (rnd.Int64N(20) - 20) * 20_000, Fixed: rnd.IntN(4) == 0}
		r.To = r.From + rnd.Int64N(10)*20_000
		s := evidence.Span{From: (rnd.Int64N(60) - 30) * 20_000}
		s.To = s.From + rnd.Int64N(8)*20_000
		s.From, s.To = s.From+rnd.Int64N(3)-1, s.To+rnd.Int64N(3)+1
		f(st, r, s)
	}
}

// missing is what replicas missed, at random.
type missing []map[string][]evidence.Span

func randomMissing(rnd *rand.Rand, replicas, targets int) missing {
	out := make(missing, replicas)
	most := []int{1, targets/8 + 1, targets + 1}[rnd.IntN(3)]
	for r := range out {
		out[r] = map[string][]evidence.Span{}
		for i := range rnd.IntN(most) {
			for range 1 + rnd.IntN(3) {
				from := rnd.Int64N(90) * minute
				out[r][fmt.Sprintf("i.%d", i)] = append(out[r][fmt.Sprintf("i.%d", i)], evidence.Span{From: from, To: from + rnd.Int64N(20)*minute})
			}
		}
	}
	return out
}

// chooser returns one that has seen what replicas missed.
func (m missing) chooser(st transport.Steps, targets int, byTarget bool) *chooser {
	c := chooserOf(1, targets, byTarget, make([]map[string][]run, len(m))...)
	c.need.Steps, c.steps = st, int(st.Count())
	for r, byInstance := range m {
		c.spoiled[r] = runs{}
		for instance, spans := range byInstance {
			var list []run
			for _, s := range spans {
				if hit, ok := (Reach{From: -3 * minute}).stepsOf(st, s); ok {
					list = append(list, hit)
				}
			}
			if len(list) > 0 {
				c.spoiled[r][instance] = mergeRuns(list)
			}
		}
	}
	return c
}

func (m missing) has(replica int, instance string, step int64) bool {
	return slices.ContainsFunc(m[replica][instance], func(s evidence.Span) bool {
		return s.To+evidence.ScrapeSlack > step-3*minute && s.From-evidence.ScrapeSlack <= step
	})
}

// instants are those (ms) of runs of steps.
func instants(turns []transport.Steps) []int64 {
	var out []int64
	for _, turn := range turns {
		for step := turn.Start; step <= turn.End; step += turn.Step {
			out = append(out, step)
		}
	}
	return out
}

// TestPieces_EachStepOfEachTargetOnce, and none of a replica alone that missed it.
func TestPieces_EachStepOfEachTargetOnce(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	cut, merged, whole := 0, 0, 0
	for n := range 1500 {
		targets := 1 + rnd.IntN(45)
		m := randomMissing(rnd, 2+rnd.IntN(2), targets)
		st := transport.Steps{Start: 7 * minute, End: 97 * minute, Step: 90_000}
		pieces := m.chooser(st, targets, n%2 == 0).pieces()
		for target := range targets {
			instance := fmt.Sprintf("i.%d", target)
			seen := make([]int, st.Count())
			for _, p := range pieces {
				require.Zero(t, (p.Steps.Start-st.Start)%st.Step)
				require.LessOrEqual(t, p.Steps.End, st.End)
				if len(p.narrowed) > 0 && !p.narrowed[0].Matches(instance) {
					continue
				}
				alone := slices.Index(p.partition.members[0].Replicas, p.single)
				for _, step := range instants(p.Turns) {
					seen[(step-st.Start)/st.Step]++
					if alone >= 0 && m.has(alone, instance, step) {
						require.Fail(t, "missed", "replica %d missed %s at %d", alone, instance, step)
					}
				}
			}
			require.Equal(t, slices.Repeat([]int{1}, int(st.Count())), seen)
		}
		for _, p := range pieces {
			switch {
			case len(p.narrowed) > 0:
				require.Zero(t, n%2)
				cut++
			case p.single == nil:
				merged++
			default:
				whole++
			}
		}
	}
	require.Greater(t, min(cut, merged, whole), 100)
}

// TestMainReplicas_DependOnTheStepAlone: parts of a range have the main replicas of the
// whole.
func TestMainReplicas_DependOnTheStepAlone(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for n := range 500 {
		targets := 1 + rnd.IntN(45)
		m := randomMissing(rnd, 2+rnd.IntN(2), targets)
		st := transport.Steps{Start: 7 * minute, End: 97 * minute, Step: 90_000}
		whole := m.chooser(st, targets, n%2 == 0).mainReplicas()
		from := rnd.IntN(len(whole))
		to := from + rnd.IntN(len(whole)-from)
		part := st
		part.Start, part.End = st.Start+int64(from)*st.Step, st.Start+int64(to)*st.Step
		require.Equal(t, whole[from:to+1], m.chooser(part, targets, n%2 == 0).mainReplicas())
	}
}

func TestUnited(t *testing.T) {
	require.Equal(t, []run{{0, 5}, {7, 9}}, mergeRuns([]run{{7, 9}, {0, 1}, {2, 5}, {3, 4}, {8, 8}}))
	require.Empty(t, mergeRuns(nil))
}

func TestOrder(t *testing.T) {
	a, b, c := &replica.Replica{}, &replica.Replica{}, &replica.Replica{}
	list := []*replica.Replica{a, b, c}
	for first, want := range [][]*replica.Replica{{a, b, c}, {b, a, c}, {c, a, b}} {
		for i, r := range order(list, first) {
			require.Same(t, want[i], r)
		}
	}
	require.Same(t, a, list[0])
}
