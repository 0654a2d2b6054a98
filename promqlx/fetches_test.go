package promqlx

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/config"
)

// TestExecute_FetchedOnce: what several parts or selectors need of a replica.
func TestExecute_FetchedOnce(t *testing.T) {
	a, b := newStore(t, targets("", false)), newStore(t, targets("", true))
	c := newStore(t, targets("", true))
	pair, one := groupAt("g", map[string]string{"group": "g"}, a, b), groupAt("h", map[string]string{"group": "h"}, c)
	mergeAll(&pair)
	pushdownOff(&one)
	e := engineOver(t, config.PartialWarn, pair, one)
	all := truthOf(t, targets(`,group="g"`, true)+targets(`,group="h"`, true))
	asked := func(s *store) int {
		_, reads := s.asked()
		return len(slices.DeleteFunc(reads, func(name string) bool { return name != "m_total" }))
	}
	requireTruth(t, e, all, `m_total`, at(15, 16)) // probes
	asked(a)
	asked(b)
	f := func(times int, text string) {
		t.Helper()
		requireTruth(t, e, all, text, at(15, 60))
		require.Equal(t, []int{times, times}, []int{asked(a), asked(b)}, text)
	}
	f(1, `avg(m_total)`)
	f(1, `m_total / m_total`)
	f(1, `m_total{job="j",instance="t0"} + m_total{instance="t0",job="j"}`)
	f(1, `quantile(0.5, m_total) + sum(m_total)`)
	// What is among the series of another selector is not fetched, either.
	f(1, `sum(m_total{instance="t0"}) / sum(m_total)`)
	f(1, `sum(rate(m_total{instance=~"t0|t1",job="j"}[5m])) / sum(rate(m_total{job="j"}[5m])) * count(rate(m_total{job="j",instance="t2"}[5m]))`)
	f(1, `m_total{instance="t0"} * on (group) group_left () count by (group) (m_total) / on (group) group_left () sum by (group) (m_total{instance!="t1"})`)
	f(1, `rate(m_total{instance="t0"}[1m]) / rate(m_total[5m])`)
	f(2, `m_total{instance="t0"} / m_total{job="j"}`)
	f(2, `m_total{instance="t0"} / m_total offset 1m`)
	f(2, `sum(m_total{instance="t0"}) / sum(rate(m_total[5m]))`)
}
