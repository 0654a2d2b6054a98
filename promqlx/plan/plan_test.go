package plan

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/oneprom/oneprom/promqlx/enginetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newPlanOf plans a query of upstream's engine with the options of enginetest.
func newPlanOf(t testing.TB, q promql.Query, l Layout, o Options) *Plan {
	t.Helper()
	p, err := New(t.Context(), q.Statement().(*parser.EvalStmt), enginetest.Options().NoStepSubqueryIntervalFn, l, o)
	require.NoError(t, err)
	return p
}

// recorder is an empty storage that remembers what it was asked for.
type recorder struct {
	storage.LabelQuerier
	asked []string
}

func (r *recorder) Querier(int64, int64) (storage.Querier, error) { return r, nil }

func (r *recorder) Select(_ context.Context, _ bool, h *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	r.asked = append(r.asked, window(ms, h.Start, h.End))
	return storage.EmptySeriesSet()
}

func (r *recorder) Close() error { return nil }

func window(ms []*labels.Matcher, mint, maxt int64) string {
	return fmt.Sprintf("%v %d..%d", ms, mint, maxt)
}

// TestPlan_WindowsAreTheEngines compares the plan of every expression of
// upstream's test files with what upstream's engine asks its storage for.
func TestPlan_WindowsAreTheEngines(t *testing.T) {
	exprs, err := promqltest.GetBuiltInExprs()
	require.NoError(t, err)
	exprs = append(exprs,
		`max_over_time(max_over_time(m[5m:1m] offset 3m)[1h:7m] @ 5000 offset 2m)`,
		`m @ start() + m offset -7m - m @ end() offset 1h`,
		`sum_over_time((m @ 77 offset 3s)[10m:13s])`,
	)
	opts := enginetest.Options()
	engine := promql.NewEngine(opts)
	compared := 0
	for _, expr := range exprs {
		for _, interval := range []time.Duration{0, 37 * time.Second} {
			start := time.UnixMilli(1000123)
			rec := &recorder{}
			var q promql.Query
			if interval == 0 {
				q, err = engine.NewInstantQuery(context.Background(), rec, nil, expr, start)
			} else {
				end := start.Add(time.Hour)
				q, err = engine.NewRangeQuery(context.Background(), rec, nil, expr, start, end, interval)
			}
			if err != nil {
				continue // an expression that is to fail
			}
			var planned []string
			for _, leaf := range newPlanOf(t, q, regions, Options{NoParts: "off"}).Leaves {
				planned = append(planned, window(leaf.Selector.Matchers, leaf.Selector.MinT, leaf.Selector.MaxT))
			}
			q.Exec(context.Background())
			q.Close()
			require.GreaterOrEqual(t, len(rec.asked), len(planned), expr)
			for i := range planned {
				require.Equal(t, rec.asked[i], planned[i], expr)
				compared++
			}
		}
	}
	require.Greater(t, compared, 3000)
}

// TestPlan_Text is what a plan says of selectors whose instants are not simply
// the query's.
func TestPlan_Text(t *testing.T) {
	for _, c := range []struct{ expr, want string }{
		{`m`, "select {__name__=\"m\"} from 700.001 to 1120.000 at 1000.000…1120.000 each 1m0s\n"},
		{`m offset 1m`, "select {__name__=\"m\"} from 640.001 to 1060.000 at 940.000…1060.000 each 1m0s\n"},
		{`m @ end()`, "select {__name__=\"m\"} from 820.001 to 1120.000 at 1120.000\n"},
		// Upstream forgets the offset here, and looks at other instants than it selects for.
		{`timestamp((m @ 1000 offset -1m))`, "select {__name__=\"m\"} from 760.001 to 1060.000 raw and at 1000.000\n"},
		{`timestamp(m @ 1000 offset 1m)`, "select {__name__=\"m\"} from 640.001 to 940.000 raw and at 940.000\n"},
		{`timestamp(m @ 1000)`, "select {__name__=\"m\"} from 700.001 to 1000.000 at 1000.000\n"},
		{`rate(m[2m])`, "select {__name__=\"m\"} from 880.001 to 1120.000 raw\n"},
		{`rate(m[2m] anchored)`, "select {__name__=\"m\"} from 580.001 to 1120.000 raw\n"},
		{`m smoothed`, "select {__name__=\"m\"} from 700.001 to 1420.000 raw\n"},
		// A subquery's instants are multiples of its step, later than its start.
		{`max_over_time(m[5m:30s])`, "select {__name__=\"m\"} from 400.001 to 1120.000 at 720.000…1120.000 each 30s\n"},
		{`max_over_time(m[5m])`, "select {__name__=\"m\"} from 700.001 to 1120.000 raw\n"},
		{`info(m, {x="y"})`, "select {__name__=\"m\"} from 700.001 to 1120.000 at 1000.000…1120.000 each 1m0s\n" +
			"select {x=\"y\"} from 700.001 to 1120.000 (not evaluated)\n"},
	} {
		opts := enginetest.Options()
		q, err := promql.NewEngine(opts).NewRangeQuery(context.Background(), nil, nil, c.expr, time.Unix(1000, 0), time.Unix(1120, 0), time.Minute)
		require.NoError(t, err, c.expr)
		require.Equal(t, c.want, newPlanOf(t, q, Layout{}, Options{}).String(), c.expr)
		q.Close()
	}
}
