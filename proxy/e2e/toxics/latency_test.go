package toxics

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest/fault"
)

// spells are what a fault is looked at for: before it, when it begins, and when it has lasted.
type spells struct {
	toxic                   string
	scope                   scope
	healthy, first, lasting []answered
	recovered               time.Duration
}

func (s *spells) row() string {
	p := func(list []answered, q float64) float64 { return quantile(durations(list), q).Seconds() * 1000 }
	both := func(list []answered) string { return fmt.Sprintf("%.0f / %.0f", p(list, 0.5), p(list, 0.99)) }
	ratio := func(q float64) float64 { return p(s.lasting, q) / p(s.healthy, q) }
	share := 0
	for _, a := range s.lasting {
		if a.outcome == right {
			share++
		}
	}
	return fmt.Sprintf("| %s | %s | %s | %s | %s | %.1f / %.1f | %d | %d |\n", s.toxic, s.scope.name,
		both(s.healthy), both(s.first), both(s.lasting), ratio(0.5), ratio(0.99), 100*share/len(s.lasting), s.recovered.Milliseconds())
}

const latencyHeader = "| Fault | At | Before, ms | First, ms | Lasting, ms | Lasting to before | Right, % | Right again, ms |\n|---|---|--:|--:|--:|--:|--:|--:|\n"

// TestLatency prints what answers take. Only that none is wrong or late is required: the times are
// those of a machine that has other things to do.
func TestLatency(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: make test-race runs it")
	}
	w := sharedWorld()
	table := latencyHeader
	for _, s := range []*spells{
		{toxic: "hangs", scope: scopes[0]},
		{toxic: "refuses connections", scope: scopes[2]},
		{toxic: "hangs", scope: scopes[2]},
	} {
		t.Run(s.toxic+"/"+s.scope.name, func(t *testing.T) { s.measure(t, w) })
		if t.Failed() {
			return
		}
		table += s.row()
	}
	t.Logf("medians and 99th percentiles of a query every %s\n%s", askEvery, table)
	checkTable(t, "latency", table)
}

func (s *spells) measure(t *testing.T, w *world) {
	// Queries that wait for servers must not keep others waiting here, whose times would be those of the queue.
	// What is kept needs no server.
	r := newRig(t, w, "--query.max-concurrency=1000", "--cache.size=0")
	r.start(t)
	r.settle(t, w)
	s.healthy = r.askFor(t.Context(), w, spell, ailment{})
	servers, ails := s.scope.within(r, false)
	f := map[string]fault.Fault{"hangs": fault.Hang(), "refuses connections": fault.Refuse()}[s.toxic]
	r.set(t, f, servers)
	s.first = r.askFor(t.Context(), w, spell, ails)
	s.lasting = r.askFor(t.Context(), w, 2*spell, ails)
	r.set(t, fault.Fault{}, servers)
	began := time.Now()
	require.Eventually(t, func() bool { return allRight(r.askAll(t.Context(), w, 0, ails)) }, recovery, 50*time.Millisecond)
	s.recovered = time.Since(began)
	for _, list := range [][]answered{s.healthy, s.first, s.lasting} {
		for _, a := range list {
			require.NotEqual(t, wrong, a.outcome, "%s after %s: %s", a.path, a.after, a.why)
		}
	}
}

// askEvery is the time from one question to the next.
const askEvery = 20 * time.Millisecond

// askFor asks queries, instant ones and such over ranges, for so long, whether those before are answered
// or not: if each waited for the last, few would meet a fault that makes them wait.
func (r *rig) askFor(ctx context.Context, w *world, d time.Duration, ails ailment) []answered {
	all := make([]answered, d/askEvery)
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	var wg sync.WaitGroup
	for n := range all {
		wg.Go(func() {
			q := questions(n / 2)[n%2]
			got := r.ask(ctx, q)
			all[n] = answered{q, got, w.judge(q, got, ails, nil)}
		})
		<-tick.C
	}
	wg.Wait()
	return all
}

func durations(list []answered) []time.Duration {
	out := make([]time.Duration, len(list))
	for i, a := range list {
		out[i] = a.after
	}
	return out
}

func TestWords_AreNotTimes(t *testing.T) {
	require.Equal(t, "401|one replica|right, labelled", words("| 401 | one replica | right, labelled | 12 / 30 | 1.5 |\n"))
	require.Equal(t, words("| a | b | 1 / 2 |"), words(strings.ReplaceAll("| a | b | 7 / 9 |", "7", "33")))
}

func TestAllows_WhatIsInParenthesesIsNotDemanded(t *testing.T) {
	f := func(want bool, line string) {
		t.Helper()
		require.Equal(t, want, allows("x|all|(right), (labelled), error|error", line))
	}
	f(true, "x|all|right, error|error")
	f(true, "x|all|labelled, error|error")
	f(true, "x|all|right, labelled, error|error")
	f(true, "x|all|error|error")
	f(false, "x|all|right, labelled|error")
	f(false, "x|all|error, wrong|error")
	f(false, "x|one|error|error")
	f(false, "x|all|error")
	f(false, "x|all|error|error|more")
}
