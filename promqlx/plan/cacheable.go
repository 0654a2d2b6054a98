package plan

import (
	"github.com/grafana/regexp"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/oneprom/oneprom/servergroup/partition"
)

// ofTheQuery finds calls of functions that tell the step or the range of the query. The parser replaces them by
// numbers.
var ofTheQuery = regexp.MustCompile(`\b(start|end|step|range)\s*\(`)

// Cacheable returns what each step of a range query needs, or the reason why answers at some steps do not serve
// for a query over others; "" if they do. text is the query as it was written; the other arguments are as for
// New. There are few reasons.
func Cacheable(stmt *parser.EvalStmt, text string, subqueryStep func(rangeMS int64) int64) (reaches []partition.Reach, why string) {
	reaches, indivisible := unplanned(stmt, subqueryStep).reaches(stmt)
	switch {
	case indivisible != "":
		return nil, indivisible
	case len(reaches) == 0:
		return nil, "it has no selectors"
	}
	for _, r := range reaches {
		switch {
		case r.Fixed:
			return nil, "a selector has @"
		case r.To > 0:
			return nil, "a selector looks ahead"
		}
	}
	if ofTheQuery.MatchString(text) {
		return nil, "it depends on the step or the range of the query"
	}
	return reaches, ""
}
