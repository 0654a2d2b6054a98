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
	// functions are those of MetricsQL that PromQL does not have, the most used ones.
	functions = regexp.MustCompile(`^(range|running|rollup|aggr|outliers|topk|bottomk|label|labels|hoeffding_bound|ascent|descent|tlast|tfirst|count_\w+|share|histogram|prometheus_buckets|buckets|smooth)_\w+$|` +
		`^(rollup|alias|union|median|mode|any|distinct|geomean|quantiles|zscore|sum2|share|outliersk|mad|interpolate|keep_last_value|keep_next_value|remove_resets|drop_common_labels|limit_offset|increase_pure|increase_prometheus|rate_prometheus|rate_over_sum|delta_prometheus|default_rollup|duration_over_time|median_over_time|mode_over_time|geomean_over_time|distinct_over_time|range_over_time|zscore_over_time|integrate|lag|lifetime|scrape_interval|stale_samples_over_time|timestamp_with_name|tmin_over_time|tmax_over_time|now|ru|ttf|rand|rand_normal|rand_exponential|bitmap_and|bitmap_or|bitmap_xor|vmrange)$`)
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
