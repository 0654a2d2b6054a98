package servergroup

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest"
	"github.com/oneprom/oneprom/servergroup/backendtest/dialect"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/lookup"
	"github.com/oneprom/oneprom/servergroup/survey"
	"github.com/oneprom/oneprom/servergroup/transport"
	"github.com/oneprom/oneprom/servergroup/view"
)

// told is what the servers say about a selector by each way to ask: samples raw and at steps, series,
// names and values of labels, exemplars. Nothing may be missing.
func told(t *testing.T, s *Set, selector string) string {
	t.Helper()
	var b strings.Builder
	text, ws, err := selectText(t, s, selector, 0, 60_000)
	require.NoError(t, err, selector)
	require.Empty(t, strs(ws), selector)
	b.WriteString(text)
	v := s.View(t.Context())
	steps := transport.Steps{Start: 15_000, End: 60_000, Step: 15_000, Lookback: 300_000}
	list, ws := fetched(t.Context(), t, v, view.Selection{Matchers: matchersOf(t, selector), MinT: 0, MaxT: 60_000, Steps: &steps})
	require.Empty(t, strs(ws), selector)
	l := lookupOf(t, selector, 0)
	fmt.Fprintln(&b, list, seriesShown(t, v, l), namesOf(t, v, l))
	for _, name := range []string{"i", "msg", "k8s.pod.name", "none.such"} {
		fmt.Fprintf(&b, "%q\n", valuesOf(t, v, name, l))
	}
	found, ws, err := survey.Of(v).Exemplars(t.Context(), 0, 60_000, [][]*labels.Matcher{l.Matchers})
	require.NoError(t, err, selector)
	require.Empty(t, strs(ws), selector)
	for _, e := range found {
		fmt.Fprintln(&b, e.SeriesLabels, e.Exemplars)
	}
	return b.String()
}

// tells compares what the same data tells behind a Prometheus 3 and behind a Prometheus 2, in every
// transport.
func tells(t *testing.T, load string, selectors []string, change ...func(*config.Group)) {
	t.Helper()
	data := promqltest.LoadedStorage(t, load)
	app := data.Appender(t.Context())
	for i, msg := range []string{"x\ny", "xzy"} {
		_, err := app.AppendExemplar(0, labels.FromStrings("__name__", "m", "i", strconv.Itoa(i+1), "msg", msg), exemplar.Exemplar{Labels: labels.FromStrings("trace", msg), Value: 1, Ts: 15_000, HasTs: true})
		require.NoError(t, err)
	}
	require.NoError(t, app.Commit())
	of := func(h http.Handler, change ...func(*config.Group)) *Set {
		cfg := groupOf("a", serve(t, h))
		for _, c := range change {
			c(&cfg)
		}
		return newTestSet(t, config.PartialWarn, cfg)
	}
	truth := of(backendtest.NewHandler(backendtest.Options{Queryable: data, Exemplars: data}), change...)
	for _, read := range []backendtest.RemoteRead{backendtest.Streamed, backendtest.SamplesOnly, backendtest.NoRemoteRead} {
		old := of(dialect.NewPrometheus2(backendtest.Options{Queryable: data, Exemplars: data, RemoteRead: read}), change...)
		for _, selector := range selectors {
			require.Equal(t, told(t, truth, selector), told(t, old, selector), "remote read %d: %s", read, selector)
		}
	}
}

// breaks are series whose values have line breaks.
const breaks = `load 15s
	m{i="0",msg="plain text"} 1x4
	m{i="1",msg="x\ny"} 1x4
	m{i="2",msg="xzy"} 1x4
	m{i="3",msg="x.y"} 1x4
	m{i="4",msg="\n"} 1x4
	m{i="5",msg="FIRST\nx\n"} 1x4
	m{i="6"} 1x4
	other{i="7"} 1x4`

func TestMeaning_DotMatchesLineBreaks(t *testing.T) {
	var selectors []string
	for _, pattern := range []string{".*", ".+", "x.y", "x\\\\.y", "x.*", ".*y", "(?i)first.*", ".", "|.+", "(?-s:.*)", "x(?-s:.)y|.", "[^a]*", "x[.]y", "(?<n>x.y)", "a|x.y|\n"} {
		for _, op := range []string{"=~", "!~"} {
			selectors = append(selectors, fmt.Sprintf(`m{msg%s"%s"}`, op, strings.ReplaceAll(pattern, "\n", `\n`)))
		}
	}
	selectors = append(selectors, `{__name__=~".*r",msg!~".+"}`, `{msg=~".*",i!~".*"}`, `m{msg="x\ny"}`, `m{msg!="x\ny"}`)
	tells(t, breaks, selectors)
}

func TestMeaning_DotMatchesLineBreaksInLabelsThatAreRenamed(t *testing.T) {
	inject := func(c *config.Group) { c.Labels = map[string]string{"msg": "own"} }
	load := strings.ReplaceAll(breaks, `i="4"`, `i="x\ny"`)
	cfg := groupOf("a", serve(t, dialect.NewPrometheus2(backendtest.Options{Queryable: promqltest.LoadedStorage(t, load)})))
	inject(&cfg)
	v := newTestSet(t, config.PartialWarn, cfg).View(t.Context())
	require.Len(t, seriesShown(t, v, lookupOf(t, `m{exported_msg=~".*"}`, 0)), 7)
	require.Len(t, seriesShown(t, v, lookupOf(t, `m{exported_msg=~"x.y"}`, 0)), 3)
	require.Len(t, seriesShown(t, v, lookupOf(t, `m{i=~"x.y",msg=~"o.n"}`, 0)), 1)
}

