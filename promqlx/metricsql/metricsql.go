// Package metricsql tells users of MetricsQL, the language of VictoriaMetrics, which word of a query
// PromQL does not have (https://docs.victoriametrics.com/victoriametrics/metricsql/).
package metricsql

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/prometheus/prometheus/promql/parser"
)

// Parser returns a parser whose errors say so.
func Parser(p parser.Parser) parser.Parser { return telling{p} }

type telling struct{ parser.Parser }

// ParseExpr implements parser.Parser.
func (p telling) ParseExpr(query string) (parser.Expr, error) {
	expr, err := p.Parser.ParseExpr(query)
	if err == nil {
		return expr, nil
	}
	if said := explain(query, err.Error()); said != "" {
		err = fmt.Errorf("%w; %s", err, said)
	}
	return expr, err
}

// words are what MetricsQL has besides functions, with what PromQL has instead.
var words = map[string]string{
	"default":           "`a default b` is `a or b` in PromQL where b has series with the labels of a",
	"if":                "`a if b` is `a and b` in PromQL",
	"ifnot":             "`a ifnot b` is `a unless b` in PromQL",
	"keep_metric_names": "PromQL drops the names of metrics where values get another meaning",
	"with":              "PromQL has no templates: write the expression out",
}

var (
	unexpected = regexp.MustCompile(`unexpected identifier "(\w+)"`)
	templates  = regexp.MustCompile(`^\s*(?i:with)\s*\(`)
	unknown    = regexp.MustCompile(`unknown function with name "(\w+)"`)
	// functions are the most used ones of MetricsQL that PromQL does not have. They are whole names
	// where PromQL has functions with the same beginning, which may be misspelled.
	functions = regexp.MustCompile(`^(` + strings.Join([]string{
		`(range|running|rollup|outliers)_\w+`,
		`label_(copy|del|graphite_group|keep|lowercase|map|match|mismatch|move|set|transform|uppercase|value)|labels_equal`,
		`(topk|bottomk)_(avg|last|max|median|min)`,
		`count_(eq|gt|le|ne|values)_over_time|(share|sum)_(eq|gt|le)_over_time`,
		`(aggr|ascent|descent|distinct|duration|geomean|histogram|median|mode|range|stale_samples|tfirst|tlast|tmax|tmin|zscore)_over_time`,
		`(increase|rate|delta)_prometheus|increase_pure|rate_over_sum|default_rollup|rollup|integrate|lag|lifetime|scrape_interval`,
		`any|distinct|geomean|mad|median|mode|outliersk|quantiles|share|sum2|zscore`,
		`alias|union|interpolate|keep_(last|next)_value|remove_resets|drop_common_labels|limit_offset|timestamp_with_name`,
		`buckets_limit|prometheus_buckets|histogram_share|vmrange|hoeffding_bound_(lower|upper)|smooth_exponential`,
		`bitmap_(and|or|xor)|now|rand|rand_normal|rand_exponential|ru|ttf`,
	}, "|") + `)$`)
)

// explain returns what the text of a query's parse error has to do with MetricsQL; "" if nothing.
func explain(query, text string) string {
	if templates.MatchString(query) {
		return word("WITH")
	}
	if m := unexpected.FindStringSubmatch(text); m != nil {
		return word(m[1])
	}
	m := unknown.FindStringSubmatch(text)
	switch {
	case m == nil:
		return ""
	case functions.MatchString(m[1]):
		return fmt.Sprintf("`%s` is a function of MetricsQL, which PromQL does not have", m[1])
	}
	return word(m[1])
}

func word(name string) string {
	instead, ok := words[strings.ToLower(name)]
	if !ok {
		return ""
	}
	return fmt.Sprintf("`%s` is MetricsQL: %s", name, instead)
}
