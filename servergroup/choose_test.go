package servergroup

import (
	"context"
	"fmt"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest/scraper"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/evidence"
	"github.com/oneprom/oneprom/servergroup/partition"
	"github.com/oneprom/oneprom/servergroup/replica"
	"github.com/oneprom/oneprom/servergroup/transport"
	"github.com/oneprom/oneprom/servergroup/view"
)

// shownPieces prints pieces of the first group as `from-to,from-to replica targets`: the index
// of the replica that answers alone, or "merged".
func shownPieces(s *Set, pieces []*partition.Piece) []string {
	replicas := *s.current.Load().groups()[0].replicas.Load()
	var out []string
	for _, p := range pieces {
		var turns []string
		for _, turn := range p.Turns {
			turns = append(turns, fmt.Sprintf("%d-%d", turn.Start/minute, turn.End/minute))
		}
		who := "merged"
		if i := slices.IndexFunc(replicas, func(r *replica.Replica) bool { return r.URL() == p.Replica() }); i >= 0 {
			who = strconv.Itoa(i)
		}
		text := strings.Join(turns, ",") + " " + who
		for _, m := range p.Narrowed() {
			text += " " + m.String()
		}
		out = append(out, text)
	}
	return out
}

// chosen chooses for steps of each minute, of the last five minutes of foo.
func chosen(t *testing.T, s *Set, byTarget bool, first, last int64) []*partition.Piece {
	t.Helper()
	return chosenOf(t, s, "foo", byTarget, first, last)
}

func chosenOf(t *testing.T, s *Set, selector string, byTarget bool, first, last int64) []*partition.Piece {
	t.Helper()
	return chosenFrom(t, s.View(t.Context()), selector, byTarget, first, last)
}

func chosenFrom(t *testing.T, v *view.View, selector string, byTarget bool, first, last int64) []*partition.Piece {
	t.Helper()
	ms := matchersOf(t, selector)
	st := transport.Steps{Start: first, End: last, Step: minute, Lookback: 5 * minute}
	list := partition.Of(v, []view.Selection{{Matchers: ms, MinT: first - 5*minute + 1, MaxT: last}})
	require.Len(t, list, 1)
	pieces, err := list[0].Choose(t.Context(), partition.Need{Steps: st, Reaches: []partition.Reach{{Matchers: ms, From: -5 * minute}}, ByTarget: byTarget})
	require.NoError(t, err)
	return pieces
}

// TestChoose_PairOfWhichOneWasAway: the first misses b's scrapes from 25:00 to
// 34:45; a missed scrape counts a minute before and after the window.
func TestChoose_PairOfWhichOneWasAway(t *testing.T) {
	a, b := newEvaluator(t, away), newEvaluator(t, there)
	s, _ := evidenceSet(t, 3*hour, a.Server, b.Server)
	require.Equal(t, []string{"10-23 0", "24-40 1", "41-60 0"}, shownPieces(s, chosen(t, s, false, 10*minute, hour)))
	require.Equal(t, []string{"10-23 0", "24-40 1", "41-60 0"}, shownPieces(s, chosen(t, s, true, 10*minute, hour)))
	pieces := chosen(t, s, false, 41*minute, hour)
	require.Equal(t, []string{"41-60 0"}, shownPieces(s, pieces))
	require.Equal(t, a.URL, pieces[0].Replica())
	require.Equal(t, []string{"10-60 0"}, shownPieces(s, chosenOf(t, s, `foo{instance="a"}`, false, 10*minute, hour)))
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
	require.Equal(t, []string{`10-60 0 instance!~"t\\.0"`, `10-60 merged instance=~"t\\.0"`}, shownPieces(s, pieces))
	require.Equal(t, []string{"10-23 0", "24-40 1", "41-60 0"}, shownPieces(s, chosen(t, s, false, 10*minute, hour)))

	text, err := pieceText(t, pieces[1], `foo`, 30*minute, 30*minute+30_000)
	require.NoError(t, err)
	require.Equal(t, `{__name__="foo", instance="t.0", job="j"} 1800:1 1815:1 1830:1`+"\n", text)
	text, err = pieceText(t, pieces[0], `foo`, 30*minute, 30*minute)
	require.NoError(t, err)
	require.Equal(t, 19, strings.Count(text, "1800:1"))
}

// pieceText fetches a piece's series and prints them.
func pieceText(t *testing.T, p *partition.Piece, selector string, mint, maxt int64) (string, error) {
	t.Helper()
	var done sync.WaitGroup
	defer done.Wait()
	set := p.Select(t.Context(), view.Selection{Matchers: matchersOf(t, selector), MinT: mint, MaxT: maxt}, &done).Read()
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
		require.Equal(t, []string{who}, shownPieces(s, pieces))
		require.Contains(t, pieces[0].Why, want)
	}
	f("the only replica", "10-60 0", func(*config.Group) {}, a)
	f("whole", "10-60 0", func(*config.Group) {}, a, b)
	f("replicas: merge", "10-60 merged", func(c *config.Group) { c.Replicas = config.MergeAll }, a, b)
	f("the only replica", "10-60 0", func(c *config.Group) { c.Replicas = config.MergeAll }, a)
	f("it stores what several replicas have written", "10-60 merged", func(c *config.Group) { c.ReplicaLabels = []string{"replica"} }, a)
	f("no replicas", "10-60 merged", func(*config.Group) {})
	f("no evidence: the group's configuration takes", "10-60 merged", func(c *config.Group) { c.Labels = map[string]string{"job": "x"} }, a, b)
	// The window reaches from 5:00.001 to 60:00, and now is 3 h.
	old := func(d time.Duration) func(*config.Group) {
		return func(c *config.Group) { c.TimeRange.MinAge = model.Duration(d) }
	}
	young := func(d time.Duration) func(*config.Group) {
		return func(c *config.Group) { c.TimeRange.MaxAge = model.Duration(d) }
	}
	f("whole", "10-60 0", old(2*time.Hour), a, b)
	f("its time_range does not hold", "10-60 merged", old(2*time.Hour+time.Millisecond), a, b)
	f("whole", "10-60 0", young(2*time.Hour+55*time.Minute-time.Millisecond), a, b)
	f("its time_range does not hold", "10-60 merged", young(2*time.Hour+55*time.Minute-2*time.Millisecond), a, b)
	f("its time_range does not hold", "10-60 merged", young(2*time.Hour), a)
}

