package promqlx

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/promqlx/enginetest"
	"github.com/oneprom/oneprom/promqlx/explain"
	"github.com/oneprom/oneprom/servergroup/config"
)

// recorded is what rules have written into the archive, until the present.
const recorded = `
  job:m:rate5m{job="j",region="eu",source="oneprom"} 3+1x720
  job:m:rate5m{job="j",region="us",source="oneprom"} 5+2x720
  total:m{source="oneprom"} 7+1x720
  m_total{instance="t9",job="j",source="oneprom"} 0+3x720
  ALERTS_FOR_STATE{alertname="Down",job="j",source="oneprom"} 42x720`

// archiveOf is the configuration of the README: two regions, and an archive that has their data and
// the recordings, of which the youngest hour is not asked for.
func archiveOf(t *testing.T, change ...func(*config.Group)) (e *Engine, all truth, stores map[string]*store) {
	t.Helper()
	both := targets(`,region="eu"`, true) + targets(`,region="us"`, true)
	stores = map[string]*store{"eu": newStore(t, targets("", true)), "us": newStore(t, targets("", true)), "archive": newStore(t, both+recorded)}
	archive := groupAt("archive", nil, stores["archive"])
	archive.TimeRange.MinAge = model.Duration(time.Hour)
	archive.Holds = []string{`{source="oneprom"}`}
	for _, c := range change {
		c(&archive)
	}
	require.NoError(t, archive.Validate())
	e = engineOver(t, config.PartialWarn,
		groupAt("eu", map[string]string{"region": "eu"}, stores["eu"]),
		groupAt("us", map[string]string{"region": "us"}, stores["us"]), archive)
	return e, truthOf(t, both+recorded), stores
}

// heldQueries are of recordings, of the data of the pairs, and of both.
var heldQueries = []string{
	`job:m:rate5m`,
	`job:m:rate5m{source="oneprom"}`,
	`{source=~"one.*"}`,
	`{source=~"oneprom|two"}`,
	`ALERTS_FOR_STATE`,
	`{job=~".+"}`,
	`{job="j",source!="oneprom"}`,
	`sum(job:m:rate5m)`,
	`sum by (region) (job:m:rate5m)`,
	`sum(m_total)`,
	`sum by (region, source) (m_total)`,
	`avg by (region) (m_total)`,
	`quantile by (region) (0.3, m_total)`,
	`count by (__name__) ({job="j"})`,
	`sum(rate(m_total{source=""}[5m]))`,
	`topk(2, m_total)`,
	`sum by (region) (job:m:rate5m) / sum by (region) (m_total)`,
	`job:m:rate5m / on (region) group_left () sum by (region) (m_total)`,
	`sum(total:m) + sum(foo)`,
	`absent(total:m{source="none"})`,
	`max_over_time(sum(rate(m_total[5m]))[10m:1m])`,
}

// TestHolds_WhatAGroupAloneHoldsHasNoTimeRange: recordings are there at once, in whatever query, and of
// all other series the archive is asked for what its time_range says.
func TestHolds_WhatAGroupAloneHoldsHasNoTimeRange(t *testing.T) {
	for name, change := range map[string]func(*config.Group){
		"by one matcher":      func(*config.Group) {},
		"by several matchers": func(g *config.Group) { g.Holds = []string{`{source="oneprom",__name__=~".+"}`} },
		"by two selectors":    func(g *config.Group) { g.Holds = []string{`{source="oneprom"}`, `{__name__="ALERTS_FOR_STATE"}`} },
		"evaluated here":      pushdownOff,
	} {
		t.Run(name, func(t *testing.T) {
			e, all, _ := archiveOf(t, change)
			for _, text := range heldQueries {
				for _, when := range []times{at(170, 180), at(110, 130), at(20, 30), instantAt(179), instantAt(121), instantAt(50)} {
					requireTruth(t, e, all, text, when)
				}
			}
		})
	}
}

// TestHolds_NothingIsSilentlyMissingWithoutIt: this is what the archive of the test hides.
func TestHolds_NothingIsSilentlyMissingWithoutIt(t *testing.T) {
	e, _, _ := archiveOf(t, func(g *config.Group) { g.Holds = nil })
	res, _ := executed(t, e, `total:m`, instantAt(179))
	require.NoError(t, res.Err)
	require.Empty(t, enginetest.Lines(res.Value))
}

// planOf is the explanation of an instant query.
func planOf(t *testing.T, e *Engine, text string, minute int64) *explain.Explanation {
	t.Helper()
	out, err := e.Explain(t.Context(), e.groups.View(t.Context()), Question{Query: text, Start: instantAt(minute).start, End: instantAt(minute).start})
	require.NoError(t, err)
	return out
}

