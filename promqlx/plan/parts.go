package plan

import (
	"errors"
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
	// Selectors are the selectors of Expr, in the order of parser.Inspect, for all steps.
	Selectors []Selector
	// StepWindows are the samples of each selector that one step needs.
	StepWindows []StepWindow
	// Carries are the injected labels that the answers carry, sorted. They are added to the
	// answers of replicas whose series lack them.
	Carries []string
	// ByTarget reports whether the part may be evaluated over disjoint sets of values of the
	// label `instance`, with all answers concatenated.
	ByTarget bool
	// ByName reports the same of disjoint sets of names of metrics, where the selectors may
	// find several names.
	ByName bool
	// Adds reports whether the rest of the expression adds the answers up. See
	// DoubtfulAnnotation.
	Adds bool
	// Averages reports whether the answers are the sums of an average. See DoubtfulValue.
	Averages bool
	// Disjoint reports whether the answers stand for the part only if no two partitions have a
	// value of the same series at the same step.
	Disjoint bool
	// Why is the reason why it is a part.
	Why string

	// Injected are all labels that partitions inject, sorted.
	Injected []string
}

// Copy returns the expression for one evaluation.
func (p *Part) Copy() parser.Expr { return copyExpr(p.Expr) }

// IsSelector reports whether the part is a vector selector.
func (p *Part) IsSelector() bool {
	_, ok := unwrap(p.Expr).(*parser.VectorSelector)
	return ok
}

// IsSelectorAtItsSteps reports whether the part is a vector selector without an offset, `@` or
// `smoothed`: its values are those at the steps of the part.
func (p *Part) IsSelectorAtItsSteps() bool {
	vs, ok := unwrap(p.Expr).(*parser.VectorSelector)
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

// String prints all of the part but its selectors.
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
	root       grid // of the statement
	work       *work
	partitions *scope
	targets    *scope
	metrics    *scope
	options    Options
	parts      map[*parser.VectorSelector]*Part // by the selectors that stand for them
}

// rewrite returns a copy of e in which selectors stand for parts.
func (pl *planner) rewrite(e parser.Expr, at place) parser.Expr {
	if !pl.work.visit() {
		return e
	}
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
		if n.Op == parser.LIMITK { // it takes the first series: answers would come in another order
			return copyExpr(e)
		}
		if out := pl.disjoint(n, at); out != nil {
			return out
		}
		if out := pl.recombine(n, at); out != nil {
			return out
		}
	case *parser.Call:
		switch n.Func.Name {
		case "info": // it reads the selectors among its arguments
			return copyExpr(e)
		case "absent", "absent_over_time":
			if out := pl.absent(n, below); out != nil {
				return out
			}
		}
	}
	if t := pl.work.of(e); t.typ == parser.ValueTypeVector && t.selectors {
		_, ok := pl.partitions.distributive(e)
		_, byTarget := pl.targets.distributive(e)
		if ok && (byTarget || !pl.options.Divided) {
			return pl.addPart(e, at, Part{Expr: copyExpr(e), ByTarget: byTarget, Why: pl.why(e)})
		}
	}
	if n, ok := e.(*parser.AggregateExpr); ok && (n.Op == parser.STDDEV || n.Op == parser.STDVAR) && !pl.inOrder(n.Expr) {
		return copyExpr(e)
	}
	return descend()
}

// inOrder reports whether the answers of an expression, sorted by their labels, are in the
// order in which the engine would evaluate them. They are not where the names of metrics,
// which the engine sorts by, have been dropped. In another order the variance of numbers far
// from zero, such as timestamps, differs from the seventh digit on.
func (pl *planner) inOrder(e parser.Expr) bool {
	if _, ok := unwrap(e).(*parser.VectorSelector); ok {
		return true
	}
	vs := pl.eachOf(e)
	return vs != nil && ofOneName(vs)
}

