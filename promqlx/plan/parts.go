package plan

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/oneprom/oneprom/servergroup/transport"
)

// Part is a sub-expression that each partition answers by itself. The answers,
// concatenated, stand for its value in the rest of the expression.
type Part struct {
	// Expr is evaluated over the series of a partition, the injected labels among
	// their labels. Evaluate copies of it (Copy): the engine writes into it.
	Expr parser.Expr
	// Steps are the instants at which it is evaluated. There are none (Count is 0)
	// where a subquery's window holds no multiple of its step.
	Steps transport.Steps
	// Selectors are those of Expr, in the order of parser.Inspect, for all steps.
	Selectors []Selector
	// Reaches says of each selector which samples one step needs.
	Reaches []Reach
	// Carries are the injected labels that the answers carry, sorted. Answers of
	// those that do not know them are to be given them.
	Carries []string
	// ByTarget says that it may as well be evaluated over disjoint sets of values of
	// the label `instance`, with all answers concatenated.
	ByTarget bool
	// ByName says the same of disjoint sets of names of metrics, of which the selectors
	// may find several.
	ByName bool
	// Adds says that the rest of the expression adds the answers up. See DoubtfulNote.
	Adds bool
	// Averages says that the sums of an average are answered. See DoubtfulValue.
	Averages bool
	// Why it is a part.
	Why string

	// Injected are all labels that partitions inject, sorted.
	Injected []string
}

// Reach says which samples of a selector a step t needs: those in
// (t+From, t+To] (ms), or if Fixed in (From, To] whatever the step.
type Reach struct {
	From, To int64
	Fixed    bool
}

// Copy returns the expression for one evaluation.
func (p *Part) Copy() parser.Expr { return copyExpr(p.Expr) }

// IsSelector reports whether the part is a vector selector.
func (p *Part) IsSelector() bool {
	_, ok := bare(p.Expr).(*parser.VectorSelector)
	return ok
}

// IsSelectorAtSteps reports whether the part is a vector selector that is looked at at
// the very steps at which the part is evaluated.
func (p *Part) IsSelectorAtSteps() bool {
	vs, ok := bare(p.Expr).(*parser.VectorSelector)
	return ok && vs.OriginalOffset == 0 && vs.Timestamp == nil && !vs.Smoothed
}

// HasSubquery reports whether there is a subquery in the part.
func (p *Part) HasSubquery() bool {
	found := false
	parser.Inspect(p.Expr, func(node parser.Node, _ []parser.Node) error {
		_, ok := node.(*parser.SubqueryExpr)
		found = found || ok
		return nil
	})
	return found
}

// String says all of the part but its selectors.
func (p *Part) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s at %s", p.ShownText(), steps(p.Steps))
	if len(p.Carries) > 0 {
		fmt.Fprintf(&b, " with %s", strings.Join(p.Carries, ", "))
	}
	fmt.Fprintf(&b, ": %s", p.Why)
	if p.ByTarget {
		b.WriteString(", by target")
	}
	if p.ByName {
		b.WriteString(", by name")
	}
	return b.String()
}

// planner finds the parts of one expression.
type planner struct {
	plan       *Plan
	stmt       *parser.EvalStmt
	partitions *scope
	targets    *scope
	metrics    *scope
	divided    bool                             // all parts are to be divisible by targets
	parts      map[*parser.VectorSelector]*Part // by what stands for them
}

// place is where in the statement's expression an expression is.
type place struct {
	path  []parser.Node // the way to it
	steps transport.Steps
}

// endOnStep ends steps with the last instant, a step before the first if there is
// none.
func endOnStep(s transport.Steps) transport.Steps {
	s.End = s.Start + max(floorDiv(s.End-s.Start, s.Step), -1)*s.Step
	return s
}

