package plan

import (
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/oneprom/oneprom/servergroup/view"
)

// An average by instance is not distributive over partitions that the label does not tell apart. But
// as a rule each instance is scraped in one region. So the partitions are asked for the average
// itself, and if no two of them have a value of the same instance at the same step, each value was
// made of all series that it is about. Nothing but the aggregation may be in such a part: a filter
// could hide a value of one partition.

// NotWhole is an aggregation that partitions might answer whole, and why they are not asked to.
type NotWhole struct{ Aggregation, Why string }

// disjoint makes a part of an aggregation that is right if its answers turn out to be disjoint. It
// returns nil if they cannot be, if it is known that they are not, or if the aggregation is
// recombined in one evaluation, or distributive.
func (pl *planner) disjoint(n *parser.AggregateExpr, at place) parser.Expr {
	switch n.Op {
	case parser.AVG, parser.QUANTILE, parser.STDDEV, parser.STDVAR:
	default:
		return nil
	}
	if n.Param != nil && !pl.work.of(n.Param).constant || !pl.work.of(n.Expr).selectors {
		return nil
	}
	if _, ok := pl.partitions.distributive(n.Expr); !ok {
		return nil
	}
	if _, ok := pl.partitions.distributive(n); ok || !pl.mayBeDisjoint(n) {
		return nil
	}
	_, byTarget := pl.targets.distributive(n)
	part := Part{Expr: copyExpr(n), ByTarget: byTarget, Disjoint: true, Why: "whole, if no two partitions answer for the same " + groupingOf(n)}
	if pl.options.whyNotDisjoint != nil {
		if why := pl.options.whyNotDisjoint(timeless(pl.explicit(part.Expr))); why != "" {
			pl.plan.NotWhole = append(pl.plan.NotWhole, NotWhole{textOf(n), why})
			return nil
		}
	}
	if pl.options.NoneDisjoint || pl.options.Divided && !byTarget {
		return nil
	}
	return pl.addPart(n, at, part)
}

// mayBeDisjoint reports whether some label of the aggregation may have other values in one partition
// than in another: the selector does not name its value.
func (pl *planner) mayBeDisjoint(n *parser.AggregateExpr) bool {
	vs := pl.eachOf(n.Expr)
	return n.Without || slices.ContainsFunc(n.Grouping, func(name string) bool {
		return vs == nil || !slices.ContainsFunc(vs.LabelMatchers, func(m *labels.Matcher) bool {
			return m.Name == name && m.Type == labels.MatchEqual
		})
	})
}

// groupingOf names what each series of an aggregation is about.
func groupingOf(n *parser.AggregateExpr) string {
	if n.Without {
		return "labels"
	}
	return strings.Join(n.Grouping, ", ")
}

// Overlap says that answers to the part are not disjoint.
func (p *Part) Overlap() string {
	return "several partitions answer for the same " + groupingOf(unwrap(p.Expr).(*parser.AggregateExpr))
}

// RememberNotDisjoint remembers for some minutes why the answers to a part of the plan do not stand
// for it.
func (r *Routed) RememberNotDisjoint(in *view.Unusable, p *Part, why string) {
	in.Add(r.disjointKey(timeless(p.Expr)), why, r.View.Now)
}

// remembered returns what is remembered of parts of the plan: why they are none, by their texts
// without times.
func (r *Routed) remembered(in *view.Unusable) func(aggregation string) string {
	if in == nil {
		return nil
	}
	return func(aggregation string) string {
		why, ok := in.Reason(r.disjointKey(aggregation), r.View.Now)
		if !ok {
			return ""
		}
		return why
	}
}

// disjointKey identifies an aggregation over the partitions of the plan.
func (r *Routed) disjointKey(aggregation string) string {
	key := []string{aggregation}
	for _, p := range r.Partitions {
		key = append(key, p.Name())
	}
	return strings.Join(key, "\xff")
}

// timeless prints an expression without the times of `@`, which may be others each time that a query
// is asked.
func timeless(e parser.Expr) string {
	e = copyExpr(e)
	parser.Inspect(e, func(node parser.Node, _ []parser.Node) error {
		switch n := node.(type) {
		case *parser.VectorSelector:
			n.Timestamp = nil
		case *parser.SubqueryExpr:
			n.Timestamp = nil
		}
		return nil
	})
	return textOf(e)
}
