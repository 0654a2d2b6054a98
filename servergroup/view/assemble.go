package view

import (
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/servergroup/replica"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// source is what one replica has of a selection.
type source struct {
	origin
	series []transport.Series // sorted
}

// origin is where samples come from.
type origin struct {
	from    *RoutedGroup
	profile *replica.Profile
}

// assemble makes one list of series of those of the replicas, which are in order
// of preference and none of them empty. Equal labels are one series, whichever groups they come from.
// broken is told of runs that cannot be decoded while others can, audit of every
// series before it is made, unless it is nil.
func assemble(sources []source, mint, maxt int64, broken func(error), audit func(labels.Labels, []dedup.Run, []origin)) []*dedup.Series {
	sources = slices.Clone(sources)
	longest := 0
	for _, s := range sources {
		longest = max(longest, len(s.series))
	}
	out := make([]*dedup.Series, 0, longest)
	var from []origin
	for len(sources) > 0 {
		first := sources[0].series[0].Labels
		for _, s := range sources[1:] {
			if labels.Compare(s.series[0].Labels, first) < 0 {
				first = s.series[0].Labels
			}
		}
		var runs []dedup.Run
		from = from[:0]
		empty := false
		for i, s := range sources {
			for len(s.series) > 0 && labels.Equal(s.series[0].Labels, first) {
				runs, from = append(runs, s.series[0].Run), append(from, s.origin)
				s.series = s.series[1:]
			}
			sources[i] = s
			empty = empty || len(s.series) == 0
		}
		if empty {
			sources = slices.DeleteFunc(sources, func(s source) bool { return len(s.series) == 0 })
		}
		if audit != nil {
			audit(first, runs, from)
		}
		out = append(out, dedup.NewSeries(first, runs, mint, maxt, broken))
	}
	return out
}
