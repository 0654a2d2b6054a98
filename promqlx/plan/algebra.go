package plan

import (
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// scope is a division of all series into pieces by some labels. It decides which expressions
// are distributive over the pieces: their value over all series is the concatenation of their
// values over the pieces, and values of different pieces differ in their labels.
type scope struct {
	work   *work
	number int // under which traits have the verdicts of the scope
	// names are the labels, sorted.
	names []string
	// keeps reports whether series of two pieces always differ in one of these labels.
	keeps func([]string) bool
	// single reports whether there is but one piece, so that nothing is computed twice.
	single bool
	// injected reports whether the series of replicas may lack the labels. What reads them
	// as data cannot be evaluated there.
	injected bool
	// dropsNames reports whether functions and operators drop the labels.
	dropsNames bool
}

// scopes is how many scopes a plan has.
const scopes = 3

// newPartitions returns the division into the partitions of a layout.
func newPartitions(w *work, l Layout) *scope {
	known := map[string]bool{} // by names: a plan asks for the same ones many times
	keeps := func(names []string) bool {
		key := strings.Join(names, "\xff")
		kept, ok := known[key]
		if !ok {
			kept = l.keeps(names)
			known[key] = kept
		}
		return kept
	}
	return &scope{work: w, number: 0, names: l.names(), keeps: keeps, single: len(l.Partitions) == 1, injected: true}
}

// targetLabel is the label that distinguishes scrape targets, as a rule.
const targetLabel = "instance"

// newTargets returns the division by scrape targets.
func newTargets(w *work) *scope {
	return &scope{work: w, number: 1, names: []string{targetLabel}, keeps: func(names []string) bool { return slices.Contains(names, targetLabel) }}
}

// newMetrics returns the division by names of metrics.
func newMetrics(w *work) *scope {
	return &scope{work: w, number: 2, names: []string{labels.MetricName}, keeps: func(names []string) bool { return slices.Contains(names, labels.MetricName) }, dropsNames: true}
}

// names returns all labels that partitions inject, and that tell them apart, sorted.
func (l Layout) names() []string {
	var out []string
	add := func(name string) {
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	for _, p := range l.Partitions {
		for name, value := range p {
			if value != "" {
				add(name)
			}
		}
	}
	for _, list := range l.Distinct {
		for _, name := range list {
			add(name)
		}
	}
	slices.Sort(out)
	return out
}

// keeps reports whether series of any two partitions differ in the labels that are in names: by
// what tells one of them apart from all others, or by the values that they inject of those labels
// that all others inject.
func (l Layout) keeps(names []string) bool {
	if len(l.Partitions) < 2 {
		return true
	}
	alike := l.Partitions
	if l.Distinct != nil {
		alike = nil
		for i, p := range l.Partitions {
			if d := l.Distinct[i]; len(d) == 0 || len(grouped(d, names, true)) > 0 {
				alike = append(alike, p)
			}
		}
	}
	common := slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		return slices.ContainsFunc(alike, func(p map[string]string) bool { return p[name] == "" })
	})
	seen := make(map[string]bool, len(alike))
	var key []byte
	for _, p := range alike {
		key = key[:0]
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

// distributive reports whether an expression is distributive, and which of the labels its
// series carry.
func (s *scope) distributive(e parser.Expr) (carries []string, ok bool) {
	t := s.work.of(e)
	if v := t.distributive[s.number]; v != nil {
		return v.carries, v.ok
	}
	if !s.work.visit() {
		return nil, false
	}
	carries, ok = s.judge(e, t)
	t.distributive[s.number] = &verdict{carries, ok}
	return carries, ok
}

// judge finds out what distributive says.
func (s *scope) judge(e parser.Expr, t *traits) (carries []string, ok bool) {
	if s.dropsNames && t.selectors && drops(e) {
		return nil, false
	}
	switch n := e.(type) {
	case *parser.NumberLiteral, *parser.StringLiteral:
		return nil, true
	case *parser.ParenExpr:
		return s.distributive(n.Expr)
	case *parser.UnaryExpr:
		return s.distributive(n.Expr)
	case *parser.StepInvariantExpr:
		return s.distributive(n.Expr)
	case *parser.VectorSelector:
		return s.names, !n.Anchored && !n.Smoothed && expressible(n.OriginalOffset) && s.keeps(s.names)
	case *parser.MatrixSelector:
		carries, ok = s.distributive(n.VectorSelector)
		return carries, ok && expressible(n.Range)
	case *parser.SubqueryExpr:
		carries, ok = s.distributive(n.Expr)
		return carries, ok && expressible(n.Range, n.Step, n.OriginalOffset)
	case *parser.BinaryExpr:
		return s.binary(n)
	case *parser.AggregateExpr:
		return s.aggregate(n)
	case *parser.Call:
		return s.call(n)
	}
	return nil, false
}

// drops reports whether an expression makes series of others, without the names of metrics.
func drops(e parser.Expr) bool {
	switch e.(type) {
	case *parser.UnaryExpr, *parser.BinaryExpr, *parser.Call:
		return true
	}
	return false
}

// expressible reports whether durations are multiples of a millisecond: the text of a query
// has no smaller unit.
func expressible(ds ...time.Duration) bool {
	return !slices.ContainsFunc(ds, func(d time.Duration) bool { return d%time.Millisecond != 0 })
}

func (s *scope) binary(n *parser.BinaryExpr) ([]string, bool) {
	l, lok := s.distributive(n.LHS)
	r, rok := s.distributive(n.RHS)
	if !lok || !rok {
		return nil, false
	}
	m := n.VectorMatching
	if m == nil { // a scalar is on one side at least
		if s.work.of(n.LHS).typ == parser.ValueTypeScalar {
			return r, true
		}
		return l, true
	}
	if m.FillValues.LHS != nil || m.FillValues.RHS != nil || s.anyOf(m.Include...) {
		return nil, false
	}
	if !s.single && !n.Op.IsSetOperator() && !s.unique(oneSide(n), m) {
		return nil, false
	}
	matched := keptBy(l, m.MatchingLabels, !m.On)
	// A side that has lost a label does not match a side that has it. It would match at a
	// replica, whose series have the label on neither side.
	if !slices.Equal(matched, keptBy(r, m.MatchingLabels, !m.On)) || !s.keeps(matched) {
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

// oneSide returns the side of a matching that must be unique.
func oneSide(n *parser.BinaryExpr) parser.Expr {
	if n.VectorMatching.Card == parser.CardOneToMany {
		return n.LHS
	}
	return n.RHS
}

// unique reports whether no two series of a side can match the same series. If two can, the
// query fails, but a partition in which the other side is empty would not fail.
func (s *scope) unique(side parser.Expr, m *parser.VectorMatching) bool {
	if n, ok := unwrap(side).(*parser.AggregateExpr); ok && n.Op != parser.TOPK && n.Op != parser.BOTTOMK && n.Op != parser.COUNT_VALUES {
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
	return s.work.of(side).named
}

func (s *scope) aggregate(n *parser.AggregateExpr) ([]string, bool) {
	carries, ok := s.distributive(n.Expr)
	if !ok || n.Param != nil && !s.work.of(n.Param).constant {
		return nil, false
	}
	kept := keptBy(carries, n.Grouping, n.Without)
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

func (s *scope) call(n *parser.Call) ([]string, bool) {
	name := n.Func.Name
	var carries []string
	series := false // whether any argument is made of series
	for _, arg := range n.Args {
		c, ok := s.distributive(arg)
		if !ok {
			return nil, false
		}
		if t := s.work.of(arg).typ; t == parser.ValueTypeVector || t == parser.ValueTypeMatrix {
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
		kept := keptBy(carries, []string{labels.BucketLabel}, true)
		return kept, s.keeps(kept) && (name != "histogram_quantiles" || !s.anyOf(text(n.Args[1])))
	case name == "label_replace":
		return carries, !s.anyOf(text(n.Args[1])) && !s.reads(n.Args[3])
	case name == "label_join":
		return carries, !s.anyOf(text(n.Args[1])) && !s.reads(n.Args[3:]...)
	}
	return nil, false
}

// reads reports whether any of the named labels may be missing where the expression is
// evaluated.
func (s *scope) reads(names ...parser.Expr) bool {
	return s.injected && slices.ContainsFunc(names, func(e parser.Expr) bool { return s.anyOf(text(e)) })
}

func (s *scope) anyOf(names ...string) bool {
	return slices.ContainsFunc(names, func(name string) bool { return slices.Contains(s.names, name) })
}

// grouped returns those of the labels that are in list, or, if without is set, those that are
// not.
func grouped(have, list []string, without bool) []string {
	return slices.DeleteFunc(slices.Clone(have), func(name string) bool { return slices.Contains(list, name) == without })
}

// keptBy returns those of the labels that a grouping keeps, or a matching compares. Names of metrics are
// not among them with `without` and `ignoring`.
func keptBy(have, list []string, without bool) []string {
	kept := grouped(have, list, without)
	if without {
		kept = grouped(kept, []string{labels.MetricName}, true)
	}
	return kept
}

// text returns the value of a literal string; "" for other expressions.
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

// set makes a set of names.
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
	// bucketFunctions combine series that differ only in their `le`.
	bucketFunctions = set("histogram_quantile", "histogram_quantiles", "histogram_fraction")
	// perSeries are the functions whose value for a series depends on the samples of that
	// series alone.
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
