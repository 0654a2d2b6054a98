package view

import (
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/servergroup/replica"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// source is the series of a selection that one replica has.
type source struct {
	provenance
	series []transport.Series // sorted by labels
}

// provenance is the replica that samples come from.
type provenance struct {
	group   *RoutedGroup
	profile *replica.Profile
}

// assemble unites the series of replicas to one list, sorted by labels. The sources are in order
// of preference, and none of them is empty. Equal labels make one series, even from different
// groups. broken is called with the error of a run that cannot be decoded while others can;
// doubt, unless it is nil, is called for every series before it is made.
func assemble(sources []source, mint, maxt int64, broken func(error), doubt func(labels.Labels, []dedup.Run, []provenance)) []*dedup.Series {
	sources = slices.Clone(sources)
	longest := 0
	for _, s := range sources {
		longest = max(longest, len(s.series))
	}
	out := make([]*dedup.Series, 0, longest)
	var from []provenance
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
				runs, from = append(runs, s.series[0].Run), append(from, s.provenance)
				s.series = s.series[1:]
			}
			sources[i] = s
			empty = empty || len(s.series) == 0
		}
		if empty {
			sources = slices.DeleteFunc(sources, func(s source) bool { return len(s.series) == 0 })
		}
		if doubt != nil {
			doubt(first, runs, from)
		}
		out = append(out, dedup.NewSeries(first, runs, mint, maxt, broken))
	}
	return out
}
