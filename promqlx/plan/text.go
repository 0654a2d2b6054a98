package plan

import (
	"errors"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/parser/posrange"
)

// Text prints the part in PromQL for a backend whose series lack some of the injected labels.
// translate returns the matchers for that backend by those of a selector.
func (p *Part) Text(lacks []string, translate func([]*labels.Matcher) []*labels.Matcher) string {
	return textOf(p.printable(p.Expr, lacks, translate))
}

// Key is equal for parts that are evaluated alike.
func (p *Part) Key() string { return textOf(p.Expr) }

// ErrInexpressible is the error of a part that has no text for a replica, or whose answer has
// annotations without positions in the query.
var ErrInexpressible = errors.New("the part cannot be said in the words of the replica, or its answer in ours")

// TextFor prints the part for a backend whose series lack the injected labels given. matchers
// translates the matchers of a selector for that backend, and reports whether that is possible. If
// it is not, the error is ErrInexpressible.
func (p *Part) TextFor(injected map[string]string, matchers func([]*labels.Matcher) ([]*labels.Matcher, bool)) (text string, err error) {
	text = p.Text(slices.Collect(maps.Keys(injected)), func(ms []*labels.Matcher) []*labels.Matcher {
		send, expressible := matchers(ms)
		if !expressible {
			err = ErrInexpressible
		}
		return send
	})
	return text, err
}

// ShownText prints the part for people, with the matchers of injected labels.
func (p *Part) ShownText() string {
	return p.Text(p.Injected, func(ms []*labels.Matcher) []*labels.Matcher { return ms })
}

// printable returns a copy of an expression that prints as the text to send.
func (p *Part) printable(e parser.Expr, lacks []string, translate func([]*labels.Matcher) []*labels.Matcher) parser.Expr {
	if n, ok := e.(*parser.StepInvariantExpr); ok {
		return p.printable(n.Expr, lacks, translate)
	}
	e = withChildren(e, func(child parser.Expr) parser.Expr { return p.printable(child, lacks, translate) })
	known := func(names []string) []string { return grouped(names, lacks, true) }
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

// enclosed puts a negative number into parentheses: it may stand for an expression that binds
// closer than a minus sign does, such as `start()`.
func enclosed(e parser.Expr) parser.Expr {
	if n, ok := e.(*parser.NumberLiteral); ok && math.Signbit(n.Val) {
		return &parser.ParenExpr{Expr: n}
	}
	return e
}

// selective adds a matcher that all series match if all others match the empty string: the
// parser refuses such selectors.
func selective(ms []*labels.Matcher) []*labels.Matcher {
	if slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return !m.Matches("") }) {
		return ms
	}
	return append(slices.Clone(ms), labels.MustNewMatcher(labels.MatchNotEqual, labels.MetricName, ""))
}

// Positions returns where expressions begin in the query that the part is of, by where they
// begin in a text of the part (from Text); both as "line:column". It is nil for a text that
// cannot be parsed.
func (p *Part) Positions(text, query string, ps parser.Parser) map[string]string {
	return positions(text, p.Expr, query, ps)
}

// Positions returns where expressions begin in a query, by where they begin in another text of it, as
// Part.Positions does.
func Positions(text, query string, ps parser.Parser) map[string]string {
	own, err := ps.ParseExpr(query)
	if err != nil {
		return nil
	}
	return positions(text, own, query, ps)
}

func positions(text string, own parser.Expr, query string, ps parser.Parser) map[string]string {
	sent, err := ps.ParseExpr(text)
	if err != nil {
		return nil
	}
	out := map[string]string{}
	align(sent, own, func(sent, own posrange.PositionRange) {
		at := sent.StartPosInput(text, 0)
		if _, ok := out[at]; !ok {
			out[at] = own.StartPosInput(query, 0)
		}
	})
	return out
}

// align calls f for each pair of corresponding expressions in two trees.
func align(a, b parser.Node, f func(a, b posrange.PositionRange)) {
	a, b = unwrap(a), unwrap(b)
	f(a.PositionRange(), b.PositionRange())
	as, bs := parser.Children(a), parser.Children(b)
	if len(as) != len(bs) {
		return
	}
	for i := range as {
		align(as[i], bs[i], f)
	}
}

// unwrap returns a node without parentheses and step invariance, which do not change its value.
func unwrap(node parser.Node) parser.Node {
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

// textOf prints an expression as upstream does. Upstream copies the text of a sub-expression once
// for each of its ancestors. Here an expression prints itself around marks, which the texts of
// its children replace.
func textOf(e parser.Expr) string {
	var b strings.Builder
	writeText(&b, e)
	return b.String()
}

// mark stands for a child in the text of its parent. No name and no number has its first byte,
// and strings are quoted.
const mark = "\x00"

func writeText(b *strings.Builder, e parser.Expr) {
	var children []parser.Expr
	switch n := e.(type) {
	case *parser.VectorSelector, *parser.MatrixSelector, *parser.NumberLiteral, *parser.StringLiteral:
		b.WriteString(e.String())
		return
	case *parser.StepInvariantExpr:
		writeText(b, n.Expr)
		return
	}
	marked := withChildren(e, func(child parser.Expr) parser.Expr {
		children = append(children, child)
		return &parser.VectorSelector{Name: mark}
	})
	if n, ok := e.(*parser.AggregateExpr); ok && n.Param != nil { // which is printed first
		slices.Reverse(children)
	}
	own := strings.Split(marked.String(), mark)
	for i, text := range own {
		b.WriteString(text)
		if i < len(children) {
			writeText(b, children[i])
		}
	}
}

// copyExpr returns a deep copy.
func copyExpr(e parser.Expr) parser.Expr { return withChildren(e, copyExpr) }

// withChildren returns a copy of an expression whose children are replaced by f. The copy
// shares nothing that an evaluation writes to. It lacks the expressions of durations, which
// were computed when the statement was preprocessed.
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
