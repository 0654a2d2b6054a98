package promqlx

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/request"
)

// countedEngine is an engine over groups whose metrics reg has.
func countedEngine(t *testing.T, change func(*promql.EngineOpts, *servergroup.Options), cfgs ...config.Group) (*Engine, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewRegistry()
	so := servergroup.Options{Now: func() time.Time { return time.UnixMilli(3 * 3600_000) }, Features: []string{"use-start-timestamps"}, Registerer: reg}
	eo := executionOpts()
	change(&eo, &so)
	set, err := servergroup.NewSet(so)
	require.NoError(t, err)
	t.Cleanup(set.Close)
	require.NoError(t, set.Apply(t.Context(), cfgs, config.PartialWarn))
	e := NewEngine(eo, set)
	t.Cleanup(func() { require.NoError(t, e.Close()) })
	return e, reg
}

// sharesOf are the shares that are counted: as `evaluated`, or by reason, by group.
func sharesOf(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			of := func(name string) string {
				for _, l := range m.GetLabel() {
					if l.GetName() == name {
						return l.GetValue()
					}
				}
				return ""
			}
			switch f.GetName() {
			case "oneprom_pushdown_evaluated_total":
				out[of("group")+" evaluated"] += m.GetCounter().GetValue()
			case "oneprom_pushdown_lost_total":
				out[of("group")+" "+of("reason")] += m.GetCounter().GetValue()
			}
		}
	}
	return out
}