// eachOf returns the only selector of an expression that makes one series of each series of
// that selector; nil if it is no such expression.
func (pl *planner) eachOf(e parser.Node) *parser.VectorSelector {
	e = unwrap(e)
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
	of := slices.DeleteFunc(parser.Children(e), func(child parser.Node) bool { return !pl.work.of(child).selectors })
	if len(of) != 1 {
		return nil
	}
	return pl.eachOf(of[0])
}

// ofOneName reports whether all series of a selector have one name.
func ofOneName(vs *parser.VectorSelector) bool {
	return slices.ContainsFunc(vs.LabelMatchers, func(m *labels.Matcher) bool {
		return m.Name == labels.MetricName && m.Type == labels.MatchEqual
	})
}

// recombinedBy are the aggregations that can be made of aggregations of pieces, with the
// operators that combine these.
var recombinedBy = map[parser.ItemType]parser.ItemType{
	parser.SUM: parser.SUM, parser.COUNT: parser.SUM, parser.MIN: parser.MIN, parser.MAX: parser.MAX, parser.GROUP: parser.GROUP,
	parser.TOPK: parser.TOPK, parser.BOTTOMK: parser.BOTTOMK,
	parser.COUNT_VALUES: parser.SUM,
	parser.AVG:          parser.DIV,
}

