package views

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/tsdb"
	v1 "github.com/prometheus/prometheus/web/api/v1"
	"github.com/stretchr/testify/require"
)

func targetOf(pool, instance string, health scrape.TargetHealth, second int) *v1.Target {
	return &v1.Target{
		Labels: labels.FromStrings("instance", instance), ScrapePool: pool, Health: health, LastScrape: time.Unix(int64(second), 0).UTC(),
		ScrapeURL: fmt.Sprintf("http://%s/%d", instance, second),
	}
}

func droppedOf(pool, address string) *v1.DroppedTarget {
	return &v1.DroppedTarget{DiscoveredLabels: labels.FromStrings("__address__", address), ScrapePool: pool}
}

func TestFoldTargets_TheHealthyAndLatestWins(t *testing.T) {
	f := func(a, b, want *v1.Target) {
		t.Helper()
		for _, pair := range [][2]*v1.Target{{a, b}, {b, a}} {
			got := FoldTargets(v1.TargetDiscovery{ActiveTargets: []*v1.Target{pair[0], nil}}, v1.TargetDiscovery{ActiveTargets: []*v1.Target{pair[1]}})
			require.Equal(t, []*v1.Target{want}, got.ActiveTargets)
		}
	}
	up, laterUp := targetOf("p", "a", scrape.HealthGood, 1), targetOf("p", "a", scrape.HealthGood, 2)
	down, unknown := targetOf("p", "a", scrape.HealthBad, 3), targetOf("p", "a", scrape.HealthUnknown, 4)
	f(up, laterUp, laterUp)
	f(up, down, up)
	f(up, unknown, up)
	f(down, unknown, down)
}

func TestTargets_FoldedThenJoined(t *testing.T) {
	first := v1.TargetDiscovery{
		ActiveTargets:       []*v1.Target{targetOf("q", "a", scrape.HealthGood, 1), targetOf("p", "b", scrape.HealthGood, 1), targetOf("p", "a", scrape.HealthGood, 1)},
		DroppedTargets:      []*v1.DroppedTarget{droppedOf("p", "y"), droppedOf("p", "x"), nil},
		DroppedTargetCounts: map[string]int{"p": 3, "q": 1},
	}
	twin := v1.TargetDiscovery{
		ActiveTargets:       []*v1.Target{targetOf("p", "c", scrape.HealthGood, 1), targetOf("p", "a", scrape.HealthGood, 1)},
		DroppedTargets:      []*v1.DroppedTarget{droppedOf("p", "x")},
		DroppedTargetCounts: map[string]int{"p": 2, "q": 2},
	}
	group := FoldTargets(first, twin)
	require.Equal(t, []*v1.Target{
		targetOf("p", "a", scrape.HealthGood, 1), targetOf("p", "b", scrape.HealthGood, 1), targetOf("p", "c", scrape.HealthGood, 1), targetOf("q", "a", scrape.HealthGood, 1),
	}, group.ActiveTargets)
	require.Equal(t, []*v1.DroppedTarget{droppedOf("p", "x"), droppedOf("p", "y")}, group.DroppedTargets)
	require.Equal(t, map[string]int{"p": 3, "q": 2}, group.DroppedTargetCounts)

	other := v1.TargetDiscovery{DroppedTargetCounts: map[string]int{"p": 4, "r": 1}}
	require.Equal(t, map[string]int{"p": 7, "q": 2, "r": 1}, JoinTargets(group, other).DroppedTargetCounts)

	// Asked for the active ones only, a server tells no counts, and there is no list of
	// nothing that is absent.
	none := JoinTargets(v1.TargetDiscovery{})
	require.Nil(t, none.DroppedTargetCounts)
	require.NotNil(t, none.ActiveTargets)
	require.NotNil(t, none.DroppedTargets)
}

func TestMergePoolsAndAlertmanagers(t *testing.T) {
	require.Equal(t, []string{"a", "b", "c"}, MergePools([]string{"c", "a"}, []string{"b", "a"}))
	require.Equal(t, []string{}, MergePools(nil))
	at := func(urls ...string) []*v1.AlertmanagerTarget {
		list := []*v1.AlertmanagerTarget{}
		for _, u := range urls {
			list = append(list, &v1.AlertmanagerTarget{URL: u})
		}
		return list
	}
	require.Equal(t, v1.AlertmanagerDiscovery{ActiveAlertmanagers: at("a", "b"), DroppedAlertmanagers: at("a")},
		MergeAlertmanagers(v1.AlertmanagerDiscovery{ActiveAlertmanagers: append(at("b"), nil)}, v1.AlertmanagerDiscovery{ActiveAlertmanagers: at("a", "b"), DroppedAlertmanagers: at("a")}))
	require.Equal(t, v1.AlertmanagerDiscovery{ActiveAlertmanagers: at(), DroppedAlertmanagers: at()}, MergeAlertmanagers())
}

