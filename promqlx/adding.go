package promqlx

import (
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/promqlx/plan"
)

// This file finds sums that cannot be added up: too much has been lost of what they
// were made of.

// unaddable tells whether that is so of the answers to a part.
func unaddable(p *plan.Part, answers []answer) bool {
	var all []stretch
	for _, a := range answers {
		all = append(all, a.series...)
	}
	return cancelling(p, all) || ofBothKinds(all)
}

// leastLeft is the least share of the greatest sum that must be left of all of them.
const leastLeft = 1e-3

// cancelling tells whether sums nearly cancel each other out at a step. What is left is
// then made of digits that they do not have: an engine that adds up all values carries
// them along (Neumaier's summation).
func cancelling(p *plan.Part, all []stretch) bool {
	if !slices.ContainsFunc(all, func(s stretch) bool { return anyNegative(s.samples) }) {
		return false
	}
	type total struct{ sum, most float64 }
	totals := map[uint64]map[int64]total{} // by the labels but for those of the partitions, and time
	for _, s := range all {
		of := labels.NewBuilder(s.labels).Del(p.Injected...).Labels().Hash()
		if totals[of] == nil {
			totals[of] = map[int64]total{}
		}
		for i, t := range s.samples.T {
			v := summed(s.samples, i)
			before := totals[of][t]
			totals[of][t] = total{before.sum + v, max(before.most, math.Abs(v))}
		}
	}
	for _, byTime := range totals {
		for _, at := range byTime {
			if math.Abs(at.sum) < leastLeft*at.most {
				return true
			}
		}
	}
	return false
}

// ofBothKinds tells whether there are histograms of gauges and of counters. With a gauge
// among them, a sum does not tell any more whether its counters were reset, which must
// not conflict.
func ofBothKinds(all []stretch) bool {
	gauges, counters := false, false
	for _, s := range all {
		for _, h := range s.samples.FH {
			if h != nil {
				gauge := h.CounterResetHint == histogram.GaugeType
				gauges, counters = gauges || gauge, counters || !gauge
			}
		}
	}
	return gauges && counters
}

func anyNegative(s *dedup.Samples) bool {
	for i := range s.T {
		if summed(s, i) < 0 {
			return true
		}
	}
	return false
}

// summed is the value of a sample that may be of either sign.
func summed(s *dedup.Samples, i int) float64 {
	if s.FH != nil && s.FH[i] != nil {
		return s.FH[i].Sum
	}
	return s.F[i]
}
