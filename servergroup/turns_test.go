package servergroup

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest"
	"github.com/oneprom/oneprom/servergroup/backendtest/fault"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/lookup"
	"github.com/oneprom/oneprom/servergroup/view"
)

const turnsText = "several servers take turns at this URL, and each has missed something else: name each of them as a target, not what stands before them"

// anotherServer has some series that behindProxy's has not.
func anotherServer(t *testing.T) http.Handler {
	t.Helper()
	return backendtest.NewHandler(backendtest.Options{Queryable: promqltest.LoadedStorage(t, "load 15s\n foo{a=\"2\"} 1x3")})
}

// TestTurns_ServersBehindOneTargetAreAFinding: an answer is one of any of them, and not said to be whole.
func TestTurns_ServersBehindOneTargetAreAFinding(t *testing.T) {
	for _, balancer := range []func(http.Handler) fault.Fault{fault.TakesTurns, fault.TakesTurnsByConnection} {
		p, cfg := behindProxy(t)
		require.NoError(t, p.Set(balancer(anotherServer(t))))
		s, _ := setAt(t, cfg)
		said := `server group "a": http://` + p.Addr() + ": " + turnsText

		v := s.View(t.Context())
		_, ws := fetched(t.Context(), t, v, view.Selection{Matchers: matchersOf(t, `foo`), MaxT: 60_000})
		require.Equal(t, []string{said}, strs(ws))
		require.Equal(t, []string{said}, reasonsOf(v))
		require.Equal(t, []string{turnsText}, s.Status()[0].Replicas[0].Findings)

		v = s.View(t.Context())
		_, ws, err := lookup.LabelNames(t.Context(), v, lookupOf(t, `foo`, 0))
		require.NoError(t, err)
		require.Equal(t, []string{said}, strs(ws))
		require.Equal(t, []string{said}, reasonsOf(v))

		strict := newTestSet(t, config.PartialError, cfg)
		_, _, err = selectText(t, strict, `foo`, 0, 0)
		require.ErrorContains(t, err, turnsText)
		_, _, err = lookup.Series(t.Context(), strict.View(t.Context()), lookupOf(t, `foo`, 0))
		require.ErrorContains(t, err, turnsText)
	}
}

// reasonsOf returns why answers are not whole.
func reasonsOf(v *view.View) []string {
	var reasons []string
	for _, g := range v.Ledger.Gaps() {
		reasons = append(reasons, g.Reason)
	}
	return reasons
}

// TestTurns_RestartIsNone: the process that was there before does not come back. Doubts about turns end with the turns.
func TestTurns_RestartIsNone(t *testing.T) {
	p, cfg := behindProxy(t)
	s, c := setAt(t, cfg)
	findings := func() []string {
		t.Helper()
		c.ms.Add(60_000)
		<-firstReplica(s).Refresh()
		return s.Status()[0].Replicas[0].Findings
	}
	for range 3 {
		require.NoError(t, p.Set(fault.Replaces(anotherServer(t))))
		require.Empty(t, findings())
		require.Empty(t, findings())
	}
	require.NoError(t, p.Set(fault.TakesTurns(anotherServer(t))))
	require.Equal(t, []string{turnsText}, findings())
	require.NoError(t, p.Set(fault.Fault{}))
	require.Equal(t, []string{turnsText}, findings())
	c.ms.Add(time.Hour.Milliseconds())
	require.Empty(t, findings())
}

// TestTurns_ServerIsNotBelieved although, for all that its answers show, it missed no scrape.
func TestTurns_ServerIsNotBelieved(t *testing.T) {
	a, b := newEvaluator(t, there), newEvaluator(t, there)
	p, err := fault.New(a.Config.Handler)
	require.NoError(t, err)
	t.Cleanup(p.Close)
	front := &httptest.Server{URL: "http://" + p.Addr()}
	s, _ := evidenceSet(t, 3*hour, front, b.Server)
	require.Equal(t, []string{"10-60 0"}, shownPieces(s, chosen(t, s, false, 10*minute, hour)))

	require.NoError(t, p.Set(fault.TakesTurns(newEvaluator(t, there).Config.Handler)))
	s, _ = evidenceSet(t, 3*hour, front, b.Server)
	pieces := chosen(t, s, false, 10*minute, hour)
	require.Equal(t, []string{"10-60 merged"}, shownPieces(s, pieces))
	require.Contains(t, pieces[0].Why, "several servers take turns at its URL")
}
