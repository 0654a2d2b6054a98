package servergroup

import (
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/servergroup/transport"
)

func compareSeries(a, b transport.Series) int {
	if c := labels.Compare(a.Labels, b.Labels); c != 0 {
		return c
	}
	return strings.Compare(a.Replica, b.Replica)
}

// arrange sorts the series of one replica by labels; most backends have done so.
// The same series twice is an error: what the backend means by it is not known.
func arrange(url string, list []transport.Series) ([]transport.Series, error) {
	if !slices.IsSortedFunc(list, compareSeries) {
		slices.SortFunc(list, compareSeries)
	}
	for i := 1; i < len(list); i++ {
		if compareSeries(list[i-1], list[i]) == 0 {
			return nil, &transport.Error{Class: transport.ClassContent, URL: url, Err: fmt.Errorf("series %s is in the answer twice", list[i].Labels)}
		}
	}
	return list, nil
}

// assemble makes one list of series of the lists of the replicas, which are
// sorted and in order of preference. Equal labels are one series, whichever
// groups they come from.
// broken is told of runs that cannot be decoded while others can.
func assemble(lists [][]transport.Series, mint, maxt int64, broken func(error)) []*dedup.Series {
	lists = slices.DeleteFunc(lists, func(l []transport.Series) bool { return len(l) == 0 })
	longest := 0
	for _, l := range lists {
		longest = max(longest, len(l))
	}
	out := make([]*dedup.Series, 0, longest)
	for len(lists) > 0 {
		first := lists[0][0].Labels
		for _, l := range lists[1:] {
			if labels.Compare(l[0].Labels, first) < 0 {
				first = l[0].Labels
			}
		}
		var runs []dedup.Run
		empty := false
		for i, l := range lists {
			for len(l) > 0 && labels.Equal(l[0].Labels, first) {
				runs = append(runs, l[0].Run)
				l = l[1:]
			}
			lists[i] = l
			empty = empty || len(l) == 0
		}
		if empty {
			lists = slices.DeleteFunc(lists, func(l []transport.Series) bool { return len(l) == 0 })
		}
		out = append(out, dedup.NewSeries(first, runs, mint, maxt, broken))
	}
	return out
}
