package promqlx

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/promqlx/enginetest"
	"github.com/oneprom/oneprom/promqlx/explain"
	"github.com/oneprom/oneprom/servergroup/backendtest"
	"github.com/oneprom/oneprom/servergroup/backendtest/dialect"
	"github.com/oneprom/oneprom/servergroup/config"
)

// everywhere has a store answer whatever it is asked by f.
func (s *store) everywhere(f http.HandlerFunc) { s.all.Store(&f) }

// hanging answers when the client has gone, which shows once the body is read.
func hanging(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

var failing = map[string]http.HandlerFunc{
	"hangs": hanging, "is unavailable": busy(503), "has no access": busy(401),
	"breaks off": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
}

// TestExecute_ReplicaThatFailsAfterTheChoice: what is known of the scrapes still says
// that it is whole. Its twin, which is whole as well, answers.
func TestExecute_ReplicaThatFailsAfterTheChoice(t *testing.T) {
	all := truthOf(t, targets("", true))
	for name, how := range failing {
		for mode, change := range map[string]func(*config.Group){"there": func(*config.Group) {}, "here": pushdownOff} {
			t.Run(name+" "+mode, func(t *testing.T) {
				a, b := newStore(t, targets("", true)), newStore(t, targets("", true))
				cfg := groupAt("g", nil, a, b)
				change(&cfg)
				e := engineOver(t, config.PartialError, cfg)
				for _, text := range executedQueries {
					requireTruth(t, e, all, text, at(60, 90))
				}
				a.everywhere(how)
				for _, text := range executedQueries {
					began := time.Now()
					want, _ := all(text, at(61, 90))
					got, said := executed(t, e, text, at(61, 90))
					enginetest.RequireSame(t, want, got, 1e-13, false, text)
					for _, s := range said { // it is asked for scrapes of other times, too
						require.Contains(t, s, `info: server group "g" answered without a replica: `+a.URL)
					}
					require.Less(t, time.Since(began), 20*time.Second)
				}
			})
		}
	}
}

// TestExecute_ReplicaThatOthersNeedFails: each of two has missed something, so that both
// are merged.
func TestExecute_ReplicaThatOthersNeedFails(t *testing.T) {
	missing := func(from int) string {
		return strings.ReplaceAll(targets("", false), "x99 _x40", fmt.Sprintf("x%d _x20", from))
	}
	a, b := newStore(t, missing(99)), newStore(t, missing(119)) // 25:00 to 29:45, and 30:00 to 34:45
	cfg := groupAt("g", nil, a, b)
	warn, strict := engineOver(t, config.PartialWarn, cfg), engineOver(t, config.PartialError, cfg)
	const text = `sum(count_over_time(foo[2m]))`
	for _, e := range []*Engine{warn, strict} {
		_, said := executed(t, e, text, at(30, 31))
		require.Empty(t, said)
	}
	a.everywhere(busy(503))
	res, said := executed(t, warn, text, at(30, 32))
	require.NoError(t, res.Err)
	require.Contains(t, said[len(said)-1], `partial answer: server group "g" answered without a replica: `+a.URL)
	res, _ = executed(t, strict, text, at(30, 32))
	require.ErrorContains(t, res.Err, `server group "g" answered without a replica`)
}

// TestExecute_OnlyWholeReplicaFails: its twin has missed something, so that its answer
// is a partial one.
func TestExecute_OnlyWholeReplicaFails(t *testing.T) {
	for name, how := range failing {
		for mode, change := range map[string]func(*config.Group){"there": func(*config.Group) {}, "here": pushdownOff} {
			t.Run(name+" "+mode, func(t *testing.T) {
				a, b := newStore(t, targets("", true)), newStore(t, targets("", false))
				cfg := groupAt("g", nil, a, b)
				change(&cfg)
				warn, strict := engineOver(t, config.PartialWarn, cfg), engineOver(t, config.PartialError, cfg)
				const text = `sum(count_over_time(foo[2m]))`
				for _, e := range []*Engine{warn, strict} {
					_, said := executed(t, e, text, at(20, 40))
					require.Empty(t, said)
				}
				a.everywhere(how)
				res, said := executed(t, warn, text, at(21, 40))
				require.NoError(t, res.Err)
				require.NotEmpty(t, said)
				require.Contains(t, said[len(said)-1], `partial answer: server group "g"`)
				require.Contains(t, said[len(said)-1], a.URL)
				res, _ = executed(t, strict, text, at(21, 40))
				require.ErrorContains(t, res.Err, `server group "g"`)
			})
		}
	}
}

// TestExecute_GroupThatDiesMeanwhile: an average is the sum of some groups by the count of
// the same ones.
func TestExecute_GroupThatDiesMeanwhile(t *testing.T) {
	a, b := newStore(t, targets("", true)), newStore(t, targets("", true))
	e := engineOver(t, config.PartialWarn, groupAt("a", map[string]string{"zone": "a"}, a), groupAt("b", map[string]string{"zone": "b"}, b))
	rest := truthOf(t, targets(`,zone="a"`, true))
	b.everywhere(func(w http.ResponseWriter, r *http.Request) { // it still answers what counts, and reads of m_total
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		form, _ := url.ParseQuery(string(body))
		if strings.Contains(form.Get("query"), "sum") || slices.Contains(metricsOf(r), "foo") {
			busy(503)(w, r)
			return
		}
		b.own.ServeHTTP(w, r)
	})
	for _, text := range []string{`avg(foo)`, `sum(foo) / count(foo)`, `sum(foo) / count(m_total)`, `foo / on (instance) m_total{zone=~"a|b"}`} {
		want, _ := rest(text, at(60, 61))
		got, said := executed(t, e, text, at(60, 61))
		enginetest.RequireSame(t, want, got, 1e-13, false, text)
		require.Len(t, said, 1, text)
		require.Contains(t, said[0], `partial answer: server group "b" did not answer: `+b.URL)
	}
}

// TestExplain_WhoAnsweredInstead: the plan says one replica, the record another.
func TestExplain_WhoAnsweredInstead(t *testing.T) {
	a, b := newStore(t, targets("", true)), newStore(t, targets("", true))
	e := engineOver(t, config.PartialError, groupAt("g", nil, a, b))
	analyzed := func(when times) explain.Piece {
		x, _, err := e.Analyze(t.Context(), Question{Query: `sum(foo)`, Start: when.start, End: when.end, Interval: when.interval})
		require.NoError(t, err)
		require.Len(t, x.Parts[0].Partitions[0].Pieces, 1)
		return x.Parts[0].Partitions[0].Pieces[0]
	}
	piece := analyzed(at(60, 90))
	require.Equal(t, a.URL, piece.Replica)
	require.Empty(t, piece.AnsweredBy)
	a.everywhere(busy(503))
	piece = analyzed(at(61, 90))
	require.Equal(t, a.URL, piece.Replica)
	require.Equal(t, b.URL, piece.AnsweredBy)
}

// TestExecute_TwinOfAnotherVersion: it is not asked to evaluate where its twin has failed to, as its windows
// are others.
func TestExecute_TwinOfAnotherVersion(t *testing.T) {
	load := targets("", true)
	a, b := newStore(t, load), newStore(t, load)
	a.everywhere(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/v1/query_range" && !strings.Contains(r.FormValue("query"), "oneprom_probe") && !backendtest.CountsSeries(r) {
			a.note(&a.queries, r.FormValue("query"))
			http.Error(w, "busy", http.StatusServiceUnavailable)
			return
		}
		a.own.ServeHTTP(w, r)
	})
	second := dialect.NewPrometheus2(backendtest.Options{Queryable: promqltest.LoadedStorage(t, "load 15s"+load), EarlyNames: true})
	b.everywhere(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/v1/query_range" && !strings.Contains(r.FormValue("query"), "oneprom_probe") && !backendtest.CountsSeries(r) {
			b.note(&b.queries, r.FormValue("query"))
		}
		second.ServeHTTP(w, r)
	})
	e := engineOver(t, config.PartialError, groupAt("eu", nil, a, b))
	requireTruth(t, e, truthOf(t, load), `sum(rate(m_total[5m]))`, at(60, 90))
	queries, _ := a.asked()
	require.Contains(t, queries, "sum(rate({__name__=\"m_total\"}[5m]))", "it is asked first")
	queries, _ = b.asked()
	require.Empty(t, queries)
}
