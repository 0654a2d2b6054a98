package servergroup

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/labelmap"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// stepsTo are the steps from 0 to n minutes, one each minute.
func stepsTo(n int64) transport.Steps {
	return transport.Steps{End: n * minute, Step: minute, Lookback: 5 * minute}
}

// chooserOf chooses among n replicas that nobody has asked. spoiled are the runs by
// replica and instance.
func chooserOf(steps, targets int, byTarget bool, spoiled ...map[string][]run) *chooser {
	p := &Partition{view: &View{}, members: []groupView{{cfg: &config.Group{Name: "g"}}}}
	for range spoiled {
		p.members[0].replicas = append(p.members[0].replicas, &replica{})
	}
	return &chooser{
		partition: p, steps: steps, targets: targets, spoiled: spoiled,
		need: Need{Steps: stepsTo(int64(steps) - 1), ByTarget: byTarget},
	}
}

// shownPieces prints pieces as `from-to,from-to replica targets`, of which merged ones
// have the replica that comes first in brackets.
func shownPieces(pieces []*Piece) []string {
	var out []string
	for _, p := range pieces {
		who := fmt.Sprintf("[%d]", p.first)
		if p.alone != nil {
			who = strconv.Itoa(slices.Index(p.partition.members[0].replicas, p.alone))
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
		all := c.partition.members[0].replicas
		for _, p := range c.pieces() {
			text := strconv.FormatBool(p.needed)
			for _, r := range append(p.twins, p.whole...) {
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
	require.Len(t, alternating(mostShares).pieces(), mostShares)
	require.Equal(t, []string{fmt.Sprintf("0-%d [0]", (mostShares+1)*long-1)}, shownPieces(alternating(mostShares+1).pieces()))
	// What is cut out of a run does not count.
	c := alternating(mostShares)
	c.need.ByTarget, c.targets = true, 40
	c.spoiled = []map[string][]run{some(40), some(1, run{0, mostShares*long - 1})}
	for i := 1; i < mostShares; i += 2 {
		for name := range c.spoiled[0] {
			c.spoiled[0][name] = append(c.spoiled[0][name], run{i * long, (i+1)*long - 1})
		}
	}
	require.Len(t, c.pieces(), mostShares+mostShares/2)
}

// TestStepsOf holds a step's window against a span by trying each.
func TestStepsOf(t *testing.T) {
	c := &chooser{}
	f := func(st transport.Steps, r Reach, s span) {
		t.Helper()
		c.need.Steps, c.steps = st, int(st.Count())
		var near []int
		for i := range c.steps {
			from, to := r.window(st.Start+int64(i)*st.Step, st.Start+int64(i)*st.Step)
			if s.from <= to+scrapeSlack && s.to >= from-scrapeSlack {
				near = append(near, i)
			}
		}
		got, ok := c.stepsOf(r, s)
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
		c.need.Steps, c.steps = st, 1
		_, ok := c.stepsOf(r, span{at.t, at.t})
		require.Equal(t, at.in, ok, at.t)
		f(st, r, span{at.t, at.t})
	}
	fixed := Reach{From: 5 * minute, To: 10 * minute, Fixed: true}
	for _, at := range []int64{4 * minute, 4*minute + 1, 11 * minute, 11*minute + 1} {
		f(stepsTo(7), fixed, span{at, at})
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		start, step := rnd.Int64N(40)-20, 1+rnd.Int64N(9)
		st := transport.Steps{Start: start * 20_000, End: (start + step*rnd.Int64N(8)) * 20_000, Step: step * 20_000}
		r := Reach{From: (rnd.Int64N(20) - 20) * 20_000, Fixed: rnd.IntN(4) == 0}
		r.To = r.From + rnd.Int64N(10)*20_000
		s := span{from: (rnd.Int64N(60) - 30) * 20_000}
		s.to = s.from + rnd.Int64N(8)*20_000
		s.from, s.to = s.from+rnd.Int64N(3)-1, s.to+rnd.Int64N(3)+1
		f(st, r, s)
	}
}

func TestAnyOf(t *testing.T) {
	odd := []string{"a.b:9090", "a+b", "(", "x|y", "[::1]:80", `back\slash`, "new\nline", "ü", "^$", "a*"}
	for i, value := range odd {
		m := labels.MustNewMatcher(labels.MatchRegexp, labelmap.TargetLabel, labelmap.AnyOf([]string{"other", value}))
		require.True(t, m.Matches("other"))
		for j, o := range odd {
			require.Equal(t, i == j, m.Matches(o), "%s %s", value, o)
		}
	}
	for value, unlike := range map[string]string{"a.b:9090": "axb:9090", "x|y": "x", "a*": "aa", "ü": "u"} {
		require.False(t, labels.MustNewMatcher(labels.MatchRegexp, labelmap.TargetLabel, labelmap.AnyOf([]string{value})).Matches(unlike))
	}
}

// missing is what replicas missed, at random.
type missing []map[string][]span

func randomMissing(rnd *rand.Rand, replicas, targets int) missing {
	out := make(missing, replicas)
	most := []int{1, targets/8 + 1, targets + 1}[rnd.IntN(3)]
	for r := range out {
		out[r] = map[string][]span{}
		for i := range rnd.IntN(most) {
			for range 1 + rnd.IntN(3) {
				from := rnd.Int64N(90) * minute
				out[r][fmt.Sprintf("i.%d", i)] = append(out[r][fmt.Sprintf("i.%d", i)], span{from, from + rnd.Int64N(20)*minute})
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
				if hit, ok := c.stepsOf(Reach{From: -3 * minute}, s); ok {
					list = append(list, hit)
				}
			}
			if len(list) > 0 {
				c.spoiled[r][instance] = united(list)
			}
		}
	}
	return c
}

func (m missing) has(replica int, instance string, step int64) bool {
	return slices.ContainsFunc(m[replica][instance], func(s span) bool {
		return s.to+scrapeSlack > step-3*minute && s.from-scrapeSlack <= step
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
				alone := slices.Index(p.partition.members[0].replicas, p.alone)
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
			case p.alone == nil:
				merged++
			default:
				whole++
			}
		}
	}
	require.Greater(t, min(cut, merged, whole), 100)
}

// TestMains_DependOnTheStepAlone: parts of a range have the main replicas of the
// whole.
func TestMains_DependOnTheStepAlone(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for n := range 500 {
		targets := 1 + rnd.IntN(45)
		m := randomMissing(rnd, 2+rnd.IntN(2), targets)
		st := transport.Steps{Start: 7 * minute, End: 97 * minute, Step: 90_000}
		whole := m.chooser(st, targets, n%2 == 0).mains()
		from := rnd.IntN(len(whole))
		to := from + rnd.IntN(len(whole)-from)
		part := st
		part.Start, part.End = st.Start+int64(from)*st.Step, st.Start+int64(to)*st.Step
		require.Equal(t, whole[from:to+1], m.chooser(part, targets, n%2 == 0).mains())
	}
}

func TestUnited(t *testing.T) {
	require.Equal(t, []run{{0, 5}, {7, 9}}, united([]run{{7, 9}, {0, 1}, {2, 5}, {3, 4}, {8, 8}}))
	require.Empty(t, united(nil))
}

func TestOrder(t *testing.T) {
	a, b, c := &replica{}, &replica{}, &replica{}
	list := []*replica{a, b, c}
	for first, want := range [][]*replica{{a, b, c}, {b, a, c}, {c, a, b}} {
		for i, r := range order(list, first) {
			require.Same(t, want[i], r)
		}
	}
	require.Same(t, a, list[0])
}

// chosen chooses for steps of each minute, of the last five minutes of foo.
func chosen(t *testing.T, s *Set, byTarget bool, first, last int64) []*Piece {
	t.Helper()
	return chosenOf(t, s, "foo", byTarget, first, last)
}

func chosenOf(t *testing.T, s *Set, selector string, byTarget bool, first, last int64) []*Piece {
	t.Helper()
	ms := matchersOf(t, selector)
	st := transport.Steps{Start: first, End: last, Step: minute, Lookback: 5 * minute}
	v := s.View(t.Context())
	list := v.Partitions([]Selection{{Matchers: ms, MinT: first - 5*minute + 1, MaxT: last}})
	require.Len(t, list, 1)
	pieces, err := list[0].Choose(t.Context(), Need{Steps: st, Reaches: []Reach{{Matchers: ms, From: -5 * minute}}, ByTarget: byTarget})
	require.NoError(t, err)
	return pieces
}

// TestChoose_PairOfWhichOneWasAway: the first misses b's scrapes from 25:00 to
// 34:45; a missed scrape counts a minute before and after the window.
func TestChoose_PairOfWhichOneWasAway(t *testing.T) {
	a, b := newEvaluator(t, away), newEvaluator(t, there)
	s, _ := evidenceSet(t, 3*hour, a.Server, b.Server)
	require.Equal(t, []string{"10-23 0", "24-40 1", "41-60 0"}, shownPieces(chosen(t, s, false, 10*minute, hour)))
	require.Equal(t, []string{"10-23 0", "24-40 1", "41-60 0"}, shownPieces(chosen(t, s, true, 10*minute, hour)))
	pieces := chosen(t, s, false, 41*minute, hour)
	require.Equal(t, []string{"41-60 0"}, shownPieces(pieces))
	require.Equal(t, a.URL, pieces[0].Replica())
	require.Equal(t, []string{"10-60 0"}, shownPieces(chosenOf(t, s, `foo{instance="a"}`, false, 10*minute, hour)))
}

// many is the data of 20 targets of which the first has no scrapes for a while.
func many() string {
	var b strings.Builder
	for _, name := range []string{"up", "foo"} {
		fmt.Fprintf(&b, "\n  %s{instance=\"t.0\",job=\"j\"} 1x99 _x40 1x580", name)
		for i := 1; i < 20; i++ {
			fmt.Fprintf(&b, "\n  %s{instance=\"t.%d\",job=\"j\"} 1x720", name, i)
		}
	}
	return b.String()
}

func TestChoose_CutsTargetsOut(t *testing.T) {
	a, b := newEvaluator(t, many()), newEvaluator(t, strings.ReplaceAll(many(), "1x99 _x40 1x580", "1x720"))
	s, _ := evidenceSet(t, 3*hour, a.Server, b.Server)
	pieces := chosen(t, s, true, 10*minute, hour)
	require.Equal(t, []string{`10-60 0 instance!~"t\\.0"`, `10-60 [0] instance=~"t\\.0"`}, shownPieces(pieces))
	require.Equal(t, []string{"10-23 0", "24-40 1", "41-60 0"}, shownPieces(chosen(t, s, false, 10*minute, hour)))

	text, err := pieceText(t, s, pieces[1], `foo`, 30*minute, 30*minute+30_000)
	require.NoError(t, err)
	require.Equal(t, `{__name__="foo", instance="t.0", job="j"} 1800:1 1815:1 1830:1`+"\n", text)
	text, err = pieceText(t, s, pieces[0], `foo`, 30*minute, 30*minute)
	require.NoError(t, err)
	require.Equal(t, 19, strings.Count(text, "1800:1"))
}

// pieceText fetches a piece's series and prints them.
func pieceText(t *testing.T, s *Set, p *Piece, selector string, mint, maxt int64) (string, error) {
	t.Helper()
	var done sync.WaitGroup
	defer done.Wait()
	set := s.View(t.Context()).SelectPiece(t.Context(), Selection{Matchers: matchersOf(t, selector), MinT: mint, MaxT: maxt}, p, &done).Read()
	return seriesText(t, set), set.Err()
}

// TestChoose_Merged says why a partition is merged as a whole.
func TestChoose_Merged(t *testing.T) {
	a, b := newEvaluator(t, there).Server, newEvaluator(t, there).Server
	f := func(want, who string, change func(*config.Group), servers ...*httptest.Server) {
		t.Helper()
		cfg := groupOf("g", servers...)
		change(&cfg)
		s, c := setAt(t, cfg)
		c.ms.Store(3 * hour)
		pieces := chosen(t, s, true, 10*minute, hour)
		require.Equal(t, []string{who}, shownPieces(pieces))
		require.Contains(t, pieces[0].Why, want)
	}
	f("the only replica", "10-60 0", func(*config.Group) {}, a)
	f("whole", "10-60 0", func(*config.Group) {}, a, b)
	f("replicas: merge", "10-60 [0]", func(c *config.Group) { c.Replicas = config.MergeAll }, a, b)
	f("the only replica", "10-60 0", func(c *config.Group) { c.Replicas = config.MergeAll }, a)
	f("it stores what several replicas have written", "10-60 [0]", func(c *config.Group) { c.ReplicaLabels = []string{"replica"} }, a)
	f("no replicas", "10-60 [0]", func(*config.Group) {})
	f("no evidence: the group's configuration takes", "10-60 [0]", func(c *config.Group) { c.Labels = map[string]string{"job": "x"} }, a, b)
	// The window reaches from 5:00.001 to 60:00, and now is 3 h.
	old := func(d time.Duration) func(*config.Group) {
		return func(c *config.Group) { c.TimeRange.MinAge = model.Duration(d) }
	}
	young := func(d time.Duration) func(*config.Group) {
		return func(c *config.Group) { c.TimeRange.MaxAge = model.Duration(d) }
	}
	f("whole", "10-60 0", old(2*time.Hour), a, b)
	f("its time_range does not hold", "10-60 [0]", old(2*time.Hour+time.Millisecond), a, b)
	f("whole", "10-60 0", young(2*time.Hour+55*time.Minute-time.Millisecond), a, b)
	f("its time_range does not hold", "10-60 [0]", young(2*time.Hour+55*time.Minute-2*time.Millisecond), a, b)
	f("its time_range does not hold", "10-60 [0]", young(2*time.Hour), a)
}

func TestChoose_GroupsThatMayShareSeries(t *testing.T) {
	s, _ := setAt(t, groupOf("a", newEvaluator(t, there).Server), groupOf("b", newEvaluator(t, there).Server))
	pieces := chosen(t, s, true, 10*minute, hour)
	require.Equal(t, []string{"10-60 [0]"}, shownPieces(pieces))
	require.Equal(t, "groups that may hold the same series", pieces[0].Why)
	require.Empty(t, pieces[0].Replica())
}

func TestChoose_ReplicaThatDoesNotAnswer(t *testing.T) {
	a, b := newEvaluator(t, there), newEvaluator(t, there)
	s, c := evidenceSet(t, 3*hour, a.Server, b.Server)
	b.Close()
	pieces := chosen(t, s, true, 10*minute, hour)
	require.Equal(t, []string{"10-60 0"}, shownPieces(pieces))
	require.Contains(t, fmt.Sprint(pieces[0].partition.view.Ledger.LateWarnings()), b.URL)
	a.Close()
	c.ms.Add(youngAge)
	require.Equal(t, []string{"10-60 [0]"}, shownPieces(chosen(t, s, true, 10*minute, hour)))
}

// TestChoose_NamesThatRulesWrite are merged apart, where that is possible.
func TestChoose_NamesThatRulesWrite(t *testing.T) {
	a, b := newEvaluator(t, away), newEvaluator(t, there)
	b.replace["/rules"] = answering(`{"status":"success","data":{"groups":[{"rules":[{"type":"recording","name":"a:b"}]}]}}`)
	s, _ := evidenceSet(t, 3*hour, a.Server, b.Server)
	ms := matchersOf(t, `{job=~".+"}`)
	p := s.View(t.Context()).Partitions([]Selection{{Matchers: ms, MinT: 0, MaxT: hour}})[0]
	need := Need{Steps: transport.Steps{Start: 10 * minute, End: hour, Step: minute, Lookback: 5 * minute}, Reaches: []Reach{{Matchers: ms, From: -5 * minute}}}
	f := func(byName bool, want ...string) {
		t.Helper()
		need.ByName = byName
		pieces, err := p.Choose(t.Context(), need)
		require.NoError(t, err)
		require.Equal(t, want, shownPieces(pieces))
	}
	const but, only = `__name__!~"ALERTS|ALERTS_FOR_STATE|a:b"`, `__name__=~"ALERTS|ALERTS_FOR_STATE|a:b"`
	f(false, "10-60 [0]")
	f(true, "10-23 0 "+but, "24-40 1 "+but, "41-60 0 "+but, "10-60 [0] "+only)
}

func TestChoose_RecordingRule(t *testing.T) {
	a, b := newEvaluator(t, there), newEvaluator(t, there)
	b.replace["/rules"] = answering(`{"status":"success","data":{"groups":[{"rules":[{"type":"recording","name":"foo"}]}]}}`)
	s, _ := evidenceSet(t, 3*hour, a.Server, b.Server)
	pieces := chosen(t, s, true, 10*minute, hour)
	require.Equal(t, []string{"10-60 [0]"}, shownPieces(pieces))
	require.Equal(t, "no evidence: no scrape of a target brings the series foo", pieces[0].Why)
	require.Equal(t, []string{"10-60 0"}, shownPieces(chosenOf(t, s, "up", true, 10*minute, hour)))
}

// A replica that hangs gives no evidence, and does not take the query's time.
func TestChoose_EvidenceThatDoesNotCome(t *testing.T) {
	a, b := newScraper(t, away), newScraper(t, there)
	s, _ := evidenceSet(t, 3*hour, a.Server, b.Server)
	defer a.hold()()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	sel := selectionOf(t, "foo")
	need := Need{
		Steps:   transport.Steps{Start: 30 * minute, End: hour, Step: minute, Lookback: 5 * minute},
		Reaches: []Reach{{Matchers: sel.Matchers, From: -5 * minute}},
	}
	pieces, err := s.View(t.Context()).Partitions([]Selection{sel})[0].Choose(ctx, need)
	require.NoError(t, err)
	require.NoError(t, ctx.Err())
	require.Len(t, pieces, 1)
	require.Equal(t, "no evidence: it did not come in time", pieces[0].Why)
}

// A subquery can have more steps than can be chosen for one by one.
func TestChoose_TooManySteps(t *testing.T) {
	s, _ := evidenceSet(t, 3*hour, newEvaluator(t, there).Server)
	for count, want := range map[int64]string{mostSteps: "the only replica", mostSteps + 1: "more than 100000 steps"} {
		need := Need{Steps: transport.Steps{End: count - 1, Step: 1, Lookback: minute}}
		pieces, err := s.View(t.Context()).Partitions([]Selection{selectionOf(t, "foo")})[0].Choose(t.Context(), need)
		require.NoError(t, err)
		require.Equal(t, want, pieces[0].Why)
	}
}
