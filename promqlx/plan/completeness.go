package plan

import (
	"maps"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// NeedEveryGroup returns the matchers of the selectors that every group has to answer. A sum
// over the groups that have answered is too small, and a warning says that it is partial.
// But absent() would be false if a group did not answer, and so would series that exist only
// because others do not. These selectors are:
//   - those below absent() and absent_over_time();
//   - those on the right of `unless`;
//   - those of an aggregation that is compared, unless it can only become less without some
//     series, and is compared to be more than something.
//
// Aggregations by all labels that distinguish partitions are excepted: each of their series
// is of one partition, and a missing group makes none of them false.
func NeedEveryGroup(e parser.Expr, layout Layout) [][]*labels.Matcher {
	w := neededSelectors{layout: layout}
	parser.Inspect(e, func(node parser.Node, _ []parser.Node) error {
		switch n := node.(type) {
		case *parser.Call:
			if n.Func.Name == "absent" || n.Func.Name == "absent_over_time" {
				w.addAll(n)
			}
		case *parser.BinaryExpr:
			switch n.Op {
			case parser.LUNLESS:
				w.addAll(n.RHS)
			case parser.GTR, parser.GTE:
				w.addIfLess(n.RHS)
				w.addIfMore(n.LHS, n.ReturnBool)
			case parser.LSS, parser.LTE:
				w.addIfLess(n.LHS)
				w.addIfMore(n.RHS, n.ReturnBool)
			case parser.EQLC, parser.NEQ:
				w.addIfLess(n.LHS)
				w.addIfLess(n.RHS)
			}
		}
		return nil
	})
	return w.needed
}

// distinguishing returns the names of the labels that partitions inject, if all inject the
// same ones.
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

// neededSelectors collects the selectors that every group has to answer.
type neededSelectors struct {
	layout Layout
	needed [][]*labels.Matcher
}

// addAll adds all selectors of an expression.
func (w *neededSelectors) addAll(e parser.Expr) {
	parser.Inspect(e, func(node parser.Node, _ []parser.Node) error {
		if vs, ok := node.(*parser.VectorSelector); ok {
			w.needed = append(w.needed, vs.LabelMatchers)
		}
		return nil
	})
}

// addIfLess adds the aggregations of an expression that is compared to be less than another
// expression, or equal to it.
func (w *neededSelectors) addIfLess(e parser.Expr) {
	parser.Inspect(e, func(node parser.Node, _ []parser.Node) error {
		if n, ok := node.(*parser.AggregateExpr); ok && !w.ofOnePartition(n) {
			w.addAll(n)
		}
		return nil
	})
}

// addIfMore adds the aggregations of an expression that is compared to be more than another
// one. A sum, a count or a maximum is not added: it becomes less without some series, so that
// a series of the comparison may be missing, but none is false. With `bool` the comparison
// would give 0 instead, which is false.
func (w *neededSelectors) addIfMore(e parser.Expr, isBool bool) {
	if n, ok := unwrap(e).(*parser.AggregateExpr); ok && !isBool {
		switch n.Op {
		case parser.SUM, parser.COUNT, parser.MAX, parser.GROUP, parser.TOPK:
			return
		}
	}
	w.addIfLess(e)
}

// ofOnePartition reports whether each series of an aggregation is made of one partition.
func (w *neededSelectors) ofOnePartition(n *parser.AggregateExpr) bool {
	labels := w.layout.distinguishing()
	if len(labels) == 0 {
		return false
	}
	return !slices.ContainsFunc(labels, func(name string) bool { return slices.Contains(n.Grouping, name) == n.Without })
}