// partitionsOf are the groups of the partitions of the first part, as the explanation names them.
func partitionsOf(out *explain.Explanation) (names []string) {
	for line := range strings.Lines(out.Text()) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "partition "); ok {
			names = append(names, name)
		}
	}
	return names
}

// TestHolds_WhoIsAsked: what one group alone holds is asked of it alone, and tells partitions apart.
func TestHolds_WhoIsAsked(t *testing.T) {
	e, _, stores := archiveOf(t)
	asked := func(text string, minute int64) (names []string) {
		for _, s := range stores {
			s.asked()
		}
		res, said := executed(t, e, text, instantAt(minute))
		require.NoError(t, res.Err)
		require.Empty(t, said)
		for name, s := range stores {
			queries, reads := s.asked()
			// Probes ask for other metrics.
			if slices.ContainsFunc(slices.Concat(queries, reads), func(q string) bool { return strings.Contains(q, "m_total") || strings.Contains(q, "job:") }) {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		return names
	}
	for minute, recent := range map[int64]bool{179: true, 60: false} {
		f := func(text string, want ...string) {
			t.Helper()
			require.Equal(t, want, asked(text, minute), "%s at %d", text, minute)
		}
		f(`sum(job:m:rate5m{source="oneprom"})`, "archive")
		f(`sum({source=~"oneprom",__name__=~"job:.*"})`, "archive")
		f(`sum(m_total)`, "archive", "eu", "us")
		if recent {
			f(`sum(m_total{source=""})`, "eu", "us")
			f(`sum(m_total{source!="oneprom"})`, "eu", "us")
			f(`sum(m_total{source=~"prometheus|",region="eu"})`, "eu")
		} else {
			f(`sum(m_total{source=""})`, "archive", "eu", "us")
		}
	}
	only := `archive (1 replica) only {source="oneprom"}`
	require.Equal(t, []string{only, `eu (1 replica) with region="eu"`, `us (1 replica) with region="us"`}, sortedTexts(partitionsOf(planOf(t, e, `sum(m_total)`, 179))))
	require.Equal(t, []string{only}, partitionsOf(planOf(t, e, `sum(m_total{source="oneprom"})`, 179)))
	require.Equal(t, []string{only, "eu (1 replica) + us (1 replica) + archive (1 replica) without {source=\"oneprom\"}"}, sortedTexts(partitionsOf(planOf(t, e, `sum(m_total)`, 60))))
	text := planOf(t, e, `total:m{source="oneprom"}`, 179).Text()
	require.Contains(t, text, "not asked: eu: `holds` of server group \"archive\" says that others do not have such series\n")
	require.Contains(t, text, "asked: archive\n")
	text = planOf(t, e, `total:m`, 179).Text()
	require.Contains(t, text, `asked: eu, us, archive (only {source="oneprom"})`)
}

func sortedTexts(list []string) []string {
	slices.Sort(list)
	return list
}

// TestHolds_AContradictionIsFound: a group that has such series, too, is asked from then on, and the
// answer says why.
func TestHolds_AContradictionIsFound(t *testing.T) {
	e, _, _ := archiveOf(t)
	eu := newStore(t, targets("", true)+"\n  other{source=\"oneprom\"} 1x720")
	archive := newStore(t, recorded)
	for _, text := range []string{`{source=~".*prom",__name__=~"other|total:m"}`, `{source="oneprom",__name__=~"other|total:m"}`} {
		cfg := groupAt("archive", nil, archive)
		cfg.TimeRange.MinAge, cfg.Holds = model.Duration(time.Hour), []string{`{source="oneprom"}`}
		e = engineOver(t, config.PartialWarn, groupAt("eu", map[string]string{"region": "eu"}, eu), cfg)
		require.Eventually(t, func() bool {
			res, said := executed(t, e, text, instantAt(179))
			return res.Err == nil && len(enginetest.Lines(res.Value)) == 2 && len(said) == 1 &&
				strings.Contains(said[0], "`holds` says that no other group has series of {source=\"oneprom\"}, but server group \"eu\" has {__name__=\"other\", region=\"eu\", source=\"oneprom\"}")
		}, time.Minute, time.Millisecond)
		// A sum would be wrong if the groups were still believed to be apart.
		res, said := executed(t, e, `count({source="oneprom"})`, instantAt(179))
		require.NoError(t, res.Err)
		require.Len(t, said, 1)
		require.EqualValues(t, 6, res.Value.(promql.Vector)[0].F)
	}
}
