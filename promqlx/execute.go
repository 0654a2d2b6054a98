package promqlx

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
	"golang.org/x/sync/errgroup"

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
	engine     *Engine
	text       string // of the query
	plan       *Plan
	view       *servergroup.View
	partitions []*servergroup.Partition
	options    Options // of the plan
	trace      *Trace  // nil: nobody wants to know
	fetches    *fetches
}

// part answers a part: the answers of all partitions, sorted by labels.
func (x *execution) part(ctx context.Context, p *Part) ([]storage.Series, annotations.Annotations, error) {
	if p.Steps.Count() <= 0 {
		return nil, nil, nil
	}
	asked := slices.DeleteFunc(slices.Clone(x.partitions), func(partition *servergroup.Partition) bool { return !p.concerns(partition) })
	mint, maxt := p.window()
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
		holes, err := x.view.Uncovered(s.Selection)
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
func (x *execution) ask(ctx context.Context, p *Part, partition *servergroup.Partition) (_ answer, err error) {
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
func (x *execution) choose(ctx context.Context, p *Part, partition *servergroup.Partition) ([]*servergroup.Piece, error) {
	pieces, err := partition.Choose(ctx, p.need())
	if err != nil || p.ByTarget || x.options.Divided || mergedSteps(pieces) == 0 {
		return pieces, err
	}
	divided := p.need()
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

// concerns tells whether a partition may hold series of the part.
func (p *Part) concerns(partition *servergroup.Partition) bool {
	return slices.ContainsFunc(p.Selectors, func(s Selector) bool { return partition.Concerns(s.Selection) })
}

// window bounds the samples (ms, inclusive) that the part needs.
func (p *Part) window() (mint, maxt int64) {
	mint, maxt = p.Selectors[0].MinT, p.Selectors[0].MaxT
	for _, s := range p.Selectors[1:] {
		mint, maxt = min(mint, s.MinT), max(maxt, s.MaxT)
	}
	return mint, maxt
}

// need is what the part wants of a partition.
func (p *Part) need() servergroup.Need {
	need := servergroup.Need{Steps: p.Steps, ByTarget: p.ByTarget, ByName: p.ByName}
	for i, s := range p.Selectors {
		r := p.Reaches[i]
		need.Reaches = append(need.Reaches, servergroup.Reach{Matchers: s.Matchers, From: r.From, To: r.To, Fixed: r.Fixed})
	}
	return need
}

// piece has a piece answered: by its replica where that is possible, and else here.
func (x *execution) piece(ctx context.Context, p *Part, piece *servergroup.Piece) (answer, error) {
	seen := x.trace.piece(piece)
	if len(piece.Turns) > 1 && !looked(p.Expr) && piece.Speaks(p.Expr.String()) {
		a, err := x.apart(ctx, p, piece)
		seen.answered(a)
		return a, err
	}
	_, selector := bare(p.Expr).(*parser.VectorSelector)
	local, err := piece.Local(ctx, selector)
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
func (x *execution) evaluated(ctx context.Context, p *Part, piece *servergroup.Piece) (answer, error) {
	if looked(p.Expr) {
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
func (x *execution) settled(ctx context.Context, p *Part, piece *servergroup.Piece, a answer) (answer, error) {
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
func (x *execution) apart(ctx context.Context, p *Part, piece *servergroup.Piece) (answer, error) {
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

// textFor is the text of the part for a backend, of which matchers tells what a
// selector is there. It is not ok if that cannot be said.
func (p *Part) textFor(matchers func([]*labels.Matcher) ([]*labels.Matcher, bool)) (text string, ok bool) {
	ok = true
	text = p.Text(func(ms []*labels.Matcher) []*labels.Matcher {
		send, sayable := matchers(ms)
		ok = ok && sayable
		return send
	})
	return text, ok
}

// there has the piece's replica evaluate the part.
func (x *execution) there(ctx context.Context, p *Part, piece *servergroup.Piece) (answer, error) {
	text, ok := p.textFor(piece.Matchers)
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
			if strings.HasSuffix(t, nowhere) && hasSubquery(p.Expr) {
				return answer{}, errNotSayable
			}
			out.warnings.Add(newNote(t, kind, positions))
		}
	}
	return out, nil
}

// trust is an error if the answer shows that a part must not be one.
func (x *execution) trust(p *Part, a answer) error {
	for _, w := range a.warnings {
		if p.DoubtfulNote(w.Error()) || isAny(ofTheWhole, w.Error()) {
			return errDoubtful
		}
	}
	if !p.Averages {
		return nil
	}
	for _, s := range a.series {
		if slices.ContainsFunc(s.samples.F, p.DoubtfulValue) || slices.ContainsFunc(s.samples.FH, p.doubtfulHistogram) {
			return errDoubtful
		}
	}
	return nil
}

// nowhere is the position that the engine gives to what it evaluates of a subquery:
// it cannot be told from that of the part.
const nowhere = "(1:1)"

func hasSubquery(e parser.Expr) bool {
	found := false
	parser.Inspect(e, func(node parser.Node, _ []parser.Node) error {
		_, ok := node.(*parser.SubqueryExpr)
		found = found || ok
		return nil
	})
	return found
}

// here evaluates the part over the piece's series.
func (x *execution) here(ctx context.Context, p *Part, piece *servergroup.Piece) (answer, error) {
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
	source.plan = NewPlan(stmt, x.engine.subqueryStep, Layout{}, Options{Off: true})
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
