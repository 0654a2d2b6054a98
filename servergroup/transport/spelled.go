package transport

import (
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/dedup"
)

// Respelled begins the part of Series.Replica that tells series of one replica apart whose labels
// differ there by the spelling of a number only. It is not in UTF-8.
const Respelled = 0xfd

// JoinSpellings makes one series of those that differ by the spelling of a number only. The list is
// sorted by Arrange. Of r it uses the window and Charge.
func JoinSpellings(list []Series, r Request) ([]Series, error) {
	out := list[:0]
	for i := 0; i < len(list); {
		one := list[i]
		own, _, _ := strings.Cut(one.Replica, string([]byte{Respelled}))
		one.Replica = own
		j := i + 1
		for ; j < len(list) && labels.Equal(list[j].Labels, one.Labels); j++ {
			another, _, _ := strings.Cut(list[j].Replica, string([]byte{Respelled}))
			if another != own {
				break
			}
		}
		if j > i+1 {
			joined, err := joinRuns(list[i:j], r)
			if err != nil {
				return nil, err
			}
			one.Run = joined
		}
		out = append(out, one)
		i = j
	}
	clear(list[len(out):])
	return out, nil
}

// joinRuns joins the samples of one series in several spellings. Where the spelling changed, one ends
// and another goes on, which is not the end of the series.
func joinRuns(spellings []Series, r Request) (*dedup.Samples, error) {
	type sample struct {
		from *dedup.Samples
		at   int
	}
	var all []sample
	for _, s := range spellings {
		run, err := decode(s, r)
		if err != nil {
			return nil, err
		}
		for i := range run.T {
			all = append(all, sample{run, i})
		}
	}
	slices.SortStableFunc(all, func(a, b sample) int {
		switch ta, tb := a.from.T[a.at], b.from.T[b.at]; {
		case ta != tb:
			return int(min(1, max(-1, ta-tb)))
		case a.from.Stale(a.at) == b.from.Stale(b.at):
			return 0
		case b.from.Stale(b.at):
			return -1
		}
		return 1
	})
	out := &dedup.Samples{}
	var last *dedup.Samples // the run of the last sample
	for _, s := range all {
		stale := s.from.Stale(s.at)
		if n := out.Len(); n > 0 && (out.T[n-1] == s.from.T[s.at] || stale && last != s.from) {
			continue
		}
		if !stale {
			last = s.from
		}
		out.AppendFrom(s.from, s.at)
	}
	return out, nil
}
