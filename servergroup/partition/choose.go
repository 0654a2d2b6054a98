package partition

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/evidence"
	"github.com/oneprom/oneprom/servergroup/labelmap"
	"github.com/oneprom/oneprom/servergroup/pushdown"
	"github.com/oneprom/oneprom/servergroup/replica"
	"github.com/oneprom/oneprom/servergroup/transport"
	"github.com/oneprom/oneprom/servergroup/view"
)

// maxEvidenceWait is the longest time that a query waits for evidence, as a replica may hang. The
// evidence is still collected for the next query.
const maxEvidenceWait = 3 * time.Second

// evidenceContext returns a context for collecting evidence. It leaves at least three quarters of
// a query's time for answering without evidence.
func evidenceContext(ctx context.Context) (context.Context, context.CancelFunc) {
	wait := maxEvidenceWait
	if deadline, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(deadline)/4)
	}
	return context.WithTimeout(ctx, wait)
}

const (
	// maxAssignments is the most assignments that the steps of a part are divided into. Each
	// of them fetches or evaluates the windows before its first steps again.
	maxAssignments = 6
	// idleSteps is how many steps may be evaluated for nothing to save a request, and idleTime
	// (ms) how much time they may span. They cost about as much as finding some hundred
	// series costs a Prometheus.
	idleSteps = 30
	idleTime  = 10 * 60 * 1000
	// MostSteps is the most steps of a part, as in a long subquery, for which replicas are
	// chosen step by step, or which a replica is asked to evaluate.
	MostSteps = 100_000
	// targetsPerCut is how many targets a group must have for each target that may be cut out
	// of the answer of a main replica.
	targetsPerCut = 20
)

// Choose divides the answer of a partition into pieces. If the partition is a group of several
// replicas, it collects evidence of what they have missed.
func (p *Partition) Choose(ctx context.Context, n Need) ([]*Piece, error) {
	pieces, err := p.choose(ctx, n)
	for _, piece := range pieces {
		piece.reaches = n.Reaches
	}
	return pieces, err
}

func (p *Partition) choose(ctx context.Context, n Need) ([]*Piece, error) {
	merged := func(why string, lost pushdown.Reason) ([]*Piece, error) {
		if p.proves() {
			return nil, p.needsCopies(always)
		}
		all := p.piece(why, n.Steps)
		all.lost = lost
		return []*Piece{all}, nil
	}
	switch {
	case len(p.members) > 1:
		return merged("groups that may hold the same series", pushdown.Overlap)
	case n.Steps.Count() > MostSteps:
		return merged(fmt.Sprintf("more than %d steps", MostSteps), "")
	}
	g := p.members[0]
	lo, hi := g.Config.TimeRange.Bounds(p.view.Now)
	for _, r := range n.Reaches {
		if from, to := r.Window(n.Steps.Start, n.Steps.End); from < lo || to > hi {
			return merged("its time_range does not hold the whole window", pushdown.TimeRange)
		}
	}
	c := chooser{partition: p, need: n, steps: int(n.Steps.Count()), targets: 1, lost: map[int]error{}}
	switch {
	case len(g.Replicas) == 0:
		return merged("no replicas", "")
	case g.Runs() == 1:
		return c.onlyReplica(ctx, g)
	case len(g.Replicas) == 1:
		return merged("it stores what several replicas have written", pushdown.SharedStore)
	case g.Config.Replicas == config.MergeAll:
		return merged("replicas: merge", pushdown.MergeAll)
	}
	none, err := c.gather(ctx, g)
	switch {
	case err != nil:
		return nil, err
	case len(c.lost) == len(g.Replicas) && p.proves() && !p.insists():
		return []*Piece{p.piece("no replica answers", n.Steps)}, nil
	case none.Reason == pushdown.Unscraped && p.proves():
		all := p.piece("no evidence: "+none.Why, n.Steps)
		all.lost = none.Reason
		return c.proven([]*Piece{all})
	case none.Why != "":
		return merged("no evidence: "+none.Why, none.Reason)
	case len(c.lost) == len(g.Replicas):
		return merged("no replica answers", "")
	case len(c.lost) > 0:
		var errs []error
		for _, r := range slices.Sorted(maps.Keys(c.lost)) {
			errs = append(errs, c.lost[r])
		}
		p.view.Ledger.LostReplicas(completeness.Outcome{Group: p.view.CompletenessOf(g), Asked: len(g.Replicas), Failed: errs})
	}
	return c.proven(c.pieces())
}

