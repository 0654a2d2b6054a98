package promqlx

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/promqlx/explain"
	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/request"
)

// age is a time_range by ages, each "" if there is none.
func age(least, most string) config.TimeRange {
	var out config.TimeRange
	for text, into := range map[string]*model.Duration{least: &out.MinAge, most: &out.MaxAge} {
		if text != "" {
			if err := into.Set(text); err != nil {
				panic(err)
			}
		}
	}
	return out
}

// tier is a group with a time_range.
func tier(name string, r config.TimeRange, lset map[string]string, stores ...*store) config.Group {
	cfg := groupAt(name, lset, stores...)
	cfg.TimeRange = r
	return cfg
}

// tiered are layouts in which the time_range of groups ends within the last three hours. Each replica
// has all data.
func tiered(t *testing.T) (layouts map[string][]config.Group, all truth) {
	t.Helper()
	const eu, us = `,region="eu"`, `,region="us"`
	labelled := func(region string) map[string]string { return map[string]string{"region": region} }
	own := func(load string) []*store { return []*store{newStore(t, load), newStore(t, load)} }
	e, u, a := own(targets("", true)), own(targets("", true)), newStore(t, targets(eu, true)+targets(us, true))
	return map[string][]config.Group{
		"archive of what is old": {groupAt("eu", labelled("eu"), e...), groupAt("us", labelled("us"), u...), tier("archive", age("1h", ""), nil, a)},
		"they abut":              {tier("eu", age("", "1h"), labelled("eu"), e...), tier("us", age("", "1h"), labelled("us"), u...), tier("archive", age("1h", ""), nil, a)},
		"they overlap":           {tier("eu", age("", "80m"), labelled("eu"), e...), tier("us", age("", "80m"), labelled("us"), u...), tier("archive", age("1h", ""), nil, a)},
		"archive first":          {tier("archive", age("1h", ""), nil, a), tier("eu", age("", "70m"), labelled("eu"), e...), tier("us", age("", "70m"), labelled("us"), u...)},
		"three tiers": {
			tier("eu", age("", "50m"), labelled("eu"), e...), tier("us", age("", "50m"), labelled("us"), u...),
			tier("middle", age("40m", "95m"), nil, a), tier("archive", age("90m", ""), nil, a),
		},
		"evaluated here": {
			tier("eu", age("", "1h"), labelled("eu"), e...), tier("us", age("", "80m"), labelled("us"), u[0]),
			func() config.Group {
				g := tier("archive", age("1h", ""), nil, a)
				pushdownOff(&g)
				return g
			}(),
		},
	}, truthOf(t, targets(eu, true)+targets(us, true))
}

// regionalQueries are the executedQueries but for those whose answers are undetermined where regions have the
// same values, and targets of one name.
func regionalQueries() []string {
	return slices.DeleteFunc(slices.Clone(executedQueries), func(text string) bool {
		return text == `topk(1, m_total)` || text == `foo * on (instance) group_left () m_total`
	})
}

// TestStretches_Truth: the answer is the same wherever its steps are divided.
func TestStretches_Truth(t *testing.T) {
	layouts, all := tiered(t)
	queries := append([]string{
		`sum by (region) (rate(m_total[5m]))`,
		`foo{region="eu"} - ignoring (region) foo{region="us"}`,
		`count_values("v", foo)`,
		`sum(m_total @ 4000)`,
		`sum(m_total @ end())`,
		`sum by (region) (foo @ 9000) + sum by (region) (m_total offset 15m)`,
		`sum(rate(m_total[5m] offset -10m))`,
		`timestamp(m_total)`,
		`-m_total`,
		`sum_over_time(avg by (region) (m_total)[40m:3m])`,
		`label_replace(m_total, "x", "$1", "instance", "t(.*)")`,
		`{job="j",__name__=~"m_total|foo"}`,
		`vector(scalar(sum(m_total)))`,
		`sort_by_label(m_total, "instance")`,
		`sum(foo unless on (instance) (m_total > 6000))`,
		`foo * on (instance, region) group_left () m_total`,
		`topk(1, m_total{region="eu"})`,
	}, regionalQueries()...)
	for name, groups := range layouts {
		t.Run(name, func(t *testing.T) {
			e := engineOver(t, config.PartialWarn, groups...)
			for _, text := range queries {
				for _, when := range []times{at(20, 179), at(100, 140), at(119, 121), instantAt(121)} {
					requireTruth(t, e, all, text, when)
				}
			}
		})
	}
}

