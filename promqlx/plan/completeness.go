package plan

import (
	"maps"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// NeedEveryGroup returns the matchers of the selectors that every group has to answer. A
// sum over the groups that have answered is smaller than the truth, and says that it is
// partial. But absent() of a group that did not answer would be a falsehood, and so would
// be series that are there only because others are not. These selectors are:
//   - those below absent() and absent_over_time();
//   - those on the right of `unless`;
//   - those of an aggregation that is compared, unless it only becomes less without some
//     series, and is compared to be more than something.
//
// What is aggregated by all labels that tell partitions apart is of one of them each:
// there is nothing false in that.
func NeedEveryGroup(e parser.Expr, layout Layout) [][]*labels.Matcher {
	w := completeness{layout: layout}
	parser.Inspect(e, func(node parser.Node, _ []parser.Node) error {
		switch n := node.(type) {
		case *parser.Call:
			if n.Func.Name == "absent" || n.Func.Name == "absent_over_time" {
				w.selectors(n)
			}
		case *parser.BinaryExpr:
			switch n.Op {
			case parser.LUNLESS:
				w.selectors(n.RHS)
			case parser.GTR, parser.GTE:
				w.less(n.RHS)
				w.more(n.LHS, n.ReturnBool)
			case parser.LSS, parser.LTE:
				w.less(n.LHS)
				w.more(n.RHS, n.ReturnBool)
			case parser.EQLC, parser.NEQ:
				w.less(n.LHS)
				w.less(n.RHS)
			}
		}
		return nil
	})
	return w.needed
}

// distinguishing are the names of the labels that all partitions inject, if they inject
// the same ones.
func (l Layout) distinguishing() []string {
	var names []string
	for i, p := range l.Partitions {
		own := slices.Sorted(maps.Keys(p))
		if i == 0 {
			names = own
		}
		if len(own) == 0 || !slices.Equal(own, names) {
			return nil
		}
	}
	return names
}

// completeness collects selectors that every group has to answer.
type completeness struct {
	layout Layout
	needed [][]*labels.Matcher
}

// selectors takes all of an expression.
func (w *completeness) selectors(e parser.Expr) {
	parser.Inspect(e, func(node parser.Node, _ []parser.Node) error {
		if vs, ok := node.(*parser.VectorSelector); ok {
			w.needed = append(w.needed, vs.LabelMatchers)
		}
		return nil
	})
}

// less takes the aggregations of an expression that is compared to be less than another
// one, or equal.
func (w *completeness) less(e parser.Expr) {
	parser.Inspect(e, func(node parser.Node, _ []parser.Node) error {
		if n, ok := node.(*parser.AggregateExpr); ok && !w.ofOnePartition(n) {
			w.selectors(n)
		}
		return nil
	})
}

// more takes those of one that is compared to be more. A sum, a count or a maximum that
// lacks series is less, and so what is not true of it may only be missing; with `bool` it
// is said to be false.
func (w *completeness) more(e parser.Expr, isBool bool) {
	if n, ok := bare(e).(*parser.AggregateExpr); ok && !isBool {
		switch n.Op {
		case parser.SUM, parser.COUNT, parser.MAX, parser.GROUP, parser.TOPK:
			return
		}
	}
	w.less(e)
}

// ofOnePartition reports whether each series of an aggregation is made of one partition.
func (w *completeness) ofOnePartition(n *parser.AggregateExpr) bool {
	labels := w.layout.distinguishing()
	if len(labels) == 0 {
		return false
	}
	return !slices.ContainsFunc(labels, func(name string) bool { return slices.Contains(n.Grouping, name) == n.Without })
}
