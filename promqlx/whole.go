package promqlx

import (
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// This file finds what must not be told of a part of the data. A sum over the groups that
// have answered is smaller than the truth, and says that it is partial. But absent() of a
// group that did not answer would be a falsehood, and so would be series that are there
// only because others are not.

// whole returns the matchers of the selectors of which every group has to answer:
//   - those below absent() and absent_over_time();
//   - those on the right of `unless`;
//   - those of an aggregation that is compared to be less than something, or equal to it,
//     or not: with fewer series, what it counts or adds up is less.
func whole(e parser.Expr) [][]*labels.Matcher {
	var out [][]*labels.Matcher
	add := func(from parser.Expr) {
		parser.Inspect(from, func(node parser.Node, _ []parser.Node) error {
			if vs, ok := node.(*parser.VectorSelector); ok {
				out = append(out, vs.LabelMatchers)
			}
			return nil
		})
	}
	parser.Inspect(e, func(node parser.Node, _ []parser.Node) error {
		switch n := node.(type) {
		case *parser.Call:
			if n.Func.Name == "absent" || n.Func.Name == "absent_over_time" {
				add(n)
			}
		case *parser.BinaryExpr:
			switch n.Op {
			case parser.LUNLESS:
				add(n.RHS)
			case parser.LSS, parser.LTE:
				eachAggregation(n.LHS, add)
			case parser.GTR, parser.GTE:
				eachAggregation(n.RHS, add)
			case parser.EQLC, parser.NEQ:
				eachAggregation(n.LHS, add)
				eachAggregation(n.RHS, add)
			}
		}
		return nil
	})
	return out
}

// eachAggregation calls f for the aggregations of an expression.
func eachAggregation(e parser.Expr, f func(parser.Expr)) {
	parser.Inspect(e, func(node parser.Node, _ []parser.Node) error {
		if n, ok := node.(*parser.AggregateExpr); ok {
			f(n)
		}
		return nil
	})
}