// recombine makes an aggregation of aggregations of the pieces. It returns nil if that is not
// possible. It also does so if there is no need: if the aggregation is distributive itself,
// and recombining would not make it divisible by target.
func (pl *planner) recombine(n *parser.AggregateExpr, at place) parser.Expr {
	op, ok := recombinedBy[n.Op]
	if !ok || n.Param != nil && !pl.work.of(n.Param).constant || !pl.work.of(n.Expr).selectors {
		return nil
	}
	if _, ok := pl.partitions.distributive(n.Expr); !ok {
		return nil
	}
	_, distributive := pl.partitions.distributive(n)
	_, byTarget := pl.targets.distributive(n.Expr)
	if n.Op == parser.COUNT_VALUES && pl.partitions.anyOf(text(n.Param)) {
		return nil
	}
	if distributive && (!byTarget || !pl.options.Divided && (n.Op == parser.AVG || n.Op == parser.COUNT_VALUES)) {
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
	out.Op, out.Expr = op, pl.addPart(n.Expr, at, part)
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

// average makes an average of the sums and counts of pieces. It returns nil if the division
// would drop a label that the average keeps.
func (pl *planner) average(n *parser.AggregateExpr, at place, byTarget bool) parser.Expr {
	if n.Without || slices.ContainsFunc(n.Grouping, func(name string) bool {
		return name == labels.MetricName || name == "__type__" || name == "__unit__"
	}) {
		return nil
	}
	total := func(op parser.ItemType) parser.Expr {
		out := copyExpr(n).(*parser.AggregateExpr)
		part := Part{Expr: pl.grouped(n, op), ByTarget: byTarget, Adds: op == parser.SUM, Averages: op == parser.SUM, Why: pl.over("sums over counts")}
		out.Op, out.Expr = parser.SUM, pl.addPart(n.Expr, at, part)
		return out
	}
	return &parser.ParenExpr{PosRange: n.PosRange, Expr: &parser.BinaryExpr{
		Op: parser.DIV, LHS: total(parser.SUM), RHS: total(parser.COUNT),
		VectorMatching: &parser.VectorMatching{Card: parser.CardOneToOne},
	}}
}

// grouped returns an aggregation of a piece, which keeps the labels of the partitions, too.
func (pl *planner) grouped(n *parser.AggregateExpr, op parser.ItemType) *parser.AggregateExpr {
	out := copyExpr(n).(*parser.AggregateExpr)
	out.Op = op
	out.Grouping = grouped(out.Grouping, pl.partitions.names, true)
	if !out.Without {
		out.Grouping = append(out.Grouping, pl.partitions.names...)
	}
	return out
}

// absent makes absent() of what is present in any partition. The selector that stands for the
// part keeps the matchers: absent() takes its labels from them. It returns nil if its
// argument cannot be a part.
func (pl *planner) absent(n *parser.Call, below place) parser.Expr {
	arg := n.Args[0]
	if _, ok := pl.partitions.distributive(arg); !ok || !pl.work.of(arg).selectors {
		return nil
	}
	var matchers []*labels.Matcher
	present := copyExpr(arg)
	switch a := arg.(type) {
	case *parser.VectorSelector:
		matchers = a.LabelMatchers
	case *parser.MatrixSelector:
		matchers = a.VectorSelector.(*parser.VectorSelector).LabelMatchers
	}
	_, byTarget := pl.targets.distributive(arg)
	if pl.work.of(arg).typ == parser.ValueTypeMatrix {
		present = &parser.Call{Func: parser.Functions["last_over_time"], Args: parser.Expressions{present}, PosRange: n.PosRange}
	}
	group := &parser.AggregateExpr{Op: parser.GROUP, Expr: present, Grouping: slices.Clone(pl.partitions.names), PosRange: n.PosRange}
	leaf := pl.addPart(arg, below, Part{Expr: group, ByTarget: byTarget, Why: pl.over("absent if not present")})
	leaf.LabelMatchers = matchers
	return &parser.Call{Func: parser.Functions["absent"], Args: parser.Expressions{leaf}, PosRange: n.PosRange}
}

// addPart makes a part of the expression at a place, and returns the selector that stands for
// it.
func (pl *planner) addPart(e parser.Expr, at place, part Part) *parser.VectorSelector {
	part.Expr = pl.explicit(part.Expr)
	part.Steps = at.steps
	part.Carries, _ = pl.partitions.distributive(part.Expr)
	part.Injected = pl.partitions.names
	_, byName := pl.metrics.distributive(e)
	pl.plan.eachSelector(part.Expr, at, func(vs *parser.VectorSelector, at place) {
		part.Selectors = append(part.Selectors, pl.plan.selector(vs, at))
		part.ByName = byName && !ofOneName(vs)
	})
	pl.plan.eachSelector(part.Expr, place{}, func(vs *parser.VectorSelector, at place) {
		part.StepWindows = append(part.StepWindows, pl.plan.stepWindow(vs, at))
	})
	vs := &parser.VectorSelector{PosRange: e.PositionRange()}
	pl.parts[vs] = &part
	return vs
}

// explicit writes the default step into subqueries: other servers may have another default.
// It changes e.
func (pl *planner) explicit(e parser.Expr) parser.Expr {
	parser.Inspect(e, func(node parser.Node, _ []parser.Node) error {
		if sq, ok := node.(*parser.SubqueryExpr); ok {
			sq.Step = time.Duration(pl.plan.stepOf(sq)) * time.Millisecond
		}
		return nil
	})
	return e
}

// over describes how answers are combined.
func (pl *planner) over(what string) string {
	if pl.partitions.single {
		return what
	}
	return what + " over the partitions"
}

// why describes why an expression is distributive.
func (pl *planner) why(e parser.Expr) string {
	if _, ok := e.(*parser.VectorSelector); ok {
		return "selector"
	}
	out := "per series"
	parser.Inspect(e, func(node parser.Node, _ []parser.Node) error {
		switch n := node.(type) {
		case *parser.AggregateExpr:
			carries, _ := pl.partitions.distributive(n)
			out = pl.keeps("grouping", carries)
		case *parser.BinaryExpr:
			if n.VectorMatching == nil {
				return nil
			}
			carries, _ := pl.partitions.distributive(n)
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

// errFound ends a walk through an expression.
var errFound = errors.New("found")

// keeps describes that an operation keeps the labels of the partitions.
func (pl *planner) keeps(what string, carries []string) string {
	if pl.partitions.single {
		return "one partition"
	}
	return what + " keeps " + strings.Join(carries, ", ")
}
