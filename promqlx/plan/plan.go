// Package plan makes the plan of a query: which samples its selectors need, which of
// its sub-expressions each server group can answer by itself, and what is made of
// those answers. A plan is a value: making it asks nobody, and it prints as text.
package plan

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/oneprom/oneprom/servergroup"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// Plan says what becomes of one query. It is a value: making it does no I/O.
type Plan struct {
	// Expr is evaluated by upstream's engine. It is the statement's expression with
	// each part replaced by a vector selector, which has no offset or `@` of its own.
	Expr parser.Expr
	// Leaves are what the vector selectors of Expr stand for, in the order in which
	// upstream's engine selects them (parser.Inspect).
	Leaves []Leaf
	// Steps are the instants of the query; there is one for an instant query.
	Steps transport.Steps
	// subqueryStep is the step (ms) of subqueries that name none, by their range (ms).
	subqueryStep func(rangeMS int64) int64
}

// Leaf is what one vector selector of a plan stands for: exactly one is set.
type Leaf struct {
	// Selector are the series themselves.
	Selector *Selector
	// Part are answers, that lie on the part's steps.
	Part *Part
}

// Layout says how series are spread: the labels that each partition injects into
// all of its series. Partitions share no series.
type Layout struct {
	Partitions []map[string]string
}

// Options of planning.
type Options struct {
	// NoParts is the reason why no parts are to be made; "" if they are.
	NoParts string
	// Divided makes only parts that can be divided by target, smaller ones if need be:
	// where each replica lacks a few targets, none answers another part alone.
	Divided bool
}

// Selector is what one vector selector of a query needs.
type Selector struct {
	servergroup.Selection
	// Unused marks the second argument of info(), which looks like a selector but
	// is not evaluated as one.
	Unused bool
}

// New plans a preprocessed statement (promql.PreprocessExpr has resolved
// `start()`, `end()` and durations). subqueryStep is the step (ms) of subqueries
// that name none, by their range (ms). The statement is not changed.
func New(stmt *parser.EvalStmt, subqueryStep func(rangeMS int64) int64, layout Layout, o Options) *Plan {
	p := unplanned(stmt, subqueryStep)
	parts := map[*parser.VectorSelector]*Part{}
	if o.NoParts == "" && len(layout.Partitions) > 0 && !oddQuantile(stmt.Expr) {
		pl := &planner{plan: p, stmt: stmt, partitions: newPartitions(layout), targets: newTargets(), metrics: newMetrics(), divided: o.Divided, parts: parts}
		p.Expr = pl.rewrite(stmt.Expr, place{steps: p.Steps})
	}
	inspectSelectors(p.Expr, func(vs *parser.VectorSelector, path []parser.Node) {
		leaf := Leaf{Part: parts[vs]}
		if leaf.Part == nil {
			s := p.selector(stmt, vs, path)
			leaf.Selector = &s
		}
		p.Leaves = append(p.Leaves, leaf)
	})
	return p
}

// Selectors are those of a preprocessed statement, in the order of parser.Inspect: the
// leaves of its plan, if that has no parts. The arguments are those of New.
func Selectors(stmt *parser.EvalStmt, subqueryStep func(rangeMS int64) int64) []Selector {
	p := unplanned(stmt, subqueryStep)
	var out []Selector
	inspectSelectors(stmt.Expr, func(vs *parser.VectorSelector, path []parser.Node) {
		out = append(out, p.selector(stmt, vs, path))
	})
	return out
}

// unplanned is the plan of a statement before anything is found out of its expression.
func unplanned(stmt *parser.EvalStmt, subqueryStep func(rangeMS int64) int64) *Plan {
	return &Plan{Expr: stmt.Expr, subqueryStep: subqueryStep, Steps: endOnStep(transport.Steps{
		Start: stmt.Start.UnixMilli(), End: stmt.End.UnixMilli(), Step: max(stmt.Interval.Milliseconds(), 1), Lookback: stmt.LookbackDelta.Milliseconds(),
	})}
}

// inspectSelectors calls f for each vector selector, with the path to it.
func inspectSelectors(e parser.Expr, f func(vs *parser.VectorSelector, path []parser.Node)) {
	parser.Inspect(e, func(node parser.Node, path []parser.Node) error {
		if vs, ok := node.(*parser.VectorSelector); ok {
			f(vs, path)
		}
		return nil
	})
}

// oddQuantile reports whether a quantile is asked for that there is none of. The engine
// warns of it even where there are no series, and then nobody would answer a part.
func oddQuantile(e parser.Expr) bool {
	odd := false
	parser.Inspect(e, func(node parser.Node, _ []parser.Node) error {
		n, ok := node.(*parser.AggregateExpr)
		if !ok || n.Op != parser.QUANTILE && n.Op != parser.LIMIT_RATIO {
			return nil
		}
		literal, ok := bare(n.Param).(*parser.NumberLiteral)
		least := map[parser.ItemType]float64{parser.QUANTILE: 0, parser.LIMIT_RATIO: -1}[n.Op]
		odd = odd || !ok || !(literal.Val >= least && literal.Val <= 1)
		return nil
	})
	return odd
}

