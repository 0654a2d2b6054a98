package promqlx

import (
	"testing"

	"github.com/prometheus/prometheus/promql"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/promqlx/enginetest"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/request"
)

// wholeSeries is the result of a query whose series must be whole.
func wholeSeries(t *testing.T, e *Engine, text string, at times) *promql.Result {
	t.Helper()
	ctx := request.With(t.Context(), func(r *request.Request) { r.Partial, r.WholeSeries = config.PartialWarn, true })
	q, err := e.NewInstantQuery(ctx, nil, nil, text, at.start)
	require.NoError(t, err)
	t.Cleanup(q.Close)
	res := q.Exec(ctx)
	if v, ok := res.Value.(promql.Vector); ok {
		enginetest.SortByLabels(v)
	}
	return res
}

// TestWholeSeries: a region is missing, or lacks one of the two groups that have its series. What is
// of one region each is as if there were only the other region; all else is an error.
func TestWholeSeries(t *testing.T) {
	eu, us, archive := newStore(t, targets("", true)), newStore(t, targets("", true)), newStore(t, targets("", true))
	region := func(name, is string, s *store) config.Group { return groupAt(name, map[string]string{"region": is}, s) }
	euOnly := engineOver(t, config.PartialError, region("eu", "eu", eu))
	for name, down := range map[string][]*store{"all of it": {us, archive}, "one group of it": {archive}} {
		t.Run(name, func(t *testing.T) {
			for _, s := range []*store{us, archive} {
				s.all.Store(nil)
			}
			for _, change := range []func(*config.Group){func(*config.Group) {}, pushdownOff} {
				cfgs := []config.Group{region("eu", "eu", eu), region("us", "us", us), region("archive", "us", archive)}
				for i := range cfgs {
					change(&cfgs[i])
				}
				e := engineOver(t, config.PartialWarn, cfgs...)
				for _, s := range down {
					s.everywhere(busy(503))
				}
				for _, text := range []string{
					`foo`, `foo > 1`, `rate(foo[2m])`, `sum by (region) (foo) > 0`, `sum without (instance) (foo)`, `count by (region) (foo) == 3`,
					`foo{region="eu"}`, `sum(foo{region="eu"})`, `max_over_time((sum by (region) (foo))[3m:1m])`, `foo unless foo > 1e9`, `avg by (region) (foo) / on (region) count by (region) (foo)`,
				} {
					want, _ := executed(t, euOnly, text, instantAt(70))
					require.NotEmpty(t, enginetest.Lines(want.Value), text)
					enginetest.RequireSame(t, want, wholeSeries(t, e, text, instantAt(70)), 1e-13, false, text)
				}
				for _, text := range []string{
					`sum(foo)`, `sum(foo) > 0`, `count by (instance) (foo)`, `absent(foo{instance="none"})`, `vector(scalar(foo))`, `topk(1, foo)`,
					`foo or on (instance) foo`, `foo unless on (instance) foo{instance="none"}`, `foo{region="us"}`,
				} {
					require.ErrorContains(t, wholeSeries(t, e, text, instantAt(70)).Err, `server group "archive" did not answer`, text)
				}
			}
		})
	}
}

// TestWholeSeries_BesideCopies: a rule does not need an archive for what the groups keep that it has copies of.
// If one of them is gone, the answer is that of the others, as it would be without the archive.
func TestWholeSeries_BesideCopies(t *testing.T) {
	pairs := map[string][]*store{"eu": {newStore(t, targets("", true)), newStore(t, targets("", true))}, "us": {newStore(t, targets("", true)), newStore(t, targets("", true))}}
	pair := func(name string) config.Group {
		return groupAt(name, map[string]string{"region": name}, pairs[name]...)
	}
	archive := newStore(t, targets(`,region="eu"`, true)+targets(`,region="us"`, true))
	e := engineOver(t, config.PartialWarn, pair("eu"), pair("us"), copying(archive, "eu", "us"))
	want := map[string]*Engine{"eu and us": engineOver(t, config.PartialError, pair("eu"), pair("us")), "eu": engineOver(t, config.PartialError, pair("eu"))}
	queries := []string{`foo`, `rate(m_total[2m])`, `sum by (region) (foo) > 0`, `count by (region) (foo) == 3`, `max_over_time((sum by (region) (foo))[3m:1m])`}
	requireOf := func(t *testing.T, who string) {
		t.Helper()
		for _, text := range queries {
			want, _ := executed(t, want[who], text, instantAt(170))
			require.NotEmpty(t, enginetest.Lines(want.Value), text)
			enginetest.RequireSame(t, want, wholeSeries(t, e, text, instantAt(170)), 1e-13, false, text)
		}
	}
	_ = wholeSeries(t, e, `sum(foo)`, instantAt(170)) // what servers keep is known from then on
	archive.everywhere(busy(503))
	requireOf(t, "eu and us")
	require.NoError(t, wholeSeries(t, e, `sum(foo)`, instantAt(170)).Err)
	pairs["us"][1].everywhere(busy(503))
	requireOf(t, "eu and us")
	pairs["us"][0].everywhere(busy(503))
	requireOf(t, "eu")
	require.ErrorContains(t, wholeSeries(t, e, `sum(foo)`, instantAt(170)).Err, `server group "us" did not answer`)
	requireOf(t, "eu")
}
