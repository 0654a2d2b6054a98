// Package plan plans queries: which samples their selectors need, which sub-expressions each
// partition of the server groups can answer by itself, and how the engine combines those
// answers.
//
// Route plans a query for the groups that it sees. It finds the partitions that the
// selectors concern, and New finds the parts. What may be a part is decided by an algebra of
// distributive expressions (algebra.go), which parts.go applies to the expression. A Plan is
// a value: planning sends no requests, and a plan prints as text, which tests compare.
package plan

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/oneprom/oneprom/servergroup/transport"
	"github.com/oneprom/oneprom/servergroup/view"
)

// Plan is the plan of one query.
type Plan struct {
	// Expr is what upstream's engine evaluates. It is the statement's expression with each
	// part replaced by a vector selector, which has no offset or `@` of its own.
	Expr parser.Expr
	// Leaves are what the vector selectors of Expr stand for, in the order in which
	// upstream's engine selects them (parser.Inspect).
	Leaves []Leaf
	// NotWhole are the aggregations that partitions might answer whole, but for what was seen.
	NotWhole []NotWhole
	// Steps are the instants of the query; there is one for an instant query.
	Steps transport.Steps
	// subqueryStep is the step (ms) of subqueries that name none, by their range (ms).
	subqueryStep func(rangeMS int64) int64
}

// Leaf is what one vector selector of a plan stands for: exactly one field is set.
type Leaf struct {
	// Selector stands for the series themselves.
	Selector *Selector
	// Part stands for answers. Their samples are at the steps of the part.
	Part *Part
	// Stretches stands for the answers of the stretches of a plan (Routed), at the steps of the query.
	Stretches bool
}

// Layout describes how series are spread over partitions: by the labels that each partition
// injects into all of its series. Partitions share no series.
type Layout struct {
	Partitions []map[string]string
	// Distinct are, by partition, labels of the data that tell its series apart from those of all
	// other partitions: no series of another one has the same values of all of them. Nil: there are
	// no such labels in any partition.
	Distinct [][]string
}

// Options of planning.
type Options struct {
	// NoParts is the reason why no parts are to be made; "" if they are.
	NoParts string
	// Divided makes only parts that can be divided by target, smaller ones if need be. Where
	// each replica lacks a few targets, no replica could answer another part alone.
	Divided bool
	// NoneDisjoint makes no part whose answers must turn out to be disjoint (Part.Disjoint).
	NoneDisjoint bool
	// NotDisjoint remembers the parts whose answers were not disjoint (RememberNotDisjoint); nil: none are known.
	NotDisjoint *view.Unusable
	// Copies are the spans for which copies must be asked for, as executions of the query have shown.
	Copies Copies

	// whyNotDisjoint returns why an aggregation is no such part, by its text without times; "" if it may be.
	whyNotDisjoint func(aggregation string) string
}

// Selector is what one vector selector of a query needs.
type Selector struct {
	view.Selection
	// Unused marks the second argument of info(). It looks like a selector but is not
	// evaluated as one.
	Unused bool
}

// New plans a preprocessed statement (promql.PreprocessExpr has resolved
// `start()`, `end()` and durations). subqueryStep is the step (ms) of subqueries
// that name none, by their range (ms). The statement is not changed. The error is that of the
// context, if it ends meanwhile.
func New(ctx context.Context, stmt *parser.EvalStmt, subqueryStep func(rangeMS int64) int64, layout Layout, o Options) (*Plan, error) {
	return newPlan(newWork(ctx), stmt, subqueryStep, layout, o)
}

