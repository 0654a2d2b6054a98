package differential

import (
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest"
)

// plantedWorld has three counters and two copies of them, of which both lack one
// sample of the second counter.
func plantedWorld() *world {
	w := &world{
		start:   1_700_000_000_000,
		end:     1_700_000_000_000 + 20*minute,
		servers: []server{{kind{read: backendtest.Streamed}}, {kind{read: backendtest.SamplesOnly}}},
		copies:  []holder{{server: 0}, {server: 1}},
	}
	w.groups = []group{{name: "a", first: w.start, last: w.end, copies: []int{0, 1}}}
	for _, code := range []string{"200", "404", "500"} {
		s := series{labels: labels.FromStrings(labels.MetricName, "reqs_total", "code", code), interval: 15 * second}
		for t := w.start; t < w.end; t += s.interval {
			p := sample{t: t, f: float64(t%977 + 2*(t-w.start)), held: 0b11}
			if code == "404" && t == w.start+10*minute {
				p.held = 0
			}
			s.samples = append(s.samples, p)
		}
		w.series = append(w.series, s)
	}
	return w
}

// TestShrink plants a difference, which must be found and become small.
func TestShrink(t *testing.T) {
	l, w := newLab(t), plantedWorld()
	run, err := l.start(w)
	require.NoError(t, err)
	q := question{
		query: `topk(2, sum by (code) (irate(reqs_total{code!="x"}[1m])) or vector(1)) > 0`,
		start: w.start, end: w.end, step: 15 * second,
	}
	o, err := run.compare(q)
	require.NoError(t, err)
	require.NoError(t, run.close())
	require.Equal(t, "results differ", o.kind)

	s := &shrinker{lab: l, world: w, question: q, outcome: o}
	s.shrink()
	require.Equal(t, "results differ", s.outcome.kind)
	require.Len(t, s.world.series, 1, s)
	require.Equal(t, "404", s.world.series[0].labels.Get("code"), s)
	require.Less(t, len(s.world.series[0].samples), 6, s)
	require.Len(t, s.world.groups[0].copies, 1, s)
	require.LessOrEqual(t, len(s.question.query), len("reqs_total[1m]"), s)
	require.Zero(t, s.question.step, s)
}

// TestCompare_Undetermined asks what upstream answers in any order.
func TestCompare_Undetermined(t *testing.T) {
	l, w := newLab(t), plantedWorld()
	for i := range w.series {
		for j := range w.series[i].samples {
			w.series[i].samples[j].held = 0b11
		}
	}
	run, err := l.start(w)
	require.NoError(t, err)
	defer func() { require.NoError(t, run.close()) }()
	for _, query := range []string{`limitk(1, reqs_total or reqs_total)`, `count_values("n", reqs_total)`, `sort(reqs_total)`} {
		o, err := run.compare(question{query: query, start: w.start, end: w.end, step: minute})
		require.NoError(t, err)
		require.Empty(t, o.kind, query)
	}
}