func TestChoose_GroupsThatMayShareSeries(t *testing.T) {
	s, _ := setAt(t, groupOf("a", newEvaluator(t, there).Server), groupOf("b", newEvaluator(t, there).Server))
	pieces := chosen(t, s, true, 10*minute, hour)
	require.Equal(t, []string{"10-60 merged"}, shownPieces(s, pieces))
	require.Equal(t, "groups that may hold the same series", pieces[0].Why)
	require.Empty(t, pieces[0].Replica())
}

func TestChoose_ReplicaThatDoesNotAnswer(t *testing.T) {
	a, b := newEvaluator(t, there), newEvaluator(t, there)
	s, c := evidenceSet(t, 3*hour, a.Server, b.Server)
	b.Close()
	v := s.View(t.Context())
	require.Equal(t, []string{"10-60 0"}, shownPieces(s, chosenFrom(t, v, "foo", true, 10*minute, hour)))
	require.Contains(t, fmt.Sprint(v.Ledger.LateWarnings()), b.URL)
	a.Close()
	c.ms.Add(evidence.ProvisionalAge)
	require.Equal(t, []string{"10-60 merged"}, shownPieces(s, chosen(t, s, true, 10*minute, hour)))
}

// TestChoose_NamesThatRulesWrite are merged apart, where that is possible.
func TestChoose_NamesThatRulesWrite(t *testing.T) {
	a, b := newEvaluator(t, away), newEvaluator(t, there)
	b.replace["/rules"] = answering(`{"status":"success","data":{"groups":[{"rules":[{"type":"recording","name":"a:b"}]}]}}`)
	s, _ := evidenceSet(t, 3*hour, a.Server, b.Server)
	ms := matchersOf(t, `{job=~".+"}`)
	p := partition.Of(s.View(t.Context()), []view.Selection{{Matchers: ms, MinT: 0, MaxT: hour}})[0]
	need := partition.Need{Steps: transport.Steps{Start: 10 * minute, End: hour, Step: minute, Lookback: 5 * minute}, Reaches: []partition.Reach{{Matchers: ms, From: -5 * minute}}}
	f := func(byName bool, want ...string) {
		t.Helper()
		need.ByName = byName
		pieces, err := p.Choose(t.Context(), need)
		require.NoError(t, err)
		require.Equal(t, want, shownPieces(s, pieces))
	}
	const but, only = `__name__!~"ALERTS|ALERTS_FOR_STATE|a:b"`, `__name__=~"ALERTS|ALERTS_FOR_STATE|a:b"`
	f(false, "10-60 merged")
	f(true, "10-23 0 "+but, "24-40 1 "+but, "41-60 0 "+but, "10-60 merged "+only)
}

func TestChoose_RecordingRule(t *testing.T) {
	a, b := newEvaluator(t, there), newEvaluator(t, there)
	b.replace["/rules"] = answering(`{"status":"success","data":{"groups":[{"rules":[{"type":"recording","name":"foo"}]}]}}`)
	s, _ := evidenceSet(t, 3*hour, a.Server, b.Server)
	pieces := chosen(t, s, true, 10*minute, hour)
	require.Equal(t, []string{"10-60 merged"}, shownPieces(s, pieces))
	require.Equal(t, "no evidence: no scrape of a target brings the series foo", pieces[0].Why)
	require.Equal(t, []string{"10-60 0"}, shownPieces(s, chosenOf(t, s, "up", true, 10*minute, hour)))
}

// A replica that hangs gives no evidence, and does not take the query's time.
func TestChoose_EvidenceThatDoesNotCome(t *testing.T) {
	a, b := scraper.New(t, away), scraper.New(t, there)
	s, _ := evidenceSet(t, 3*hour, a.Server, b.Server)
	defer a.Hold()()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	sel := selectionOf(t, "foo")
	need := partition.Need{
		Steps:   transport.Steps{Start: 30 * minute, End: hour, Step: minute, Lookback: 5 * minute},
		Reaches: []partition.Reach{{Matchers: sel.Matchers, From: -5 * minute}},
	}
	pieces, err := partition.Of(s.View(t.Context()), []view.Selection{sel})[0].Choose(ctx, need)
	require.NoError(t, err)
	require.NoError(t, ctx.Err())
	require.Len(t, pieces, 1)
	require.Equal(t, "no evidence: it did not come in time", pieces[0].Why)
}

// A subquery can have more steps than can be chosen for one by one.
func TestChoose_TooManySteps(t *testing.T) {
	s, _ := evidenceSet(t, 3*hour, newEvaluator(t, there).Server)
	for count, want := range map[int64]string{partition.MostSteps: "the only replica", partition.MostSteps + 1: "more than 100000 steps"} {
		need := partition.Need{Steps: transport.Steps{End: count - 1, Step: 1, Lookback: minute}}
		pieces, err := partition.Of(s.View(t.Context()), []view.Selection{selectionOf(t, "foo")})[0].Choose(t.Context(), need)
		require.NoError(t, err)
		require.Equal(t, want, pieces[0].Why)
	}
}
