package plan

import (
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// scope is a division of all series into pieces by some labels. It decides which
// expressions are distributive: their answer over all series is that over one piece,
// and that over the next, and so on, where answers of different pieces differ in their
// labels.
type scope struct {
	// names are the labels, sorted.
	names []string
	// keeps reports whether series of two pieces always differ in one of these labels.
	keeps func([]string) bool
	// single says that there is but one piece, so that nothing is computed twice.
	single bool
	// injected says that who evaluates a piece may not know the labels: what reads
	// them as data cannot be evaluated there.
	injected bool
	// fades says that functions and operators drop the labels.
	fades bool
}

// newPartitions is the division into the partitions of a layout.
func newPartitions(l Layout) *scope {
	return &scope{names: l.names(), keeps: l.keeps, single: len(l.Partitions) == 1, injected: true}
}

// targetLabel tells targets of a scrape apart, as a rule.
const targetLabel = "instance"

// newTargets is the division by targets.
func newTargets() *scope {
	return &scope{names: []string{targetLabel}, keeps: func(names []string) bool { return slices.Contains(names, targetLabel) }}
}

// newMetrics is the division by the names of metrics.
func newMetrics() *scope {
	return &scope{names: []string{labels.MetricName}, keeps: func(names []string) bool { return slices.Contains(names, labels.MetricName) }, fades: true}
}

// names are all labels that partitions inject, sorted.
func (l Layout) names() []string {
	var out []string
	for _, p := range l.Partitions {
		for name, value := range p {
			if value != "" && !slices.Contains(out, name) {
				out = append(out, name)
			}
		}
	}
	slices.Sort(out)
	return out
}

// keeps reports whether any two partitions inject different values of the labels
// that are in names and that all partitions inject.
func (l Layout) keeps(names []string) bool {
	if len(l.Partitions) < 2 {
		return true
	}
	common := slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		return slices.ContainsFunc(l.Partitions, func(p map[string]string) bool { return p[name] == "" })
	})
	seen := make(map[string]bool, len(l.Partitions))
	for _, p := range l.Partitions {
		var key []byte
		for _, name := range common {
			key = append(append(key, p[name]...), 0xff)
		}
		if seen[string(key)] {
			return false
		}
		seen[string(key)] = true
	}
	return true
}

// of reports whether an expression is distributive, and which of the labels its
// answers carry.
func (s *scope) of(e parser.Expr) (carries []string, ok bool) {
	if s.fades && drops(e) {
		return nil, false
	}
	switch n := e.(type) {
	case *parser.NumberLiteral, *parser.StringLiteral:
		return nil, true
	case *parser.ParenExpr:
		return s.of(n.Expr)
	case *parser.UnaryExpr:
		return s.of(n.Expr)
	case *parser.StepInvariantExpr:
		return s.of(n.Expr)
	case *parser.VectorSelector:
		return s.names, !n.Anchored && !n.Smoothed && sayable(n.OriginalOffset) && s.keeps(s.names)
	case *parser.MatrixSelector:
		carries, ok = s.of(n.VectorSelector)
		return carries, ok && sayable(n.Range)
	case *parser.SubqueryExpr:
		carries, ok = s.of(n.Expr)
		return carries, ok && sayable(n.Range, n.Step, n.OriginalOffset)
	case *parser.BinaryExpr:
		return s.ofBinary(n)
	case *parser.AggregateExpr:
		return s.ofAggregate(n)
	case *parser.Call:
		return s.ofCall(n)
	}
	return nil, false
}

// drops reports whether an expression makes series that have no names of metrics any more.
func drops(e parser.Expr) bool {
	switch e.(type) {
	case *parser.UnaryExpr, *parser.BinaryExpr, *parser.Call:
		return hasSelector(e)
	}
	return false
}

// sayable reports whether durations are whole milliseconds, which is all that the
// text of a query can say.
func sayable(ds ...time.Duration) bool {
	return !slices.ContainsFunc(ds, func(d time.Duration) bool { return d%time.Millisecond != 0 })
}

