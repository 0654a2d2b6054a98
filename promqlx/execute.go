package promqlx

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
	"golang.org/x/sync/errgroup"

	"github.com/oneprom/oneprom/promqlx/plan"
	"github.com/oneprom/oneprom/servergroup"
	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// partitionsAtOnce is how many partitions answer a part at the same time.
const partitionsAtOnce = 64

// What ends the execution of a plan, so that another one is made.
var (
	// errDoubtful: nothing but the samples will do.
	errDoubtful = errors.New("the answers of the partitions cannot be put together")
	// errDivisible: more would be answered by one replica if the targets that it lacks
	// were cut out.
	errDivisible = errors.New("the part has to be divided by target")
	// errTorn: a group has failed while the query was under way, and is in some parts only.
	errTorn = errors.New("a group is in some parts only")
)

// execution answers the parts of one query.
type execution struct {
	engine  *Engine
	text    string // of the query
	plan    *plan.Routed
	divided bool   // all parts of the plan can be divided by target
	trace   *Trace // nil: nobody wants to know
	fetches *fetches
}

// part answers a part: the answers of all partitions, sorted by labels.
func (x *execution) part(ctx context.Context, p *plan.Part) ([]storage.Series, annotations.Annotations, error) {
	if p.Steps.Count() <= 0 {
		return nil, nil, nil
	}
	asked := slices.DeleteFunc(slices.Clone(x.plan.Partitions), func(partition *servergroup.Partition) bool { return !p.Concerns(partition) })
	mint, maxt := p.Window()
	answers := make([]answer, len(asked))
	errs := make([]error, len(asked))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(partitionsAtOnce)
	for i, partition := range asked {
		g.Go(func() error {
			answers[i], errs[i] = x.ask(ctx, p, partition)
			partition.RecordOutcome(errs[i], mint, maxt)
			x.trace.failed(p, partition, errs[i])
			if another(errs[i]) {
				return errs[i]
			}
			return context.Cause(ctx)
		})
	}
	if err := g.Wait(); err != nil {
		if late := servergroup.Late(asked, errs); late != nil && errors.Is(err, context.DeadlineExceeded) {
			err = late
		}
		return nil, nil, err
	}
	ws, err := servergroup.Verdict(asked, errs)
	if err != nil {
		return nil, nil, err
	}
	for _, s := range p.Selectors {
		holes, err := x.plan.View.Uncovered(s.Selection)
		if ws.Merge(holes); err != nil {
			return nil, ws, err
		}
	}
	if p.Adds && unaddable(p, answers) {
		return nil, nil, errDoubtful
	}
	return joined(answers, p.Steps, &ws), ws, nil
}