// below is the place of the children of e, which is at this place.
func (at place) below(e parser.Expr, plan *Plan) place {
	at.path = append(slices.Clip(at.path), e)
	switch n := e.(type) {
	case *parser.StepInvariantExpr: // evaluated at the first step
		at.steps.End = min(at.steps.End, at.steps.Start)
	case *parser.SubqueryExpr:
		from, to := at.steps.Start, at.steps.End
		if n.Timestamp != nil {
			from, to = *n.Timestamp, *n.Timestamp
		}
		from -= n.OriginalOffset.Milliseconds() + n.Range.Milliseconds()
		at.steps.Step = plan.stepOf(n)
		at.steps.Start = (floorDiv(from, at.steps.Step) + 1) * at.steps.Step
		at.steps.End = to - n.OriginalOffset.Milliseconds()
		at.steps = endOnStep(at.steps)
	}
	return at
}

// stepOf is the step of a subquery in ms.
func (p *Plan) stepOf(sq *parser.SubqueryExpr) int64 {
	if step := sq.Step.Milliseconds(); step != 0 {
		return step
	}
	return p.subqueryStep(sq.Range.Milliseconds())
}

// rewrite returns a copy of e with its parts replaced.
func (pl *planner) rewrite(e parser.Expr, at place) parser.Expr {
	below := at.below(e, pl.plan)
	descend := func() parser.Expr {
		return withChildren(e, func(child parser.Expr) parser.Expr { return pl.rewrite(child, below) })
	}
	switch n := e.(type) {
	case *parser.ParenExpr, *parser.StepInvariantExpr:
		return descend()
	case *parser.MatrixSelector:
		return copyExpr(e)
	case *parser.AggregateExpr:
		if n.Op == parser.LIMITK { // takes the first series: their order is that of the selectors
			return copyExpr(e)
		}
		if out := pl.combined(n, at); out != nil {
			return out
		}
	case *parser.Call:
		switch n.Func.Name {
		case "info": // looks into its arguments
			return copyExpr(e)
		case "absent", "absent_over_time":
			if out := pl.absent(n, below); out != nil {
				return out
			}
		}
	}
	if e.Type() == parser.ValueTypeVector && hasSelector(e) {
		_, ok := pl.partitions.of(e)
		_, byTarget := pl.targets.of(e)
		if ok && (byTarget || !pl.divided) {
			return pl.leaf(e, at, Part{Expr: copyExpr(e), ByTarget: byTarget, Why: pl.why(e)})
		}
	}
	if n, ok := e.(*parser.AggregateExpr); ok && (n.Op == parser.STDDEV || n.Op == parser.STDVAR) && !inOrder(n.Expr) {
		return copyExpr(e)
	}
	return descend()
}

// inOrder reports whether the answers of an expression, sorted by their labels, are in
// the order in which the engine comes by them: not where the names of metrics, by which
// it sorts, are gone. Of numbers far from zero, as timestamps are, the variance in
// another order differs from the seventh digit on.
func inOrder(e parser.Expr) bool {
	if _, ok := bare(e).(*parser.VectorSelector); ok {
		return true
	}
	vs := eachOf(e)
	return vs != nil && ofOneName(vs)
}

// eachOf returns the selector of each series of which an expression makes one, nil if
// it is not of that kind.
func eachOf(e parser.Node) *parser.VectorSelector {
	e = bare(e)
	switch n := e.(type) {
	case *parser.VectorSelector:
		return n
	case *parser.AggregateExpr:
		return nil
	case *parser.Call:
		if !perSeries[n.Func.Name] {
			return nil
		}
	}
	of := slices.DeleteFunc(parser.Children(e), func(child parser.Node) bool { return !hasSelector(child.(parser.Expr)) })
	if len(of) != 1 {
		return nil
	}
	return eachOf(of[0])
}

// ofOneName reports whether all series of a selector have one name.
func ofOneName(vs *parser.VectorSelector) bool {
	return slices.ContainsFunc(vs.LabelMatchers, func(m *labels.Matcher) bool {
		return m.Name == labels.MetricName && m.Type == labels.MatchEqual
	})
}

// again are the aggregations that can be made of the aggregations of pieces.
var again = map[parser.ItemType]parser.ItemType{
	parser.SUM: parser.SUM, parser.COUNT: parser.SUM, parser.MIN: parser.MIN, parser.MAX: parser.MAX, parser.GROUP: parser.GROUP,
	parser.TOPK: parser.TOPK, parser.BOTTOMK: parser.BOTTOMK,
	parser.COUNT_VALUES: parser.SUM,
	parser.AVG:          parser.DIV,
}

