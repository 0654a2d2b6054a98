package promqlx

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup"
	"github.com/oneprom/oneprom/servergroup/backendtest"
	"github.com/oneprom/oneprom/servergroup/config"
)

// changing is a storage whose data changes while its server runs.
type changing struct {
	now atomic.Pointer[storage.Storage]
}

func (c *changing) Querier(mint, maxt int64) (storage.Querier, error) {
	return (*c.now.Load()).Querier(mint, maxt)
}

func (c *changing) ChunkQuerier(mint, maxt int64) (storage.ChunkQuerier, error) {
	return (*c.now.Load()).ChunkQuerier(mint, maxt)
}

// become replaces the data.
func (c *changing) become(t *testing.T, load string) {
	var s storage.Storage = promqltest.LoadedStorage(t, "load 15s"+load)
	c.now.Store(&s)
}

// newChanging is a store whose data can change.
func newChanging(t *testing.T, load string) (*store, *changing) {
	t.Helper()
	c := &changing{}
	c.become(t, load)
	s := newStore(t, "")
	s.everywhere(backendtest.NewHandler(backendtest.Options{Queryable: c, EarlyNames: true}).ServeHTTP)
	return s, c
}

// audited is an engine whose answers are audited.
type audited struct {
	*Engine
	set *servergroup.Set
	reg *prometheus.Registry
}

func auditedEngine(t *testing.T, share float64, cfgs ...config.Group) audited {
	t.Helper()
	reg := prometheus.NewRegistry()
	set, err := servergroup.NewSet(servergroup.Options{
		Now: func() time.Time { return time.UnixMilli(3 * 3600_000) }, Features: []string{"use-start-timestamps"}, AuditShare: share, Registerer: reg,
	})
	require.NoError(t, err)
	t.Cleanup(set.Close)
	require.NoError(t, set.Apply(t.Context(), cfgs, config.PartialError))
	e := NewEngine(executionOpts(), set)
	t.Cleanup(func() { require.NoError(t, e.Close()) })
	return audited{e, set, reg}
}

// counted returns the values of a counter by one of its labels.
func (a audited) counted(t *testing.T, name, label string) map[string]float64 {
	t.Helper()
	families, err := a.reg.Gather()
	require.NoError(t, err)
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == name && l.GetName() == label {
					out[l.GetValue()] += m.GetCounter().GetValue()
				}
			}
		}
	}
	return out
}

// requireAudits waits until audits had some outcomes, and no others.
func (a audited) requireAudits(t *testing.T, want map[string]float64) {
	t.Helper()
	require.Eventually(t, func() bool { return maps.Equal(want, a.counted(t, "oneprom_audits_total", "outcome")) }, 20*time.Second, 5*time.Millisecond,
		"%v", a.counted(t, "oneprom_audits_total", "outcome"))
}

func (a audited) findings() []string { return a.set.Status()[0].Findings }

// changed returns the data of targets with another text for one line.
func changed(t *testing.T, line, text string) string {
	t.Helper()
	whole := targets("", true)
	require.Contains(t, whole, line)
	return strings.Replace(whole, line, text, 1)
}

// TestAudit_LossIsFound: what scrapes and counts have shown of a replica is not true any more. An
// audit finds that, and the next answer is the truth.
func TestAudit_LossIsFound(t *testing.T) {
	const foo = `foo{instance="t1",job="j"} 2x720`
	all := targets("", true)
	a, dataA := newChanging(t, all)
	b, dataB := newChanging(t, all)
	for name, row := range map[string]struct {
		before, a, b string // of both, and what a and b become
		text         string
		when         times
	}{
		"a series is deleted":                {all, changed(t, "\n  "+foo, ""), all, `sum(foo)`, at(20, 50)},
		"ten minutes are deleted":            {all, changed(t, foo, `foo{instance="t1",job="j"} 2x120 _x40 2x560`), all, `sum(count_over_time(foo[2m]))`, at(20, 50)},
		"all series of a name are deleted":   {all, strings.ReplaceAll(all, "foo{", "bar{"), all, `count(foo)`, at(20, 50)},
		"late samples":                       {changed(t, foo, `foo{instance="t1",job="j"} 2x120 _x40 2x560`), changed(t, foo, `foo{instance="t1",job="j"} 2x120 _x40 2x560`), all, `sum(count_over_time(foo[2m]))`, at(20, 50)},
		"a late series":                      {changed(t, "\n  "+foo, ""), changed(t, "\n  "+foo, ""), all, `sum(foo)`, at(20, 50)},
		"one of several selectors":           {all, changed(t, "\n  "+foo, ""), all, `sum(m_total) / sum(foo)`, at(20, 50)},
		"an instant query":                   {all, changed(t, "\n  "+foo, ""), all, `sum(foo)`, instantAt(40)},
		"an instant query about the present": {all, changed(t, "\n  "+foo, ""), all, `sum(foo)`, instantAt(180)},
		"a longer range than is looked at":   {all, changed(t, "\n  "+foo, ""), all, `sum(foo)`, at(10, 170)},
	} {
		for mode, change := range map[string]func(*config.Group){"there": func(*config.Group) {}, "here": pushdownOff} {
			t.Run(name+" "+mode, func(t *testing.T) {
				dataA.become(t, row.before)
				dataB.become(t, row.before)
				cfg := groupAt("g", nil, a, b)
				change(&cfg)
				e := auditedEngine(t, 1, cfg)
				_, said := executed(t, e.Engine, row.text, row.when)
				require.Empty(t, said)
				var asked float64
				require.Eventually(t, func() bool {
					audits := e.counted(t, "oneprom_audits_total", "outcome")
					asked = audits["clean"] + audits["busy"]
					return audits["clean"] > 0
				}, 20*time.Second, 5*time.Millisecond)
				require.Empty(t, e.findings())
				require.Equal(t, asked, sum(e.counted(t, "oneprom_audits_total", "outcome")))

				dataA.become(t, row.a)
				dataB.become(t, row.b)
				truth := truthOf(t, row.b)
				want, _ := truth(row.text, row.when)
				got, _ := executed(t, e.Engine, row.text, row.when)
				require.NotEqual(t, want.Value.String(), got.Value.String(), "evidence shows nothing yet")
				require.Eventually(t, func() bool {
					res, said := executed(t, e.Engine, row.text, row.when)
					require.NoError(t, res.Err)
					require.Empty(t, said)
					return e.counted(t, "oneprom_audits_total", "outcome")["found"] > 0
				}, 20*time.Second, 5*time.Millisecond)
				requireTruth(t, e.Engine, truth, row.text, row.when)
				finds := e.counted(t, "oneprom_audit_finds_total", "replica")
				require.Equal(t, []string{a.URL}, slices.Collect(maps.Keys(finds)))
				require.Len(t, e.findings(), 1)
				require.Contains(t, e.findings()[0], a.URL+" lacks samples that "+b.URL+" has, of ")
			})
		}
	}
}

