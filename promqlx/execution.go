package promqlx

import (
	"context"
	"errors"
	"slices"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
	"golang.org/x/sync/errgroup"

	"github.com/oneprom/oneprom/promqlx/answer"
	"github.com/oneprom/oneprom/promqlx/explain"
	"github.com/oneprom/oneprom/promqlx/plan"
	"github.com/oneprom/oneprom/servergroup/guard"
	"github.com/oneprom/oneprom/servergroup/partition"
)

// partitionsAtOnce is the greatest number of partitions that answer a part at the same time.
const partitionsAtOnce = 64

// execution is the execution of one plan: it has partitions answer the parts.
type execution struct {
	engine  *Engine
	text    string // the query
	plan    *plan.Routed
	divided bool           // whether all parts of the plan can be divided by target
	trace   *explain.Trace // nil if the query is not traced
	fetches *fetches
}

// answerStretches returns the answers to the stretches of the query, sorted by labels.
func (x *execution) answerStretches(ctx context.Context) ([]storage.Series, annotations.Annotations, error) {
	answers := make([]answer.Answer, len(x.plan.Stretches))
	g, ctx := errgroup.WithContext(ctx)
	for i, stretch := range x.plan.Stretches {
		g.Go(func() (err error) {
			defer guard.Recover(&err)
			answers[i], err = x.of(stretch).evaluateStretch(ctx)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, nil, err
	}
	var ws annotations.Annotations
	joined := answer.Join(answers, x.plan.Steps, &ws)
	return joined, ws, nil
}

// of returns the execution of the plan of a stretch.
func (x *execution) of(stretch *plan.Routed) *execution {
	one := *x
	one.plan, one.trace = stretch, x.trace.Of(stretch)
	one.fetches = newFetches(stretch, one.trace)
	return &one
}

// evaluateStretch evaluates the plan of a stretch.
func (x *execution) evaluateStretch(ctx context.Context) (answer.Answer, error) {
	a, err := x.evaluateAt(ctx, x.plan.Copy(), x.plan.Steps, func(*parser.EvalStmt) storage.Querier {
		return &querier{execution: x, leaves: x.plan.Leaves}
	})
	if err == nil && slices.ContainsFunc(a.Warnings.AsErrors(), func(w error) bool {
		return x.plan.DoubtfulAnnotation(w.Error()) || plan.Collective(w.Error())
	}) {
		return answer.Answer{}, answer.ErrDoubtful
	}
	return a, err
}

// answerPart returns the answers of all partitions to a part, sorted by labels.
func (x *execution) answerPart(ctx context.Context, p *plan.Part) ([]storage.Series, annotations.Annotations, error) {
	if p.Steps.Count() <= 0 {
		return nil, nil, nil
	}
	concerned := slices.DeleteFunc(slices.Clone(x.plan.Partitions), func(partition *partition.Partition) bool { return !p.Concerns(partition) })
	mint, maxt := p.Window()
	answers := make([]answer.Answer, len(concerned))
	errs := make([]error, len(concerned))
	g, asking := errgroup.WithContext(ctx)
	g.SetLimit(partitionsAtOnce)
	for i, partition := range concerned {
		g.Go(func() error {
			answers[i], errs[i] = x.askPartition(asking, p, partition)
			partition.RecordOutcome(errs[i], mint, maxt)
			x.trace.Failed(p, partition, errs[i])
			if endsPlan(errs[i]) {
				return errs[i]
			}
			return context.Cause(asking)
		})
	}
	if err := g.Wait(); err != nil {
		if late := partition.Late(concerned, errs); late != nil && errors.Is(err, context.DeadlineExceeded) {
			err = late
		}
		return nil, nil, err
	}
	ws, err := partition.Verdict(concerned, errs)
	if err != nil {
		return nil, nil, err
	}
	for _, s := range p.Selectors {
		holes, err := x.plan.View.Uncovered(s.Selection)
		if ws.Merge(holes); err != nil {
			return nil, ws, err
		}
	}
	if len(concerned) == 0 && !p.IsSelector() { // the engine may warn all the same
		nothing, err := x.evaluateOver(ctx, p, p.Steps, func([]plan.Leaf) storage.Querier { return storage.NoopQuerier() })
		if err != nil {
			return nil, nil, err
		}
		answers = append(answers, nothing)
	}
	if p.Adds && answer.Unaddable(p, answers) {
		return nil, nil, answer.ErrDoubtful
	}
	if p.Disjoint && len(concerned) > 1 {
		joined, why := answer.JoinDisjoint(p, answers, &ws)
		if why != "" {
			x.forgo(p, why)
			return nil, nil, errOverlap
		}
		return joined, ws, nil
	}
	return answer.Join(answers, p.Steps, &ws), ws, nil
}

// forgo remembers not to ask partitions whole answers to a part that had to be disjoint, for some minutes.
func (x *execution) forgo(p *plan.Part, why string) {
	x.plan.RememberNotDisjoint(x.engine.notDisjoint, p, why)
}

// askPartition returns the answer of a partition to a part.
func (x *execution) askPartition(ctx context.Context, p *plan.Part, partition *partition.Partition) (_ answer.Answer, err error) {
	defer guard.Recover(&err)
	if err := partition.Missing(); err != nil {
		return answer.Answer{}, err
	}
	pieces, err := x.choose(ctx, p, partition)
	if err != nil {
		return answer.Answer{}, err
	}
	x.trace.Chose(p, partition, pieces)
	if len(pieces) == 1 {
		return x.evaluatePiece(ctx, p, pieces[0])
	}
	answers := make([]answer.Answer, len(pieces))
	g, ctx := errgroup.WithContext(ctx)
	for i, piece := range pieces {
		g.Go(func() (err error) {
			defer guard.Recover(&err)
			answers[i], err = x.evaluatePiece(ctx, p, piece)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return answer.Answer{}, err
	}
	var all answer.Answer
	for _, a := range answers {
		all.Add(a)
	}
	return all, nil
}

// choose divides a partition's share of a part into pieces. It returns errDivisible if the
// pieces merge replicas at steps at which one replica is whole but for a few targets.
func (x *execution) choose(ctx context.Context, p *plan.Part, partition *partition.Partition) ([]*partition.Piece, error) {
	pieces, err := partition.Choose(ctx, p.Need())
	if err != nil || p.ByTarget || x.divided || mergedSteps(pieces) == 0 {
		return pieces, err
	}
	divided := p.Need()
	divided.ByTarget = true
	other, err := partition.Choose(ctx, divided)
	if err == nil && mergedSteps(other) < mergedSteps(pieces) {
		if p.Disjoint { // what it is recombined of may be divisible in the first place
			x.forgo(p, errDivisible.Error())
		}
		return nil, errDivisible
	}
	return pieces, err
}

// mergedSteps counts the steps at which the samples of all targets are merged.
func mergedSteps(pieces []*partition.Piece) int64 {
	n := int64(0)
	for _, p := range pieces {
		if p.Replica() == "" && len(p.Narrowed()) == 0 {
			for _, turn := range p.Turns {
				n += turn.Count()
			}
		}
	}
	return n
}
