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
	w := neededSelectors{distinguishing: layout.distinguishing()}
	w.walk(e, below{})
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
	distinguishing []string // labels that tell partitions apart
	needed         [][]*labels.Matcher
}

// below is what the ancestors of an expression make of the selectors in it.
type below struct {
	all      bool // all are needed
	compared bool // those of its aggregations are
}

// walk adds the selectors of an expression that are needed.
func (w *neededSelectors) walk(e parser.Node, at below) {
	switch n := e.(type) {
	case *parser.VectorSelector:
		if at.all {
			w.needed = append(w.needed, n.LabelMatchers)
		}
		return
	case *parser.Call:
		at.all = at.all || n.Func.Name == "absent" || n.Func.Name == "absent_over_time"
	case *parser.AggregateExpr:
		at.all = at.all || at.compared && !w.ofOnePartition(n)
	case *parser.BinaryExpr:
		left, right := at, at
		switch n.Op {
		case parser.LUNLESS:
			right.all = true
		case parser.GTR, parser.GTE:
			left.compared = at.compared || !onlyLess(n.LHS, n.ReturnBool)
			right.compared = true
		case parser.LSS, parser.LTE:
			left.compared = true
			right.compared = at.compared || !onlyLess(n.RHS, n.ReturnBool)
		case parser.EQLC, parser.NEQ:
			left.compared, right.compared = true, true
		}
		w.walk(n.LHS, left)
		w.walk(n.RHS, right)
		return
	}
	for child := range parser.ChildrenIter(e) {
		w.walk(child, at)
	}
}

// onlyLess reports whether an expression that is compared to be more than another one is a sum,
// a count or a maximum. It becomes less without some series, so that a series of the comparison
// may be missing, but none is false. With `bool` the comparison would give 0 instead, which is
// false.
func onlyLess(e parser.Expr, isBool bool) bool {
	n, ok := unwrap(e).(*parser.AggregateExpr)
	if !ok || isBool {
		return false
	}
	switch n.Op {
	case parser.SUM, parser.COUNT, parser.MAX, parser.GROUP, parser.TOPK:
		return true
	}
	return false
}

// ofOnePartition reports whether each series of an aggregation is made of one partition.
func (w *neededSelectors) ofOnePartition(n *parser.AggregateExpr) bool {
	if len(w.distinguishing) == 0 {
		return false
	}
	return !slices.ContainsFunc(w.distinguishing, func(name string) bool { return slices.Contains(n.Grouping, name) == n.Without })
}
