package plan

import (
	"context"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/promqlx/enginetest"
)

// nested are queries as deep, or as long, as they are asked to be.
var nested = map[string]func(n int) string{
	"binary, right":  around(`up + on (instance) (`, `up`, `)`),
	"binary, left":   around(`(`, `up`, ` + on (instance) up)`),
	"matched":        around(`(`, `up`, ` * on (instance, region) group_left () up)`),
	"chain":          around(`up or `, `up`, ``),
	"sums":           around(`sum(up) or `, `up`, ``),
	"compared":       around(`sum(up > `, `up`, `)`),
	"unless":         around(`up unless (`, `up`, `)`),
	"functions":      around(`abs(`, `up`, `)`),
	"absent":         around(`absent(`, `up`, `)`),
	"label_replace":  around(`label_replace(`, `up`, `, "a", "$1", "b", "(.*)")`),
	"sum":            around(`sum by (a) (`, `up`, `)`),
	"sum of regions": around(`sum by (region) (`, `up`, `)`),
	"average":        around(`avg(`, `up`, `)`),
	"stddev":         around(`stddev(-abs(`, `up`, `))`),
	"quantile":       around(`quantile by (a) (0.5, `, `up`, `)`),
	"parameter":      around(`topk(scalar(`, `up`, `), up)`),
	"subqueries":     around(`max_over_time(`, `up`, `[1m:15s])`),
	"parentheses":    around(`(`, `up`, `)`),
	"minus":          around(`-`, `up`, ``),
	"numbers":        around(`1 + `, `up`, ``),
	"scalars":        around(`vector(scalar(`, `up`, `))`),
	"timestamp":      around(`timestamp((`, `up @ 5 offset 1m`, `))`),
	"selectors":      around(`(a or b or c) or `, `up`, ``),
	"matchers":       around(`up{`, `a="b"`, `,c!="d"`),
	"labels":         around(`sum by (`, `region`, `,a`),
}

// around nests a text n times, or lengthens what is opened once.
func around(opens, innermost, closes string) func(n int) string {
	return func(n int) string {
		switch {
		case strings.HasPrefix(opens, "up{"):
			return opens + innermost + strings.Repeat(closes, n) + "}"
		case strings.HasSuffix(opens, "by (") && closes == ",a":
			return opens + innermost + strings.Repeat(closes, n) + ") (up)"
		}
		return strings.Repeat(opens, n) + innermost + strings.Repeat(closes, n)
	}
}

// TestPlan_WorkIsLinear counts what planning looks at, and what it allocates: with quadratic work,
// a query of twice the depth would need four times as much.
func TestPlan_WorkIsLinear(t *testing.T) {
	opts := enginetest.Options()
	engine := promql.NewEngine(opts)
	work := func(text string, o Options) (visits int, bytes uint64) {
		q, err := engine.NewRangeQuery(t.Context(), nil, nil, text, time.Unix(1000, 0), time.Unix(1120, 0), time.Minute)
		require.NoError(t, err)
		defer q.Close()
		stmt := q.Statement().(*parser.EvalStmt)
		w := newWork(t.Context())
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		p, err := newPlan(w, stmt, opts.NoStepSubqueryIntervalFn, regions, o)
		require.NoError(t, err)
		selectors := 0
		for _, leaf := range p.Leaves {
			selectors++
			if leaf.Part != nil {
				selectors += len(leaf.Part.Selectors)
				leaf.Part.ShownText()
				leaf.Part.Key()
			}
		}
		require.LessOrEqual(t, len(NeedEveryGroup(stmt.Expr, regions)), selectors)
		p.Expression(make([]string, len(p.Leaves)))
		runtime.ReadMemStats(&after)
		return w.visits, after.TotalAlloc - before.TotalAlloc
	}
	for name, text := range nested {
		for _, o := range []Options{{}, {Divided: true}} {
			const n = 150
			visits, bytes := work(text(n), o)
			twice, more := work(text(2*n), o)
			require.LessOrEqual(t, float64(twice), 2.1*float64(visits), "%s %+v", name, o)
			require.LessOrEqual(t, float64(more), 2.8*float64(bytes), "%s %+v: %d and %d bytes", name, o, bytes, more)
			require.LessOrEqual(t, twice, 50*2*n, name)
		}
	}
}

// TestPlan_StopsWithItsQuery: a plan is not finished when nobody waits for it.
func TestPlan_StopsWithItsQuery(t *testing.T) {
	const depth = 400
	opts := enginetest.Options()
	for name, text := range nested {
		q, err := promql.NewEngine(opts).NewInstantQuery(t.Context(), nil, nil, text(depth), time.Unix(1000, 0))
		require.NoError(t, err)
		stmt := q.Statement().(*parser.EvalStmt)
		all := newWork(t.Context())
		_, err = newPlan(all, stmt, opts.NoStepSubqueryIntervalFn, regions, Options{})
		require.NoError(t, err)
		for _, looks := range []int{0, 1, all.visits / visitsPerLook / 2} {
			w := newWork(enginetest.NewEnding(t.Context(), looks))
			_, err = newPlan(w, stmt, opts.NoStepSubqueryIntervalFn, regions, Options{})
			require.ErrorIs(t, err, context.DeadlineExceeded, name)
			// The ancestors of the sub-expression at which it stopped come to their other children.
			require.Less(t, w.visits, looks*visitsPerLook+5*depth, name)
		}
		q.Close()
	}
}

// TestTextOf_IsUpstreams compares texts with upstream's, which takes longer to make them.
func TestTextOf_IsUpstreams(t *testing.T) {
	exprs, err := promqltest.GetBuiltInExprs()
	require.NoError(t, err)
	for name := range nested {
		exprs = append(exprs, nested[name](5))
	}
	exprs = append(exprs, expressions(t)...)
	compared := 0
	for _, text := range exprs {
		e, err := parser.NewParser(promqltest.TestParserOpts).ParseExpr(text)
		if err != nil {
			continue // an expression that is to fail
		}
		e = copyExpr(e) // without expressions of durations
		require.Equal(t, e.String(), textOf(e), text)
		compared++
	}
	require.Greater(t, compared, 1000)
}
