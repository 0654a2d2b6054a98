package partition

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/evidence"
	"github.com/oneprom/oneprom/servergroup/labelmap"
	"github.com/oneprom/oneprom/servergroup/replica"
	"github.com/oneprom/oneprom/servergroup/transport"
	"github.com/oneprom/oneprom/servergroup/view"
)

// Reach says which samples a step at t needs of a selector: those in
// (t+From, t+To] (ms), or in (From, To] if Fixed.
type Reach struct {
	Matchers []*labels.Matcher
	From, To int64
	Fixed    bool
}

// window returns what steps from first to last (ms) need, inclusive.
func (r Reach) window(first, last int64) (from, to int64) {
	if r.Fixed {
		return r.From + 1, r.To
	}
	return first + r.From + 1, last + r.To
}

// Need is what is wanted of a partition.
type Need struct {
	Steps   transport.Steps
	Reaches []Reach
	// ByTarget tells that the answers for disjoint sets of targets may be put
	// together, ByName those for disjoint sets of names of metrics.
	ByTarget, ByName bool
}

// Piece is a share of the answer of a partition: some steps, for all series or some,
// made of the samples of one replica, or of all.
type Piece struct {
	// Steps are those at which it is evaluated.
	Steps transport.Steps
	// Turns are the runs of Steps at which it is the answer. Between them other pieces
	// are: it is cheaper to evaluate these steps in vain than to begin anew.
	Turns []transport.Steps
	// Why says why this piece is answered as it is.
	Why string

	partition *Partition
	alone     *replica.Replica   // which answers alone; nil: all are merged
	twins     []*replica.Replica // others that could answer alone as well
	first     int                // the replica whose samples come first where all are merged
	needed    bool               // all are merged because the first has missed something
	whole     []*replica.Replica // those that have not, where all are merged
	narrowed  []*labels.Matcher  // to some series; none: all of them
}

// Replica is the URL of the replica that answers alone, "" if all are merged.
func (p *Piece) Replica() string {
	if p.alone == nil {
		return ""
	}
	return p.alone.URL()
}

// Narrowed are the matchers that narrow the piece to some targets, and to some names of
// metrics. There are none if it is about all series.
func (p *Piece) Narrowed() []*labels.Matcher { return p.narrowed }

// PerTurn returns a piece for each turn.
func (p *Piece) PerTurn() []*Piece {
	out := make([]*Piece, len(p.Turns))
	for i, turn := range p.Turns {
		one := *p
		one.Steps, one.Turns = turn, []transport.Steps{turn}
		out[i] = &one
	}
	return out
}

// Key tells pieces of one view apart by what is fetched for them: those with equal
// keys get the same samples.
func (p *Piece) Key() string {
	return fmt.Sprintf("%p %p %d %v", p.partition, p.alone, p.first, p.narrowed)
}

// evidenceWait is how long a query waits for evidence at the most, which a replica
// that hangs does not give. It goes on coming for the next query.
const evidenceWait = 3 * time.Second

// evidenceContext leaves three quarters of a query's time to do without evidence.
func evidenceContext(ctx context.Context) (context.Context, context.CancelFunc) {
	wait := evidenceWait
	if deadline, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(deadline)/4)
	}
	return context.WithTimeout(ctx, wait)
}

const (
	// scrapeSlack (ms) is how far from a window a missed scrape may lie that another
	// clock would have seen in it.
	scrapeSlack = 60 * 1000
	// mostShares is the most shares that the steps of a part are divided into. Each of
	// them fetches, or has evaluated, the windows of its first steps again.
	mostShares = 6
	// idleSteps and idleTime (ms) are how many steps may be evaluated in vain to spare
	// another request, and how long they may take: about what it takes a Prometheus to
	// find some hundred series.
	idleSteps = 30
	idleTime  = 10 * 60 * 1000
	// MostSteps is the most steps of a part, as of a long subquery, that are chosen for
	// one by one, or asked of a backend.
	MostSteps = 100_000
	// spoiledShare is the share of a group's targets, one in so many, that may be cut
	// out where a replica is taken for whole.
	spoiledShare = 20
)

