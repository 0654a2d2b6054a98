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

	"github.com/oneprom/oneprom/promqlx/answer"
	"github.com/oneprom/oneprom/promqlx/plan"
	"github.com/oneprom/oneprom/servergroup"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// partitionsAtOnce is how many partitions answer a part at the same time.
const partitionsAtOnce = 64

// What ends the execution of a plan, besides answer.ErrDoubtful, so that another one is
// made.
var (
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
	answers := make([]answer.Answer, len(asked))
	errs := make([]error, len(asked))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(partitionsAtOnce)
	for i, partition := range asked {
		g.Go(func() error {
			answers[i], errs[i] = x.ask(ctx, p, partition)
			partition.Stands(errs[i], mint, maxt)
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
	warnings, err := x.plan.View.Together(asked, errs)
	if err != nil {
		return nil, nil, err
	}
	var ws annotations.Annotations
	for _, w := range warnings {
		ws.Add(w)
	}
	for _, s := range p.Selectors {
		holes, err := x.plan.View.Uncovered(s.Selection)
		if ws.Merge(holes); err != nil {
			return nil, ws, err
		}
	}
	if p.Adds && answer.Unaddable(p, answers) {
		return nil, nil, answer.ErrDoubtful
	}
	return answer.Join(answers, p.Steps, &ws), ws, nil
}

// ask has a partition answer a part.
func (x *execution) ask(ctx context.Context, p *plan.Part, partition *servergroup.Partition) (_ answer.Answer, err error) {
	defer transport.Guard(&err)
	if err := partition.Missing(); err != nil {
		return answer.Answer{}, err
	}
	pieces, err := x.choose(ctx, p, partition)
	if err != nil {
		return answer.Answer{}, err
	}
	x.trace.chose(p, partition, pieces)
	answers := make([]answer.Answer, len(pieces))
	g, ctx := errgroup.WithContext(ctx)
	for i, piece := range pieces {
		g.Go(func() (err error) {
			defer transport.Guard(&err)
			answers[i], err = x.piece(ctx, p, piece)
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

// another tells whether an error asks for another plan.
func another(err error) bool {
	return errors.Is(err, answer.ErrDoubtful) || errors.Is(err, errDivisible)
}

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
func (x *execution) piece(ctx context.Context, p *plan.Part, piece *servergroup.Piece) (answer.Answer, error) {
	seen := x.trace.piece(piece)
	if len(piece.Turns) > 1 && !p.IsSelectorAtSteps() && piece.Speaks(p.Expr.String()) {
		a, err := x.apart(ctx, p, piece)
		seen.answered(a)
		return a, err
	}
	local, err := piece.Local(ctx, p.IsSelector())
	if err == nil && local == "" {
		var a answer.Answer
		if a, err = x.there(ctx, p, piece); err == nil {
			a, err = x.settled(ctx, p, piece, a)
			seen.answered(a)
			return a, err
		}
	}
	seen.local(local, err)
	if err := context.Cause(ctx); err != nil {
		return answer.Answer{}, err
	}
	a, err := x.evaluated(ctx, p, piece)
	seen.answered(a)
	return a, err
}

// evaluated evaluates the part here.
func (x *execution) evaluated(ctx context.Context, p *plan.Part, piece *servergroup.Piece) (answer.Answer, error) {
	if p.IsSelectorAtSteps() {
		return x.looks(p, piece)
	}
	a, err := x.here(ctx, p, piece)
	if err != nil {
		return answer.Answer{}, err
	}
	return x.settled(ctx, p, piece, a)
}

// looks answers a part that is a selector at its own steps with the piece's series, which
// are resampled while they are read.
func (x *execution) looks(p *plan.Part, piece *servergroup.Piece) (answer.Answer, error) {
	st := piece.Steps
	ms := func(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
	selectors := plan.Selectors(&parser.EvalStmt{
		Expr: p.Expr, Start: time.UnixMilli(st.Start), End: time.UnixMilli(st.End), Interval: ms(st.Step), LookbackDelta: ms(st.Lookback),
	}, x.engine.subqueryStep)
	sets := make([]storage.SeriesSet, len(piece.Turns))
	for i := range sets { // all of them before the first is read: the series are merged once
		sets[i] = x.selection(selectors[0].Selection, piece)
	}
	seen := x.trace.of(piece)
	var out answer.Answer
	for i, set := range sets {
		if err := out.AddResampled(set, piece.Turns[i], seen.read); err != nil {
			return answer.Answer{}, err
		}
	}
	return out, nil
}

// settled is an answer at the turns of its piece. What is said of an answer may be said
// of steps between them: then each turn is answered by itself.
func (x *execution) settled(ctx context.Context, p *plan.Part, piece *servergroup.Piece, a answer.Answer) (answer.Answer, error) {
	if len(piece.Turns) == 1 {
		return a, a.Verify(p)
	}
	if len(a.Warnings) == 0 {
		a.Keep(piece.Turns)
		return a, a.Verify(p)
	}
	piece.Spoke(p.Expr.String())
	return x.apart(ctx, p, piece)
}

// apart has each turn of a piece answered by itself.
func (x *execution) apart(ctx context.Context, p *plan.Part, piece *servergroup.Piece) (answer.Answer, error) {
	var all answer.Answer
	for _, turn := range piece.Apart() {
		one, err := x.piece(ctx, p, turn)
		if err != nil {
			return answer.Answer{}, err
		}
		all.Add(one)
	}
	return all, nil
}

var errNotSayable = errors.New("the part cannot be said in the words of the replica, or its answer in ours")

// there has the piece's replica evaluate the part.
func (x *execution) there(ctx context.Context, p *plan.Part, piece *servergroup.Piece) (answer.Answer, error) {
	text, ok := p.TextFor(piece.Matchers)
	if !ok {
		return answer.Answer{}, errNotSayable
	}
	got, err := piece.Evaluate(ctx, p.Expr.String(), text, p.Carries)
	if err != nil {
		return answer.Answer{}, err
	}
	for _, text := range slices.Concat(got.Infos, got.Warnings) {
		if strings.HasSuffix(text, nowhere) && p.HasSubquery() {
			return answer.Answer{}, errNotSayable
		}
	}
	return answer.Remote(got, func() map[string]string { return p.Positions(text, x.text, x.engine.parser) }), nil
}

// nowhere is the position that the engine gives to what it evaluates of a subquery:
// it cannot be told from that of the part.
const nowhere = "(1:1)"

// here evaluates the part over the piece's series.
func (x *execution) here(ctx context.Context, p *plan.Part, piece *servergroup.Piece) (answer.Answer, error) {
	source := &pieceQueryable{execution: x, piece: piece}
	st := piece.Steps
	opts := promql.NewPrometheusQueryOpts(false, time.Duration(st.Lookback)*time.Millisecond)
	q, err := x.engine.parts.NewRangeQuery(ctx, source, opts, "0", time.UnixMilli(st.Start), time.UnixMilli(st.End), time.Duration(st.Step)*time.Millisecond)
	if err != nil {
		return answer.Answer{}, fmt.Errorf("evaluating a part: %w", err)
	}
	defer q.Close()
	stmt := q.Statement().(*parser.EvalStmt)
	stmt.Expr = p.Copy()
	source.selectors = plan.Selectors(stmt, x.engine.subqueryStep)
	res := q.Exec(ctx)
	if res.Err != nil {
		return answer.Answer{}, partError(res.Err)
	}
	m, err := res.Matrix()
	if err != nil {
		return answer.Answer{}, fmt.Errorf("evaluating a part: %w", err)
	}
	return answer.Local(m, res.Warnings, x.text)
}

// partError is the error of a query that has a part with this one. What the engine
// says of an expression, it is to say of the whole: there the error has other words.
func partError(err error) error {
	var (
		unavailable *servergroup.UnavailableError
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
	return answer.ErrDoubtful
}