// TestPushdown_WhatIsLostIsCounted: a query per case, and what it counts.
func TestPushdown_WhatIsLostIsCounted(t *testing.T) {
	const text = `sum(foo)`
	unchanged := func(*promql.EngineOpts, *servergroup.Options) {}
	groups := func(cfgs ...config.Group) []config.Group { return cfgs }
	changed := func(cfg config.Group, f func(*config.Group)) config.Group {
		f(&cfg)
		return cfg
	}
	// All have the same data, as opening a storage takes longer than the test.
	const others = "\n  bar 1x720\n  hist{instance=\"t0\",job=\"j\"} {{schema:0 count:3 sum:4 buckets:[1 2]}}x720"
	data := promqltest.LoadedStorage(t, "load 15s"+targets("", true)+others)
	a, b := newStoreOf(t, data), newStoreOf(t, data)
	answering := func(path, body string) *store {
		s := newStoreOf(t, data)
		s.everywhere(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == path {
				w.Header().Set("Content-Type", "application/json")
				_, _ = io.WriteString(w, body)
				return
			}
			s.own.ServeHTTP(w, r)
		})
		return s
	}
	for name, c := range map[string]struct {
		text   string
		cfgs   []config.Group
		change func(*promql.EngineOpts, *servergroup.Options)
		want   map[string]float64
	}{
		"nothing":      {text, groups(groupAt("g", nil, a, b)), unchanged, map[string]float64{"g evaluated": 1}},
		"a selector":   {`foo`, groups(changed(groupAt("g", nil, a, b), pushdownOff)), unchanged, map[string]float64{}},
		"off":          {text, groups(changed(groupAt("g", nil, a, b), pushdownOff)), unchanged, map[string]float64{"g off": 1}},
		"merge":        {text, groups(changed(groupAt("g", nil, a, b), mergeAll)), unchanged, map[string]float64{"g merge": 1}},
		"only overlap": {text, groups(groupAt("g", nil, a, b), groupAt("h", nil, a, b)), unchanged, map[string]float64{"g overlap": 1, "h overlap": 1}},
		"some overlap": {
			text, groups(groupAt("e", map[string]string{"z": "1"}, a, b), groupAt("f", map[string]string{"z": "2"}, a, b), groupAt("g", map[string]string{"z": "2"}, a, b)), unchanged,
			map[string]float64{"e evaluated": 1, "f overlap": 1, "g overlap": 1},
		},
		"overlap at a seam":         {text + ` + 1`, groups(groupAt("g", nil, a, b), tier("h", age("110m", ""), nil, a, b)), unchanged, map[string]float64{"g evaluated": 1}},
		"overlap at most steps":     {text, groups(groupAt("g", nil, a, b), tier("h", age("110m", ""), nil, a, b)), unchanged, map[string]float64{"g evaluated": 1, "g overlap": 1, "h overlap": 1}},
		"overlap in a selector":     {`foo`, groups(groupAt("g", nil, a, b), groupAt("h", nil, a, b)), unchanged, map[string]float64{}},
		"time range":                {text, groups(changed(groupAt("g", nil, a, b), func(c *config.Group) { require.NoError(t, c.TimeRange.MinAge.Set("110m")) })), unchanged, map[string]float64{"g time_range": 1}},
		"store":                     {text, groups(changed(groupAt("g", nil, a), func(c *config.Group) { c.ReplicaLabels = []string{"replica"} })), unchanged, map[string]float64{"g shared_store": 1}},
		"who asks":                  {text, groups(changed(groupAt("g", nil, a, b), func(c *config.Group) { c.ForwardHeaders = []string{"X-Org"} })), unchanged, map[string]float64{"g forward_headers": 1}},
		"features":                  {text, groups(groupAt("g", nil, a, b)), func(_ *promql.EngineOpts, so *servergroup.Options) { so.Features = nil }, map[string]float64{"g features": 1}},
		"delayed names":             {text, groups(groupAt("g", nil, a, b)), func(eo *promql.EngineOpts, _ *servergroup.Options) { eo.EnableDelayedNameRemoval = true }, map[string]float64{"g features": 1}},
		"delayed names, a selector": {`foo`, groups(groupAt("g", nil, a, b)), func(eo *promql.EngineOpts, _ *servergroup.Options) { eo.EnableDelayedNameRemoval = true }, map[string]float64{}},
		"own labels":                {text, groups(groupAt("g", map[string]string{"job": "k"}, a)), unchanged, map[string]float64{"g own_labels": 1}},
		"dialect":                   {text, groups(changed(groupAt("g", nil, a), func(c *config.Group) { c.Kind = "mimir" })), unchanged, map[string]float64{"g dialect": 1}},
		"hidden flags":              {text, groups(groupAt("g", nil, answering("/api/v1/status/flags", "{}"))), unchanged, map[string]float64{"g unknown": 1}},
		"unscraped":                 {`sum(bar)`, groups(groupAt("g", nil, a, b)), unchanged, map[string]float64{"g unscraped": 1}},
		"no scrapes":                {text, groups(groupAt("g", map[string]string{"job": "k"}, a, b)), unchanged, map[string]float64{"g no_evidence": 1}},
		"no histograms":             {`sum(hist)`, groups(groupAt("g", nil, a)), unchanged, map[string]float64{"g answer": 1}},
	} {
		t.Run(name, func(t *testing.T) {
			e, reg := countedEngine(t, c.change, c.cfgs...)
			when := at(60, 90)
			if strings.Contains(name, "seam") {
				when = at(60, 179)
			}
			res, _ := executed(t, e, c.text, when)
			require.NoError(t, res.Err)
			require.Equal(t, c.want, sharesOf(t, reg))
		})
	}

	// A request that wants to compare is not counted.
	e, reg := countedEngine(t, unchanged, groupAt("g", nil, a, b))
	q, err := e.NewRangeQuery(t.Context(), nil, nil, text, at(60, 90).start, at(60, 90).end, time.Minute)
	require.NoError(t, err)
	defer q.Close()
	require.NoError(t, q.Exec(request.With(t.Context(), func(r *request.Request) { r.Pushdown = config.PushdownOff })).Err)
	require.Empty(t, sharesOf(t, reg))
}

// TestPushdown_MostOfTheLoadIsAFinding of the group, which says what to change.
func TestPushdown_MostOfTheLoadIsAFinding(t *testing.T) {
	e, _ := countedEngine(t, func(_ *promql.EngineOpts, so *servergroup.Options) { so.Features = nil }, groupAt("g", nil, newStore(t, targets("", true))))
	findings := func() string { return strings.Join(e.groups.Status()[0].Findings, "\n") }
	for i := range 100 {
		require.Empty(t, findings())
		res, _ := executed(t, e, fmt.Sprintf(`sum(foo) + %d`, i), instantAt(60))
		require.NoError(t, res.Err)
	}
	require.Contains(t, findings(), "most of what its servers could evaluate of queries is evaluated by oneprom, from samples, because features that change PromQL")
}
