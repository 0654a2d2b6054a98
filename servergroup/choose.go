package servergroup

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/servergroup/transport"
)

// This file chooses whose samples each step of a part is made of. The choice
// depends on the window of the step alone, and not on who evaluates the part: that
// is execution.

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
	// together.
	ByTarget bool
}

// Piece is a share of the answer of a partition: some steps, for all targets or
// some, made of the samples of one replica, or of all.
type Piece struct {
	Steps transport.Steps
	// Why says why this piece is answered as it is.
	Why string

	partition *Partition
	alone     *replica        // which answers alone; nil: all are merged
	first     int             // the replica whose samples come first where all are merged
	instances *labels.Matcher // nil: all targets
}

// Replica is the URL of the replica that answers alone, "" if all are merged.
func (p *Piece) Replica() string {
	if p.alone == nil {
		return ""
	}
	return p.alone.url()
}

// Targets is the matcher that narrows the piece to some targets, nil if it does not.
func (p *Piece) Targets() *labels.Matcher { return p.instances }

// Key tells pieces of one view apart by what is fetched for them: those with equal
// keys get the same samples.
func (p *Piece) Key() string {
	return fmt.Sprintf("%p %p %d %v", p.partition, p.alone, p.first, p.instances)
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
	// mostPieces is the most runs of steps that a part is divided into. Each of them
	// fetches, or has evaluated, the windows of its first steps again.
	mostPieces = 6
	// mostSteps is the most steps of a part, as of a long subquery, that are chosen for
	// one by one, or asked of a backend.
	mostSteps = 100_000
	// spoiledShare is the share of a group's targets, one in so many, that may be cut
	// out where a replica is taken for whole.
	spoiledShare = 20
)

// Choose divides what is wanted of a partition into pieces. It asks the replicas of
// a group that has several what they have missed.
func (p *Partition) Choose(ctx context.Context, n Need) ([]*Piece, error) {
	merged := func(why string) []*Piece { return []*Piece{{Steps: n.Steps, partition: p, Why: why}} }
	switch {
	case len(p.members) > 1:
		return merged("groups that may hold the same series"), nil
	case n.Steps.Count() > mostSteps:
		return merged(fmt.Sprintf("more than %d steps", mostSteps)), nil
	}
	g := p.members[0]
	lo, hi := g.cfg.TimeRange.bounds(p.view.now)
	for _, r := range n.Reaches {
		if from, to := r.window(n.Steps.Start, n.Steps.End); from < lo || to > hi {
			return merged("its time_range does not hold the whole window"), nil
		}
	}
	switch {
	case len(g.replicas) == 0:
		return merged("no replicas"), nil
	case g.runs() == 1:
		return []*Piece{{Steps: n.Steps, partition: p, alone: g.replicas[0], Why: "the only replica"}}, nil
	case len(g.replicas) == 1:
		return merged("it stores what several replicas have written"), nil
	case g.cfg.Replicas == MergeAll:
		return merged("replicas: merge"), nil
	}
	c := chooser{partition: p, need: n, steps: int(n.Steps.Count()), targets: 1}
	none, err := c.look(ctx, g)
	if err != nil {
		return nil, err
	}
	if none != "" {
		return merged("no evidence: " + none), nil
	}
	return c.pieces(), nil
}

// chooser chooses among the replicas of one group.
type chooser struct {
	partition *Partition
	need      Need
	steps     int
	targets   int                // that the selectors may concern
	spoiled   []map[string][]run // by replica and instance: the steps whose window meets what was missed; nil for a replica that told nothing
}

// run is a run of steps by index, inclusive.
type run struct{ from, to int }