// Choose divides what is wanted of a partition into pieces. It asks the replicas of
// a group that has several what they have missed.
func (p *Partition) Choose(ctx context.Context, n Need) ([]*Piece, error) {
	merged := func(why string) []*Piece { return []*Piece{p.piece(why, n.Steps)} }
	switch {
	case len(p.members) > 1:
		return merged("groups that may hold the same series"), nil
	case n.Steps.Count() > MostSteps:
		return merged(fmt.Sprintf("more than %d steps", MostSteps)), nil
	}
	g := p.members[0]
	lo, hi := g.Config.TimeRange.Bounds(p.view.Now)
	for _, r := range n.Reaches {
		if from, to := r.window(n.Steps.Start, n.Steps.End); from < lo || to > hi {
			return merged("its time_range does not hold the whole window"), nil
		}
	}
	switch {
	case len(g.Replicas) == 0:
		return merged("no replicas"), nil
	case g.Runs() == 1:
		only := p.piece("the only replica", n.Steps)
		only.alone = g.Replicas[0]
		return []*Piece{only}, nil
	case len(g.Replicas) == 1:
		return merged("it stores what several replicas have written"), nil
	case g.Config.Replicas == config.MergeAll:
		return merged("replicas: merge"), nil
	}
	c := chooser{partition: p, need: n, steps: int(n.Steps.Count()), targets: 1, lost: map[int]error{}}
	none, err := c.look(ctx, g)
	if err != nil {
		return nil, err
	}
	switch {
	case none != "":
		return merged("no evidence: " + none), nil
	case len(c.lost) == len(g.Replicas):
		return merged("no replica answers"), nil
	case len(c.lost) > 0:
		var errs []error
		for _, r := range slices.Sorted(maps.Keys(c.lost)) {
			errs = append(errs, c.lost[r])
		}
		p.view.Ledger.LostReplicas(completeness.Outcome{Group: p.view.CompletenessOf(g), Asked: len(g.Replicas), Failed: errs})
	}
	return c.pieces(), nil
}

// piece is one that merges all replicas at runs of steps.
func (p *Partition) piece(why string, turns ...transport.Steps) *Piece {
	hull := turns[0]
	hull.End = turns[len(turns)-1].End
	return &Piece{Steps: hull, Turns: turns, Why: why, partition: p}
}

// chooser chooses among the replicas of one group.
type chooser struct {
	partition *Partition
	need      Need
	steps     int
	targets   int                // that the selectors may concern
	others    []string           // names of metrics that are to be merged: scrapes tell nothing of them
	spoiled   []map[string][]run // by replica and instance: the steps whose window meets what was missed
	lost      map[int]error      // replicas that do not answer
}

// run is a run of steps by index, inclusive.
type run struct{ from, to int }

// look finds out what the replicas missed.
func (c *chooser) look(ctx context.Context, g view.Group) (none string, err error) {
	c.spoiled = make([]map[string][]run, len(g.Replicas))
	for i := range c.spoiled {
		c.spoiled[i] = map[string][]run{}
	}
	wait, cancel := evidenceContext(ctx)
	defer cancel()
	for _, reach := range c.need.Reaches {
		from, to := reach.window(c.need.Steps.Start, c.need.Steps.End)
		sh, err := c.partition.view.Evidence(wait, g, reach.Matchers, from-scrapeSlack, to+scrapeSlack)
		switch {
		case err != nil && wait.Err() != nil && ctx.Err() == nil:
			return "it did not come in time", nil
		case err != nil || sh.Unavailable != "":
			return sh.Unavailable, err
		}
		if len(sh.Unscraped) > 0 && !c.need.ByName {
			return "no scrape of a target brings the series " + sh.Unscraped[0], nil
		}
		maps.Copy(c.lost, sh.Failed)
		c.targets = max(c.targets, sh.Targets)
		c.others = append(c.others, sh.Unscraped...)
		for r, byInstance := range sh.Missed {
			for instance, spans := range byInstance {
				for _, s := range spans {
					if hit, ok := c.stepsOf(reach, s); ok {
						c.spoiled[r][instance] = append(c.spoiled[r][instance], hit)
					}
				}
			}
		}
	}
	for _, byInstance := range c.spoiled {
		for instance, runs := range byInstance {
			byInstance[instance] = united(runs)
		}
	}
	return "", nil
}