func newPlan(w *work, stmt *parser.EvalStmt, subqueryStep func(rangeMS int64) int64, layout Layout, o Options) (*Plan, error) {
	p := unplanned(stmt, subqueryStep)
	parts := map[*parser.VectorSelector]*Part{}
	if o.NoParts == "" && len(layout.Partitions) > 0 && !oddQuantile(stmt.Expr) {
		pl := &planner{
			plan: p, root: rootOf(stmt), work: w, partitions: newPartitions(w, layout), targets: newTargets(w), metrics: newMetrics(w),
			options: o, parts: parts,
		}
		p.Expr = pl.rewrite(stmt.Expr, place{grid: pl.root, steps: p.Steps})
	}
	if w.err == nil {
		w.err = w.ctx.Err()
	}
	if w.err != nil {
		return nil, w.err
	}
	p.findLeaves(stmt, parts)
	return p, nil
}

// Selectors returns the selectors of the expression and of its parts.
func (p *Plan) Selectors() (list []Selector) {
	for _, leaf := range p.Leaves {
		switch {
		case leaf.Part != nil:
			list = append(list, leaf.Part.Selectors...)
		case leaf.Selector != nil:
			list = append(list, *leaf.Selector)
		}
	}
	return list
}

// Copy returns the expression for one evaluation.
func (p *Plan) Copy() parser.Expr { return copyExpr(p.Expr) }

// Leaves returns the leaves of a plan without parts, which are the selectors of the statement.
// The arguments are as for New.
func Leaves(stmt *parser.EvalStmt, subqueryStep func(rangeMS int64) int64) []Leaf {
	p := unplanned(stmt, subqueryStep)
	p.findLeaves(stmt, nil)
	return p.Leaves
}

// findLeaves finds what the selectors of the expression stand for. parts are the parts by the
// selectors that stand for them.
func (p *Plan) findLeaves(stmt *parser.EvalStmt, parts map[*parser.VectorSelector]*Part) {
	p.eachSelector(p.Expr, place{grid: rootOf(stmt)}, func(vs *parser.VectorSelector, at place) {
		leaf := Leaf{Part: parts[vs]}
		if leaf.Part == nil {
			s := p.selector(vs, at)
			leaf.Selector = &s
		}
		p.Leaves = append(p.Leaves, leaf)
	})
}

// unplanned returns the plan of a statement without parts and leaves.
func unplanned(stmt *parser.EvalStmt, subqueryStep func(rangeMS int64) int64) *Plan {
	return &Plan{Expr: stmt.Expr, subqueryStep: subqueryStep, Steps: endOnStep(transport.Steps{
		Start: stmt.Start.UnixMilli(), End: stmt.End.UnixMilli(), Step: max(stmt.Interval.Milliseconds(), 1), Lookback: stmt.LookbackDelta.Milliseconds(),
	})}
}

// oddQuantile reports whether a quantile, or a ratio, is out of range or not a literal. The
// engine warns of one out of range even where there are no series: then there would be no
// answer to a part, and no warning.
func oddQuantile(e parser.Expr) bool {
	odd := false
	parser.Inspect(e, func(node parser.Node, _ []parser.Node) error {
		n, ok := node.(*parser.AggregateExpr)
		if !ok || n.Op != parser.QUANTILE && n.Op != parser.LIMIT_RATIO {
			return nil
		}
		literal, ok := unwrap(n.Param).(*parser.NumberLiteral)
		least := map[parser.ItemType]float64{parser.QUANTILE: 0, parser.LIMIT_RATIO: -1}[n.Op]
		odd = odd || !ok || !(literal.Val >= least && literal.Val <= 1)
		return nil
	})
	return odd
}