// stretchesOf prints the stretches of a query as an execution has them: what is said of why there are no
// parts, and the groups that are asked.
func stretchesOf(t *testing.T, e *Engine, text string, at times) (list []string) {
	t.Helper()
	out, _, err := e.Analyze(t.Context(), Question{Query: text, Start: at.start, End: at.end, Interval: at.interval})
	require.NoError(t, err)
	minute := func(s explain.Seconds) string { return fmt.Sprint(time.Duration(s * 1e9).Minutes()) }
	stretches := out.Stretches
	if len(stretches) == 0 {
		stretches = []*explain.Explanation{out}
	}
	for _, s := range stretches {
		line := minute(s.Steps.Start) + "-" + minute(s.Steps.End)
		for _, p := range s.Parts {
			for _, partition := range p.Partitions {
				names := make([]string, len(partition.Groups))
				for i, g := range partition.Groups {
					names[i] = g.Name
				}
				line += " " + strings.Join(names, "+")
				for _, piece := range partition.Pieces {
					line += " " + piece.Execution
				}
			}
		}
		if s.NoParts != "" {
			line += " no parts"
		}
		list = append(list, line)
	}
	return list
}

// TestStretches_WhoEvaluates: groups evaluate the steps of which they alone have the samples, but for
// six minutes beside those that others have, too.
func TestStretches_WhoEvaluates(t *testing.T) {
	layouts, _ := tiered(t)
	engines := map[string]*Engine{}
	for name, groups := range layouts {
		engines[name] = engineOver(t, config.PartialWarn, groups...)
	}
	for _, c := range []struct {
		layout, text string
		at           times
		want         []string
	}{
		{"archive of what is old", `sum(rate(m_total[5m]))`, at(90, 179), []string{"90-130 no parts", "131-179 eu remote us remote"}},
		{"archive of what is old", `sum(rate(m_total[5m]))`, at(140, 179), []string{"140-179 eu remote us remote"}},
		{"archive of what is old", `sum(rate(m_total[5m]))`, at(90, 110), []string{"90-110 no parts"}},
		{"archive of what is old", `sum(m_total offset 20m)`, at(90, 179), []string{"90-150 no parts", "151-179 eu remote us remote"}},
		{"archive of what is old", `sum(m_total @ 3600)`, at(150, 179), []string{"150-179 no parts"}},
		{"archive of what is old", `sum(m_total @ 10000)`, at(60, 80), []string{"60-80 eu remote us remote"}},
		{"archive of what is old", `sum(m_total) - sum(m_total offset 20m)`, at(90, 179), []string{"90-150 no parts", "151-179 eu remote us remote eu remote us remote"}},
		{"archive of what is old", `max_over_time(sum(m_total)[10m:1m])`, at(90, 179), []string{"90-140 no parts", "141-179 eu remote us remote"}},
		{"archive of what is old", `sum(m_total{region="eu"})`, at(90, 179), []string{"90-130 no parts", "131-179 eu remote"}},
		{"they abut", `sum(rate(m_total[5m]))`, at(60, 179), []string{"60-113 archive remote", "114-130 no parts", "131-179 eu remote us remote"}},
		{"they overlap", `sum(rate(m_total[5m]))`, at(60, 179), []string{"60-93 archive remote", "94-130 no parts", "131-179 eu remote us remote"}},
		{"three tiers", `sum(rate(m_total[5m]))`, at(60, 179), []string{
			"60-78 archive remote", "79-100 no parts", "101-123 middle remote", "124-150 no parts", "151-179 eu remote us remote",
		}},
		// Samples alone are fetched once.
		{"they abut", `m_total`, at(60, 179), []string{"60-179 no parts"}},
		// Where names are taken from series, the engine refuses those with equal labels in all steps.
		{"they abut", `sum({job="j",__name__=~"m_total|foo"})`, at(60, 179), []string{"60-179 no parts"}},
	} {
		require.Equal(t, c.want, stretchesOf(t, engines[c.layout], c.text, c.at), "%s: %s", c.layout, c.text)
	}
}

