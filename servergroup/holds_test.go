package servergroup

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest"
	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/findings"
	"github.com/oneprom/oneprom/servergroup/lookup"
	"github.com/oneprom/oneprom/servergroup/partition"
	"github.com/oneprom/oneprom/servergroup/request"
	"github.com/oneprom/oneprom/servergroup/survey"
	"github.com/oneprom/oneprom/servergroup/view"
)

// archiveGroup is a group that alone holds series, and is asked for nothing else of the last half
// minute.
func archiveGroup(t *testing.T, load string) config.Group {
	t.Helper()
	cfg := recent(t, "archive", load)
	cfg.TimeRange.MinAge = model.Duration(30 * time.Second)
	cfg.Holds = []string{`{source="oneprom"}`}
	require.NoError(t, cfg.Validate())
	return cfg
}

const archived = `load 15s
 foo{i="1"} 1x3
 old{i="1"} 1 stale
 total:foo{source="oneprom",i="2"} 1x3
 young:foo{source="oneprom",i="3"} _x2 1x1`

func TestHolds_LookupsFindWhatIsHeld(t *testing.T) {
	s, _, _ := loggedSet(t, recent(t, "eu", "load 15s\n foo{i=\"1\"} 1x3"), archiveGroup(t, archived))
	v := s.View(t.Context())
	recently := lookup.Lookup{MinT: 40_000, MaxT: 60_000}
	require.Equal(t, []string{"1", "2", "3"}, valuesOf(t, v, "i", recently))
	require.Equal(t, []string{"__name__", "i", "source"}, namesOf(t, v, recently))
	recently.Matchers = matchersOf(t, `{source=~"one.*"}`)
	require.Equal(t, []string{`{__name__="total:foo", i="2", source="oneprom"}`, `{__name__="young:foo", i="3", source="oneprom"}`}, seriesShown(t, v, recently))
	require.Len(t, v.RouteLookup(nil, 0, 60_000), 3, "the archive is asked for all within its range, and for what it holds beyond it")
	require.Len(t, v.RouteLookup(nil, 0, 20_000), 2, "the archive's range has it all")
	require.Len(t, v.RouteLookup(nil, 40_000, 60_000), 2)
	require.Len(t, v.RouteLookup(matchersOf(t, `{source="oneprom"}`), 0, 60_000), 1)
	require.Len(t, v.RouteServers(nil), 2, "servers are asked about themselves once")
	_, ws, err := survey.Of(v).Rules(t.Context(), true)
	require.NoError(t, err)
	require.Empty(t, strs(ws))
}

// TestHolds_TenantsSeeOnlyTheirOwn: what a group holds is restricted as all else.
func TestHolds_TenantsSeeOnlyTheirOwn(t *testing.T) {
	s, _, _ := loggedSet(t, recent(t, "eu", "load 15s\n foo{i=\"1\"} 1x3"), archiveGroup(t, archived))
	as := func(selector string) context.Context {
		return request.With(t.Context(), func(r *request.Request) { r.Restricted, r.Shown = true, matchersOf(t, selector) })
	}
	l := lookup.Lookup{MinT: 40_000, MaxT: 60_000}
	for selector, want := range map[string][]string{`{i="2"}`: {"2"}, `{i="1"}`: {"1"}, `{source="oneprom"}`: {"2", "3"}, `{source!="oneprom",i!=""}`: {"1"}} {
		require.Equal(t, want, valuesOf(t, s.View(as(selector)), "i", l), selector)
	}
	require.Len(t, s.View(as(`{source="oneprom"}`)).RouteMerge(matchersOf(t, `foo`), 40_000, 60_000), 1, "nobody else can have such series")
}

