package e2e

import (
	"encoding/json"
	"slices"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
)

// sameOrder reports whether got keeps the order that a result promises. Matrices are sorted by labels.
// Vectors come in the order of the storage, which is nobody's business, unless the expression sorts;
// series with equal values may then still change places.
func sameOrder(query, resultType string, want, got []apiSeries) bool {
	if len(want) != len(got) {
		return true // told by another class
	}
	byKey := func(w, g apiSeries) bool { return w.key == g.key }
	if resultType == "matrix" {
		return slices.EqualFunc(want, got, byKey)
	}
	byValue := func(w, g apiSeries) bool { return !classOfPoints(w.points, g.points).wrong() }
	switch e := rootOf(query).(type) {
	case *parser.Call:
		switch e.Func.Name {
		case "sort", "sort_desc":
			return slices.EqualFunc(want, got, byValue)
		case "sort_by_label", "sort_by_label_desc":
			return slices.EqualFunc(want, got, byKey)
		}
	case *parser.AggregateExpr:
		if e.Op == parser.TOPK || e.Op == parser.BOTTOMK {
			w, g := byGroup(e, want), byGroup(e, got)
			for group := range w {
				if !slices.EqualFunc(w[group], g[group], byValue) {
					return false
				}
			}
		}
	}
	return true
}

// rootOf is the outermost operation of a query, nil if it cannot be parsed.
func rootOf(query string) parser.Expr {
	expr, err := parser.NewParser(promqltest.TestParserOpts).ParseExpr(query)
	if err != nil {
		return nil
	}
	for {
		paren, ok := expr.(*parser.ParenExpr)
		if !ok {
			return expr
		}
		expr = paren.Expr
	}
}

// byGroup sorts the series into the groups of an aggregation, each in its order: topk sorts inside them.
func byGroup(e *parser.AggregateExpr, series []apiSeries) map[string][]apiSeries {
	groups := map[string][]apiSeries{}
	for _, s := range series {
		in := map[string]string{}
		for name, value := range s.metric {
			if slices.Contains(e.Grouping, name) != e.Without && (name != "__name__" || !e.Without) {
				in[name] = value
			}
		}
		key, err := json.Marshal(in)
		if err != nil {
			panic("BUG: labels cannot be printed: " + err.Error())
		}
		groups[string(key)] = append(groups[string(key)], s)
	}
	return groups
}