// onlyReplica returns the piece of a group that has one replica.
func (c *chooser) onlyReplica(ctx context.Context, g view.Group) ([]*Piece, error) {
	only := c.partition.piece("the only replica", c.need.Steps)
	only.single = g.Replicas[0]
	only.generations = map[*replica.Replica]uint64{only.single: only.single.Generation()}
	if !c.partition.proves() {
		return []*Piece{only}, nil
	}
	none, err := c.gather(ctx, g)
	switch {
	case err != nil:
		return nil, err
	case none.Why != "" && none.Reason != pushdown.Unscraped:
		return nil, c.partition.needsCopies(always)
	}
	return c.proven([]*Piece{only})
}

// chooser chooses among the replicas of one group.
type chooser struct {
	partition *Partition
	need      Need
	steps     int
	targets   int                // how many targets the selectors may concern
	unscraped []string           // metric names that must be merged, as evidence is not about them
	spoiled   []map[string][]run // by replica and instance: steps whose window includes missed scrapes
	lacking   [][]run            // by replica: steps whose window is one in which it lacks some series
	lost      map[int]error      // of the replicas that do not answer, by index
	// generations are those of the replicas before they were asked for evidence.
	generations map[*replica.Replica]uint64
	unproven    []unproven // counts that are still under way
	uncounted   bool       // a replica failed to count some series
	// silent are spans in the windows in which no replica scraped anything.
	silent []evidence.Span
	lacks  []lack // that lacking is about
}

// run is a range of steps by index, inclusive.
type run struct{ from, to int }

// gather collects the evidence of what the replicas missed. none is the reason why there is none, if
// there is none.
func (c *chooser) gather(ctx context.Context, g view.Group) (none pushdown.Refusal, err error) {
	c.spoiled, c.lacking = make([]map[string][]run, len(g.Replicas)), make([][]run, len(g.Replicas))
	for i := range c.spoiled {
		c.spoiled[i] = map[string][]run{}
	}
	c.generations = map[*replica.Replica]uint64{}
	for _, r := range g.Replicas {
		c.generations[r] = r.Generation()
	}
	wait, cancel := evidenceContext(ctx)
	defer cancel()
	for _, reach := range c.need.Reaches {
		from, to := reach.Window(c.need.Steps.Start, c.need.Steps.End)
		sh, err := c.partition.view.Evidence(wait, g, reach.Matchers, from-evidence.ScrapeSlack, to+evidence.ScrapeSlack)
		maps.Copy(c.lost, sh.Failed)
		switch {
		case err != nil && wait.Err() != nil && ctx.Err() == nil:
			return pushdown.Refusal{Why: "it did not come in time", Reason: pushdown.NoEvidence}, nil
		case err != nil:
			return none, err
		case sh.Unavailable != "" && g.Config.Forwards():
			return pushdown.Refusal{Why: sh.Unavailable, Reason: pushdown.Forwarding}, nil
		case sh.Unavailable != "":
			return pushdown.Refusal{Why: sh.Unavailable, Reason: pushdown.NoEvidence}, nil
		}
		if len(sh.Unscraped) > 0 && !c.need.ByName {
			none = pushdown.Refusal{Why: "no scrape of a target brings the series " + sh.Unscraped[0], Reason: pushdown.Unscraped}
			if !c.partition.proves() {
				return none, nil
			}
		}
		if sh.Counting != nil {
			c.unproven = append(c.unproven, unproven{reach, sh.Counting})
		}
		c.uncounted = c.uncounted || sh.Uncounted
		for _, s := range sh.Silent {
			if _, ok := reach.stepsOf(c.need.Steps, s); ok {
				c.silent = append(c.silent, s)
			}
		}
		c.targets = max(c.targets, sh.Targets)
		c.unscraped = append(c.unscraped, sh.Unscraped...)
		for r, spans := range sh.Lacking {
			for _, s := range spans {
				if hit, ok := reach.stepsOf(c.need.Steps, s); ok {
					c.lacking[r] = append(c.lacking[r], hit)
					c.lacks = append(c.lacks, lack{reach, s})
				}
			}
		}
		for r, byInstance := range sh.Missed {
			for instance, spans := range byInstance {
				for _, s := range spans {
					if hit, ok := reach.stepsOf(c.need.Steps, s); ok {
						c.spoiled[r][instance] = append(c.spoiled[r][instance], hit)
					}
				}
			}
		}
	}
	for r, byInstance := range c.spoiled {
		c.lacking[r] = mergeRuns(c.lacking[r])
		for instance, runs := range byInstance {
			byInstance[instance] = mergeRuns(runs)
		}
	}
	return none, nil
}