// TestHolds_AreComparedWithTheData: other groups are asked for what one says it alone holds, not
// only when a query asks for it, and one that has it is found.
func TestHolds_AreComparedWithTheData(t *testing.T) {
	var asked atomic.Int32
	h := backendtest.NewHandler(backendtest.Options{Queryable: promqltest.LoadedStorage(t, "load 15s\n other{source=\"oneprom\",i=\"4\"} 1x3")})
	eu := groupOf("eu", serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/series") {
			asked.Add(1)
		}
		h.ServeHTTP(w, r)
	})))
	eu.Labels = map[string]string{"region": "eu"}
	s, c, log := loggedSet(t, eu, recent(t, "us", "load 15s\n foo 1x3"), archiveGroup(t, archived))
	require.Eventually(t, func() bool { return len(findingsOf(s, "archive")) > 0 }, 30*time.Second, time.Millisecond)
	require.Equal(t, []string{"`holds` says that no other group has series of {source=\"oneprom\"}, but server group \"eu\" has {__name__=\"other\", i=\"4\", region=\"eu\", source=\"oneprom\"}: it is not relied on; remove the selector, make it narrower, or remove those series"}, findingsOf(s, "archive"))
	require.Equal(t, 1, log.count("it is not relied on"))
	require.Positive(t, asked.Load())

	// Until it is believed again, all groups are asked, and the answers say why.
	text, ws, err := selectText(t, s, `{source="oneprom"}`, 40_000, 60_000)
	require.NoError(t, err)
	require.Equal(t, 3, strings.Count(text, "\n"), text)
	require.Len(t, strs(ws), 1)
	require.Contains(t, strs(ws)[0], "it is not relied on")
	c.ms.Add(findings.Age.Milliseconds() + 1)
	require.Empty(t, findingsOf(s, "archive"))
	require.Len(t, s.View(t.Context()).RouteMerge(matchersOf(t, `{source="oneprom"}`), 0, 60_000), 1)
	s.compareHolds(t.Context())
	require.Empty(t, findingsOf(s, "eu"))
	c.ms.Store(60_000)
	s.compareHolds(t.Context())
	require.Len(t, findingsOf(s, "archive"), 1)
}

// TestHolds_OthersMaySayTheSame: groups that hold the same series are asked together.
func TestHolds_OthersMaySayTheSame(t *testing.T) {
	second := archiveGroup(t, "load 15s\n total:foo{source=\"oneprom\",i=\"2\"} 1x3\n more:foo{source=\"oneprom\",i=\"5\"} 1x3")
	second.Name = "second"
	s, _, _ := loggedSet(t, recent(t, "eu", "load 15s\n foo{i=\"1\"} 1x3"), archiveGroup(t, archived), second)
	s.compareHolds(t.Context())
	text, ws, err := selectText(t, s, `{source="oneprom"}`, 40_000, 60_000)
	require.NoError(t, err)
	require.Empty(t, strs(ws))
	require.Equal(t, `{__name__="more:foo", i="5", source="oneprom"} 45:1`+"\n"+`{__name__="total:foo", i="2", source="oneprom"} 45:1`+"\n"+`{__name__="young:foo", i="3", source="oneprom"} 45:1`+"\n", text)
}

// TestHolds_NoHolesWhereSeriesAreHeld: nothing is missing of what has no range.
func TestHolds_NoHolesWhereSeriesAreHeld(t *testing.T) {
	s, _, _ := loggedSet(t, archiveGroup(t, archived))
	require.Empty(t, warningsSince(t, s, `{source="oneprom"}`, 0))
	require.Empty(t, warningsSince(t, s, `{source="oneprom"}`, 40_000))
	ws := warningsSince(t, s, `foo`, 0)
	require.Len(t, ws, 1)
	require.Contains(t, ws[0], `no server group holds the data of "archive"`)
}

// TestHolds_TenantsAreNotToldOfOthers: neither warnings nor plans name a holder that a tenant may not
// see, nor what it says that it holds.
func TestHolds_TenantsAreNotToldOfOthers(t *testing.T) {
	hidden := recent(t, "secret", "load 15s\n foo{job=\"secret\"} 1x3")
	hidden.Labels = map[string]string{"team": "secret"}
	hidden.Holds = []string{`{job=~"own|secret"}`}
	eu := recent(t, "eu", "load 15s\n foo{job=\"own\"} 1x3\n foo{job=\"other\"} 1x3")
	eu.Holds = []string{`{job=~"other|zsecret"}`}
	eu.TimeRange.MaxAge = model.Duration(time.Hour)
	require.NoError(t, hidden.Validate())
	require.NoError(t, eu.Validate())
	s, _, _ := loggedSet(t, hidden, eu)
	ctx := request.With(t.Context(), func(r *request.Request) { r.Restricted, r.Shown = true, matchersOf(t, `{team=""}`) })
	told := func() string {
		v := s.View(ctx)
		var out []any
		for _, selector := range []string{`foo`, `foo{job="own"}`, `foo{job="other"}`} {
			sel := view.Selection{Matchers: matchersOf(t, selector), MaxT: 60_000}
			for _, r := range v.Routes(sel) {
				out = append(out, r.Group, r.Skipped, r.Only)
			}
			for _, p := range partition.Of(v, []view.Selection{sel}) {
				out = append(out, p.Members())
			}
			_, ws := fetched(ctx, t, v, sel)
			out = append(out, strs(ws))
		}
		return fmt.Sprint(out...)
	}
	before := told()
	require.NotContains(t, before, "secret")
	require.Contains(t, before, completeness.Withheld)
	require.NotEmpty(t, findingsOf(s, "secret"), "what it says is contradicted")
	require.NotContains(t, told(), "secret")
}