func (s *scope) ofBinary(n *parser.BinaryExpr) ([]string, bool) {
	l, lok := s.of(n.LHS)
	r, rok := s.of(n.RHS)
	if !lok || !rok {
		return nil, false
	}
	m := n.VectorMatching
	if m == nil { // a scalar is on one side at least
		if n.LHS.Type() == parser.ValueTypeScalar {
			return r, true
		}
		return l, true
	}
	if m.FillValues.LHS != nil || m.FillValues.RHS != nil || s.anyOf(m.Include...) {
		return nil, false
	}
	if !s.single && !n.Op.IsSetOperator() && !unique(oneSide(n), m) {
		return nil, false
	}
	matched := grouped(l, m.MatchingLabels, !m.On)
	// A side that lacks a label does not match one that has it, but it would where
	// neither knows the label.
	if !slices.Equal(matched, grouped(r, m.MatchingLabels, !m.On)) || !s.keeps(matched) {
		return nil, false
	}
	switch {
	case n.Op == parser.LOR:
		return l, slices.Equal(l, r)
	case n.Op == parser.LAND, n.Op == parser.LUNLESS, m.Card == parser.CardManyToOne:
		return l, true
	case m.Card == parser.CardOneToMany:
		return r, true
	}
	return matched, true
}

// oneSide is the side of a matching of which no two series may match.
func oneSide(n *parser.BinaryExpr) parser.Expr {
	if n.VectorMatching.Card == parser.CardOneToMany {
		return n.LHS
	}
	return n.RHS
}

// unique reports whether no two series of a side can match the same: if two can, all
// fails, but not in a partition where the other side is empty.
func unique(side parser.Expr, m *parser.VectorMatching) bool {
	if n, ok := bare(side).(*parser.AggregateExpr); ok && n.Op != parser.TOPK && n.Op != parser.BOTTOMK && n.Op != parser.COUNT_VALUES {
		switch {
		case n.Without:
			return !m.On && len(grouped(m.MatchingLabels, n.Grouping, true)) == 0
		case m.On:
			return len(grouped(n.Grouping, m.MatchingLabels, true)) == 0
		}
		return len(grouped(n.Grouping, m.MatchingLabels, false)) == 0
	}
	if m.On || len(m.MatchingLabels) > 0 {
		return false
	}
	named := true // all selectors are of one name each
	parser.Inspect(side, func(node parser.Node, _ []parser.Node) error {
		switch n := node.(type) {
		case *parser.VectorSelector:
			named = named && ofOneName(n)
		case *parser.BinaryExpr:
			named = named && n.Op != parser.LOR
		}
		return nil
	})
	return named
}

func (s *scope) ofAggregate(n *parser.AggregateExpr) ([]string, bool) {
	carries, ok := s.of(n.Expr)
	if !ok || n.Param != nil && !constant(n.Param) {
		return nil, false
	}
	kept := grouped(carries, n.Grouping, n.Without)
	switch n.Op {
	case parser.SUM, parser.AVG, parser.COUNT, parser.MIN, parser.MAX, parser.GROUP, parser.STDDEV, parser.STDVAR, parser.QUANTILE:
		return kept, s.keeps(kept)
	case parser.COUNT_VALUES:
		return kept, s.keeps(kept) && !s.anyOf(text(n.Param))
	case parser.TOPK, parser.BOTTOMK:
		return carries, s.keeps(kept)
	case parser.LIMIT_RATIO: // by hashes of all labels
		return carries, s.single && len(s.names) == 0
	}
	return nil, false
}

