package plan

import (
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/oneprom/oneprom/servergroup/transport"
)

// place is where an expression is in that of a statement, as far as its selectors need to know.
// It is made from that of the parent: to keep the whole path would take as long as the
// expression is deep, for each of its sub-expressions.
type place struct {
	grid  grid            // at which a selector would be evaluated
	steps transport.Steps // at which the expression is evaluated
	// window is what a step needs of the samples of an expression, but for what the expression
	// itself says.
	window StepWindow
	// matrix is the parent if it is a range selector, info if it is a call of info(); else nil.
	matrix *parser.MatrixSelector
	info   *parser.Call
	// timestamp reports whether the expression is what timestamp() is called with.
	timestamp bool
}

// below returns the place of the children of the expression e at this place.
func (at place) below(e parser.Expr, plan *Plan) place {
	timestamp := at.timestamp
	at.matrix, at.info, at.timestamp = nil, nil, false
	switch n := e.(type) {
	case *parser.ParenExpr:
		at.timestamp = timestamp
	case *parser.StepInvariantExpr: // evaluated at the first step
		at.timestamp = timestamp
		at.steps.End = min(at.steps.End, at.steps.Start)
	case *parser.MatrixSelector:
		at.matrix = n
	case *parser.Call:
		at.timestamp = n.Func.Name == "timestamp"
		if n.Func.Name == "info" {
			at.info = n
		}
	case *parser.SubqueryExpr:
		at.grid = at.grid.below(n, plan.stepOf(n))
		at.window.shift(n.Timestamp, n.OriginalOffset.Milliseconds())
		at.window.From -= n.Range.Milliseconds()
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

// eachSelector calls f for each vector selector of the expression e at a place, in the order in
// which upstream's engine selects them.
func (p *Plan) eachSelector(e parser.Expr, at place, f func(vs *parser.VectorSelector, at place)) {
	if vs, ok := e.(*parser.VectorSelector); ok {
		f(vs, at)
		return
	}
	below := at.below(e, p)
	for child := range parser.ChildrenIter(e) {
		p.eachSelector(child.(parser.Expr), below, f)
	}
}

// forgetsOffset reports whether the engine evaluates a selector at other instants than it
// selects samples for: timestamp() of a selector with `@` forgets the offset.
func (at place) forgetsOffset(vs *parser.VectorSelector) bool {
	return at.timestamp && vs.Timestamp != nil && vs.OriginalOffset != 0
}

// isInfoArgument reports whether a selector is the second argument of info().
func (at place) isInfoArgument(vs *parser.VectorSelector) bool {
	return at.info != nil && len(at.info.Args) > 1 && at.info.Args[1] == parser.Expr(vs)
}

// endOnStep moves the end of steps to the last instant. Where there is none, it is one step
// before the start.
func endOnStep(s transport.Steps) transport.Steps {
	s.End = s.Start + max(floorDiv(s.End-s.Start, s.Step), -1)*s.Step
	return s
}

// stepOf returns the step of a subquery in ms.
func (p *Plan) stepOf(sq *parser.SubqueryExpr) int64 {
	if step := sq.Step.Milliseconds(); step != 0 {
		return step
	}
	return p.subqueryStep(sq.Range.Milliseconds())
}

// grid is the instants (ms) at which a selector is evaluated: start, start+step, … <= end. from
// and to bound them as the engine does, which is a little wider under subqueries.
type grid struct {
	start, end, step int64
	from, to         int64
	aligned          bool // whether the instants are multiples of the step of a subquery
}

// rootOf returns the instants of a statement.
func rootOf(stmt *parser.EvalStmt) grid {
	return grid{from: stmt.Start.UnixMilli(), to: stmt.End.UnixMilli(), step: max(stmt.Interval.Milliseconds(), 1)}
}

// below returns the instants within a subquery.
func (g grid) below(sq *parser.SubqueryExpr, step int64) grid {
	if sq.Timestamp != nil {
		g.from, g.to = *sq.Timestamp, *sq.Timestamp
	}
	offset := sq.OriginalOffset.Milliseconds()
	g.from -= offset + sq.Range.Milliseconds()
	g.to -= offset
	g.step, g.aligned = step, true
	return g
}

// of returns the instants of a selector, with its `@` and its offset.
func (g grid) of(vs *parser.VectorSelector) grid {
	if vs.Timestamp != nil {
		g.from, g.to, g.aligned = *vs.Timestamp, *vs.Timestamp, false
	}
	g.start, g.end = g.from, g.to
	if g.aligned {
		g.start = (floorDiv(g.from, g.step) + 1) * g.step
	}
	offset := vs.OriginalOffset.Milliseconds()
	g.start, g.end, g.from, g.to = g.start-offset, g.end-offset, g.from-offset, g.to-offset
	return g
}

// StepWindow is the samples of a selector that a step t needs: those in (t+From, t+To] (ms),
// or in (From, To] for all steps if Fixed is set.
type StepWindow struct {
	From, To int64
	Fixed    bool
}

// shift moves the window by an `@`, if there is one, and an offset (ms).
func (w *StepWindow) shift(at *int64, offset int64) {
	if at != nil {
		*w = StepWindow{From: *at, To: *at, Fixed: true}
	}
	w.From, w.To = w.From-offset, w.To-offset
}

// stepWindow returns the window of a selector at a place in a part.
func (p *Plan) stepWindow(vs *parser.VectorSelector, at place) StepWindow {
	w := at.window
	w.shift(vs.Timestamp, vs.OriginalOffset.Milliseconds())
	if at.matrix != nil {
		w.From -= at.matrix.Range.Milliseconds()
	} else {
		w.From -= p.Steps.Lookback
	}
	if at.forgetsOffset(vs) { // it is evaluated without its offset
		w.From += min(vs.OriginalOffset.Milliseconds(), 0)
		w.To += max(vs.OriginalOffset.Milliseconds(), 0)
	}
	return w
}
