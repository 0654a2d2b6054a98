package promqlx

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/promqlx/enginetest"
	"github.com/oneprom/oneprom/promqlx/plan"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/view"
)

// TestPlanning_TimeIsOver: a query whose time ends while it is planned asks nobody, and its error
// blames nobody.
func TestPlanning_TimeIsOver(t *testing.T) {
	s := newStore(t, targets("", true))
	e := engineOver(t, config.PartialWarn, groupAt("g", map[string]string{"region": "eu"}, s))
	text := strings.Repeat("m_total + on (instance) (", 200) + "m_total" + strings.Repeat(")", 200)
	late := func(res *promql.Result) {
		t.Helper()
		require.Equal(t, promql.ErrQueryTimeout("query planning"), res.Err)
		require.Empty(t, res.Warnings)
		queries, reads := s.asked()
		require.Empty(t, queries)
		require.NotContains(t, reads, "m_total")
	}
	for _, looks := range []int{0, 1, 5} {
		q, err := e.instantQuery(t.Context(), nil, text, at(60, 60).start)
		require.NoError(t, err)
		late(q.run(enginetest.NewEnding(t.Context(), looks), e.groups.View(t.Context())))
		q.Close()
		_, err = e.Explain(enginetest.NewEnding(t.Context(), looks), e.groups.View(t.Context()), Question{Query: text, Start: at(60, 60).start, End: at(60, 60).start})
		require.Equal(t, promql.ErrQueryTimeout("query planning"), err)
	}
	// It ends between the plan and the first selector.
	q, err := e.instantQuery(t.Context(), nil, text, at(60, 60).start)
	require.NoError(t, err)
	defer q.Close()
	_, err = q.plan(t.Context(), q.Statement().(*parser.EvalStmt), e.groups.View(t.Context()), plan.Options{})
	require.NoError(t, err)
	from, err := q.source.Querier(0, 0)
	require.NoError(t, err)
	ctx, cancel := context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer cancel()
	set := from.Select(ctx, true, &storage.SelectHints{})
	require.False(t, set.Next())
	late(&promql.Result{Err: set.Err()})
	require.NoError(t, from.Close())
}

// TestContainers_ManySelections: the widest of many selections is found without a look at each.
func TestContainers_ManySelections(t *testing.T) {
	selection := func(matchers string) view.Selection {
		ms, err := executionOpts().Parser.ParseMetricSelector(matchers)
		require.NoError(t, err)
		return view.Selection{Matchers: ms, MaxT: 1}
	}
	var list []view.Selection
	const n = 300
	for i := range n {
		list = append(list, selection(fmt.Sprintf(`m{instance="t%d"}`, i)), selection(fmt.Sprintf(`m{job="j",instance="t%d"}`, i)), selection("other"))
	}
	c := newContainers(list)
	require.Len(t, c.list, 2*n+1, "each is in it once")
	for text, at := range c.byMatcher {
		require.LessOrEqual(t, len(at), 2, text)
	}
	for i := range n {
		narrow := list[3*i+1]
		require.Equal(t, list[3*i], c.widest(narrow))
		require.Equal(t, list[3*i], c.widest(list[3*i]))
	}
	all := selection(`m`)
	c = newContainers(append(list, all))
	for i := range n {
		require.Equal(t, all, c.widest(list[3*i+1]))
	}
	require.Equal(t, list[2], c.widest(list[2]))
}