func (p *Plan) selector(stmt *parser.EvalStmt, vs *parser.VectorSelector, path []parser.Node) Selector {
	g := p.grid(stmt, vs, path)
	s := Selector{
		Selection: servergroup.Selection{Matchers: vs.LabelMatchers},
		Unused:    isInfoArgument(vs, path),
	}
	// Windows are left-open: a sample exactly a range or a lookback ago is out.
	s.MinT, s.MaxT = g.from+1, g.to
	matrix := matrixOf(path)
	switch {
	case matrix == nil && vs.Smoothed:
		s.MinT -= p.Steps.Lookback
		s.MaxT += p.Steps.Lookback
	case matrix == nil && offsetForgotten(vs, path):
		// What has ended by the earlier of both instants shows there, and is not
		// covered up by what came later.
		offset := min(vs.OriginalOffset.Milliseconds(), 0)
		s.MinT -= p.Steps.Lookback
		s.Steps = &transport.Steps{Start: g.start + offset, End: g.end + offset, Step: g.step, Lookback: p.Steps.Lookback}
		s.Every = true
	case matrix == nil:
		s.MinT -= p.Steps.Lookback
		s.Steps = &transport.Steps{Start: g.start, End: g.end, Step: g.step, Lookback: p.Steps.Lookback}
	case vs.Anchored:
		s.MinT -= matrix.Range.Milliseconds() + p.Steps.Lookback
	case vs.Smoothed:
		s.MinT -= matrix.Range.Milliseconds() + p.Steps.Lookback
		s.MaxT += p.Steps.Lookback
	default:
		s.MinT -= matrix.Range.Milliseconds()
	}
	return s
}

// grid are the instants (ms) at which a selector is looked at, its offset
// applied: start, start+step, … <= end. from and to bound them as the engine
// does, which is a little wider under subqueries.
type grid struct {
	start, end, step int64
	from, to         int64
}

func (p *Plan) grid(stmt *parser.EvalStmt, vs *parser.VectorSelector, path []parser.Node) grid {
	g := grid{from: stmt.Start.UnixMilli(), to: stmt.End.UnixMilli(), step: max(stmt.Interval.Milliseconds(), 1)}
	aligned := false // whether a subquery has put the instants on multiples of its step
	for _, node := range path {
		sq, ok := node.(*parser.SubqueryExpr)
		if !ok {
			continue
		}
		if sq.Timestamp != nil {
			g.from, g.to = *sq.Timestamp, *sq.Timestamp
		}
		offset := sq.OriginalOffset.Milliseconds()
		g.from -= offset + sq.Range.Milliseconds()
		g.to -= offset
		g.step, aligned = p.stepOf(sq), true
	}
	if vs.Timestamp != nil {
		g.from, g.to, aligned = *vs.Timestamp, *vs.Timestamp, false
	}
	g.start, g.end = g.from, g.to
	if aligned {
		g.start = (floorDiv(g.from, g.step) + 1) * g.step
	}
	offset := vs.OriginalOffset.Milliseconds()
	g.start, g.end, g.from, g.to = g.start-offset, g.end-offset, g.from-offset, g.to-offset
	return g
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b != 0 && (a < 0) != (b < 0) {
		q--
	}
	return q
}

// matrixOf returns the range selector that a vector selector is part of.
func matrixOf(path []parser.Node) *parser.MatrixSelector {
	if len(path) == 0 {
		return nil
	}
	m, _ := path[len(path)-1].(*parser.MatrixSelector)
	return m
}

// offsetForgotten reports whether the engine looks at a selector at other instants
// than it selects samples for: timestamp() of one with `@` forgets its offset.
func offsetForgotten(vs *parser.VectorSelector, path []parser.Node) bool {
	if vs.Timestamp == nil || vs.OriginalOffset == 0 {
		return false
	}
	for _, node := range slices.Backward(path) {
		switch n := node.(type) {
		case *parser.ParenExpr, *parser.StepInvariantExpr:
		case *parser.Call:
			return n.Func.Name == "timestamp"
		default:
			return false
		}
	}
	return false
}

func isInfoArgument(vs *parser.VectorSelector, path []parser.Node) bool {
	for _, node := range path {
		call, ok := node.(*parser.Call)
		if ok && call.Func.Name == "info" && len(call.Args) > 1 && call.Args[1] == parser.Expr(vs) {
			return true
		}
	}
	return false
}

// InfoSelection is the selection of info series, which the engine selects while it
// evaluates: on the grid (ms) of the evaluator that asks, looking back.
func (p *Plan) InfoSelection(mint, maxt, step int64, ms []*labels.Matcher) servergroup.Selection {
	sel := servergroup.Selection{Matchers: ms, MinT: mint, MaxT: maxt}
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

// Expression prints the expression. names are those by which the leaves are called, in
// their order; "" for a leaf that is printed as it is.
func (p *Plan) Expression(names []string) string {
	return named(p.Expr, &names).String()
}

// named is a copy of an expression for printing, in which the selectors that have
// a name are replaced by it. It takes the names in order.
func named(e parser.Expr, names *[]string) parser.Expr {
	vs, ok := e.(*parser.VectorSelector)
	if !ok {
		return withChildren(e, func(child parser.Expr) parser.Expr { return named(child, names) })
	}
	name := (*names)[0]
	*names = (*names)[1:]
	if name == "" {
		return vs
	}
	return &parser.VectorSelector{Name: name}
}

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

func steps(s transport.Steps) string {
	if s.Start == s.End {
		return instant(s.Start)
	}
	return fmt.Sprintf("%s…%s each %s", instant(s.Start), instant(s.End), time.Duration(s.Step)*time.Millisecond)
}

func instant(ms int64) string {
	return fmt.Sprintf("%d.%03d", floorDiv(ms, 1000), ms-floorDiv(ms, 1000)*1000)
}
