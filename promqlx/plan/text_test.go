package plan

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/promqlx/enginetest"
)

func same(ms []*labels.Matcher) []*labels.Matcher { return ms }

// partsOf are the parts of a query from a minute before 1970 to a minute after,
// each half minute.
func partsOf(t *testing.T, expr string) []*Part {
	t.Helper()
	opts := enginetest.Options()
	q, err := promql.NewEngine(opts).NewRangeQuery(context.Background(), nil, nil, expr, time.UnixMilli(-59_200), time.UnixMilli(60_800), 30*time.Second)
	require.NoError(t, err)
	defer q.Close()
	var out []*Part
	for _, leaf := range newPlanOf(t, q, regions, Options{}).Leaves {
		require.NotNil(t, leaf.Part, expr)
		out = append(out, leaf.Part)
	}
	return out
}

// TestPart_Text is what is sent of what prints badly.
func TestPart_Text(t *testing.T) {
	for _, c := range []struct{ expr, want string }{
		{`m @ start()`, `{__name__="m"} @ -59.200`},
		{`m @ 0.001 offset 500ms`, `{__name__="m"} @ 0.001 offset 500ms`},
		{`m offset -1h30m`, `{__name__="m"} offset -1h30m`},
		{`rate(m[1500ms] @ end() offset 1d)`, `rate({__name__="m"}[1s500ms] @ 60.800 offset 1d)`},
		{`m ^ start()`, `{__name__="m"} ^ (-59.2)`},
		{`start() ^ m`, `(-59.2) ^ {__name__="m"}`},
		{`clamp_min(m, -1) - -1`, `clamp_min({__name__="m"}, -1) - (-1)`},
		{`m > 1500ms`, `{__name__="m"} > 1.5`},
		{`m > +Inf or m < -Inf or m == NaN`, `{__name__="m"} > +Inf or {__name__="m"} < (-Inf) or {__name__="m"} == NaN`},
		{`-m ^ 2`, `-{__name__="m"} ^ 2`},
		{`{"a.b","c d"=~"e|f"}`, `{"c d"=~"e|f",__name__="a.b"}`},
		{`count by ("c d", region) (sum)`, `count by ("c d") ({__name__="sum"})`},
		{`sum without (region) (m)`, `sum without () ({__name__="m"})`},
		{`m / on (region, x) group_left () avg by (region, x) (e)`, `{__name__="m"} / on (x) group_left () avg by (x) ({__name__="e"})`},
		{`m / ignoring (x) avg without (x) (e)`, `{__name__="m"} / ignoring (x) avg without (x) ({__name__="e"})`},
		{`max_over_time(m[5m:])`, `max_over_time(({__name__="m"})[5m:1m])`},
		{`max_over_time((m offset 1m)[5m:step()] @ start() offset -2s)`, `max_over_time(({__name__="m"} offset 1m)[5m:30s] @ -59.200 offset -2s)`},
		{`max_over_time(rate(m[range()])[step() + 5s:] offset (2 * 3s))`, `max_over_time(rate({__name__="m"}[2m])[35s:1m] offset 6s)`},
		{`label_replace(m, "a", "\"\\$1", "b", "(.*)\n")`, `label_replace({__name__="m"}, "a", "\"\\$1", "b", "(.*)\n")`},
		{`m + (m @ 5)`, `{__name__="m"} + ({__name__="m"} @ 5.000)`},
	} {
		parts := partsOf(t, c.expr)
		require.Len(t, parts, 1, c.expr)
		got := parts[0].Text(parts[0].Injected, same)
		require.Equal(t, c.want, got, c.expr)
		parsed, err := enginetest.Options().Parser.ParseExpr(got)
		require.NoError(t, err, got)
		require.Equal(t, got, parsed.String())
	}
}

// TestPart_Text_Durations compares what a text says after it was parsed with what
// it is the text of.
func TestPart_Text_Durations(t *testing.T) {
	for _, expr := range []string{
		`rate(m[1d2h3m4s5ms] @ -0.001 offset -6h7ms)`,
		`m @ -4102444800.123 offset 100y`,
		`max_over_time(m[1ms:1ms] @ 1700000000.999)`,
	} {
		part := partsOf(t, expr)[0]
		parsed, err := enginetest.Options().Parser.ParseExpr(part.Text(part.Injected, same))
		require.NoError(t, err)
		require.Equal(t, durations(part.Expr), durations(parsed), expr)
	}
}

