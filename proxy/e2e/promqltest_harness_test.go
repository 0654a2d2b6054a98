package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest"
)

// The harness must see what is wrong: these tests give it wrong answers.

const splitScript = `
load 30s
  foo{i="1"} 0+1x10
  foo{i="2"} 100+1x10

eval instant at 60s foo
  foo{i="1"} 2
  foo{i="2"} 102

clear

load 30s
  bar 7

eval instant at 0 bar
  bar 7

eval instant at 0 label_replace(bar, "x", "", "y", "(")
  expect fail
`

// runSplit runs the script over one backend that holds what place gives it.
func runSplit(t *testing.T, script string, place placement) *tally {
	t.Helper()
	backends := startSplitBackends(t, 1, backendtest.Options{})
	truth := promqltest.NewTestEngine(t, false, 0, promqltest.DefaultMaxSamplesPerQuery)
	engine := newCheckedEngine(t, truth, "http://"+backends[0].address)
	engine.file = "x.test"
	promqltest.RunTestWithStorage(t, script, engine, func(tb testing.TB) storage.Storage {
		return openSplitStorage(tb, backends, topology{place: place})
	})
	return engine.tally
}

func TestSplit_WholeBackendIsExact(t *testing.T) {
	got := runSplit(t, splitScript, placeEverywhere)
	require.Equal(t, got.evaluations, got.byClass[classExact])
	require.Empty(t, got.lines())
	require.Greater(t, got.evaluations, 20) // instants at other times and ranges come along
}

func TestSplit_LossIsSeen(t *testing.T) {
	f := func(want []string, lose func(series labels.Labels, ms int64) bool) {
		t.Helper()
		got := runSplit(t, splitScript, func(series labels.Labels, ms int64) []int {
			if lose(series, ms) {
				return nil
			}
			return []int{0}
		})
		require.Equal(t, want, got.lines())
		require.Positive(t, got.wrong())
		require.Contains(t, got.detailsOf(got.lines()), "want {")
	}
	f([]string{
		"x.test\tdifferent\tinstant\t1\tfoo", "x.test\tdifferent\tinstant\t5\tfoo @ 60.000",
		"x.test\tdifferent\trange\t1\tfoo", "x.test\tdifferent\trange\t5\tfoo @ 60.000",
	}, func(series labels.Labels, ms int64) bool { return ms == 60_000 && series.Get("i") == "2" })
	f([]string{
		"x.test\tmissing\tinstant\t1\tfoo", "x.test\tmissing\tinstant\t5\tfoo @ 60.000",
		"x.test\tmissing\trange\t1\tfoo", "x.test\tmissing\trange\t5\tfoo @ 60.000",
	}, func(series labels.Labels, _ int64) bool { return series.Get("i") == "2" })
	f([]string{
		"x.test\tmissing\tinstant\t1\tbar", "x.test\tmissing\tinstant\t3\tbar @ 0.000",
		"x.test\tmissing\trange\t1\tbar", "x.test\tmissing\trange\t3\tbar @ 0.000",
	}, func(series labels.Labels, _ int64) bool { return series.Get("__name__") == "bar" })
}

// runPushed runs the script over two backends with all of the data, of which place may take some. The first
// is asked with push-down and the second without.
func runPushed(t *testing.T, script string, place placement) *pushedEngine {
	t.Helper()
	backends := startSplitBackends(t, 2, earlyNames(backendtest.Streamed))
	base := serve(t, &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		to := backends[0]
		if r.In.Header.Get("X-Oneprom-Pushdown") == "off" {
			to = backends[1]
		}
		r.SetURL(&url.URL{Scheme: "http", Host: to.address})
	}})
	engine := newPushedEngine(t, backends, base)
	engine.file = "x.test"
	promqltest.RunTestWithStorage(t, script, engine, func(tb testing.TB) storage.Storage {
		return openSplitStorage(tb, backends, topology{place: place})
	})
	return engine
}