func sum(m map[string]float64) float64 {
	var n float64
	for _, v := range m {
		n += v
	}
	return n
}

// TestAudit_ShareOfNone looks at nothing again.
func TestAudit_ShareOfNone(t *testing.T) {
	a, data := newChanging(t, targets("", true))
	b, _ := newChanging(t, targets("", true))
	e := auditedEngine(t, 0, groupAt("g", nil, a, b))
	for range 3 {
		executed(t, e.Engine, `sum(foo)`, at(20, 50))
		data.become(t, "\n  other 1")
	}
	require.Empty(t, e.counted(t, "oneprom_audits_total", "outcome"))
}

// TestAudit_Alone: without a twin, and where all are merged, there is nothing to audit.
func TestAudit_Alone(t *testing.T) {
	a, b := newStore(t, targets("", true)), newStore(t, targets("", true))
	merged := groupAt("g", nil, a, b)
	merged.Replicas = config.MergeAll
	for name, cfg := range map[string]config.Group{"one replica": groupAt("g", nil, a), "merged": merged} {
		t.Run(name, func(t *testing.T) {
			e := auditedEngine(t, 1, cfg)
			executed(t, e.Engine, `sum(foo)`, at(20, 50))
			require.Empty(t, e.counted(t, "oneprom_audits_total", "outcome"))
		})
	}
}

// TestAudit_TooRecent: samples of the last minutes may come late.
func TestAudit_TooRecent(t *testing.T) {
	a, b := newStore(t, targets("", true)), newStore(t, targets("", true))
	e := auditedEngine(t, 1, groupAt("g", nil, a, b))
	executed(t, e.Engine, `sum(count_over_time(foo[2m]))`, instantAt(180))
	e.requireAudits(t, map[string]float64{"recent": 1})
}

// hangingReads answers remote read when the client has gone, and tells when that begins and ends.
func (s *store) hangingReads() (begun, ended chan struct{}) {
	begun, ended = make(chan struct{}, 100), make(chan struct{}, 100)
	s.everywhere(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/v1/read" {
			s.own.ServeHTTP(w, r)
			return
		}
		begun <- struct{}{}
		hanging(w, r)
		ended <- struct{}{}
	})
	return begun, ended
}

// TestAudit_TwinHangs: an audit ends with the group's timeout, with its group, and with the process.
func TestAudit_TwinHangs(t *testing.T) {
	a, b := newStore(t, targets("", true)), newStore(t, targets("", true))
	begin := func(t *testing.T, timeout time.Duration) (e audited, ended chan struct{}) {
		b.everywhere(b.own.ServeHTTP)
		cfg := groupAt("g", nil, a, b)
		cfg.Timeout = model.Duration(timeout)
		e = auditedEngine(t, 1, cfg)
		executed(t, e.Engine, `sum(foo)`, at(20, 50))
		e.requireAudits(t, map[string]float64{"clean": 1})
		begun, ended := b.hangingReads()
		executed(t, e.Engine, `sum(foo)`, at(20, 50))
		<-begun
		return e, ended
	}
	t.Run("timeout", func(t *testing.T) {
		e, ended := begin(t, time.Second)
		<-ended
		e.requireAudits(t, map[string]float64{"clean": 1, "failed": 1})
		require.Empty(t, e.findings())
	})
	t.Run("busy meanwhile", func(t *testing.T) {
		e, _ := begin(t, time.Hour)
		executed(t, e.Engine, `sum(foo)`, at(20, 50))
		e.requireAudits(t, map[string]float64{"clean": 1, "busy": 1})
	})
	t.Run("reload", func(t *testing.T) {
		e, ended := begin(t, time.Hour)
		require.NoError(t, e.set.Apply(t.Context(), nil, config.PartialError))
		<-ended
	})
	t.Run("end", func(t *testing.T) {
		e, ended := begin(t, time.Hour)
		e.set.Close()
		<-ended
	})
}