// stepsOf returns the steps whose window comes near a span.
func (c *chooser) stepsOf(r Reach, s evidence.Span) (run, bool) {
	s.From, s.To = s.From-scrapeSlack, s.To+scrapeSlack
	if r.Fixed {
		return run{0, c.steps - 1}, s.To > r.From && s.From <= r.To
	}
	// t+From < s.to and s.from <= t+To
	st := c.need.Steps
	first := ceilDiv(s.From-r.To-st.Start, st.Step)
	last := ceilDiv(s.To-r.From-st.Start, st.Step) - 1
	hit := run{int(max(0, first)), int(min(int64(c.steps)-1, last))}
	return hit, hit.from <= hit.to
}

func ceilDiv(a, b int64) int64 {
	q := a / b
	if a%b != 0 && a > 0 {
		q++
	}
	return q
}

// merging stands for steps for which no replica will do.
const merging = -1

// share are runs of steps with one main replica, which are answered together.
type share struct {
	main int
	runs []run
}

func (s share) last() run { return s.runs[len(s.runs)-1] }

// pieces makes the pieces of what look has found.
func (c *chooser) pieces() []*Piece {
	shares := c.shares(c.mains())
	var out []*Piece
	mergedSteps := 0
	for _, s := range shares {
		out = append(out, c.divide(s)...)
		for _, u := range s.runs {
			if s.main == merging {
				mergedSteps += u.to + 1 - u.from
			}
		}
	}
	if len(shares) > mostShares || 2*mergedSteps > c.steps {
		return []*Piece{c.merged("no replica is whole for long", 0, c.need.Steps)}
	}
	return c.withOthers(out)
}

// withOthers leaves the other names out of pieces, and adds a piece that merges them.
func (c *chooser) withOthers(pieces []*Piece) []*Piece {
	if len(c.others) == 0 {
		return pieces
	}
	text := labelmap.AnyOf(c.others)
	for _, p := range pieces {
		p.narrowed = append(p.narrowed, labels.MustNewMatcher(labels.MatchNotRegexp, labels.MetricName, text))
	}
	rest := c.partition.piece("no scrape of a target brings these series", c.need.Steps)
	rest.narrowed = []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, labels.MetricName, text)}
	return append(pieces, rest)
}

// shares puts the runs of steps with equal main replicas together that are near each
// other.
func (c *chooser) shares(main []int) []share {
	var out []share
	latest := map[int]int{} // in out, by main replica
	near := c.near()
	for from := 0; from < len(main); {
		at := run{from, from}
		for at.to+1 < len(main) && main[at.to+1] == main[from] {
			at.to++
		}
		i, ok := latest[main[from]]
		if ok && int64(at.from-out[i].last().to-1) <= near {
			out[i].runs = append(out[i].runs, at)
		} else {
			latest[main[from]] = len(out)
			out = append(out, share{main[from], []run{at}})
		}
		from = at.to + 1
	}
	return out
}

// near is how many steps may lie between runs that are answered together: as many as
// need the samples that the second one needs before its first step, and some idle ones.
func (c *chooser) near() int64 {
	window := int64(0)
	for _, r := range c.need.Reaches {
		if !r.Fixed {
			window = max(window, r.To-r.From)
		}
	}
	step := c.need.Steps.Step
	return (window + min(idleTime, idleSteps*step)) / step
}

// mains returns for each step the first replica that is whole in its window. Where
// targets can be cut out, it may lack one in spoiledShare of them.
func (c *chooser) mains() []int {
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
		limit = c.targets / spoiledShare
	}
	main := make([]int, c.steps)
	for i := range main {
		main[i] = merging
		for r, n := range counts {
			if _, lost := c.lost[r]; !lost && n[i] <= limit {
				main[i] = r
				break
			}
		}
	}
	return main
}

