// Package promqlx is PromQL over server groups: it parses a query once, finds
// out which samples its selectors need, and has upstream's engine evaluate it
// over the series that the groups return.
package promqlx

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/oneprom/oneprom/servergroup"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// Plan says what becomes of one query. It is a value: making it does no I/O.
type Plan struct {
	// Selectors are the vector selectors of the expression in the order in which
	// upstream's engine selects them (parser.Inspect).
	Selectors []Selector
	// lookback of the query in ms.
	lookback int64
}

// Selector is what one vector selector of a query needs.
type Selector struct {
	servergroup.Selection
	// Unused marks the second argument of info(), which looks like a selector but
	// is not evaluated as one.
	Unused bool
}

// NewPlan plans a preprocessed statement (promql.PreprocessExpr has resolved
// `start()`, `end()` and durations). subqueryStep is the step (ms) of subqueries
// that name none, by their range (ms).
func NewPlan(stmt *parser.EvalStmt, subqueryStep func(rangeMS int64) int64) *Plan {
	p := &Plan{lookback: stmt.LookbackDelta.Milliseconds()}
	parser.Inspect(stmt.Expr, func(node parser.Node, path []parser.Node) error {
		if vs, ok := node.(*parser.VectorSelector); ok {
			p.Selectors = append(p.Selectors, p.selector(stmt, vs, path, subqueryStep))
		}
		return nil
	})
	return p
}

func (p *Plan) selector(stmt *parser.EvalStmt, vs *parser.VectorSelector, path []parser.Node, subqueryStep func(int64) int64) Selector {
	g := gridOf(stmt, vs, path, subqueryStep)
	s := Selector{
		Selection: servergroup.Selection{Matchers: vs.LabelMatchers},
		Unused:    isInfoArgument(vs, path),
	}
	// Windows are left-open: a sample exactly a range or a lookback ago is out.
	s.MinT, s.MaxT = g.from+1, g.to
	matrix := matrixOf(path)
	switch {
	case matrix == nil && vs.Smoothed:
		s.MinT -= p.lookback
		s.MaxT += p.lookback
	case matrix == nil && offsetForgotten(vs, path):
		s.MinT -= p.lookback
	case matrix == nil:
		s.MinT -= p.lookback
		s.Steps = &transport.Steps{Start: g.start, End: g.end, Step: g.step, Lookback: p.lookback}
	case vs.Anchored:
		s.MinT -= matrix.Range.Milliseconds() + p.lookback
	case vs.Smoothed:
		s.MinT -= matrix.Range.Milliseconds() + p.lookback
		s.MaxT += p.lookback
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

func gridOf(stmt *parser.EvalStmt, vs *parser.VectorSelector, path []parser.Node, subqueryStep func(int64) int64) grid {
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
		g.step, aligned = sq.Step.Milliseconds(), true
		if g.step == 0 {
			g.step = subqueryStep(sq.Range.Milliseconds())
		}
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

// offsetForgotten tells whether the engine looks at a selector at other instants
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

// late is the selection of info series, which the engine selects while it
// evaluates: on the grid of the evaluator that asks, looking back.
func (p *Plan) late(mint, maxt, step int64, ms []*labels.Matcher) servergroup.Selection {
	sel := servergroup.Selection{Matchers: ms, MinT: mint, MaxT: maxt}
	sel.Steps = &transport.Steps{Start: mint + p.lookback - 1, End: maxt, Step: max(step, 1), Lookback: p.lookback}
	return sel
}

// String prints the plan, a line for each selector.
func (p *Plan) String() string {
	var b strings.Builder
	for _, s := range p.Selectors {
		fmt.Fprintf(&b, "select %s from %s to %s", transport.Selector(s.Matchers), instant(s.MinT), instant(s.MaxT))
		switch {
		case s.Unused:
			b.WriteString(" (not evaluated)")
		case s.Steps == nil:
			b.WriteString(" raw")
		default:
			fmt.Fprintf(&b, " at %s…%s each %s", instant(s.Steps.Start), instant(s.Steps.End), time.Duration(s.Steps.Step)*time.Millisecond)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func instant(ms int64) string {
	return fmt.Sprintf("%d.%03d", floorDiv(ms, 1000), ms-floorDiv(ms, 1000)*1000)
}
