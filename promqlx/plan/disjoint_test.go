package plan

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestDisjoint_WhatIsDivided: where parts must be divisible by target, no other one is made of a whole
// aggregation, and none at all where that is forbidden.
func TestDisjoint_WhatIsDivided(t *testing.T) {
	tr := newTrial(regions, nil)
	f := func(expr string, o Options, want ...string) {
		t.Helper()
		q, err := tr.query(tr.world, expr, times{})
		require.NoError(t, err)
		defer q.Close()
		var got []string
		for _, leaf := range newPlanOf(t, q, regions, o).Leaves {
			if leaf.Part != nil {
				got = append(got, leaf.Part.ShownText())
			}
		}
		require.Equal(t, want, got)
	}
	f(`avg by (instance) (m)`, Options{}, `avg by (instance) ({__name__="m"})`)
	f(`avg by (instance) (m)`, Options{Divided: true}, `avg by (instance) ({__name__="m"})`)
	f(`avg by (instance) (m)`, Options{NoneDisjoint: true}, `sum by (instance) ({__name__="m"})`, `count by (instance) ({__name__="m"})`)
	f(`avg by (job) (m)`, Options{}, `avg by (job) ({__name__="m"})`)
	f(`avg by (job) (m)`, Options{Divided: true}, `sum by (job) ({__name__="m"})`, `count by (job) ({__name__="m"})`)
	f(`quantile by (job) (0.5, m)`, Options{Divided: true}, `{__name__="m"}`)
	f(`avg by () (m)`, Options{}, `sum({__name__="m"})`, `count({__name__="m"})`)
	f(`avg by (job) (m{job="x"})`, Options{}, `sum by (job) ({__name__="m",job="x"})`, `count by (job) ({__name__="m",job="x"})`)
	f(`avg by (job) (m{job=~"x|y"})`, Options{}, `avg by (job) ({__name__="m",job=~"x|y"})`)
	f(`avg by (job) (m{job="x"} and on (region, job) n)`, Options{}, `avg by (job) ({__name__="m",job="x"} and on (job) {__name__="n"})`)
}
