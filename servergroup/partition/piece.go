package partition

import (
	"fmt"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/servergroup/evidence"
	"github.com/oneprom/oneprom/servergroup/pushdown"
	"github.com/oneprom/oneprom/servergroup/replica"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// Reach is the samples that a step at t needs of a selector: those in (t+From, t+To] (ms), or in
// (From, To] (ms) if Fixed.
type Reach struct {
	Matchers []*labels.Matcher
	From, To int64
	Fixed    bool
}

// Window returns the bounds (ms, inclusive) of what steps from first to last (ms) need.
func (r Reach) Window(first, last int64) (from, to int64) {
	if r.Fixed {
		return r.From + 1, r.To
	}
	return first + r.From + 1, last + r.To
}

// Need is what a part of a query needs of a partition.
type Need struct {
	Steps   transport.Steps
	Reaches []Reach
	// ByTarget reports whether answers for disjoint sets of targets can be joined, ByName
	// whether those for disjoint sets of metric names can.
	ByTarget, ByName bool
}

// Piece is a share of the answer of a partition: some steps, for all series or some of them, from
// one replica or merged from all.
type Piece struct {
	// Steps are those at which it is evaluated.
	Steps transport.Steps
	// Turns are the ranges of Steps at which this piece is the answer. At the steps between
	// them other pieces are; evaluating these steps for nothing is cheaper than another request.
	Turns []transport.Steps
	// Why is the reason for this choice of replicas.
	Why string
	// lost is the reason why no replica was chosen although one might answer alone; "" if there is none.
	lost pushdown.Reason

	partition    *Partition
	reaches      []Reach            // the samples that it needs
	single       *replica.Replica   // the replica that answers alone; nil if all are merged
	alternatives []*replica.Replica // others that could answer alone as well
	// generations are those of the replicas before they were asked for evidence, or chosen.
	generations map[*replica.Replica]uint64
	// unproven are the counts that may still show that a replica which answers alone lacks
	// something, of targets other than the sorted ones that are cut out.
	unproven []unproven
	cut      []string
	// uncounted reports whether a twin has failed to count.
	uncounted bool

	// Where all replicas are merged:
	first         int                // the index of the replica whose samples come first
	allNeeded     bool               // the first replica has missed something
	wholeReplicas []*replica.Replica // those that have missed nothing

	narrowed []*labels.Matcher // matchers of the series of the piece; none for all series
}

// Replica returns the URL of the replica that answers alone; "" if all are merged.
func (p *Piece) Replica() string {
	if p.single == nil {
		return ""
	}
	return p.single.URL()
}

// Narrowed returns the matchers that narrow the piece to some targets and metric names. There are
// none if it is about all series.
func (p *Piece) Narrowed() []*labels.Matcher { return p.narrowed }

// Labels returns the injected labels of the partition, which the series of its replicas lack.
func (p *Piece) Labels() map[string]string { return p.partition.labels }

// PerTurn returns a piece for each of the Turns.
func (p *Piece) PerTurn() []*Piece {
	out := make([]*Piece, len(p.Turns))
	for i, turn := range p.Turns {
		one := *p
		one.Steps, one.Turns = turn, []transport.Steps{turn}
		out[i] = &one
	}
	return out
}

// Key identifies the samples that a piece gets: pieces of one view with equal keys get the same.
func (p *Piece) Key() string {
	return fmt.Sprintf("%p %p %d %v", p.partition, p.single, p.first, p.narrowed)
}

// stepsOf returns the steps whose window includes a span, or is near it.
func (r Reach) stepsOf(st transport.Steps, s evidence.Span) (run, bool) {
	s.From, s.To = s.From-evidence.ScrapeSlack, s.To+evidence.ScrapeSlack
	steps := int(st.Count())
	if r.Fixed {
		return run{0, steps - 1}, s.To > r.From && s.From <= r.To
	}
	// t+From < s.To and s.From <= t+To
	first := ceilDiv(s.From-r.To-st.Start, st.Step)
	last := ceilDiv(s.To-r.From-st.Start, st.Step) - 1
	hit := run{int(max(0, first)), int(min(int64(steps)-1, last))}
	return hit, hit.from <= hit.to
}

func ceilDiv(a, b int64) int64 {
	q := a / b
	if a%b != 0 && a > 0 {
		q++
	}
	return q
}

// piece returns a piece that merges all replicas at ranges of steps.
func (p *Partition) piece(why string, turns ...transport.Steps) *Piece {
	hull := turns[0]
	hull.End = turns[len(turns)-1].End
	return &Piece{Steps: hull, Turns: turns, Why: why, partition: p}
}