// namesNotRead are selectors with label names that a Prometheus 2 cannot read.
var namesNotRead = []string{
	`m{"k8s.pod.name"="p"}`, `m{"k8s.pod.name"!="p"}`, `m{"k8s.pod.name"=""}`, `m{"k8s.pod.name"!=""}`,
	`m{"k8s.pod.name"=~"p|q"}`, `m{"k8s.pod.name"!~"p|"}`, `m{"k8s.pod.name"=~".*"}`, `m{"k8s.pod.name"!~".+"}`,
	`m{"limit exceeded"="",i=~"1|2"}`, `m{"é"="x"}`, `{"k8s.pod.name"="p",i="1"}`, `{"k8s.pod.name"=~".*",i!~"1.*"}`,
}

func TestMeaning_NamesThatAServerNeitherReadsNorHas(t *testing.T) {
	tells(t, breaks, append([]string{`{"k8s.pod.name"="p"}`, `{"k8s.pod.name"!="",i=~".*"}`}, namesNotRead...))
}

// Remote write brings any name into a Prometheus 2.
func TestMeaning_NamesThatAServerHasAndCannotRead(t *testing.T) {
	withName := strings.ReplaceAll(breaks, `i="0"`, `i="0","k8s.pod.name"="p"`) + "\n\tm{i=\"8\",\"k8s.pod.name\"=\"q\\nr\"} 1x4"
	data := promqltest.LoadedStorage(t, withName)
	truth := newTestSet(t, config.PartialWarn, groupOf("a", serve(t, backendtest.NewHandler(backendtest.Options{Queryable: data}))))
	old := newTestSet(t, config.PartialWarn, groupOf("a", serve(t, dialect.NewPrometheus2(backendtest.Options{Queryable: data, RemoteRead: backendtest.NoRemoteRead}))))
	for _, selector := range append([]string{"m"}, namesNotRead...) {
		l := lookupOf(t, selector, 0)
		require.Equal(t, seriesShown(t, truth.View(t.Context()), l), seriesShown(t, old.View(t.Context()), l), selector)
		require.Equal(t, namesOf(t, truth.View(t.Context()), l), namesOf(t, old.View(t.Context()), l), selector)
		for _, name := range []string{"i", "k8s.pod.name"} {
			require.Equal(t, valuesOf(t, truth.View(t.Context()), name, l), valuesOf(t, old.View(t.Context()), name, l), "%s of %s", name, selector)
		}
		few, _, err := lookup.Series(t.Context(), old.View(t.Context()), lookupOf(t, selector, 1))
		require.NoError(t, err)
		require.Equal(t, len(seriesShown(t, truth.View(t.Context()), l)) > 0, len(few) > 0, "a limit counts series that match: %s", selector)
		want, _, err := selectText(t, truth, selector, 0, 60_000)
		require.NoError(t, err)
		got, ws, err := selectText(t, old, selector, 0, 60_000)
		require.NoError(t, err)
		require.Empty(t, strs(ws), selector)
		require.Equal(t, want, got, selector)
	}
	// All series would have to be fetched: the group is missing instead.
	_, _, err := selectText(t, old, `{"k8s.pod.name"="p"}`, 0, 60_000)
	require.ErrorContains(t, err, "parse error")
}

// A server that lists its label names only in part cannot show that it lacks one.
func TestMeaning_NamesThatMayBeMissingFromTheListAreNotTakenForAbsent(t *testing.T) {
	old := dialect.NewPrometheus2(backendtest.Options{Queryable: promqltest.LoadedStorage(t, breaks), RemoteRead: backendtest.NoRemoteRead})
	var listed atomic.Pointer[string]
	s := newTestSet(t, config.PartialWarn, groupOf("old", serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if text := listed.Load(); text != nil && r.URL.Path == "/api/v1/labels" {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte(*text))
			return
		}
		old.ServeHTTP(w, r)
	}))))
	const selector = `m{"k8s.pod.name"=""}`
	require.Len(t, seriesShown(t, s.View(t.Context()), lookupOf(t, selector, 0)), 7)
	for _, text := range []string{`{"status":"success","data":["i"],"warnings":["a store is missing"]}`, `{"status":"error","error":"no"}`} {
		listed.Store(&text)
		_, _, err := selectText(t, s, selector, 0, 60_000)
		require.ErrorContains(t, err, "parse error")
		_, _, err = lookup.Series(t.Context(), s.View(t.Context()), lookupOf(t, selector, 0))
		require.ErrorContains(t, err, "parse error")
	}
}

// Where nothing is odd, nothing is asked twice, and selectors are sent as they are.
func TestMeaning_APrometheus3IsAskedAsBefore(t *testing.T) {
	var asked atomic.Pointer[[]string]
	asked.Store(new([]string))
	h := backendtest.NewHandler(backendtest.Options{Queryable: promqltest.LoadedStorage(t, breaks), RemoteRead: backendtest.NoRemoteRead})
	s := newTestSet(t, config.PartialWarn, groupOf("a", serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		if text := r.Form.Get("match[]"); text != "" || strings.Contains(r.URL.Path, "label") {
			all := append(*asked.Load(), r.URL.Path+" "+text)
			asked.Store(&all)
		}
		h.ServeHTTP(w, r)
	}))))
	ready(t, s)
	asked.Store(new([]string))
	v := s.View(t.Context())
	const selector = `{__name__="m",msg=~"x.*","k8s.pod.name"=""}`
	l := lookupOf(t, selector, 0)
	require.Empty(t, valuesOf(t, v, "k8s.pod.name", l))
	require.Len(t, seriesShown(t, v, l), 3)
	require.Equal(t, []string{"/api/v1/label/U__k8s_2e_pod_2e_name/values " + selector, "/api/v1/series " + selector}, *asked.Load())
}