// look finds out what the replicas missed.
func (c *chooser) look(ctx context.Context, g groupView) (none string, err error) {
	c.spoiled = make([]map[string][]run, len(g.replicas))
	for i := range c.spoiled {
		c.spoiled[i] = map[string][]run{}
	}
	wait, cancel := evidenceContext(ctx)
	defer cancel()
	for _, reach := range c.need.Reaches {
		from, to := reach.window(c.need.Steps.Start, c.need.Steps.End)
		sh, err := c.partition.view.evidence(wait, g, reach.Matchers, from-scrapeSlack, to+scrapeSlack)
		switch {
		case err != nil && wait.Err() != nil && ctx.Err() == nil:
			return "it did not come in time", nil
		case err != nil || sh.none != "":
			return sh.none, err
		}
		if len(sh.failed) > 0 {
			return "a replica does not answer", nil
		}
		c.targets = max(c.targets, sh.targets)
		for r, byInstance := range sh.missed {
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
func (c *chooser) stepsOf(r Reach, s span) (run, bool) {
	s.from, s.to = s.from-scrapeSlack, s.to+scrapeSlack
	if r.Fixed {
		return run{0, c.steps - 1}, s.to > r.From && s.from <= r.To
	}
	// t+From < s.to and s.from <= t+To
	st := c.need.Steps
	first := ceilDiv(s.from-r.To-st.Start, st.Step)
	last := ceilDiv(s.to-r.From-st.Start, st.Step) - 1
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

// pieces makes the pieces of what look has found.
func (c *chooser) pieces() []*Piece {
	main := c.mains()
	var out []*Piece
	runs, mergedSteps := 0, 0
	for from := 0; from < len(main); {
		to := from
		for to+1 < len(main) && main[to+1] == main[from] {
			to++
		}
		out = append(out, c.divide(main[from], run{from, to})...)
		if main[from] == merging {
			mergedSteps += to + 1 - from
		}
		from, runs = to+1, runs+1
	}
	if runs > mostPieces || 2*mergedSteps > c.steps {
		return []*Piece{{Steps: c.need.Steps, partition: c.partition, Why: "no replica is whole for long"}}
	}
	return out
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
		main[i] = slices.IndexFunc(counts, func(n []int) bool { return n[i] <= limit })
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

// divide makes the pieces of a run of steps with one main replica: what it answers
// alone, and the targets that it does not see whole, merged, its samples first.
func (c *chooser) divide(main int, at run) []*Piece {
	st := c.need.Steps
	st.Start, st.End = st.Start+int64(at.from)*st.Step, st.Start+int64(at.to)*st.Step
	if main == merging {
		return []*Piece{{Steps: st, partition: c.partition, Why: "no replica is whole"}}
	}
	var cut []string
	for instance, runs := range c.spoiled[main] {
		if slices.ContainsFunc(runs, func(u run) bool { return u.from <= at.to && u.to >= at.from }) {
			cut = append(cut, instance)
		}
	}
	if 2*len(cut) > c.targets { // no more is to be won
		why := fmt.Sprintf("%d of %d targets are not whole", len(cut), c.targets)
		return []*Piece{{Steps: st, partition: c.partition, first: main, Why: why}}
	}
	alone := &Piece{Steps: st, partition: c.partition, alone: c.partition.members[0].replicas[main], Why: "whole"}
	if len(cut) == 0 {
		return []*Piece{alone}
	}
	slices.Sort(cut)
	text := instanceRegexp(cut)
	alone.Why = fmt.Sprintf("whole but for %d of %d targets", len(cut), c.targets)
	alone.instances = labels.MustNewMatcher(labels.MatchNotRegexp, targetLabel, text)
	return []*Piece{alone, {
		Steps: st, partition: c.partition, first: main, Why: "targets cut out",
		instances: labels.MustNewMatcher(labels.MatchRegexp, targetLabel, text),
	}}
}

// targetLabel is the label by which targets are cut out.
const targetLabel = "instance"

func instanceRegexp(values []string) string {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = regexp.QuoteMeta(v)
	}
	return strings.Join(quoted, "|")
}

// targets are the groups that a selection of the piece is fetched from.
func (p *Piece) targets(sel Selection) []target {
	v := p.partition.view
	ts := v.routeMergeAmong(p.partition.members, sel.Matchers, sel.MinT, sel.MaxT)
	for i := range ts {
		switch {
		case p.alone != nil:
			ts[i].replicas, ts[i].holders = []*replica{p.alone}, 1
		case len(p.partition.members) == 1:
			ts[i].replicas = order(ts[i].replicas, p.first)
		}
	}
	return ts
}

// order returns the replicas with one of them first.
func order(replicas []*replica, first int) []*replica {
	if first == 0 {
		return replicas
	}
	out := []*replica{replicas[first]}
	out = append(out, replicas[:first]...)
	return append(out, replicas[first+1:]...)
}
