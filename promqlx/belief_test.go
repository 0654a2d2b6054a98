package promqlx

import (
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/promqlx/enginetest"
	"github.com/oneprom/oneprom/servergroup/backendtest"
	"github.com/oneprom/oneprom/servergroup/config"
)

// restart has another process answer at the address of a store, with other data.
func (s *store) restart(t *testing.T, load string) {
	t.Helper()
	h := backendtest.NewHandler(backendtest.Options{Queryable: promqltest.LoadedStorage(t, "load 15s"+load), EarlyNames: true})
	s.everywhere(h.ServeHTTP)
	s.CloseClientConnections()
}

// TestBelief_RestartedReplica: what was known of the scrapes of a replica is not believed of the
// process that answers in its place.
func TestBelief_RestartedReplica(t *testing.T) {
	all := truthOf(t, targets("", true))
	queries := []string{`m_total`, `sum(rate(m_total[5m]))`, `count(foo)`}
	oneTarget := strings.Join(strings.SplitAfter(targets("", true), "\n")[:4], "")
	for name, load := range map[string]string{
		"has lost all":         "\n  other 1",
		"has lost two targets": strings.TrimSuffix(oneTarget, "\n"),
		"has lost ten minutes": targets("", false),
		"has all":              targets("", true),
	} {
		for mode, change := range map[string]func(*config.Group){"there": func(*config.Group) {}, "here": pushdownOff} {
			t.Run(name+" "+mode, func(t *testing.T) {
				a, b := newStore(t, targets("", true)), newStore(t, targets("", true))
				cfg := groupAt("g", nil, a, b)
				change(&cfg)
				e := engineOver(t, config.PartialError, cfg)
				for _, text := range queries {
					requireTruth(t, e, all, text, at(20, 50))
				}
				a.restart(t, load)
				for _, text := range queries {
					want, _ := all(text, at(20, 50))
					got, said := executed(t, e, text, at(20, 50))
					enginetest.RequireSame(t, want, got, 1e-13, false, text)
					for _, s := range said { // a request was under way
						require.Contains(t, s, "info: server group \"g\" answered without a replica: "+a.URL)
					}
				}
				for _, text := range queries {
					requireTruth(t, e, all, text, at(20, 50))
				}
			})
		}
	}
}

// TestBelief_LastWholeReplica: a twin that had lost its samples has them again, which nothing shows
// yet, when the only replica that is known to be whole loses its own. All are merged then.
func TestBelief_LastWholeReplica(t *testing.T) {
	all := truthOf(t, targets("", true))
	for mode, change := range map[string]func(*config.Group){"there": func(*config.Group) {}, "here": pushdownOff} {
		for _, text := range []string{`m_total`, `sum(rate(m_total[5m]))`, `count(foo)`} {
			t.Run(text+" "+mode, func(t *testing.T) {
				a, b := newStore(t, "\n  other 1"), newStore(t, targets("", true))
				cfg := groupAt("g", nil, a, b)
				change(&cfg)
				e := engineOver(t, config.PartialError, cfg)
				requireTruth(t, e, all, text, at(20, 50))
				restored := newStore(t, targets("", true))
				a.everywhere(restored.own.ServeHTTP)
				b.restart(t, "\n  other 1")
				want, _ := all(text, at(20, 50))
				got, _ := executed(t, e, text, at(20, 50))
				enginetest.RequireSame(t, want, got, 1e-13, false, text)
			})
		}
	}
}