// TestStretches_WhatIsMissing: a group that is gone is gone in all stretches, and the answer says so.
func TestStretches_WhatIsMissing(t *testing.T) {
	layouts, _ := tiered(t)
	groups := layouts["they abut"]
	gone := newStore(t, targets("", true))
	gone.Close()
	groups[1] = tier("us", age("", "1h"), map[string]string{"region": "us"}, gone)
	e := engineOver(t, config.PartialWarn, groups...)
	var record completeness.Record
	q, err := e.NewRangeQuery(t.Context(), nil, nil, `sum(m_total)`, at(60, 179).start, at(60, 179).end, time.Minute)
	require.NoError(t, err)
	defer q.Close()
	res := q.Exec(request.With(t.Context(), func(r *request.Request) { r.Record = &record }))
	require.NoError(t, res.Err)
	warnings, _ := res.Warnings.AsStrings(`sum(m_total)`, 0, 0)
	require.Len(t, warnings, 1)
	require.Contains(t, warnings[0], `partial answer: server group "us" did not answer`)
	gaps := record.Gaps()
	require.Len(t, gaps, 1)
	require.Equal(t, "us", gaps[0].Group)

	res, _ = executed(t, e, `absent(m_total{region="us"})`, at(60, 179))
	require.ErrorContains(t, res.Err, `server group "us" did not answer`)
	res, _ = executed(t, engineOver(t, config.PartialError, groups...), `sum(m_total)`, at(60, 179))
	require.ErrorContains(t, res.Err, `server group "us" did not answer`)
}

// TestStretches_WhatIsSaid: annotations and errors are those of one evaluation.
func TestStretches_WhatIsSaid(t *testing.T) {
	mixed := func(lset string) string {
		return targets(lset, true) + fmt.Sprintf("\n  mix{instance=\"t0\",job=\"j\"%s} {{schema:0 count:3 sum:4 buckets:[1 2]}}x720\n  mix{instance=\"t1\",job=\"j\"%[1]s} 1x720"+
			"\n  churn{pod=\"a\"%[1]s} 1x479 stale\n  churn{pod=\"b\"%[1]s} _x480 1x240\n  a_total{x=\"1\"%[1]s} 1x479 stale\n  b_total{x=\"1\"%[1]s} _x480 1x240", lset)
	}
	a, b, c := newStore(t, mixed("")), newStore(t, mixed("")), newStore(t, mixed(`,region="eu"`))
	e := engineOver(t, config.PartialWarn, tier("eu", age("", "1h"), map[string]string{"region": "eu"}, a, b), tier("archive", age("1h", ""), nil, c))
	all := truthOf(t, mixed(`,region="eu"`))
	for _, text := range []string{
		`sum(mix) or sum(foo)`, `sum by (job) (foo) or histogram_quantile(0.5, mix)`, `sum(mix + foo) or sum(foo)`, `quantile(2, foo)`, `quantile(time(), foo)`,
		`sort(foo + 1)`, `label_replace(churn, "pod", "", "", "")`, `label_join(churn, "pod", "", "none")`,
	} {
		for _, when := range []times{at(60, 179), {at(60, 60).start, at(160, 160).start, 100 * time.Minute}} { // or a step in each stretch
			requireTruth(t, e, all, text, when)
		}
	}
	for _, text := range []string{
		`foo * on (job) group_left () m_total`, `label_replace(foo, "instance", "", "", "")`,
		`rate({__name__=~"a_total|b_total"}[2m])`, // they have the same labels, but never at the same step
	} {
		want, _ := all(text, at(60, 179))
		got, _ := executed(t, e, text, at(60, 179))
		require.Error(t, want.Err, text)
		require.EqualError(t, got.Err, want.Err.Error(), text)
	}
}

// TestStretches_WhyNot: an explanation says why the steps are not divided.
func TestStretches_WhyNot(t *testing.T) {
	layouts, _ := tiered(t)
	e := engineOver(t, config.PartialWarn, layouts["they abut"]...)
	holed := slices.Clone(layouts["they abut"])
	holed[2] = tier("archive", age("70m", ""), nil, newStore(t, targets(`,region="eu"`, true)))
	for _, c := range []struct {
		e          *Engine
		text, want string
	}{
		{e, `sum(rate(m_total[5m]))`, ""},
		{e, `scalar(sum(m_total))`, "the result is no vector"},
		{e, `quantile(2, m_total)`, "a quantile is not a literal from 0 to 1"},
		{e, `sort_desc(m_total)`, "sort_desc() looks at all steps at once"},
		{e, `sum({__name__=~"m_total|foo"})`, "a selector may find several names"},
		{e, `m_total`, "the groups would evaluate nothing but selectors, whose samples are fetched once"},
		{engineOver(t, config.PartialWarn, holed...), `sum(m_total)`, "no group holds all of a window"},
	} {
		when := at(60, 179)
		out, _, err := c.e.Analyze(t.Context(), Question{Query: c.text, Start: when.start, End: when.end, Interval: when.interval})
		require.NoError(t, err, c.text)
		require.Equal(t, c.want, out.NoStretches, c.text)
		if c.want != "" {
			require.Contains(t, out.Text(), "\nno stretches: "+c.want+"\n")
		}
	}
}
