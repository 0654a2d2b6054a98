package metricsql

import (
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"
)

func TestParser(t *testing.T) {
	plain := parser.NewParser(parser.Options{})
	p := Parser(plain)
	for query, said := range map[string]string{
		`up default 0`:                              "`default` is MetricsQL: ",
		`sum(a) if sum(b)`:                          "`if` is MetricsQL: `a if b` is `a and b` in PromQL",
		`a ifnot b`:                                 "`ifnot` is MetricsQL: ",
		`rate(a[5m]) keep_metric_names`:             "`keep_metric_names` is MetricsQL: ",
		`WITH (x = 5) x + 1`:                        "`WITH` is MetricsQL: ",
		`range_avg(a)`:                              "`range_avg` is a function of MetricsQL",
		`median_over_time(a[5m])`:                   "`median_over_time` is a function of MetricsQL",
		`sum(label_set(a, "b", "c")) default up[5m`: "`label_set` is a function of MetricsQL",
		// What PromQL does not have either is no matter of MetricsQL.
		`nonsense(a)`:               "",
		`label_repalce(a)`:          "",
		`histogram_quantil(0.9, a)`: "",
		`count_value("x", a)`:       "",
		`a nonsense`:                "",
		`a default`:                 "`default` is MetricsQL: ",
		`rate(a)`:                   "",
		`sum(`:                      "",
		`up`:                        "",
		// A metric or label may have such a name.
		`default or if{ifnot="x"}`: "",
	} {
		_, want := plain.ParseExpr(query)
		_, err := p.ParseExpr(query)
		if want == nil {
			require.NoError(t, err, query)
			continue
		}
		var errs parser.ParseErrors
		require.ErrorAs(t, err, &errs, query)
		rest, ok := strings.CutPrefix(err.Error(), want.Error())
		require.True(t, ok, query)
		if said == "" {
			require.Empty(t, rest, query)
		} else {
			require.Contains(t, rest, said, query)
		}
	}
}