// durations are all durations and times in an expression, in order.
func durations(e parser.Expr) (out []int64) {
	at := func(t *int64) {
		if t != nil {
			out = append(out, *t)
		}
	}
	parser.Inspect(e, func(node parser.Node, _ []parser.Node) error {
		switch n := node.(type) {
		case *parser.VectorSelector:
			out = append(out, n.OriginalOffset.Milliseconds())
			at(n.Timestamp)
		case *parser.MatrixSelector:
			out = append(out, n.Range.Milliseconds())
		case *parser.SubqueryExpr:
			out = append(out, n.Range.Milliseconds(), n.Step.Milliseconds(), n.OriginalOffset.Milliseconds())
			at(n.Timestamp)
		}
		return nil
	})
	return out
}

// TestPart_Text_Translated has matchers replaced, and none left.
func TestPart_Text_Translated(t *testing.T) {
	none := func([]*labels.Matcher) []*labels.Matcher { return nil }
	parts := partsOf(t, `sum(rate({region="eu"}[5m]))`)
	require.Equal(t, `sum(rate({__name__!=""}[5m]))`, parts[0].Text(parts[0].Injected, none))
	other := func([]*labels.Matcher) []*labels.Matcher {
		return []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, "job", ".*")}
	}
	require.Equal(t, `sum(rate({__name__!="",job=~".*"}[5m]))`, parts[0].Text(parts[0].Injected, other))
	require.Equal(t, `sum(rate({region="eu"}[5m]))`, parts[0].Text(parts[0].Injected, same), "the part was changed")
}

// TestPart_Positions finds the places of a query's expressions by those of a text.
func TestPart_Positions(t *testing.T) {
	query := "1 +\n  sum by (job) (\n    rate(m[5m]) / (e @ start()))"
	part := partsOf(t, query)[0]
	text := part.Text(part.Injected, same)
	require.Equal(t, `sum by (job) (rate({__name__="m"}[5m]) / ({__name__="e"} @ -59.200))`, text)
	positions := part.Positions(text, query, enginetest.Options().Parser)
	require.Equal(t, map[string]string{
		"1:1":  "2:3",  // sum
		"1:15": "3:5",  // the quotient, and rate
		"1:20": "3:10", // m
		"1:43": "3:20", // e
	}, positions)
	require.Empty(t, part.Positions("sum(", query, enginetest.Options().Parser))
}

// TestPart_StepWindows is what one step needs.
func TestPart_StepWindows(t *testing.T) {
	const lookback = 300_000
	for _, c := range []struct {
		expr string
		want []StepWindow
	}{
		{`m`, []StepWindow{{From: -lookback}}},
		{`m offset 1m`, []StepWindow{{From: -lookback - 60_000, To: -60_000}}},
		{`rate(m[2m] offset -1m)`, []StepWindow{{From: -60_000, To: 60_000}}},
		{`m @ 7`, []StepWindow{{From: 7000 - lookback, To: 7000, Fixed: true}}},
		{`rate(m[2m]) / e`, []StepWindow{{From: -120_000}, {From: -lookback}}},
		{`max_over_time(rate(m[2m])[10m:30s] offset 5s)`, []StepWindow{{From: -725_000, To: -5_000}}},
		{`max_over_time(max_over_time(m[10s:1s])[1m:1s] @ 100)`, []StepWindow{{From: 30_000 - lookback, To: 100_000, Fixed: true}}},
		{`timestamp(m @ 7 offset 1s)`, []StepWindow{{From: 6000 - lookback, To: 7000, Fixed: true}}},
		{`absent_over_time(m[1m])`, []StepWindow{{From: -60_000}}},
	} {
		parts := partsOf(t, c.expr)
		require.Equal(t, c.want, parts[0].StepWindows, c.expr)
		require.Len(t, parts[0].Selectors, len(c.want))
	}
}

// TestPart_Doubtful has only those parts doubt that add answers up.
func TestPart_Doubtful(t *testing.T) {
	const mixture = "PromQL warning: encountered a mix of histograms and floats for aggregation (1:5)"
	inf := 1 / func() float64 { return 0 }()
	for _, c := range []struct {
		expr      string
		mix, huge []bool
	}{
		{`sum(m)`, []bool{true}, []bool{false}},
		{`count(m)`, []bool{false}, []bool{false}},
		{`avg(m)`, []bool{true, false}, []bool{true, false}},
		{`max(m)`, []bool{false}, []bool{false}},
		{`sum without (x) (m) > 0`, []bool{false}, []bool{false}},
	} {
		for i, part := range partsOf(t, c.expr) {
			require.Equal(t, c.mix[i], part.DoubtfulAnnotation(mixture), c.expr)
			require.Equal(t, c.huge[i], part.DoubtfulValue(inf), c.expr)
			require.False(t, part.DoubtfulAnnotation("PromQL info: something else") || part.DoubtfulValue(1))
		}
	}
}
