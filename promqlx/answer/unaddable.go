package answer

import (
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/dedup"
	"github.com/oneprom/oneprom/promqlx/plan"
)

// Unaddable reports whether the answers to a part, which are sums, cannot be added up as if
// their values had been: the sums cancel each other out, or they are histograms both of
// gauges and of counters.
func Unaddable(p *plan.Part, answers []Answer) bool {
	var all []segment
	for _, a := range answers {
		all = append(all, a.series...)
	}
	return cancelling(p, all) || ofBothKinds(all)
}

// leastLeft is the least share of the greatest sum that the total must have.
const leastLeft = 1e-3

// cancelling reports whether sums nearly cancel each other out at a step. The total then
// depends on digits that the sums have lost: an engine that adds up all values keeps these
// digits (Neumaier's summation).
func cancelling(p *plan.Part, all []segment) bool {
	if !slices.ContainsFunc(all, func(s segment) bool { return anyNegative(s.samples) }) {
		return false
	}
	type total struct{ sum, most float64 }
	totals := map[uint64]map[int64]total{} // by the hash of the labels without injected ones, and time
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

// ofBothKinds reports whether there are histograms both of gauges and of counters. A sum with
// a gauge in it does not say whether its counters were reset, so that the engine cannot find
// out whether the resets conflict.
func ofBothKinds(all []segment) bool {
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

// anyNegative reports whether any sample is negative.
func anyNegative(s *dedup.Samples) bool {
	for i := range s.T {
		if summed(s, i) < 0 {
			return true
		}
	}
	return false
}

// summed returns what is added up of a sample: its value, or the sum of a histogram.
func summed(s *dedup.Samples, i int) float64 {
	if s.FH != nil && s.FH[i] != nil {
		return s.FH[i].Sum
	}
	return s.F[i]
}
