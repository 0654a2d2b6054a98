package servergroup

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/fanout"
	"github.com/oneprom/oneprom/servergroup/partition"
	"github.com/oneprom/oneprom/servergroup/replica"
	"github.com/oneprom/oneprom/servergroup/request"
	"github.com/oneprom/oneprom/servergroup/transport"
	"github.com/oneprom/oneprom/servergroup/view"
)

// answerText prints series as `{labels} t:v t:v`, in minutes.
func answerText(a *partition.Answer) string {
	var b strings.Builder
	for _, s := range a.Series {
		b.WriteString(s.Labels.String())
		for i, ts := range s.Samples.T {
			fmt.Fprintf(&b, " %d:%g", ts/minute, s.Samples.F[i])
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func matrix(series, more string) string {
	return `{"status":"success","data":{"resultType":"matrix","result":[` + series + `]}` + more + `}`
}

func TestEvaluate_AddsTheLabelsThatAreCarried(t *testing.T) {
	e := newEvaluator(t, there)
	cfg := groupOf("g", e.Server)
	cfg.Labels = lset{"region": "eu", "a": "1"}
	s, _ := featuredSet(t, stockFeatures, cfg)
	v := s.View(t.Context())
	p := onlyPieceOf(t.Context(), t, v)
	p.Steps.End = 11 * minute

	got, err := p.Evaluate(t.Context(), "sum", `sum(foo)`, []string{"a", "region"})
	require.NoError(t, err)
	require.Equal(t, `{a="1", region="eu"} 10:2 11:2`+"\n", answerText(got))
	require.Equal(t, []string{"sum(foo)"}, e.asked())
	used := v.FetchedBytes()
	require.Positive(t, used)

	got, err = p.Evaluate(t.Context(), "sum by", `sum by (instance) (foo)`, []string{"region"})
	require.NoError(t, err)
	require.Equal(t, `{instance="a", region="eu"} 10:1 11:1`+"\n"+`{instance="b", region="eu"} 10:1 11:1`+"\n", answerText(got))
	require.Greater(t, v.FetchedBytes(), used)

	got, err = p.Evaluate(t.Context(), "bare", `sum(foo)`, nil)
	require.NoError(t, err)
	require.Equal(t, `{} 10:2 11:2`+"\n", answerText(got))
	require.Empty(t, got.Warnings)
	require.Empty(t, got.Infos)
}

func TestEvaluate_Budget(t *testing.T) {
	s, _ := featuredSet(t, stockFeatures, groupOf("g", newEvaluator(t, there).Server))
	s.opts.MaxFetchedBytes = 10
	p := onlyPiece(t.Context(), t, s)
	_, err := p.Evaluate(t.Context(), "x", `foo`, nil)
	var over *fanout.BudgetError
	require.ErrorAs(t, err, &over)
	require.Empty(t, s.Status()[0].Replicas[0].LastError, "it is no fault of the replica")
}

// TestEvaluate_WhatOthersSay: warnings and infos are told, each once.
func TestEvaluate_WhatOthersSay(t *testing.T) {
	e := newEvaluator(t, there)
	s, _ := featuredSet(t, stockFeatures, groupOf("g", e.Server))
	p := onlyPiece(t.Context(), t, s)
	e.saying(matrix("", `,"warnings":["PromQL warning: 1","PromQL warning: 2","PromQL warning: 1"],"infos":["i1","i1"]`))
	got, err := p.Evaluate(t.Context(), "x", `foo`, nil)
	require.NoError(t, err)
	require.Equal(t, &partition.Answer{Warnings: []string{"PromQL warning: 1", "PromQL warning: 2"}, Infos: []string{"i1"}, Replica: e.URL}, got)

	e.answer.Store(nil)
	got, err = p.Evaluate(t.Context(), "y", `rate(foo[5m])`, nil)
	require.NoError(t, err)
	require.Equal(t, []string{`PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: "foo" (1:6)`}, got.Infos)
}

// TestEvaluate_WhatIsMissingBelow is said as where samples are fetched.
func TestEvaluate_WhatIsMissingBelow(t *testing.T) {
	e := newEvaluator(t, there)
	s, _ := featuredSet(t, stockFeatures, groupOf("g", e.Server))
	ask := func(partial config.PartialResponse, more string) (*partition.Answer, error) {
		e.saying(matrix(`{"metric":{"i":"1"},"values":[[600,"1"]]}`, more))
		p := onlyPiece(request.With(t.Context(), func(r *request.Request) { r.Partial = partial }), t, s)
		return p.Evaluate(t.Context(), "x", `foo`, nil)
	}
	f := func(more string, ofPromQL []string, want string) {
		t.Helper()
		got, err := ask(config.PartialWarn, more)
		require.NoError(t, err)
		require.Len(t, got.Series, 1)
		n := len(ofPromQL)
		require.Len(t, got.Warnings, n+1)
		require.Equal(t, ofPromQL, got.Warnings[:n])
		require.Contains(t, got.Warnings[n], fmt.Sprintf("server group %q: %s: %s", "g", e.URL, want))

		got, err = ask(config.PartialError, more)
		var unavailable *completeness.UnavailableError
		require.ErrorAs(t, err, &unavailable)
		require.Contains(t, err.Error(), want)
		require.Nil(t, got)
	}
	f(`,"warnings":["partial answer: us"]`, []string{}, "partial answer: us")
	f(`,"warnings":["PromQL warning: w","partial answer: us","partial answer: us"]`, []string{"PromQL warning: w"}, "partial answer: us")
	f(`,"warnings":["partial answer: `+strings.Repeat("x", 100_000)+`"]`, []string{}, "partial answer: xxx")
	f(`,"isPartial":true`, []string{}, "the answer is partial")

	// It may be whole the next time. A replica that is missing below is not spoken of.
	got, err := ask(config.PartialError, `,"infos":["PromQL info: i","PromQL info: server group \"us\" answered without a replica: b"]`)
	require.NoError(t, err)
	require.Empty(t, got.Warnings)
	require.Equal(t, []string{"PromQL info: i"}, got.Infos)
}

// TestEvaluate_UnusableAnswers are not asked for again, for a while.
func TestEvaluate_UnusableAnswers(t *testing.T) {
	const one = `{"metric":{"i":"1"},"values":[[600,"1"]]}`
	for name, c := range map[string]struct{ body, why string }{
		"injected label":    {matrix(`{"metric":{"region":"x"},"values":[[600,"1"]]}`, ""), `its series carry the label "region" themselves`},
		"replica label":     {matrix(one+`,{"metric":{"replica":"x"},"values":[[600,"1"]]}`, ""), `its series carry the label "replica" themselves`},
		"cut warning":       {matrix(one, `,"warnings":["PromQL warning: `+strings.Repeat("x", 100_000)+`"]`), "its warnings are not complete"},
		"cut info":          {matrix(one, `,"infos":["`+strings.Repeat("x", 100_000)+`"]`), "its warnings are not complete"},
		"omitted warnings":  {matrix(one, `,"warnings":["a","3 more warning annotations omitted"]`), "its warnings are not complete"},
		"omitted infos":     {matrix(one, `,"infos":["a","3 more info annotations omitted"]`), "its warnings are not complete"},
		"native histograms": {matrix(`{"metric":{},"histograms":[[600,{"count":"1","sum":"1","buckets":[[0,"1","2","1"]]}]]}`, ""), "native histograms"},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEvaluator(t, there)
			cfg := groupOf("g", e.Server, newEvaluator(t, there).Server)
			cfg.Labels, cfg.ReplicaLabels = lset{"region": "eu"}, []string{"replica"}
			s, c2 := featuredSet(t, stockFeatures, cfg)
			f := func(about string, asked int) error {
				t.Helper()
				p := onlyPiece(t.Context(), t, s)
				got, err := p.Evaluate(t.Context(), about, `foo`, []string{"region"})
				require.Len(t, e.asked(), asked)
				if err != nil {
					require.Nil(t, got)
					var unusable *partition.UnusableError
					require.ErrorAs(t, err, &unusable)
					require.Contains(t, unusable.Why, c.why)
				}
				return err
			}
			e.saying(c.body)
			require.Error(t, f("foo", 1))
			e.saying(matrix(one, ""))
			require.Error(t, f("foo", 0))
			require.NoError(t, f("bar", 1), "another expression")
			c2.ms.Add(view.UnusableAge.Milliseconds() - 1)
			require.Error(t, f("foo", 0))
			c2.ms.Add(1)
			require.NoError(t, f("foo", 1))
		})
	}
}

// TestEvaluate_HistogramsOfABackend: they come from real ones as well.
func TestEvaluate_HistogramsOfABackend(t *testing.T) {
	e := newEvaluator(t, there+"\n  h{instance=\"a\",job=\"j\"} {{schema:0 sum:5 count:4 buckets:[1 2 1]}}x720")
	s, _ := featuredSet(t, stockFeatures, groupOf("g", e.Server))
	p := onlyPiece(t.Context(), t, s)
	_, err := p.Evaluate(t.Context(), "h", `h`, nil)
	var unusable *partition.UnusableError
	require.ErrorAs(t, err, &unusable)
	got, err := p.Evaluate(t.Context(), "count", `histogram_count(h)`, nil)
	require.NoError(t, err)
	require.Contains(t, answerText(got), " 10:4 11:4 ")
}

// TestEvaluate_FailureIsRememberedOfTheReplica: the next request looks what it is.
func TestEvaluate_FailureIsRememberedOfTheReplica(t *testing.T) {
	e := newEvaluator(t, there)
	s, c := featuredSet(t, stockFeatures, groupOf("g", e.Server))
	p := onlyPiece(t.Context(), t, s)
	_, err := firstReplica(s).Ready(t.Context())
	require.NoError(t, err)
	e.replace["/query_range"] = refusing(422)
	_, err = p.Evaluate(t.Context(), "x", `foo`, nil)
	require.ErrorContains(t, err, "status 422")
	require.Equal(t, err.Error(), s.Status()[0].Replicas[0].LastError)
	require.NotNil(t, firstReplica(s).CurrentProfile(), "it need not be probed")

	e.replace["/query_range"] = refusing(500)
	_, err = p.Evaluate(t.Context(), "x", `foo`, nil)
	require.ErrorContains(t, err, "status 500")
	require.Equal(t, transport.ClassServer, transport.ClassOf(err))
	c.ms.Add(replica.ProbeInterval.Milliseconds())
	require.Nil(t, firstReplica(s).CurrentProfile(), "it is to be probed")

	// It is not taken for an answer that is of no use.
	delete(e.replace, "/query_range")
	_, err = p.Evaluate(t.Context(), "x", `foo`, nil)
	require.NoError(t, err)

	e.Close()
	_, err = p.Evaluate(t.Context(), "x", `foo`, nil)
	require.Equal(t, transport.ClassTransport, transport.ClassOf(err))
	c.ms.Add(replica.ProbeInterval.Milliseconds())
	_, err = p.Local(t.Context(), false)
	require.Error(t, err)
}