// selector returns what a vector selector at a place needs.
func (p *Plan) selector(vs *parser.VectorSelector, at place) Selector {
	g := at.grid.of(vs)
	s := Selector{
		Selection: view.Selection{Matchers: vs.LabelMatchers},
		Unused:    at.isInfoArgument(vs),
	}
	// Windows are left-open: a sample exactly a range or a lookback ago is out.
	s.MinT, s.MaxT = g.from+1, g.to
	switch {
	case at.matrix == nil && vs.Smoothed:
		s.MinT -= p.Steps.Lookback
		s.MaxT += p.Steps.Lookback
	case at.matrix == nil && at.forgetsOffset(vs):
		// A series that has ended by the earlier of the two instants has a value there.
		// Later samples must not hide it.
		offset := min(vs.OriginalOffset.Milliseconds(), 0)
		s.MinT -= p.Steps.Lookback
		s.Steps = &transport.Steps{Start: g.start + offset, End: g.end + offset, Step: g.step, Lookback: p.Steps.Lookback}
		s.Every = true
	case at.matrix == nil:
		s.MinT -= p.Steps.Lookback
		s.Steps = &transport.Steps{Start: g.start, End: g.end, Step: g.step, Lookback: p.Steps.Lookback}
	case vs.Anchored:
		s.MinT -= at.matrix.Range.Milliseconds() + p.Steps.Lookback
	case vs.Smoothed:
		s.MinT -= at.matrix.Range.Milliseconds() + p.Steps.Lookback
		s.MaxT += p.Steps.Lookback
	default:
		s.MinT -= at.matrix.Range.Milliseconds()
	}
	return s
}

// floorDiv is a / b, rounded down.
func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b != 0 && (a < 0) != (b < 0) {
		q--
	}
	return q
}

// InfoSelection returns the selection of info series, which the engine selects while it
// evaluates info(): at the steps (ms) of the evaluator, with their lookback.
func (p *Plan) InfoSelection(mint, maxt, step int64, ms []*labels.Matcher) view.Selection {
	sel := view.Selection{Matchers: ms, MinT: mint, MaxT: maxt}
	sel.Steps = &transport.Steps{Start: mint + p.Steps.Lookback - 1, End: maxt, Step: max(step, 1), Lookback: p.Steps.Lookback}
	return sel
}

// String prints the plan: the expression, if there are parts in it, and a line for
// each leaf.
func (p *Plan) String() string {
	var b strings.Builder
	parts := 0
	names := make([]string, len(p.Leaves)) // "" if not a part
	for i, leaf := range p.Leaves {
		if leaf.Part == nil {
			fmt.Fprintf(&b, "select %s\n", leaf.Selector)
			continue
		}
		parts++
		names[i] = "$" + strconv.Itoa(parts)
		fmt.Fprintf(&b, "%s = %s\n", names[i], leaf.Part)
	}
	if parts == 0 {
		return b.String()
	}
	return p.Expression(names) + "\n" + b.String()
}

// Expression prints the expression. names are the names of the leaves, in their order; a leaf
// whose name is "" is printed as it is.
func (p *Plan) Expression(names []string) string {
	return textOf(withNames(p.Expr, &names))
}

// withNames returns a copy of an expression for printing, in which the selectors that have a
// name are replaced by it. It takes the names off the list in order.
func withNames(e parser.Expr, names *[]string) parser.Expr {
	vs, ok := e.(*parser.VectorSelector)
	if !ok {
		return withChildren(e, func(child parser.Expr) parser.Expr { return withNames(child, names) })
	}
	name := (*names)[0]
	*names = (*names)[1:]
	if name == "" {
		return vs
	}
	return &parser.VectorSelector{Name: name}
}

// String prints the selector with its window and its steps.
func (s *Selector) String() string {
	out := fmt.Sprintf("%s from %s to %s", transport.Selector(s.Matchers), instant(s.MinT), instant(s.MaxT))
	switch {
	case s.Unused:
		return out + " (not evaluated)"
	case s.Steps == nil:
		return out + " raw"
	case s.Every:
		out += " raw and"
	}
	return out + " at " + steps(*s.Steps)
}

// steps prints instants.
func steps(s transport.Steps) string {
	if s.Start == s.End {
		return instant(s.Start)
	}
	return fmt.Sprintf("%s…%s each %s", instant(s.Start), instant(s.End), time.Duration(s.Step)*time.Millisecond)
}

// instant prints a time (ms) in seconds.
func instant(ms int64) string {
	return fmt.Sprintf("%d.%03d", floorDiv(ms, 1000), ms-floorDiv(ms, 1000)*1000)
}
