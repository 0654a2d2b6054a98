package plan

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/promqlx/enginetest"
)

var update = flag.Bool("update", false, "write the golden plans")

// The topologies of the golden plans.
var (
	one     = Layout{Partitions: []map[string]string{{"region": "eu"}}}
	plain   = Layout{Partitions: []map[string]string{{}}}
	regions = Layout{Partitions: []map[string]string{{"region": "eu"}, {"region": "us"}}}
	grids   = Layout{Partitions: []map[string]string{
		{"region": "eu", "env": "prod"},
		{"region": "eu", "env": "dev"},
		{"region": "us", "env": "prod"},
		{"region": "us", "env": "dev"},
	}}
)

// zones is a layout with more labels than it needs.
var zones = Layout{Partitions: []map[string]string{{"region": "eu", "zone": "eu1"}, {"region": "us", "zone": "us1"}}}

// held is a layout of two regions, and a group that alone has the series of an environment, of both.
var held = Layout{Partitions: []map[string]string{{"region": "eu"}, {}, {"region": "us"}}, Distinct: [][]string{nil, {"env"}, nil}}

// planOf plans a query from 1000 s to 1120 s each minute.
func planOf(t testing.TB, expr string, l Layout, o Options) *Plan {
	t.Helper()
	opts := enginetest.Options()
	q, err := promql.NewEngine(opts).NewRangeQuery(context.Background(), nil, nil, expr, time.Unix(1000, 0), time.Unix(1120, 0), time.Minute)
	require.NoError(t, err, expr)
	defer q.Close()
	before := q.String()
	p := newPlanOf(t, q, l, o)
	require.Equal(t, before, q.String())
	return p
}

// expressions are those of the golden plans; each is one of the equivalence test's,
// too. Blank lines and lines that begin with # are for the reader.
func expressions(t testing.TB) []string {
	t.Helper()
	data, err := os.ReadFile("testdata/plans/expressions.txt")
	require.NoError(t, err)
	var out []string
	for line := range strings.SplitSeq(string(data), "\n") {
		if line != "" && !strings.HasPrefix(line, "#") {
			out = append(out, line)
		}
	}
	return out
}

// TestPlan_Golden compares plans with those in testdata.
func TestPlan_Golden(t *testing.T) {
	for name, layout := range map[string]Layout{"one": one, "plain": plain, "regions": regions, "grid": grids, "one_divided": one} {
		o := Options{Divided: strings.HasSuffix(name, "_divided")}
		t.Run(name, func(t *testing.T) {
			var b strings.Builder
			for _, expr := range expressions(t) {
				plan := planOf(t, expr, layout, o).String()
				if plan == "" {
					plan = "no series"
				}
				fmt.Fprintf(&b, "%s\n    %s\n\n", expr, strings.ReplaceAll(strings.TrimSuffix(plan, "\n"), "\n", "\n    "))
			}
			file := filepath.Join("testdata", "plans", name+".txt")
			if *update {
				require.NoError(t, os.WriteFile(file, []byte(b.String()), 0o644))
			}
			want, err := os.ReadFile(file)
			require.NoError(t, err)
			require.Equal(t, string(want), b.String())
		})
	}
}
