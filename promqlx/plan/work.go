package plan

import (
	"context"

	"github.com/prometheus/prometheus/promql/parser"
)

// work is the work of planning one query. It grows with the number of sub-expressions and no
// faster, because what was found out about one is remembered. It stops when the query ends.
type work struct {
	ctx    context.Context
	err    error // why the planning stopped; nil if it did not
	visits int   // how many sub-expressions were looked at
	known  map[parser.Node]*traits
}

func newWork(ctx context.Context) *work {
	return &work{ctx: ctx, known: map[parser.Node]*traits{}}
}

// visitsPerLook is how many sub-expressions are looked at between two looks at the clock.
const visitsPerLook = 64

// visit counts a look at a sub-expression. It reports whether the planning goes on.
func (w *work) visit() bool {
	if w.visits%visitsPerLook == 0 && w.err == nil {
		w.err = w.ctx.Err()
	}
	w.visits++
	return w.err == nil
}

// traits is what is known of an expression.
type traits struct {
	typ       parser.ValueType
	selectors bool // whether it reads any series
	constant  bool // whether it has one value at all times
	// named reports whether each of its selectors is of one name, and no `or` joins several.
	named bool
	// distributive is what scopes have found out, by their numbers.
	distributive [scopes]*verdict
}

// verdict is whether an expression is distributive, and which labels its series carry.
type verdict struct {
	carries []string
	ok      bool
}

// of returns the traits of an expression. Those of a planning that has stopped mean nothing.
func (w *work) of(e parser.Node) *traits {
	if t := w.known[e]; t != nil {
		return t
	}
	t := &traits{constant: true, named: true}
	if !w.visit() {
		return t
	}
	var types []parser.ValueType
	for child := range parser.ChildrenIter(e) {
		c := w.of(child)
		t.selectors, t.constant, t.named = t.selectors || c.selectors, t.constant && c.constant, t.named && c.named
		types = append(types, c.typ)
	}
	switch n := e.(type) {
	case *parser.VectorSelector:
		t.selectors, t.constant, t.named = true, false, ofOneName(n)
	case *parser.Call:
		t.constant = t.constant && n.Func.Name != "time" && scalarFunctions[n.Func.Name]
	case *parser.BinaryExpr:
		t.named = t.named && n.Op != parser.LOR
	}
	t.typ = typeOf(e, types)
	w.known[e] = t
	return t
}

// typeOf returns the type of an expression by those of its children. Upstream's method looks at
// the whole expression each time.
func typeOf(e parser.Node, children []parser.ValueType) parser.ValueType {
	switch n := e.(type) {
	case *parser.ParenExpr, *parser.UnaryExpr, *parser.StepInvariantExpr:
		return children[0]
	case *parser.BinaryExpr:
		if children[0] == parser.ValueTypeScalar && children[1] == parser.ValueTypeScalar {
			return parser.ValueTypeScalar
		}
		return parser.ValueTypeVector
	case parser.Expr:
		return n.Type()
	}
	return parser.ValueTypeNone
}
