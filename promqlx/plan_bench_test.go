package promqlx

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/promqlx/enginetest"
	"github.com/oneprom/oneprom/promqlx/plan"
	"github.com/oneprom/oneprom/servergroup"
	"github.com/oneprom/oneprom/servergroup/config"
)

// BenchmarkPlan_Nested is the processor time of planning alone, of queries that are nested
// 1,000 deep ("ms"), and how many times as long it takes for 2,000 ("x").
func BenchmarkPlan_Nested(b *testing.B) {
	e := NewEngine(enginetest.Options(), nil)
	b.Cleanup(func() { require.NoError(b, e.Close()) })
	view := servergroup.Offline([]config.Group{
		groupOf("eu", 2, map[string]string{"region": "eu"}), groupOf("us", 2, map[string]string{"region": "us"}),
	}, config.PartialWarn, at(60, 70).end)
	for _, s := range []struct{ name, opens, innermost, closes string }{
		{"right", "up + on (instance) (", "up", ")"},
		{"left", "(", "up", " + on (instance) up)"},
		{"chain", "up or ", "up", ""},
		{"sums", "sum(up) or ", "up", ""},
		{"compared", "sum(up > ", "up", ")"},
		{"unless", "up unless (", "up", ")"},
		{"functions", "abs(", "up", ")"},
		{"aggregations", "quantile by (job) (0.5, ", "up", ")"},
		{"subqueries", "max_over_time(", "up", "[1m:15s])"},
		{"parentheses", "(", "up", ")"},
		{"minus", "-", "up", ""},
		{"scalars", "vector(scalar(", "up", "))"},
	} {
		b.Run(s.name, func(b *testing.B) {
			ctx := WithRecord(b.Context(), &Record{})
			planned := func(depth int) func() time.Duration {
				text := strings.Repeat(s.opens, depth) + s.innermost + strings.Repeat(s.closes, depth)
				q, err := e.rangeQuery(ctx, nil, text, at(60, 70).start, at(60, 70).end, at(60, 70).interval)
				require.NoError(b, err)
				b.Cleanup(q.Close)
				stmt := q.Statement().(*parser.EvalStmt)
				return func() time.Duration {
					began := processorTime(b)
					p, err := q.plan(ctx, stmt, view, plan.Options{})
					require.NoError(b, err)
					plan.NeedEveryGroup(stmt.Expr, p.Layout())
					return processorTime(b) - began
				}
			}
			first, second := planned(1000), planned(2000)
			var one, two time.Duration
			for b.Loop() {
				one += first()
				two += second()
			}
			b.ReportMetric(one.Seconds()*1000/float64(b.N), "ms")
			b.ReportMetric(float64(two)/float64(one), "x")
		})
	}
}

// processorTime is what the process has taken so far.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
