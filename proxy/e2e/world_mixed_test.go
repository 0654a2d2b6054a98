//go:build e2e

package e2e

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/proxy/e2e/internal/world"
	"github.com/oneprom/oneprom/proxy/e2e/internal/world/exam"
)

// In front of servers of several kinds the answers must be the truth's, but for the queries that ask for what a server cannot store or
// give: those are listed, and each must differ.
func TestWorldMixed(t *testing.T) {
	w := world.Mixed(1)
	w.Start(t, t.TempDir())
	queries, err := exam.Queries("testdata/world/queries.txt")
	require.NoError(t, err)
	for _, kind := range []string{"prometheus2", "victoriametrics", "influxdb"} {
		t.Run("archive on "+kind, func(t *testing.T) {
			part := w.With("eu", "us", "archive-"+kind)
			examineMixed(t, part, queries, "archive-"+kind)
		})
	}
	t.Run("archive behind another oneprom", func(t *testing.T) {
		inner := startWorldOneprom(t, w.With("archive-prometheus2"))
		part := w.With("eu", "us", "archive-prometheus2")
		part.Groups[2].Replicas = []*world.Server{{Name: "inner oneprom", Kind: world.Oneprom, Process: &world.Process{URL: inner}}}
		examineMixed(t, part, everyNth(3, queries), "archive-prometheus2")
	})
}

// Two replicas need not be Prometheus to fill each other's gaps.
func TestWorldTwoStores(t *testing.T) {
	w := world.TwoStores(1)
	w.Start(t, t.TempDir())
	queries, err := exam.Queries("testdata/world/queries.txt")
	require.NoError(t, err)
	requireOnlyListed(t, w, startWorldOneprom(t, w), queries, alignedEvaluations(w), "stores-victoriametrics")
}

// examineMixed asks all queries where the archive is concerned, and where only the pairs are: then nothing of the archive must be seen.
func examineMixed(t *testing.T, w *world.World, queries []exam.Query, archive string) {
	t.Helper()
	base := startWorldOneprom(t, w)
	recent, old := alignedEvaluations(w), alignedEvaluations(w)
	isRecent := func(e exam.Evaluation) bool { return e.Start >= w.At(5*time.Hour+28*time.Minute) } // the archive ends 88 minutes before
	recent = slices.DeleteFunc(recent, func(e exam.Evaluation) bool { return !isRecent(e) })
	old = slices.DeleteFunc(old, isRecent)
	t.Run("old", func(t *testing.T) { requireOnlyListed(t, w, base, queries, old, archive) })
	t.Run("recent", func(t *testing.T) { requireOnlyListed(t, w, base, queries, recent, "pairs") })
}

// requireOnlyListed asks the oneprom at base and the truth: the queries in the list of what cannot be, and no others, must differ.
func requireOnlyListed(t *testing.T, w *world.World, base string, queries []exam.Query, at []exam.Evaluation, list string) {
	t.Helper()
	path := "testdata/world/" + list + "-cannot.txt"
	cannot, err := exam.Queries(path)
	require.NoError(t, err)
	asked := map[string]bool{}
	for _, q := range queries {
		asked[lineOf(q)] = true
	}
	got := exam.All(w.Truth.URL, base, queries, at)
	t.Log(exam.Report(got, 20))
	want, wrong := map[string]bool{}, map[string]bool{}
	for _, q := range cannot {
		if asked[lineOf(q)] {
			want[lineOf(q)] = true
		}
	}
	for _, v := range got {
		if len(v.Differences) > 0 {
			wrong[lineOf(v.Query)] = true
		}
	}
	require.Equal(t, strings.Join(slices.Sorted(maps.Keys(want)), "\n"), strings.Join(slices.Sorted(maps.Keys(wrong)), "\n"),
		"%s must list the queries that differ, and no others", path)
}

// lineOf is the query as the lists have it.
func lineOf(q exam.Query) string {
	if len(q.Params) == 0 {
		return q.Text
	}
	return "?" + q.Params.Encode() + " " + q.Text
}
