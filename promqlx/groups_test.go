package promqlx

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/promqlx/enginetest"
	"github.com/oneprom/oneprom/promqlx/plan"
	"github.com/oneprom/oneprom/servergroup/backendtest"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/evidence"
)

// fleetOfGroups serves any number of groups of two replicas, each below a path of its
// own, and counts what they are asked.
type fleetOfGroups struct {
	replicas [2]*httptest.Server

	mtx     sync.Mutex // guards the fields below
	changed *sync.Cond // busy, or gate
	seen    map[string]int
	busy    int
	most    int           // requests at once
	gate    chan struct{} // who is asked waits for one; nil: for none
}

func newFleetOfGroups(t testing.TB) *fleetOfGroups {
	t.Helper()
	data := promqltest.LoadedStorage(t, "load 15s"+targets("", true))
	h := backendtest.NewHandler(backendtest.Options{Queryable: data, EarlyNames: true})
	f := &fleetOfGroups{seen: map[string]int{}}
	f.changed = sync.NewCond(&f.mtx)
	for i := range f.replicas {
		f.replicas[i] = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			group, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
			gate := f.asked(group, 1)
			defer f.asked(group, -1)
			if gate != nil {
				<-gate
			}
			r.URL.Path = "/" + path
			h.ServeHTTP(w, r)
		}))
		t.Cleanup(f.replicas[i].Close)
	}
	return f
}

// asked counts a request that begins (1) or ends (-1).
func (f *fleetOfGroups) asked(group string, n int) (gate chan struct{}) {
	f.mtx.Lock()
	defer f.mtx.Unlock()
	defer f.changed.Broadcast()
	f.busy += n
	f.most = max(f.most, f.busy)
	if n > 0 {
		f.seen[group]++
	}
	return f.gate
}

// letIn has requests wait from now on, until so many are waiting: then one is answered,
// and so on, of n in all.
func (f *fleetOfGroups) letIn(atOnce, n int) {
	gate := make(chan struct{})
	f.mtx.Lock()
	f.gate = gate
	f.mtx.Unlock()
	go func() {
		for range n - atOnce {
			f.mtx.Lock()
			for f.busy < atOnce {
				f.changed.Wait()
			}
			f.mtx.Unlock()
			gate <- struct{}{}
		}
		f.mtx.Lock()
		f.gate = nil
		f.mtx.Unlock()
		close(gate)
	}()
}

// count returns who was asked how often since the last call, and how many requests
// there were at once.
func (f *fleetOfGroups) count() (seen map[string]int, most int) {
	f.mtx.Lock()
	defer f.mtx.Unlock()
	seen, most = f.seen, f.most
	f.seen, f.most = map[string]int{}, 0
	return seen, most
}

// groups are the configurations of so many.
func (f *fleetOfGroups) groups(n int) []config.Group {
	cfgs := make([]config.Group, n)
	for i := range cfgs {
		cfgs[i] = groupAt(fmt.Sprintf("g%d", i), map[string]string{"region": fmt.Sprintf("r%d", i)}, &store{Server: f.replicas[0]}, &store{Server: f.replicas[1]})
		cfgs[i].PathPrefix = "/" + cfgs[i].Name
	}
	return cfgs
}

// TestManyGroups: a query that a label restricts to one group asks that group as often
// as if it were the only one; one over all asks each as often, and not all at once.
func TestManyGroups(t *testing.T) {
	const n = 150
	f := newFleetOfGroups(t)
	e, now := clockedEngine(t, f.groups(n)...)
	requests := func(text string, groups int) (seen map[string]int, most int) {
		var res *promql.Result
		var said []string
		for range 100 { // replicas are probed, and looked at, in the background; some are late meanwhile
			f.count()
			res, said = executed(t, e, text, at(60, 70))
			seen, most = f.count()
			if res.Err == nil && len(said) == 0 && len(seen) == groups && slices.Max(slices.Collect(maps.Values(seen))) == 1 {
				break
			}
			if len(said) > 0 { // a count that was late is not repeated at once
				now.Add(evidence.CountAge)
			}
		}
		require.NoError(t, res.Err, text)
		require.NotEmpty(t, enginetest.Lines(res.Value), text)
		require.Empty(t, said)
		return seen, most
	}
	one, _ := requests(`sum(rate(m_total{region="r77"}[5m]))`, 1)
	require.Equal(t, map[string]int{"g77": 1}, one)
	all, _ := requests(`sum(rate(m_total[5m]))`, n)
	require.Len(t, all, n)
	for group, times := range all {
		require.Equal(t, 1, times, group)
	}
	f.letIn(partitionsAtOnce, n)
	_, most := requests(`sum(rate(m_total[5m]))`, n)
	require.Equal(t, partitionsAtOnce, most)
}

// BenchmarkGroups is a query over groups of two replicas: over one of them, and over
// all.
func BenchmarkGroups(b *testing.B) {
	f := newFleetOfGroups(b)
	for _, n := range []int{1, 10, 100, 1000} {
		e := engineOver(b, config.PartialError, f.groups(n)...)
		for name, text := range map[string]string{
			"one": `sum(rate(m_total{region="r0"}[5m]))`,
			"all": `sum(rate(m_total[5m]))`,
		} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				once := func() {
					res, said := executed(b, e, text, at(60, 70))
					require.NoError(b, res.Err)
					require.Empty(b, said)
				}
				once() // probes, and gathers evidence
				f.count()
				b.ReportAllocs()
				for b.Loop() {
					once()
				}
				seen, most := f.count()
				total := 0
				for _, times := range seen {
					total += times
				}
				b.ReportMetric(float64(total)/float64(b.N), "requests/op")
				b.ReportMetric(float64(most), "at-once")
			})
		}
	}
}

// BenchmarkPlan_1000 is the plan alone of a query that one of 1,000 groups concerns,
// and of one that concerns all.
func BenchmarkPlan_1000(b *testing.B) {
	f := newFleetOfGroups(b)
	e := engineOver(b, config.PartialError, f.groups(1000)...)
	for name, text := range map[string]string{
		"one": `sum(rate(m_total{region="r0"}[5m]))`,
		"all": `sum(rate(m_total[5m]))`,
	} {
		b.Run(name, func(b *testing.B) {
			view := e.groups.View(b.Context())
			q, err := e.makeQuery(b.Context(), Question{Query: text, Start: at(60, 70).start, End: at(60, 70).end, Interval: at(60, 70).interval})
			require.NoError(b, err)
			defer q.Close()
			for b.Loop() {
				_, err := plan.Route(b.Context(), q.Statement().(*parser.EvalStmt), e.subqueryStep, view, plan.Options{})
				require.NoError(b, err)
			}
		})
	}
}