// mergeAll stands for the main replica of steps for which all replicas must be merged.
const mergeAll = -1

// assignment is the ranges of steps that have the same main replica and are answered together.
type assignment struct {
	main int
	runs []run
}

func (s assignment) last() run { return s.runs[len(s.runs)-1] }

// pieces makes the pieces by the evidence.
func (c *chooser) pieces() []*Piece {
	assignments := c.assign(c.mainReplicas())
	var out []*Piece
	mergedSteps := 0
	for _, s := range assignments {
		out = append(out, c.divide(s)...)
		for _, u := range s.runs {
			if s.main == mergeAll {
				mergedSteps += u.to + 1 - u.from
			}
		}
	}
	if len(assignments) > maxAssignments || 2*mergedSteps > c.steps {
		return []*Piece{c.merged("no replica is whole for long", 0, c.need.Steps)}
	}
	return c.withUnscraped(out)
}

// withUnscraped excludes the unscraped names from pieces, and adds a piece that merges them.
func (c *chooser) withUnscraped(pieces []*Piece) []*Piece {
	if len(c.unscraped) == 0 {
		return pieces
	}
	text := labelmap.AnyOf(c.unscraped)
	for _, p := range pieces {
		p.narrowed = append(p.narrowed, labels.MustNewMatcher(labels.MatchNotRegexp, labels.MetricName, text))
	}
	rest := c.partition.piece("no scrape of a target brings these series", c.need.Steps)
	rest.narrowed = []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, labels.MetricName, text)}
	rest.lost = pushdown.Unscraped
	return append(pieces, rest)
}

// assign joins the ranges of steps that have the same main replica and are at most maxGap apart.
func (c *chooser) assign(main []int) []assignment {
	var out []assignment
	latest := map[int]int{} // in out, by main replica
	maxGap := c.maxGap()
	for from := 0; from < len(main); {
		at := run{from, from}
		for at.to+1 < len(main) && main[at.to+1] == main[from] {
			at.to++
		}
		i, ok := latest[main[from]]
		if ok && int64(at.from-out[i].last().to-1) <= maxGap {
			out[i].runs = append(out[i].runs, at)
		} else {
			latest[main[from]] = len(out)
			out = append(out, assignment{main[from], []run{at}})
		}
		from = at.to + 1
	}
	return out
}

// maxGap is how many steps may lie between ranges that are answered together: as many as the
// window before the second range spans, and some idle ones.
func (c *chooser) maxGap() int64 {
	window := int64(0)
	for _, r := range c.need.Reaches {
		if !r.Fixed {
			window = max(window, r.To-r.From)
		}
	}
	step := c.need.Steps.Step
	return (window + min(idleTime, idleSteps*step)) / step
}

// mainReplicas returns for each step the index of the first replica that is whole in its window.
// Where targets can be cut out, it may have missed scrapes of one target in targetsPerCut.
func (c *chooser) mainReplicas() []int {
	counts := make([][]int, len(c.spoiled))
	for r, byInstance := range c.spoiled {
		counts[r] = make([]int, c.steps+1)
		for _, runs := range byInstance {
			for _, u := range runs {
				counts[r][u.from]++
				counts[r][u.to+1]--
			}
		}
		for i := 1; i <= c.steps; i++ {
			counts[r][i] += counts[r][i-1]
		}
	}
	limit := 0
	if c.need.ByTarget {
		limit = c.targets / targetsPerCut
	}
	for r, runs := range c.lacking {
		for _, u := range runs {
			for i := u.from; i <= u.to; i++ {
				counts[r][i] = math.MaxInt
			}
		}
	}
	main := make([]int, c.steps)
	for i := range main {
		main[i] = mergeAll
		for r, n := range counts {
			if _, lost := c.lost[r]; !lost && n[i] <= limit {
				main[i] = r
				break
			}
		}
	}
	return main
}