func TestPushed_DifferencesAreSeen(t *testing.T) {
	f := func(wrong, wrongOff, apart bool, at ...int) {
		t.Helper()
		got := runPushed(t, splitScript, func(series labels.Labels, _ int64) []int {
			if series.Get("i") == "2" {
				return at
			}
			return []int{0, 1}
		})
		require.Equal(t, []bool{wrong, wrongOff, apart}, []bool{got.tally.wrong() > 0, got.off.wrong() > 0, got.apart.wrong() > 0})
		require.Greater(t, got.off.evaluations, 20)
		require.Equal(t, got.off.evaluations, got.tally.evaluations)
		// label_replace() is asked four times in each way.
		require.Equal(t, []int64{4, 4}, []int64{got.evaluations, got.evaluationsOff})
	}
	f(false, false, false, 0, 1)
	f(true, false, true, 1)
	f(false, true, false, 0)
	f(true, true, false)
}

func TestEvaluates(t *testing.T) {
	f := func(want bool, path string) {
		t.Helper()
		require.Equal(t, want, evaluates(httptest.NewRequest(http.MethodGet, path, nil)))
	}
	f(false, instantQuery("foo", 0))
	f(false, instantQuery("(foo[5m])", 0))
	f(false, instantQuery("timestamp(foo offset 1ms)", 0))
	f(false, instantQuery("(", 0))
	f(false, "/api/v1/series?query=-foo")
	f(true, instantQuery("sum(foo)", 0))
	f(true, rangeQuery("-foo", 0, 60, 60))
}

func TestTopologies_PartsAddUpToTheWhole(t *testing.T) {
	const points = 4000
	for _, tp := range append([]topology{labelledShards}, topologies...) {
		held := make([]int, tp.backends())
		for i := range points {
			series := labels.FromStrings("__name__", "foo", "i", strconv.Itoa(i%100))
			ms := int64(i/100)*60_000 - 300_000 // some before 1970
			at := tp.place(series, ms)
			require.NotEmpty(t, at, "%s: a sample without a backend", tp.name)
			for _, b := range at {
				held[b]++
			}
		}
		share := points / len(tp.groups)
		for b, n := range held {
			require.InDelta(t, share, n, float64(share)*0.35, "%s: backend %d holds %d of %d samples", tp.name, b, n, points)
			if len(held) > len(tp.groups) {
				require.Less(t, n, share*9/10, "%s: backend %d has no holes", tp.name, b)
			}
		}
	}
}

func TestTopologySpecs_TiersMeet(t *testing.T) {
	got := tiers.specs([]*splitBackend{{address: "x:1"}, {address: "x:2"}}, "always")
	require.Equal(t, []groupSpec{
		{name: "a", remoteRead: "always", targets: []string{"x:1"}, end: time.Unix(900, 0).UTC()},
		{name: "b", remoteRead: "always", targets: []string{"x:2"}, start: time.Unix(900, 0).UTC()},
	}, got)
}

const (
	vectorJSON = `{"status":"success","data":{"resultType":"vector","result":[%s]}}`
	matrixJSON = `{"status":"success","data":{"resultType":"matrix","result":[%s]}}`
)

