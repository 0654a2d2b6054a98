package views

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/tsdb"
	v1 "github.com/prometheus/prometheus/web/api/v1"
)

// TSDBStatus is an answer of /status/tsdb.
type TSDBStatus struct {
	HeadStats                   *v1.HeadStats `json:"headStats"` // nil if the server does not show them
	SeriesCountByMetricName     []v1.TSDBStat `json:"seriesCountByMetricName"`
	LabelValueCountByLabelName  []v1.TSDBStat `json:"labelValueCountByLabelName"`
	MemoryInBytesByLabelName    []v1.TSDBStat `json:"memoryInBytesByLabelName"`
	SeriesCountByLabelValuePair []v1.TSDBStat `json:"seriesCountByLabelValuePair"`
}

// FoldTSDB makes one of the statistics of replicas, which hold the same: the highest of
// each number, and the bounds of all of them together.
func FoldTSDB(replicas ...TSDBStatus) TSDBStatus {
	return mergeTSDB(func(a, b uint64) uint64 { return max(a, b) }, replicas)
}

// JoinTSDB makes one of the statistics of server groups: the sum of each number, and the
// bounds of all of them together. A value that several groups have counts once for each, as
// servers do not list their values.
func JoinTSDB(groups ...TSDBStatus) TSDBStatus {
	return mergeTSDB(func(a, b uint64) uint64 { return a + b }, groups)
}

func mergeTSDB(count func(a, b uint64) uint64, servers []TSDBStatus) TSDBStatus {
	var out TSDBStatus
	var lists [4][][]v1.TSDBStat
	for _, s := range servers {
		out.HeadStats = mergeHeads(count, out.HeadStats, s.HeadStats)
		lists[0] = append(lists[0], s.SeriesCountByMetricName)
		lists[1] = append(lists[1], s.LabelValueCountByLabelName)
		lists[2] = append(lists[2], s.MemoryInBytesByLabelName)
		lists[3] = append(lists[3], s.SeriesCountByLabelValuePair)
	}
	out.SeriesCountByMetricName = mergeCounts(count, lists[0])
	out.LabelValueCountByLabelName = mergeCounts(count, lists[1])
	out.MemoryInBytesByLabelName = mergeCounts(count, lists[2])
	out.SeriesCountByLabelValuePair = mergeCounts(count, lists[3])
	return out
}

func mergeHeads(count func(a, b uint64) uint64, a, b *v1.HeadStats) *v1.HeadStats {
	if a == nil || b == nil {
		return cmp.Or(a, b)
	}
	return &v1.HeadStats{
		NumSeries:     count(a.NumSeries, b.NumSeries),
		NumLabelPairs: int(count(natural(a.NumLabelPairs), natural(b.NumLabelPairs))),
		ChunkCount:    int64(count(natural(a.ChunkCount), natural(b.ChunkCount))),
		MinTime:       min(a.MinTime, b.MinTime), // an empty head ends before it begins
		MaxTime:       max(a.MaxTime, b.MaxTime),
	}
}

// natural is a count that a server may not know, which it shows as some negative number.
func natural[N int | int64](n N) uint64 { return uint64(max(n, 0)) }

// mergeCounts returns the highest first, in the order of their names if they are equal.
func mergeCounts(count func(a, b uint64) uint64, lists [][]v1.TSDBStat) []v1.TSDBStat {
	counts := map[string]uint64{}
	for _, list := range lists {
		for _, s := range list {
			counts[s.Name] = count(counts[s.Name], s.Value)
		}
	}
	out := make([]v1.TSDBStat, 0, len(counts))
	for name, value := range counts {
		out = append(out, v1.TSDBStat{Name: name, Value: value})
	}
	slices.SortFunc(out, func(a, b v1.TSDBStat) int {
		return cmp.Or(cmp.Compare(b.Value, a.Value), strings.Compare(a.Name, b.Name))
	})
	return out
}

// Without removes the statistics of the labels of these names.
func (s *TSDBStatus) Without(names []string) {
	ofLabel := func(name string) bool { return slices.Contains(names, name) }
	s.LabelValueCountByLabelName = slices.DeleteFunc(s.LabelValueCountByLabelName, func(c v1.TSDBStat) bool { return ofLabel(c.Name) })
	s.MemoryInBytesByLabelName = slices.DeleteFunc(s.MemoryInBytesByLabelName, func(c v1.TSDBStat) bool { return ofLabel(c.Name) })
	s.SeriesCountByLabelValuePair = slices.DeleteFunc(s.SeriesCountByLabelValuePair, func(c v1.TSDBStat) bool {
		name, _, _ := strings.Cut(c.Name, "=")
		return ofLabel(name)
	})
}

// Cut leaves the first of each list.
func (s *TSDBStatus) Cut(limit int) {
	for _, list := range []*[]v1.TSDBStat{&s.SeriesCountByMetricName, &s.LabelValueCountByLabelName, &s.MemoryInBytesByLabelName, &s.SeriesCountByLabelValuePair} {
		*list = (*list)[:min(limit, len(*list))]
	}
}

// MergeBlocks lists the blocks of all servers, the oldest first. Each server has blocks of
// its own, also a replica.
func MergeBlocks(servers ...[]tsdb.BlockMeta) []tsdb.BlockMeta {
	out := append([]tsdb.BlockMeta{}, slices.Concat(servers...)...)
	slices.SortFunc(out, func(a, b tsdb.BlockMeta) int {
		return cmp.Or(cmp.Compare(a.MinTime, b.MinTime), a.ULID.Compare(b.ULID))
	})
	return slices.CompactFunc(out, func(a, b tsdb.BlockMeta) bool { return a.ULID == b.ULID })
}

// MergeFeatures adds the features of servers to oneprom's own. It ignores the categories of servers
// that are among its own; in the others, a feature is on if some server has it.
func MergeFeatures(own map[string]map[string]bool, servers ...map[string]map[string]bool) map[string]map[string]bool {
	out := map[string]map[string]bool{}
	maps.Copy(out, own)
	for _, s := range servers {
		for category, features := range s {
			if own[category] != nil {
				continue
			}
			if out[category] == nil {
				out[category] = map[string]bool{}
			}
			for name, on := range features {
				out[category][name] = out[category][name] || on
			}
		}
	}
	return out
}