// combined makes an aggregation of the aggregations of the pieces, if it must and
// can, or if that makes it divisible by targets. It returns nil if not.
func (pl *planner) combined(n *parser.AggregateExpr, at place) parser.Expr {
	op, ok := again[n.Op]
	if !ok || n.Param != nil && !constant(n.Param) || !hasSelector(n.Expr) {
		return nil
	}
	if _, ok := pl.partitions.of(n.Expr); !ok {
		return nil
	}
	_, distributive := pl.partitions.of(n)
	_, byTarget := pl.targets.of(n.Expr)
	if n.Op == parser.COUNT_VALUES && pl.partitions.anyOf(text(n.Param)) {
		return nil
	}
	if distributive && (!byTarget || !pl.divided && (n.Op == parser.AVG || n.Op == parser.COUNT_VALUES)) {
		return nil
	}
	if n.Op == parser.AVG {
		return pl.average(n, at, byTarget)
	}
	part := Part{Expr: pl.grouped(n, n.Op), ByTarget: byTarget, Adds: n.Op == parser.SUM, Why: pl.over(op.String() + " again")}
	if n.Op == parser.COUNT || n.Op == parser.COUNT_VALUES {
		part.Why = pl.over("sum of counts")
	}
	out := copyExpr(n).(*parser.AggregateExpr)
	out.Op, out.Expr = op, pl.leaf(n.Expr, at, part)
	if n.Op == parser.COUNT_VALUES {
		out.Param = nil
		if label := []string{text(n.Param)}; n.Without {
			out.Grouping = grouped(out.Grouping, label, true)
		} else {
			out.Grouping = append(grouped(out.Grouping, label, true), label...)
		}
	}
	return out
}

// average makes an average of the sums and counts of pieces. It returns nil where
// the division would drop a label that the average keeps.
func (pl *planner) average(n *parser.AggregateExpr, at place, byTarget bool) parser.Expr {
	if n.Without || slices.ContainsFunc(n.Grouping, func(name string) bool {
		return name == labels.MetricName || name == "__type__" || name == "__unit__"
	}) {
		return nil
	}
	total := func(op parser.ItemType) parser.Expr {
		out := copyExpr(n).(*parser.AggregateExpr)
		part := Part{Expr: pl.grouped(n, op), ByTarget: byTarget, Adds: op == parser.SUM, Averages: op == parser.SUM, Why: pl.over("sums over counts")}
		out.Op, out.Expr = parser.SUM, pl.leaf(n.Expr, at, part)
		return out
	}
	return &parser.ParenExpr{PosRange: n.PosRange, Expr: &parser.BinaryExpr{
		Op: parser.DIV, LHS: total(parser.SUM), RHS: total(parser.COUNT),
		VectorMatching: &parser.VectorMatching{Card: parser.CardOneToOne},
	}}
}

// grouped is an aggregation of a piece: by the labels of the pieces, too.
func (pl *planner) grouped(n *parser.AggregateExpr, op parser.ItemType) *parser.AggregateExpr {
	out := copyExpr(n).(*parser.AggregateExpr)
	out.Op = op
	out.Grouping = grouped(out.Grouping, pl.partitions.names, true)
	if !out.Without {
		out.Grouping = append(out.Grouping, pl.partitions.names...)
	}
	return out
}

// absent makes absent() of what is present anywhere. What stands for that keeps the
// matchers: the answer gets its labels from them. It returns nil if it cannot.
func (pl *planner) absent(n *parser.Call, below place) parser.Expr {
	arg := n.Args[0]
	var matchers []*labels.Matcher
	present := copyExpr(arg)
	switch a := arg.(type) {
	case *parser.VectorSelector:
		matchers = a.LabelMatchers
	case *parser.MatrixSelector:
		matchers = a.VectorSelector.(*parser.VectorSelector).LabelMatchers
	}
	if _, ok := pl.partitions.of(arg); !ok || !hasSelector(arg) {
		return nil
	}
	_, byTarget := pl.targets.of(arg)
	if arg.Type() == parser.ValueTypeMatrix {
		present = &parser.Call{Func: parser.Functions["last_over_time"], Args: parser.Expressions{present}, PosRange: n.PosRange}
	}
	group := &parser.AggregateExpr{Op: parser.GROUP, Expr: present, Grouping: slices.Clone(pl.partitions.names), PosRange: n.PosRange}
	leaf := pl.leaf(arg, below, Part{Expr: group, ByTarget: byTarget, Why: pl.over("absent if not present")})
	leaf.LabelMatchers = matchers
	return &parser.Call{Func: parser.Functions["absent"], Args: parser.Expressions{leaf}, PosRange: n.PosRange}
}