func TestJudge(t *testing.T) {
	f := func(query, want, got string, values class) {
		t.Helper()
		require.Equal(t, verdict{values: values}, judge(evaluation{query: query}, []byte(want), 200, []byte(got)))
	}
	vector := func(query, want, got string, values class) {
		t.Helper()
		f(query, fmt.Sprintf(vectorJSON, want), fmt.Sprintf(vectorJSON, got), values)
	}
	a, b := `{"metric":{"i":"a"},"value":[1,"1"]}`, `{"metric":{"i":"b"},"value":[1,"2"]}`
	vector("foo", a, a, classExact)
	vector("foo", `{"metric":{"a":"1","b":"2"},"value":[1,"1"]}`, `{"metric":{"b":"2","a":"1"},"value":[1,"1"]}`, classExact)
	vector("foo", a, `{"metric":{"i":"a"},"value":[1,"1.0000000000000004"]}`, classNear)
	vector("foo", a, `{"metric":{"i":"a"},"value":[1,"1.0000000000000007"]}`, classDifferent)
	vector("foo", a, `{"metric":{"i":"a"},"value":[1,"-1"]}`, classDifferent)
	vector("foo", `{"metric":{},"value":[1,"0"]}`, `{"metric":{},"value":[1,"-0"]}`, classDifferent)
	vector("foo", `{"metric":{},"value":[1,"NaN"]}`, `{"metric":{},"value":[1,"NaN"]}`, classExact)
	vector("foo", `{"metric":{},"value":[1,"+Inf"]}`, `{"metric":{},"value":[1,"1.7976931348623157e308"]}`, classDifferent)
	vector("foo", a, `{"metric":{"i":"a"},"value":[2,"1"]}`, classMissing)
	vector("foo", a, `{"metric":{"i":"a"},"histogram":[1,{"count":"1","sum":"1"}]}`, classMissing)
	vector("foo", a, a+","+b, classExtra)
	vector("foo", a, a+","+a, classExtra)
	vector("foo", a+","+b, b, classMissing)
	vector("foo", a+","+b, b+","+a, classExact)
	vector("(sort(foo))", a+","+b, b+","+a, classOrder)
	vector("sort_by_label(foo, 'i')", a+","+b, b+","+a, classOrder)
	vector("topk(2, foo)", b+","+a, a+","+b, classOrder)
	vector("topk by (i) (2, foo)", b+","+a, a+","+b, classExact)
	vector("sort(foo)", a+`,{"metric":{"i":"c"},"value":[1,"1"]}`, `{"metric":{"i":"c"},"value":[1,"1"]},`+a, classExact)

	h := `{"metric":{},"histogram":[1,{"count":"6","sum":"%s","buckets":[[0,"0.5","1","1"]]}]}`
	vector("foo", fmt.Sprintf(h, "8"), fmt.Sprintf(h, "8"), classExact)
	vector("foo", fmt.Sprintf(h, "8"), fmt.Sprintf(h, "8.000000000000002"), classNear)
	vector("foo", fmt.Sprintf(h, "8"), fmt.Sprintf(h, "9"), classDifferent)

	matrix := func(want, got string, values class) {
		t.Helper()
		f("foo", fmt.Sprintf(matrixJSON, want), fmt.Sprintf(matrixJSON, got), values)
	}
	m, n := `{"metric":{"i":"a"},"values":[[1,"1"],[2,"2"]]}`, `{"metric":{"i":"b"},"values":[[1,"1"]]}`
	matrix(m, m, classExact)
	matrix(m+","+n, n+","+m, classOrder)
	matrix(m, `{"metric":{"i":"a"},"values":[[1,"1"]]}`, classMissing)
	matrix(m, `{"metric":{"i":"a"},"values":[[1,"1"],[2,"2"],[3,"3"]]}`, classExtra)
	matrix(m, `{"metric":{"i":"a"},"values":[[2,"2"],[1,"1"]]}`, classOutcome)
	matrix(m, `{"metric":{"i":"a"},"values":[[1,"1"],[2,"2"],[2,"2"]]}`, classOutcome)

	scalar := `{"status":"success","data":{"resultType":"scalar","result":[1,"%s"]}}`
	f("1", fmt.Sprintf(scalar, "1"), fmt.Sprintf(scalar, "1"), classExact)
	f("1", fmt.Sprintf(scalar, "1"), fmt.Sprintf(scalar, "2"), classDifferent)
	f("1", fmt.Sprintf(scalar, "1"), fmt.Sprintf(vectorJSON, a), classOutcome)
	f("1", fmt.Sprintf(scalar, "1"), `<html>`, classOutcome)
}