// ask has a partition answer a part.
func (x *execution) ask(ctx context.Context, p *plan.Part, partition *servergroup.Partition) (_ answer, err error) {
	defer transport.Guard(&err)
	if err := partition.Missing(); err != nil {
		return answer{}, err
	}
	pieces, err := x.choose(ctx, p, partition)
	if err != nil {
		return answer{}, err
	}
	x.trace.chose(p, partition, pieces)
	answers := make([]answer, len(pieces))
	g, ctx := errgroup.WithContext(ctx)
	for i, piece := range pieces {
		g.Go(func() (err error) {
			defer transport.Guard(&err)
			answers[i], err = x.piece(ctx, p, piece)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return answer{}, err
	}
	var all answer
	for _, a := range answers {
		all.add(a)
	}
	return all, nil
}

// another tells whether an error asks for another plan.
func another(err error) bool { return errors.Is(err, errDoubtful) || errors.Is(err, errDivisible) }

// choose divides a partition's share of a part. It is errDivisible if that merges
// replicas at steps at which one is whole but for a few targets.
func (x *execution) choose(ctx context.Context, p *plan.Part, partition *servergroup.Partition) ([]*servergroup.Piece, error) {
	pieces, err := partition.Choose(ctx, p.Need())
	if err != nil || p.ByTarget || x.divided || mergedSteps(pieces) == 0 {
		return pieces, err
	}
	divided := p.Need()
	divided.ByTarget = true
	other, err := partition.Choose(ctx, divided)
	if err == nil && mergedSteps(other) < mergedSteps(pieces) {
		return nil, errDivisible
	}
	return pieces, err
}

// mergedSteps is at how many steps all targets are merged.
func mergedSteps(pieces []*servergroup.Piece) int64 {
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

// piece has a piece answered: by its replica where that is possible, and else here.
func (x *execution) piece(ctx context.Context, p *plan.Part, piece *servergroup.Piece) (answer, error) {
	seen := x.trace.piece(piece)
	if len(piece.Turns) > 1 && !p.IsSelectorAtSteps() && piece.Speaks(p.Expr.String()) {
		a, err := x.apart(ctx, p, piece)
		seen.answered(a)
		return a, err
	}
	local, err := piece.Local(ctx, p.IsSelector())
	if err == nil && local == "" {
		var a answer
		if a, err = x.there(ctx, p, piece); err == nil {
			a, err = x.settled(ctx, p, piece, a)
			seen.answered(a)
			return a, err
		}
	}
	seen.local(local, err)
	if err := context.Cause(ctx); err != nil {
		return answer{}, err
	}
	a, err := x.evaluated(ctx, p, piece)
	seen.answered(a)
	return a, err
}

// evaluated evaluates the part here.
func (x *execution) evaluated(ctx context.Context, p *plan.Part, piece *servergroup.Piece) (answer, error) {
	if p.IsSelectorAtSteps() {
		return x.looks(p, piece)
	}
	a, err := x.here(ctx, p, piece)
	if err != nil {
		return answer{}, err
	}
	return x.settled(ctx, p, piece, a)
}

// settled is an answer at the turns of its piece. What is said of an answer may be said
// of steps between them: then each turn is answered by itself.
func (x *execution) settled(ctx context.Context, p *plan.Part, piece *servergroup.Piece, a answer) (answer, error) {
	if len(piece.Turns) == 1 {
		return a, x.trust(p, a)
	}
	if len(a.warnings) == 0 {
		a.at(piece.Turns)
		return a, x.trust(p, a)
	}
	piece.Spoke(p.Expr.String())
	return x.apart(ctx, p, piece)
}

// apart has each turn of a piece answered by itself.
func (x *execution) apart(ctx context.Context, p *plan.Part, piece *servergroup.Piece) (answer, error) {
	var all answer
	for _, turn := range piece.Apart() {
		one, err := x.piece(ctx, p, turn)
		if err != nil {
			return answer{}, err
		}
		all.add(one)
	}
	return all, nil
}

var errNotSayable = errors.New("the part cannot be said in the words of the replica, or its answer in ours")

// there has the piece's replica evaluate the part.
func (x *execution) there(ctx context.Context, p *plan.Part, piece *servergroup.Piece) (answer, error) {
	text, ok := p.TextFor(piece.Matchers)
	if !ok {
		return answer{}, errNotSayable
	}
	got, err := piece.Evaluate(ctx, p.Expr.String(), text, p.Carries)
	if err != nil {
		return answer{}, err
	}
	out := answer{by: got.Replica}
	for _, s := range got.Series {
		out.series = append(out.series, stretch{labels: s.Labels, samples: s.Samples})
	}
	for kind, texts := range map[error][]string{annotations.PromQLInfo: got.Infos, annotations.PromQLWarning: got.Warnings} {
		if len(texts) == 0 {
			continue
		}
		positions := p.Positions(text, x.text, x.engine.parser)
		for _, t := range texts {
			if strings.HasSuffix(t, nowhere) && p.HasSubquery() {
				return answer{}, errNotSayable
			}
			out.warnings.Add(newNote(t, kind, positions))
		}
	}
	return out, nil
}

// trust is an error if the answer shows that a part must not be one.
func (x *execution) trust(p *plan.Part, a answer) error {
	for _, w := range a.warnings {
		if p.DoubtfulNote(w.Error()) || plan.Collective(w.Error()) {
			return errDoubtful
		}
	}
	if !p.Averages {
		return nil
	}
	for _, s := range a.series {
		if slices.ContainsFunc(s.samples.F, p.DoubtfulValue) || slices.ContainsFunc(s.samples.FH, p.DoubtfulHistogram) {
			return errDoubtful
		}
	}
	return nil
}

// nowhere is the position that the engine gives to what it evaluates of a subquery:
// it cannot be told from that of the part.
const nowhere = "(1:1)"

// here evaluates the part over the piece's series.
func (x *execution) here(ctx context.Context, p *plan.Part, piece *servergroup.Piece) (answer, error) {
	source := &pieceQueryable{execution: x, piece: piece}
	st := piece.Steps
	opts := promql.NewPrometheusQueryOpts(false, time.Duration(st.Lookback)*time.Millisecond)
	q, err := x.engine.parts.NewRangeQuery(ctx, source, opts, "0", time.UnixMilli(st.Start), time.UnixMilli(st.End), time.Duration(st.Step)*time.Millisecond)
	if err != nil {
		return answer{}, fmt.Errorf("evaluating a part: %w", err)
	}
	defer q.Close()
	stmt := q.Statement().(*parser.EvalStmt)
	stmt.Expr = p.Copy()
	source.selectors = plan.Selectors(stmt, x.engine.subqueryStep)
	res := q.Exec(ctx)
	if res.Err != nil {
		return answer{}, partError(res.Err)
	}
	m, err := res.Matrix()
	if err != nil {
		return answer{}, fmt.Errorf("evaluating a part: %w", err)
	}
	out := answer{warnings: x.placed(res.Warnings), series: make([]stretch, len(m))}
	for i, s := range m {
		samples, ok := columns(s)
		if !ok {
			return answer{}, errDoubtful
		}
		out.series[i] = stretch{labels: s.Metric, samples: samples}
	}
	return out, nil
}

// partError is the error of a query that has a part with this one. What the engine
// says of an expression, it is to say of the whole: there the error has other words.
func partError(err error) error {
	var (
		unavailable *completeness.UnavailableError
		budget      *servergroup.BudgetError
		canceled    promql.ErrQueryCanceled
		timeout     promql.ErrQueryTimeout
		samples     promql.ErrTooManySamples
		bug         *transport.PanicError
	)
	for _, cause := range []any{&unavailable, &budget, &canceled, &timeout, &samples, &bug} {
		if errors.As(err, cause) {
			return err
		}
	}
	return errDoubtful
}
