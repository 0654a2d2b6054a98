package promqlx

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/promqlx/explain"
	"github.com/oneprom/oneprom/servergroup/config"
)

// wounded is the data of a fleet of targets over 80 minutes. From minute 10 on, in
// each stretch of five minutes another two of them were not scraped, from the one
// numbered first on; none lacks anything if that is negative.
func wounded(fleet, first int) string {
	const perStretch, scrapes = 2, 20
	var b strings.Builder
	for i := range fleet {
		counter, up := fmt.Sprintf("0+%dx320", i+1), "1x320"
		if nth := (i - first) / perStretch; first >= 0 && i >= first && nth < 12 {
			from := 40 + nth*scrapes // scrapes before it
			counter = fmt.Sprintf("0+%dx%d _x%d %d+%[1]dx%[5]d", i+1, from-1, scrapes, (from+scrapes)*(i+1), 320-from-scrapes)
			up = fmt.Sprintf("1x%d _x%d 1x%d", from-1, scrapes, 320-from-scrapes)
		}
		target := fmt.Sprintf(`{instance="t%04d:80",job="j"}`, i)
		fmt.Fprintf(&b, "\n  up%s %s\n  m_total%s %s", target, up, target, counter)
	}
	return b.String()
}

// TestExecute_LargeFleet: of 1,000 targets, at every moment each of two replicas lacks
// the scrapes of a few. The answer is the truth's, and at least 95 of 100 series are
// answered by a replica.
func TestExecute_LargeFleet(t *testing.T) {
	const fleet = 1000
	a, b := newStore(t, wounded(fleet, 100)), newStore(t, wounded(fleet, 600))
	e, all := engineOver(t, config.PartialWarn, groupAt("g", nil, a, b)), truthOf(t, wounded(fleet, -1))
	for _, text := range []string{`sum(rate(m_total[5m]))`, `topk(3, rate(m_total[5m]))`, `count by (job) (m_total > 1000)`, `avg(m_total) + count(m_total)`, `quantile(0.9, rate(m_total[5m]))`} {
		for _, span := range []times{at(15, 75), at(30, 40), instantAt(42)} {
			requireTruth(t, e, all, text, span)
			q := Question{Query: text, Start: span.start, End: span.end, Interval: span.interval}
			if span.interval == 0 {
				q.End = q.Start
			}
			out, _, err := e.Analyze(t.Context(), q)
			require.NoError(t, err)
			require.NotEmpty(t, out.Parts)
			for _, p := range out.Parts {
				requireMostlyRemote(t, p.Partitions[0].Pieces, fleet)
			}
		}
	}
}

// requireMostlyRemote demands that at all steps a replica answers for all targets but
// one in twenty.
func requireMostlyRemote(t *testing.T, pieces []explain.Piece, fleet int) {
	t.Helper()
	remote := 0
	for _, p := range pieces {
		if p.Execution != explain.Remotely {
			require.NotEmpty(t, p.Targets, p.Why)
			continue
		}
		remote++
		require.NotEmpty(t, p.Targets, "each replica lacks some")
		cut := 1 + strings.Count(p.Targets, "|")
		require.LessOrEqual(t, cut, fleet/20, p.Targets)
	}
	require.NotZero(t, remote)
}
