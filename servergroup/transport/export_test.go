package transport

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/dedup"
)

// showLabels is a Request.Labels that shows all.
func showLabels(raw []labels.Label) (labels.Labels, string) { return labels.New(raw...), "" }

// exported reads an export of the window [mint, maxt] (ms).
func exported(body string, mint, maxt int64) (*exportLines, error) {
	e := &exportLines{request: Request{MinT: mint, MaxT: maxt, Labels: showLabels}, at: map[seriesKey]int{}}
	return e, e.read(strings.NewReader(body))
}

// seriesLines prints series as `{labels} ms:value`, sorted. `x` is a stale marker.
func seriesLines(t testing.TB, list []Series) string {
	t.Helper()
	lines := make([]string, 0, len(list))
	for _, s := range list {
		run := &dedup.Samples{}
		require.NoError(t, s.Run.AppendTo(run, math.MinInt64, math.MaxInt64))
		require.NoError(t, run.Check())
		var line strings.Builder
		line.WriteString(s.Labels.String() + s.Replica)
		for i, ts := range run.T {
			value := strconv.FormatFloat(run.F[i], 'g', -1, 64)
			switch {
			case run.Stale(i):
				value = "x"
			case run.H != nil && run.H[i] != nil:
				value = "h" + strconv.FormatUint(run.H[i].Count, 10)
			case run.FH != nil && run.FH[i] != nil:
				value = "fh" + strconv.FormatFloat(run.FH[i].Count, 'g', -1, 64)
			}
			fmt.Fprintf(&line, " %d:%s", ts, value)
		}
		lines = append(lines, line.String())
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func TestExport_Values(t *testing.T) {
	f := func(values, want string) {
		t.Helper()
		n := strings.Count(values, ",") + 1
		stamps := make([]string, n)
		for i := range stamps {
			stamps[i] = strconv.Itoa(i)
		}
		e, err := exported(`{"metric":{"__name__":"m"},"values":[`+values+`],"timestamps":[`+strings.Join(stamps, ",")+"]}\n", 0, 100)
		require.NoError(t, err)
		require.Equal(t, `{__name__="m"} `+want, seriesLines(t, e.series))
	}
	f(`1,2.5,-3,0`, `0:1 1:2.5 2:-3 3:0`)
	f(`1,+Inf,-Inf,2`, `0:1 1:+Inf 2:-Inf 3:2`)
	f(`"Infinity","-Infinity","+Inf","-Inf"`, `0:+Inf 1:-Inf 2:+Inf 3:-Inf`)
	f(`+Inf`, `0:+Inf`)
	// What is not a number is a stale marker: first in a line it is written otherwise.
	f(`1,null,3`, `0:1 1:x 2:3`)
	f(`NaN,null,"NaN"`, `0:x 1:x 2:x`)
	// Decimals never have an exponent.
	f(`1`+strings.Repeat("0", 308)+`,0.`+strings.Repeat("0", 299)+`1,-1`+strings.Repeat("0", 308), `0:1e+308 1:1e-300 2:-1e+308`)
	f(`1152921504606846848,0.333333333333`, `0:1.1529215046068468e+18 1:0.333333333333`)
	f(`1e5,1e-310`, `0:100000 1:1e-310`)
}

func TestExport_Labels(t *testing.T) {
	f := func(want, name, value string) {
		t.Helper()
		metric, err := json.Marshal(map[string]string{"__name__": "m", name: value})
		require.NoError(t, err)
		e, err := exported(`{"metric":`+string(metric)+`,"values":[7],"timestamps":[5]}`+"\n", 0, 100)
		require.NoError(t, err)
		require.Len(t, e.series, 1)
		require.Equal(t, value, e.series[0].Labels.Get(name))
		require.Equal(t, want, seriesLines(t, e.series))
	}
	f(`{__name__="m", a="b"} 5:7`, "a", "b")
	f(`{__name__="m", a="q\"x\\y"} 5:7`, "a", `q"x\y`)
	// What parts a line, in a label.
	f(`{__name__="m", a=",\"values\":["} 5:7`, "a", `,"values":[`)
	f(`{__name__="m", a="],\"timestamps\":["} 5:7`, "a", `],"timestamps":[`)
	f(`{__name__="m", a="\\\\\",\"values\":[1],\"timestamps\":[2]}"} 5:7`, "a", `\\","values":[1],"timestamps":[2]}`)
	f(`{__name__="m", values=","} 5:7`, "values", ",")
	f(`{",\"values\":["="]}", __name__="m"} 5:7`, `,"values":[`, "]}")
	f(`{__name__="m", a="two\nlines"} 5:7`, "a", "two\nlines")
	f(`{__name__="m", "lab el"="ü"} 5:7`, "lab el", "ü")

	e, err := exported(`{"metric":{},"values":[7],"timestamps":[5]}`+"\n", 0, 100)
	require.NoError(t, err)
	require.Equal(t, `{} 5:7`, seriesLines(t, e.series))
}

func TestExport_SeriesMayHaveSeveralLinesInAnyOrderOfSeries(t *testing.T) {
	body := `{"metric":{"__name__":"z"},"values":[1,2],"timestamps":[10,20]}
{"metric":{"__name__":"a"},"values":[5],"timestamps":[10]}
{"metric":{"__name__":"z"},"values":[3,4],"timestamps":[30,40]}
{"metric":{"__name__":"z"},"values":[9],"timestamps":[40]}
{"metric":{"__name__":"z"},"values":[9,5],"timestamps":[40,50]}
`
	want := `{__name__="a"} 10:5` + "\n" + `{__name__="z"} 10:1 20:2 30:3 40:4 50:5`
	for _, b := range []string{body, strings.TrimSuffix(body, "\n"), strings.ReplaceAll(body, "\n", "\r\n"), strings.ReplaceAll(body, "\n", "\n\n")} {
		e, err := exported(b, 0, 100)
		require.NoError(t, err)
		require.Equal(t, want, seriesLines(t, e.series))
	}
	e, err := exported(body, 20, 40)
	require.NoError(t, err)
	require.Equal(t, `{__name__="z"} 20:2 30:3 40:4`, seriesLines(t, e.series), "what lies outside the window is left out")

	e, err = exported("", 0, 100)
	require.NoError(t, err)
	require.Empty(t, e.series)
}

func TestExport_OfTwoSamplesOfATimeTheFirstCounts(t *testing.T) {
	e, err := exported(`{"metric":{},"values":[1,2,3,4,5],"timestamps":[10,10,10,20,20]}`, 0, 100)
	require.NoError(t, err)
	require.Equal(t, `{} 10:1 20:4`, seriesLines(t, e.series))
}

func TestExport_LinesLongerThanTheBuffer(t *testing.T) {
	const n = 30_000
	var values, stamps strings.Builder
	for i := range n {
		if i > 0 {
			values.WriteByte(',')
			stamps.WriteByte(',')
		}
		fmt.Fprintf(&values, "%d", i)
		fmt.Fprintf(&stamps, "%d", 1773130000000+i)
	}
	long := func(name string) string {
		return `{"metric":{"__name__":"` + name + `"},"values":[` + values.String() + `],"timestamps":[` + stamps.String() + "]}\n"
	}
	short := `{"metric":{"__name__":"short"},"values":[0],"timestamps":[1773130000000]}` + "\n"
	e, err := exported(long("a")+short+long("b"), 0, math.MaxInt64)
	require.NoError(t, err)
	require.Len(t, e.series, 3)
	for i, want := range []int{n, 1, n} {
		run := e.series[i].Run.(*dedup.Samples)
		require.Equal(t, want, run.Len())
		require.Equal(t, float64(want-1), run.F[want-1])
	}
}

func TestExport_BrokenLines(t *testing.T) {
	const good = `{"metric":{"__name__":"m"},"values":[1,2],"timestamps":[10,20]}` + "\n"
	f := func(want, last string) {
		t.Helper()
		_, err := exported(good+last, 0, 100)
		var format *formatError
		require.ErrorAs(t, err, &format)
		require.ErrorContains(t, err, want)
	}
	f("more values than timestamps, or fewer", `{"metric":{},"values":[1,2],"timestamps":[10]}`)
	f("more values than timestamps, or fewer", `{"metric":{},"values":[1],"timestamps":[10,20]}`)
	f("more values than timestamps, or fewer", `{"metric":{},"values":[],"timestamps":[10]}`)
	f("samples out of order in an export: one at 10 ms after one at 20 ms", `{"metric":{},"values":[1,2],"timestamps":[20,10]}`)
	f("out of order", `{"metric":{"__name__":"m"},"values":[1],"timestamps":[15]}`)
	f("value in a line of an export", `{"metric":{},"values":[1x],"timestamps":[10]}`)
	f("value in a line of an export", `{"metric":{},"values":["a"],"timestamps":[10]}`)
	f("value in a line of an export", `{"metric":{},"values":[nan],"timestamps":[10]}`)
	f("timestamp in a line of an export", `{"metric":{},"values":[1],"timestamps":[10.5]}`)
	f("timestamp in a line of an export", `{"metric":{},"values":[1],"timestamps":[]]}`)
	f("labels in a line of an export", `{"metric":{"a":1},"values":[1],"timestamps":[10]}`)
	f("labels in a line of an export", `{"metric":[],"values":[1],"timestamps":[10]}`)
	f("not a line of an export: {}", `{}`)
	f("not a line of an export", `{"status":"error","error":"boo"}`)
	f("not a line of an export", `{"metric":{},"timestamps":[10],"values":[1]}`)
	for i := 1; i < len(good)-1; i++ {
		f("line of an export", good[:i])
	}
}

// TestExport_RefusalInTheLastLineEndsAll is what VictoriaMetrics sends when a limit strikes while the answer is under
// way: the status is 200 still.
func TestExport_RefusalInTheLastLineEndsAll(t *testing.T) {
	const good = `{"metric":{"__name__":"m"},"values":[1,2],"timestamps":[10,20]}` + "\n"
	f := func(last, want string) {
		t.Helper()
		c := served(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/stream+json; charset=utf-8")
			_, _ = io.WriteString(w, good+last)
		})
		list, err := c.Fetch(t.Context(), ExportAPI, Request{Labels: showLabels, MaxT: 100})
		require.Empty(t, list, last)
		require.EqualError(t, err, c.URL()+": "+want)
		require.Equal(t, ClassUser, ClassOf(err))
	}
	f(`remoteAddr: "127.0.0.1:33698"; requestURI: /api/v1/export?match[]=many&token=s3cret; error when exporting data: cannot process it`+"\n",
		"error when exporting data: cannot process it")
	f("cannot\x1b[31m do it\nsecond line", "cannot [31m do it")
	f("\r\n\ncannot", "cannot")
	f(`remoteAddr: "127.0.0.1:33698"; requestURI: /api/v1/export?token=s3cret`, "refused without a reason")
	f("x", "x")
	f("  spaces", "spaces")
}

// TestExport_SecretsAreCutFromBrokenLines: a refusal may begin in the middle of one.
func TestExport_SecretsAreCutFromBrokenLines(t *testing.T) {
	_, err := exported(`{"metric":{},"val`+`requestURI: /api/v1/export?token=s3cret; no`, 0, 100)
	require.ErrorContains(t, err, "not a line of an export")
	require.NotContains(t, err.Error(), "s3cret")
}

func TestExport_AnswersThatAreNone(t *testing.T) {
	f := func(status int, contentType, body string, class Class, want string) {
		t.Helper()
		c := served(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", contentType)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		})
		_, err := c.Fetch(t.Context(), ExportAPI, Request{Labels: showLabels, MaxT: 100})
		require.Equal(t, class, ClassOf(err), "%v", err)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "s3cret")
	}
	f(400, "text/plain; charset=utf-8", `remoteAddr: "127.0.0.1:1"; requestURI: /api/v1/export?token=s3cret; cannot parse matches[]`, ClassUser, "status 400 Bad Request: cannot parse matches[]")
	f(200, "text/html", "<html>", ClassContent, `content type "text/html"`)
	f(200, "application/json", `{"status":"success","data":{}}`, ClassContent, "not a line of an export")
	f(200, "application/stream+json", `{"metric":{},"values":[1`, ClassContent, "not a line of an export")
	f(503, "text/plain", "busy", ClassServer, "busy")
}

func TestExport_WhatIsAskedFor(t *testing.T) {
	var form map[string][]string
	c := served(t, func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		form = r.Form
		w.Header().Set("Content-Type", "application/stream+json")
	}).As(DialectOf(VictoriaMetrics, false))
	r := Request{
		MinT: 1773130000123, MaxT: 1773130060001, Labels: showLabels,
		Matchers: []*labels.Matcher{
			labels.MustNewMatcher(labels.MatchEqual, "__name__", "http.requests"),
			labels.MustNewMatcher(labels.MatchNotEqual, "lab el", `q"\`),
			labels.MustNewMatcher(labels.MatchRegexp, "1st-ü", "a|b\n"),
			labels.MustNewMatcher(labels.MatchNotRegexp, "a1", `\d+`),
		},
	}
	list, err := c.Fetch(t.Context(), ExportAPI, r)
	require.NoError(t, err)
	require.Empty(t, list)
	require.Equal(t, []string{`{__name__="http.requests",lab\ el!="q\"\\",\1st\-\xc3\xbc=~"a|b\n",a1!~"\\d+"}`}, form["match[]"])
	require.Equal(t, []string{"1773130000.123"}, form["start"])
	require.Equal(t, []string{"1773130060.001"}, form["end"])
	require.Equal(t, []string{"1"}, form["nocache"])
}

// TestExport_LabelsComeInOneOrder: those that are dropped tell replicas apart, and name them.
func TestExport_LabelsComeInOneOrder(t *testing.T) {
	const body = `{"metric":{"__name__":"m","d":"4","b":"2","c":"3","a":"1"},"values":[1],"timestamps":[10]}`
	for range 50 {
		var order string
		e := &exportLines{at: map[seriesKey]int{}, request: Request{MaxT: 100, Labels: func(raw []labels.Label) (labels.Labels, string) {
			for _, l := range raw {
				order += l.Name + " "
			}
			return labels.EmptyLabels(), ""
		}}}
		require.NoError(t, e.read(strings.NewReader(body)))
		require.Equal(t, "__name__ a b c d ", order)
	}
}

func TestExport_ProbeIsNotBrokenByAnAnswer(t *testing.T) {
	c := served(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/stream+json")
		_, _ = io.WriteString(w, `{"metric":{"__name__":"oneprom_probe"},"values":[1],"timestamps":[1]}`)
	})
	require.NotPanics(t, func() { require.NoError(t, c.ProbeExport(t.Context())) })
}

// overBudget is what a query's budget answers.
type overBudget struct{}

func (overBudget) Error() string   { return "over" }
func (overBudget) BudgetExceeded() {}

func TestExport_ChargedAsItComes(t *testing.T) {
	c := served(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/stream+json")
		for i := 0; r.Context().Err() == nil; i++ {
			_, _ = fmt.Fprintf(w, `{"metric":{"i":"%d"},"values":[1],"timestamps":[10]}`+"\n", i)
		}
	})
	charged := 0
	_, err := c.Fetch(t.Context(), ExportAPI, Request{MaxT: 100, Labels: showLabels, Charge: func(n int) error {
		if charged += n; charged > 1<<20 {
			return overBudget{}
		}
		return nil
	}})
	require.ErrorIs(t, err, overBudget{})
}

func TestExport_BodyThatBreaksOffIsTransport(t *testing.T) {
	c := served(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/stream+json")
		w.Header().Set("Content-Length", "1000")
		_, _ = io.WriteString(w, `{"metric":{},"values":[1],"timestamps":[10]}`+"\n")
	})
	list, err := c.Fetch(t.Context(), ExportAPI, Request{MaxT: 100, Labels: showLabels})
	require.Empty(t, list)
	require.Equal(t, ClassTransport, ClassOf(err))

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = c.Fetch(ctx, ExportAPI, Request{MaxT: 100, Labels: showLabels})
	require.Equal(t, ClassCanceled, ClassOf(err))
}

// FuzzExport feeds any lines: no panic, and what is accepted is in order, within the window, and the same however it
// is cut into reads.
func FuzzExport(f *testing.F) {
	f.Add([]byte(`{"metric":{"__name__":"m","a":"],\"timestamps\":["},"values":[1,+Inf,null,NaN,"Infinity"],"timestamps":[1,2,2,30,40]}` + "\n"))
	f.Add([]byte(`{"metric":{},"values":[1],"timestamps":[1]}` + "\n" + `{"metric":{},"values":[2],"timestamps":[1]}` + "\r\n\n" + `remoteAddr: "x"; requestURI: y; no`))
	f.Add([]byte(`{"metric":null,"values":[],"timestamps":[]}`))
	f.Add([]byte("{"))
	f.Fuzz(func(t *testing.T, body []byte) {
		read := func(r io.Reader) (string, error) {
			e := &exportLines{request: Request{MinT: 2, MaxT: 30, Labels: showLabels}, at: map[seriesKey]int{}}
			if err := e.read(r); err != nil {
				return "", err
			}
			for _, s := range e.series {
				run := s.Run.(*dedup.Samples)
				require.NotZero(t, run.Len())
				require.NoError(t, run.Check())
				require.GreaterOrEqual(t, run.T[0], int64(2))
				require.LessOrEqual(t, run.T[run.Len()-1], int64(30))
			}
			return seriesLines(t, e.series), nil
		}
		whole, err := read(bytes.NewReader(body))
		byByte, err2 := read(&oneByte{body})
		require.Equal(t, err == nil, err2 == nil)
		require.Equal(t, whole, byByte)
		var format *formatError
		if err != nil && !errors.As(err, &format) {
			require.NotContains(t, err.Error(), "\n")
		}
	})
}

// oneByte reads one byte at a time.
type oneByte struct{ rest []byte }

func (r *oneByte) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	p[0] = r.rest[0]
	r.rest = r.rest[1:]
	return 1, nil
}