func (s *scope) ofCall(n *parser.Call) ([]string, bool) {
	name := n.Func.Name
	var carries []string
	series := false // whether series are among the arguments
	for _, arg := range n.Args {
		c, ok := s.of(arg)
		if !ok {
			return nil, false
		}
		if t := arg.Type(); t == parser.ValueTypeVector || t == parser.ValueTypeMatrix {
			carries, series = c, true
		}
	}
	switch {
	case scalarFunctions[name]:
		return nil, true
	case name == "scalar", name == "vector", perSeries[name] && !series:
		return nil, s.single
	case perSeries[name]:
		return carries, true
	case bucketFunctions[name]:
		kept := grouped(carries, []string{labels.BucketLabel}, true)
		return kept, s.keeps(kept) && (name != "histogram_quantiles" || !s.anyOf(text(n.Args[1])))
	case name == "label_replace":
		return carries, !s.anyOf(text(n.Args[1])) && !s.reads(n.Args[3])
	case name == "label_join":
		return carries, !s.anyOf(text(n.Args[1])) && !s.reads(n.Args[3:]...)
	}
	return nil, false
}

// reads reports whether any of the labels that are named is not to be had where the
// expression is evaluated.
func (s *scope) reads(names ...parser.Expr) bool {
	return s.injected && slices.ContainsFunc(names, func(e parser.Expr) bool { return s.anyOf(text(e)) })
}

func (s *scope) anyOf(names ...string) bool {
	return slices.ContainsFunc(names, func(name string) bool { return slices.Contains(s.names, name) })
}

// grouped are the labels in list, or without it those that are not.
func grouped(have, list []string, without bool) []string {
	return slices.DeleteFunc(slices.Clone(have), func(name string) bool { return slices.Contains(list, name) == without })
}

// text is the value of a literal string.
func text(e parser.Expr) string {
	for {
		switch n := e.(type) {
		case *parser.ParenExpr:
			e = n.Expr
		case *parser.StepInvariantExpr:
			e = n.Expr
		case *parser.StringLiteral:
			return n.Val
		default:
			return ""
		}
	}
}

// constant reports whether an expression has one value at all times.
func constant(e parser.Expr) bool {
	out := true
	parser.Inspect(e, func(node parser.Node, _ []parser.Node) error {
		switch n := node.(type) {
		case *parser.VectorSelector:
			out = false
		case *parser.Call:
			out = out && n.Func.Name != "time" && scalarFunctions[n.Func.Name]
		}
		return nil
	})
	return out
}

// hasSelector reports whether an expression reads any series.
func hasSelector(e parser.Expr) bool {
	out := false
	inspectSelectors(e, func(*parser.VectorSelector, []parser.Node) { out = true })
	return out
}

func set(names ...string) map[string]bool {
	out := make(map[string]bool, len(names))
	for _, name := range names {
		out[name] = true
	}
	return out
}

var (
	// scalarFunctions make numbers of numbers.
	scalarFunctions = set("time", "pi", "max_of", "min_of")
	// bucketFunctions put together series that differ only in their `le`.
	bucketFunctions = set("histogram_quantile", "histogram_quantiles", "histogram_fraction")
	// perSeries are the functions of which each series is worth what its own samples
	// say.
	perSeries = set(
		"abs", "acos", "acosh", "asin", "asinh", "atan", "atanh", "ceil", "clamp", "clamp_max", "clamp_min",
		"cos", "cosh", "deg", "exp", "floor", "ln", "log10", "log2", "rad", "round", "sgn", "sin", "sinh",
		"sqrt", "tan", "tanh",
		"days_in_month", "day_of_month", "day_of_week", "day_of_year", "hour", "minute", "month", "year",
		"timestamp", "start_timestamp",
		"histogram_avg", "histogram_count", "histogram_sum", "histogram_stddev", "histogram_stdvar",
		"changes", "delta", "deriv", "double_exponential_smoothing", "idelta", "increase", "irate",
		"predict_linear", "rate", "resets",
		"avg_over_time", "count_over_time", "first_over_time", "last_over_time", "mad_over_time",
		"max_over_time", "min_over_time", "present_over_time", "quantile_over_time", "stddev_over_time",
		"stdvar_over_time", "sum_over_time",
		"ts_of_first_over_time", "ts_of_last_over_time", "ts_of_max_over_time", "ts_of_min_over_time",
	)
)