// united returns runs sorted and without overlaps.
func united(runs []run) []run {
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

// merged is a piece of the samples of all replicas, those of the first one first.
func (c *chooser) merged(why string, first int, turns ...transport.Steps) *Piece {
	p := c.partition.piece(why, turns...)
	p.first, p.needed = first, true
	return p
}

// divide makes the pieces of a share: what its main replica answers alone, and the
// targets that it does not see whole, merged, its samples first.
func (c *chooser) divide(s share) []*Piece {
	var turns []transport.Steps
	for _, u := range s.runs {
		turn := c.need.Steps
		turn.Start, turn.End = turn.Start+int64(u.from)*turn.Step, turn.Start+int64(u.to)*turn.Step
		turns = append(turns, turn)
	}
	if s.main == merging {
		return []*Piece{c.merged("no replica is whole", 0, turns...)}
	}
	cut := c.cut(s)
	if 2*len(cut) > c.targets { // no more is to be won
		return []*Piece{c.merged(fmt.Sprintf("%d of %d targets are not whole", len(cut), c.targets), s.main, turns...)}
	}
	alone := c.partition.piece("whole", turns...)
	alone.alone = c.partition.members[0].Replicas[s.main]
	isCut := func(instance string) bool {
		_, found := slices.BinarySearch(cut, instance)
		return found
	}
	others := c.whole(s, func(instance string) bool { return !isCut(instance) })
	alone.twins = slices.DeleteFunc(others, func(r *replica.Replica) bool { return r == alone.alone })
	if len(cut) == 0 {
		return []*Piece{alone}
	}
	text := labelmap.AnyOf(cut)
	alone.Why = fmt.Sprintf("whole but for %d of %d targets", len(cut), c.targets)
	alone.narrowed = []*labels.Matcher{labels.MustNewMatcher(labels.MatchNotRegexp, labelmap.TargetLabel, text)}
	rest := c.merged("targets cut out", s.main, turns...)
	rest.whole = c.whole(s, isCut)
	rest.narrowed = []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, labelmap.TargetLabel, text)}
	return []*Piece{alone, rest}
}

// whole returns the replicas that see the targets that concern somebody whole at the
// steps of a share.
func (c *chooser) whole(s share, concerns func(instance string) bool) []*replica.Replica {
	var out []*replica.Replica
	for r, byInstance := range c.spoiled {
		_, lost := c.lost[r]
		for instance, spoiled := range byInstance {
			lost = lost || concerns(instance) && slices.ContainsFunc(spoiled, s.meets)
		}
		if !lost {
			out = append(out, c.partition.members[0].Replicas[r])
		}
	}
	return out
}

// meets reports whether steps are among those of the share.
func (s share) meets(u run) bool { return slices.ContainsFunc(s.runs, u.meets) }

// cut returns the targets that the main replica of a share does not see whole, sorted.
func (c *chooser) cut(s share) []string {
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

// routedGroups are the groups that a selection of the piece is fetched from.
func (p *Piece) routedGroups(sel view.Selection) []view.RoutedGroup {
	v := p.partition.view
	ts := v.RouteMergeAmong(p.partition.members, sel.Matchers, sel.MinT, sel.MaxT)
	for i := range ts {
		switch {
		case p.alone != nil:
			ts[i].Replicas, ts[i].Holders = []*replica.Replica{p.alone}, 1
		case p.needed:
			ts[i].Needed, ts[i].Whole = true, p.whole
			fallthrough
		case len(p.partition.members) == 1:
			ts[i].Replicas = order(ts[i].Replicas, p.first)
		}
	}
	return ts
}

// order returns the replicas with one of them first.
func order(replicas []*replica.Replica, first int) []*replica.Replica {
	if first == 0 {
		return replicas
	}
	out := []*replica.Replica{replicas[first]}
	out = append(out, replicas[:first]...)
	return append(out, replicas[first+1:]...)
}