// leaf makes a part of what is at a place, and returns what stands for it.
func (pl *planner) leaf(e parser.Expr, at place, part Part) *parser.VectorSelector {
	part.Expr = pl.explicit(part.Expr)
	part.Steps = at.steps
	part.Carries, _ = pl.partitions.of(part.Expr)
	part.Injected = pl.partitions.names
	_, byName := pl.metrics.of(e)
	inspectSelectors(part.Expr, func(vs *parser.VectorSelector, path []parser.Node) {
		part.Selectors = append(part.Selectors, pl.plan.selector(pl.stmt, vs, slices.Concat(at.path, path)))
		part.Reaches = append(part.Reaches, pl.plan.reach(vs, path))
		part.ByName = byName && !ofOneName(vs)
	})
	vs := &parser.VectorSelector{PosRange: e.PositionRange()}
	pl.parts[vs] = &part
	return vs
}

// explicit gives the subqueries of a part their steps, which elsewhere may be
// others. It changes e.
func (pl *planner) explicit(e parser.Expr) parser.Expr {
	parser.Inspect(e, func(node parser.Node, _ []parser.Node) error {
		if sq, ok := node.(*parser.SubqueryExpr); ok {
			sq.Step = time.Duration(pl.plan.stepOf(sq)) * time.Millisecond
		}
		return nil
	})
	return e
}

// reach is that of a selector at the end of a path through a part.
func (p *Plan) reach(vs *parser.VectorSelector, path []parser.Node) Reach {
	var r Reach
	shift := func(at *int64, offset int64) {
		if at != nil {
			r = Reach{From: *at, To: *at, Fixed: true}
		}
		r.From, r.To = r.From-offset, r.To-offset
	}
	for _, node := range path {
		if sq, ok := node.(*parser.SubqueryExpr); ok {
			shift(sq.Timestamp, sq.OriginalOffset.Milliseconds())
			r.From -= sq.Range.Milliseconds()
		}
	}
	shift(vs.Timestamp, vs.OriginalOffset.Milliseconds())
	if m := matrixOf(path); m != nil {
		r.From -= m.Range.Milliseconds()
	} else {
		r.From -= p.Steps.Lookback
	}
	if offsetForgotten(vs, path) { // it is looked at without its offset
		r.From += min(vs.OriginalOffset.Milliseconds(), 0)
		r.To += max(vs.OriginalOffset.Milliseconds(), 0)
	}
	return r
}

// over says what is done with the answers of pieces.
func (pl *planner) over(what string) string {
	if pl.partitions.single {
		return what
	}
	return what + " over the partitions"
}

// why says why an expression is distributive.
func (pl *planner) why(e parser.Expr) string {
	if _, ok := e.(*parser.VectorSelector); ok {
		return "selector"
	}
	out := "per series"
	parser.Inspect(e, func(node parser.Node, _ []parser.Node) error {
		switch n := node.(type) {
		case *parser.AggregateExpr:
			carries, _ := pl.partitions.of(n)
			out = pl.keeps("grouping", carries)
		case *parser.BinaryExpr:
			if n.VectorMatching == nil {
				return nil
			}
			carries, _ := pl.partitions.of(n)
			out = pl.keeps("matching", carries)
		case *parser.Call:
			if name := n.Func.Name; name == "scalar" || name == "vector" {
				out = pl.keeps("", nil)
			}
			return nil
		default:
			return nil
		}
		return errFound
	})
	return out
}

var errFound = fmt.Errorf("found")

func (pl *planner) keeps(what string, carries []string) string {
	if pl.partitions.single {
		return "one partition"
	}
	return what + " keeps " + strings.Join(carries, ", ")
}