func TestJudge_Errors(t *testing.T) {
	want := []byte(`{"status":"error","errorType":"execution","error":"boom"}`)
	f := func(code int, got string, values class) {
		t.Helper()
		require.Equal(t, verdict{values: values}, judge(evaluation{}, want, code, []byte(got)))
	}
	f(422, string(want), classExact)
	f(503, string(want), classOutcome)
	f(422, `{"status":"error","errorType":"execution","error":"bang"}`, classErrorText)
	f(200, fmt.Sprintf(vectorJSON, ""), classOutcome)
}

func TestSameNotes(t *testing.T) {
	require.True(t, sameNotes("info", nil, nil))
	require.True(t, sameNotes("info", []string{"b", "a"}, []string{"a", "b"}))
	require.False(t, sameNotes("info", []string{"a"}, nil))
	require.False(t, sameNotes("info", nil, []string{"a"}))

	many := make([]string, 12)
	for i := range many {
		many[i] = fmt.Sprint("note ", i)
	}
	ten := slices.Clone(many[2:])
	require.True(t, sameNotes("info", many, append(slices.Clone(ten), "2 more info annotations omitted")))
	require.False(t, sameNotes("info", many, append(slices.Clone(ten), "3 more info annotations omitted")))
	require.False(t, sameNotes("info", many, append(slices.Clone(ten[1:]), "strange", "2 more info annotations omitted")))
	require.False(t, sameNotes("info", many, ten))
}

func TestKnownFindings_WriteReadRemove(t *testing.T) {
	t.Chdir(t.TempDir())
	lines := []string{"a.test\tnear\tinstant\t1\tfoo", "b.test\tmissing\trange\t2\tbar"}
	require.NoError(t, writeKnown("x", lines))
	got, err := readKnown("x")
	require.NoError(t, err)
	require.Equal(t, lines, got)

	require.NoError(t, writeKnown("x", nil))
	require.NoError(t, writeKnown("x", nil))
	got, err = readKnown("x")
	require.NoError(t, err)
	require.Empty(t, got)
	require.Equal(t, lines[1:], linesWithout(lines, lines[:1]))
}

// TestEitherAtEachStep: an answer may be one of two at some steps, and the other one at others.
func TestEitherAtEachStep(t *testing.T) {
	answer := func(notes, result string) []byte {
		return []byte(`{"status":"success",` + notes + `"data":{"resultType":"matrix","result":[` + result + `]}}`)
	}
	one := answer(``, `{"metric":{"a":"b"},"values":[[1,"1"],[2,"1"]]}`)
	other := answer(`"infos":["i"],`, `{"metric":{"a":"b"},"values":[[1,"2"],[2,"2"]]},{"metric":{"a":"c"},"values":[[2,"3"]]}`)
	for result, want := range map[string]bool{
		`{"metric":{"a":"b"},"values":[[1,"1"],[2,"2"]]},{"metric":{"a":"c"},"values":[[2,"3"]]}`: true,
		`{"metric":{"a":"b"},"values":[[1,"2"],[2,"1"]]}`:                                         true,
		`{"metric":{"a":"b"},"values":[[1,"1"],[2,"2"]]}`:                                         false, // half of the other's step
		`{"metric":{"a":"b"},"values":[[1,"1"],[2,"4"]]}`:                                         false,
		`{"metric":{"a":"b"},"values":[[1,"1"]]}`:                                                 false,
		`{"metric":{"a":"b"},"values":[[1,"1"],[2,"1"],[3,"1"]]}`:                                 false,
	} {
		require.Equal(t, want, eitherAtEachStep(answer(``, result), one, other), result)
	}
	require.False(t, eitherAtEachStep(answer(`"infos":["j"],`, ``), one, other))
	require.False(t, eitherAtEachStep([]byte(`{"status":"error"}`), one, other))
}