// mergeRuns returns runs sorted and without overlaps.
func mergeRuns(runs []run) []run {
	slices.SortFunc(runs, func(a, b run) int { return cmp.Compare(a.from, b.from) })
	out := runs[:0]
	for _, u := range runs {
		if n := len(out); n > 0 && u.from <= out[n-1].to+1 {
			out[n-1].to = max(out[n-1].to, u.to)
		} else {
			out = append(out, u)
		}
	}
	return out
}

// merged returns a piece that merges all replicas, beginning with the one at index first.
func (c *chooser) merged(why string, first int, turns ...transport.Steps) *Piece {
	p := c.partition.piece(why, turns...)
	p.first, p.allNeeded = first, true
	return p
}

// divide makes the pieces of an assignment: one that its main replica answers alone, and one that
// merges all replicas for the targets whose scrapes the main replica has missed.
func (c *chooser) divide(s assignment) []*Piece {
	var turns []transport.Steps
	for _, u := range s.runs {
		turn := c.need.Steps
		turn.Start, turn.End = turn.Start+int64(u.from)*turn.Step, turn.Start+int64(u.to)*turn.Step
		turns = append(turns, turn)
	}
	if s.main == mergeAll {
		return []*Piece{c.merged("no replica is whole", 0, turns...)}
	}
	cut := c.cut(s)
	if 2*len(cut) > c.targets { // nothing would be saved
		return []*Piece{c.merged(fmt.Sprintf("%d of %d targets are not whole", len(cut), c.targets), s.main, turns...)}
	}
	alone := c.partition.piece("whole", turns...)
	alone.single, alone.generations = c.partition.members[0].Replicas[s.main], c.generations
	alone.unproven, alone.uncounted, alone.cut = c.unproven, c.uncounted, cut
	isCut := func(instance string) bool {
		_, ok := slices.BinarySearch(cut, instance)
		return ok
	}
	whole := c.wholeFor(s, func(instance string) bool { return !isCut(instance) })
	alone.alternatives = slices.DeleteFunc(whole, func(r *replica.Replica) bool { return r == alone.single })
	if len(cut) == 0 {
		return []*Piece{alone}
	}
	text := labelmap.AnyOf(cut)
	alone.Why = fmt.Sprintf("whole but for %d of %d targets", len(cut), c.targets)
	alone.narrowed = []*labels.Matcher{labels.MustNewMatcher(labels.MatchNotRegexp, labelmap.TargetLabel, text)}
	rest := c.merged("targets cut out", s.main, turns...)
	rest.wholeReplicas = c.wholeFor(s, isCut)
	rest.narrowed = []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, labelmap.TargetLabel, text)}
	return []*Piece{alone, rest}
}

// wholeFor returns the replicas that have missed nothing of some targets at the steps of an
// assignment.
func (c *chooser) wholeFor(s assignment, among func(instance string) bool) []*replica.Replica {
	var out []*replica.Replica
	for r, byInstance := range c.spoiled {
		_, lost := c.lost[r]
		lost = lost || slices.ContainsFunc(c.lacking[r], s.meets)
		for instance, spoiled := range byInstance {
			lost = lost || among(instance) && slices.ContainsFunc(spoiled, s.meets)
		}
		if !lost {
			out = append(out, c.partition.members[0].Replicas[r])
		}
	}
	return out
}

// meets reports whether a range of steps overlaps those of the assignment.
func (s assignment) meets(u run) bool { return slices.ContainsFunc(s.runs, u.meets) }

// cut returns the sorted targets whose scrapes the main replica of an assignment has missed.
func (c *chooser) cut(s assignment) []string {
	var out []string
	for instance, spoiled := range c.spoiled[s.main] {
		if slices.ContainsFunc(spoiled, s.meets) {
			out = append(out, instance)
		}
	}
	slices.Sort(out)
	return out
}

func (u run) meets(o run) bool { return u.from <= o.to && u.to >= o.from }