func stats(pairs ...any) []v1.TSDBStat {
	list := []v1.TSDBStat{}
	for i := 0; i < len(pairs); i += 2 {
		list = append(list, v1.TSDBStat{Name: pairs[i].(string), Value: uint64(pairs[i+1].(int))})
	}
	return list
}

func TestTSDB_FoldedThenJoined(t *testing.T) {
	a := TSDBStatus{
		HeadStats:                   &v1.HeadStats{NumSeries: 10, NumLabelPairs: 5, ChunkCount: 20, MinTime: 100, MaxTime: 200},
		SeriesCountByMetricName:     stats("up", 4, "x", 3),
		LabelValueCountByLabelName:  stats("replica", 9, "job", 2),
		MemoryInBytesByLabelName:    stats("replica", 9),
		SeriesCountByLabelValuePair: stats("replica=a", 9, "job=b", 2),
	}
	twin := TSDBStatus{
		HeadStats:               &v1.HeadStats{NumSeries: 9, NumLabelPairs: 6, ChunkCount: -1 << 63, MinTime: 90, MaxTime: 210},
		SeriesCountByMetricName: stats("x", 4, "up", 4, "y", 1),
	}
	group := FoldTSDB(a, twin)
	require.Equal(t, &v1.HeadStats{NumSeries: 10, NumLabelPairs: 6, ChunkCount: 20, MinTime: 90, MaxTime: 210}, group.HeadStats)
	require.Equal(t, stats("up", 4, "x", 4, "y", 1), group.SeriesCountByMetricName)
	group.Without([]string{"replica"})
	require.Equal(t, stats("job", 2), group.LabelValueCountByLabelName)
	require.Empty(t, group.MemoryInBytesByLabelName)
	require.Equal(t, stats("job=b", 2), group.SeriesCountByLabelValuePair)

	empty := TSDBStatus{HeadStats: &v1.HeadStats{MinTime: 1<<63 - 1, MaxTime: -1 << 63}}
	silent := TSDBStatus{SeriesCountByMetricName: stats("x", 4)}
	all := JoinTSDB(empty, group, silent, TSDBStatus{HeadStats: &v1.HeadStats{NumSeries: 1, MinTime: 150, MaxTime: 300}})
	require.Equal(t, &v1.HeadStats{NumSeries: 11, NumLabelPairs: 6, ChunkCount: 20, MinTime: 90, MaxTime: 300}, all.HeadStats)
	all.Cut(2)
	require.Equal(t, stats("x", 8, "up", 4), all.SeriesCountByMetricName)
	require.Equal(t, stats("job", 2), all.LabelValueCountByLabelName)
	text, err := json.Marshal(JoinTSDB(empty).SeriesCountByMetricName)
	require.NoError(t, err)
	require.Equal(t, "[]", string(text))
}

func TestMergeBlocks(t *testing.T) {
	block := func(id byte, mint int64) tsdb.BlockMeta {
		b := tsdb.BlockMeta{MinTime: mint}
		b.ULID[0] = id
		return b
	}
	require.Equal(t, []tsdb.BlockMeta{block(2, 1), block(1, 2), block(3, 2)},
		MergeBlocks([]tsdb.BlockMeta{block(3, 2), block(2, 1)}, []tsdb.BlockMeta{block(1, 2), block(3, 2)}))
	require.Equal(t, []tsdb.BlockMeta{}, MergeBlocks(nil))
}

func TestMergeFeatures(t *testing.T) {
	type m = map[string]map[string]bool
	own := m{"promql": {"x": true}}
	require.Equal(t, m{"promql": {"x": true}, "tsdb": {"a": true, "b": true, "c": false}, "scrape": {"s": true}},
		MergeFeatures(own, m{"promql": {"x": false, "y": true}, "tsdb": {"a": true, "b": false}}, m{"tsdb": {"a": false, "b": true, "c": false}, "scrape": {"s": true}}))
	require.Equal(t, m{"promql": {"x": true}}, own)
}
