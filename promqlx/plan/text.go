package plan

import (
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/parser/posrange"
)

// Text is the part in PromQL for a backend whose series lack the injected labels.
// translate makes matchers for that backend of those of each selector.
func (p *Part) Text(translate func([]*labels.Matcher) []*labels.Matcher) string {
	return p.printable(p.Expr, translate).String()
}

// TextFor is the text of the part for a backend, of which matchers tells what a selector
// is there. It is not ok if that cannot be said.
func (p *Part) TextFor(matchers func([]*labels.Matcher) ([]*labels.Matcher, bool)) (text string, ok bool) {
	ok = true
	text = p.Text(func(ms []*labels.Matcher) []*labels.Matcher {
		send, sayable := matchers(ms)
		ok = ok && sayable
		return send
	})
	return text, ok
}

// ShownText is the text of the part for people, the injected labels among its matchers.
func (p *Part) ShownText() string {
	return p.Text(func(ms []*labels.Matcher) []*labels.Matcher { return ms })
}

// printable is a copy of an expression that prints as the text to send.
func (p *Part) printable(e parser.Expr, translate func([]*labels.Matcher) []*labels.Matcher) parser.Expr {
	if n, ok := e.(*parser.StepInvariantExpr); ok {
		return p.printable(n.Expr, translate)
	}
	e = withChildren(e, func(child parser.Expr) parser.Expr { return p.printable(child, translate) })
	known := func(names []string) []string { return grouped(names, p.Injected, true) }
	switch n := e.(type) {
	case *parser.VectorSelector:
		n.Name, n.LabelMatchers = "", selective(translate(n.LabelMatchers))
	case *parser.AggregateExpr:
		n.Grouping = known(n.Grouping)
	case *parser.BinaryExpr:
		if n.VectorMatching != nil {
			n.VectorMatching.MatchingLabels = known(n.VectorMatching.MatchingLabels)
		}
		n.LHS, n.RHS = enclosed(n.LHS), enclosed(n.RHS)
	case *parser.SubqueryExpr:
		if vs, ok := n.Expr.(*parser.VectorSelector); ok {
			n.Expr = &parser.ParenExpr{Expr: vs}
		}
	case *parser.NumberLiteral:
		n.Duration = false
	}
	return e
}

// enclosed puts a negative number in parentheses: what was one, as `start()` may
// have been, binds closer than a minus.
func enclosed(e parser.Expr) parser.Expr {
	if n, ok := e.(*parser.NumberLiteral); ok && math.Signbit(n.Val) {
		return &parser.ParenExpr{Expr: n}
	}
	return e
}

// selective adds a matcher that all series match where the others might match the
// empty string, which the parser refuses.
func selective(ms []*labels.Matcher) []*labels.Matcher {
	if slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return !m.Matches("") }) {
		return ms
	}
	return append(slices.Clone(ms), labels.MustNewMatcher(labels.MatchNotEqual, labels.MetricName, ""))
}

// Positions says for the place ("line:col") at which each expression of a text of
// the part begins where it begins in the query that the part is of. The text comes
// from Text; what cannot be parsed has no positions.
func (p *Part) Positions(text, query string, ps parser.Parser) map[string]string {
	sent, err := ps.ParseExpr(text)
	if err != nil {
		return nil
	}
	out := map[string]string{}
	align(sent, p.Expr, func(sent, own posrange.PositionRange) {
		at := sent.StartPosInput(text, 0)
		if _, ok := out[at]; !ok {
			out[at] = own.StartPosInput(query, 0)
		}
	})
	return out
}

// align calls f for each two expressions that correspond in two trees.
func align(a, b parser.Node, f func(a, b posrange.PositionRange)) {
	a, b = bare(a), bare(b)
	f(a.PositionRange(), b.PositionRange())
	as, bs := parser.Children(a), parser.Children(b)
	if len(as) != len(bs) {
		return
	}
	for i := range as {
		align(as[i], bs[i], f)
	}
}

// bare is a node without what does not change its value.
func bare(node parser.Node) parser.Node {
	for {
		switch n := node.(type) {
		case *parser.ParenExpr:
			node = n.Expr
		case *parser.StepInvariantExpr:
			node = n.Expr
		default:
			return node
		}
	}
}

// copyExpr is a deep copy.
func copyExpr(e parser.Expr) parser.Expr { return withChildren(e, copyExpr) }

// withChildren is a copy of an expression with f of its children for them. It
// shares nothing that an evaluation writes to, and leaves out of what durations
// were computed: they were, when the statement was preprocessed.
func withChildren(e parser.Expr, f func(parser.Expr) parser.Expr) parser.Expr {
	switch n := e.(type) {
	case *parser.AggregateExpr:
		c := *n
		c.Grouping = slices.Clone(n.Grouping)
		c.Expr = f(n.Expr)
		if n.Param != nil {
			c.Param = f(n.Param)
		}
		return &c
	case *parser.BinaryExpr:
		c := *n
		c.LHS, c.RHS = f(n.LHS), f(n.RHS)
		if n.VectorMatching != nil {
			m := *n.VectorMatching
			m.MatchingLabels, m.Include = slices.Clone(m.MatchingLabels), slices.Clone(m.Include)
			c.VectorMatching = &m
		}
		return &c
	case *parser.Call:
		c := *n
		c.Args = make(parser.Expressions, len(n.Args))
		for i := range n.Args {
			c.Args[i] = f(n.Args[i])
		}
		return &c
	case *parser.MatrixSelector:
		c := *n
		c.VectorSelector, c.RangeExpr = f(n.VectorSelector), nil
		return &c
	case *parser.NumberLiteral:
		c := *n
		return &c
	case *parser.ParenExpr:
		return &parser.ParenExpr{Expr: f(n.Expr), PosRange: n.PosRange}
	case *parser.StepInvariantExpr:
		return &parser.StepInvariantExpr{Expr: f(n.Expr)}
	case *parser.StringLiteral:
		c := *n
		return &c
	case *parser.SubqueryExpr:
		c := *n
		c.Expr = f(n.Expr)
		c.RangeExpr, c.OriginalOffsetExpr, c.StepExpr = nil, nil, nil
		c.StartOrEnd = 0
		return &c
	case *parser.UnaryExpr:
		c := *n
		c.Expr = f(n.Expr)
		return &c
	case *parser.VectorSelector:
		c := *n
		c.LabelMatchers = slices.Clone(n.LabelMatchers)
		c.OriginalOffsetExpr, c.StartOrEnd = nil, 0
		c.UnexpandedSeriesSet, c.Series = nil, nil
		return &c
	}
	return e
}
