package proxy

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/promqlx/explain"
	explainapi "github.com/oneprom/oneprom/proxy/explain"
	"github.com/oneprom/oneprom/servergroup/backendtest"
)

// explainData are two targets, and one series of each.
const explainData = `
load 15s
  up{job="j", instance="x:1"} 1x400
  up{job="j", instance="x:2"} 1x400
  m_total{job="j", instance="x:1"} 0+1x400
  m_total{job="j", instance="x:2"} 0+2x400
`

// explainBackend is the address of a Prometheus that holds some data.
func explainBackend(t *testing.T, data string, earlyNames bool) string {
	t.Helper()
	db := promqltest.LoadedStorage(t, data)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	backend := httptest.NewServer(backendtest.NewHandler(backendtest.Options{Queryable: db, EarlyNames: earlyNames}))
	t.Cleanup(backend.Close)
	return strings.TrimPrefix(backend.URL, "http://")
}

// regionsConfig has a group of one replica, and one of two.
func regionsConfig(single string, pair ...string) string {
	return fmt.Sprintf(`
server_groups:
  - name: eu
    labels: {region: eu}
    static_configs: [{targets: ['%s']}]
  - name: us
    labels: {region: us}
    static_configs: [{targets: ['%s']}]
`, single, strings.Join(pair, "', '"))
}

const sameFeatures = "--enable-feature=use-start-timestamps"

// explanation is a successful answer in the API's envelope.
func explanation(t *testing.T, w *httptest.ResponseRecorder) (e explain.Explanation, warnings []string) {
	t.Helper()
	require.Equal(t, http.StatusOK, w.Code, w.Body)
	var body struct {
		Status   string
		Data     json.RawMessage
		Warnings []string
	}
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body))
	require.Equal(t, "success", body.Status)
	require.NoError(t, json.Unmarshal(body.Data, &e))
	return e, body.Warnings
}

func TestExplain_AnalyzeShowsWhatWasChosen(t *testing.T) {
	eu, us := explainBackend(t, explainData, true), explainBackend(t, explainData, true)
	holes := explainBackend(t, strings.ReplaceAll(explainData, "1x400", "1x20 _x360 1x20"), true)
	s, _ := startedServer(t, regionsConfig(eu, holes, us), sameFeatures)
	query := "analyze=true&start=3000&end=3600&step=60&query=" + url.QueryEscape(`sum(rate(m_total[5m])) + on () group_left () sum(up)`)
	e, warnings := explanation(t, get(s.Handler(), "/api/v1/explain?"+query))
	require.Empty(t, warnings)
	require.Len(t, e.Parts, 2)
	part := e.Parts[0]
	require.Equal(t, "$1", part.Name)
	require.Equal(t, []string{"region"}, part.Carries)
	require.Len(t, part.Partitions, 2)

	piece := part.Partitions[0].Pieces[0]
	require.Equal(t, "remote", piece.Execution, piece.Local)
	require.Equal(t, "http://"+eu, piece.Replica)
	require.Equal(t, "the only replica", piece.Why)
	require.Equal(t, `sum(rate({__name__="m_total"}[5m]))`, piece.Text)
	require.Equal(t, 1, piece.Series)
	require.Equal(t, 11, piece.Samples)
	require.Positive(t, piece.Milliseconds)
	require.Empty(t, piece.Fetches)

	piece = part.Partitions[1].Pieces[0] // the first of the pair was away all the time
	require.Equal(t, "http://"+us, piece.Replica)
	require.Equal(t, "whole", piece.Why)
	require.Equal(t, "remote", piece.Execution, piece.Local)

	require.NotNil(t, e.Analysis)
	require.Equal(t, "matrix", e.Analysis.ResultType)
	require.Equal(t, 1, e.Analysis.Series)
	require.Equal(t, 11, e.Analysis.Samples)
	require.Positive(t, e.Analysis.Bytes)
	require.Positive(t, e.Analysis.Milliseconds)
}

func TestExplain_AnalyzeSaysWhyHere(t *testing.T) {
	stock, late := explainBackend(t, explainData, true), explainBackend(t, explainData, false)
	query := "/api/v1/explain?analyze=true&time=3600&query=" + url.QueryEscape(`sum(rate(m_total[5m]))`)
	config := regionsConfig(stock, late)

	s, _ := startedServer(t, config, sameFeatures)
	e, _ := explanation(t, get(s.Handler(), query))
	require.Equal(t, "remote", e.Parts[0].Partitions[0].Pieces[0].Execution)
	piece := e.Parts[0].Partitions[1].Pieces[0]
	require.Equal(t, "local", piece.Execution)
	require.Equal(t, "the feature promql-delayed-name-removal is not the same there and here", piece.Local)
	require.Empty(t, piece.Text)
	require.Len(t, piece.Fetches, 1)
	require.EqualValues(t, 2, piece.Fetches[0].Series)
	require.EqualValues(t, 40, piece.Fetches[0].Samples)
	require.Positive(t, piece.Fetches[0].Milliseconds)

	r := httptest.NewRequest(http.MethodGet, query, nil)
	r.Header.Set("X-Oneprom-Pushdown", "off")
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	e, _ = explanation(t, w)
	require.Equal(t, "pushdown: off", e.Parts[0].Partitions[0].Pieces[0].Local)

	s, _ = startedServer(t, config, sameFeatures, "--enable-feature=promql-delayed-name-removal")
	e, _ = explanation(t, get(s.Handler(), query))
	require.Empty(t, e.Parts)
	require.Contains(t, e.NoParts, "promql-delayed-name-removal")
	require.Len(t, e.Selectors, 1)
	require.EqualValues(t, 4, e.Selectors[0].Fetch.Series)
	require.EqualValues(t, 80, e.Selectors[0].Fetch.Samples)
}

// What info() selects while it is evaluated is shown, too.
func TestExplain_AnalyzeOfInfo(t *testing.T) {
	s, _ := startedServer(t, regionsConfig(explainBackend(t, explainData, true), "127.0.0.1:1"), sameFeatures, "--enable-feature=promql-experimental-functions")
	e, warnings := explanation(t, get(s.Handler(), "/api/v1/explain?analyze=true&time=3600&query="+url.QueryEscape(`info(m_total, {__name__="up"})`)))
	require.Len(t, warnings, 1)
	require.Contains(t, warnings[0], `partial answer: server group "us"`)
	require.Len(t, e.Selectors, 3)
	require.EqualValues(t, 2, e.Selectors[0].Fetch.Series)
	require.True(t, e.Selectors[1].Unused)
	require.Nil(t, e.Selectors[1].Fetch)
	require.Contains(t, e.Selectors[2].Selector, `__name__="up"`)
	require.EqualValues(t, 2, e.Selectors[2].Fetch.Series)
}

func TestExplain_AnalyzeOfWhatFails(t *testing.T) {
	s, _ := startedServer(t, regionsConfig(explainBackend(t, explainData, true), "127.0.0.1:1"), sameFeatures)
	w := get(s.Handler(), "/api/v1/explain?analyze=true&format=text&time=3600&query=rate(m_total[5m])")
	require.Equal(t, http.StatusOK, w.Code)
	require.Equal(t, "text/plain; charset=utf-8", w.Header().Get("Content-Type"))
	require.Contains(t, w.Body.String(), "\n    failed: expanding series: server group \"us\"")
	require.Contains(t, w.Body.String(), "\n  warning: partial answer: server group \"us\"")
	w = get(s.Handler(), "/api/v1/explain?analyze=true&time=3600&query="+url.QueryEscape(`rate(m_total{region="us"}[5m])`))
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
}

// TestExplain_OfflineSaysTheSame also shows that nobody is asked: the backends do not
// exist.
func TestExplain_OfflineSaysTheSame(t *testing.T) {
	config := regionsConfig("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3")
	s, file := startedServer(t, config, "--query.lookback-delta=7m", "--cache.size=0") // offline there is no cache
	form := "format=text&start=0&end=600&step=1m&query=" + url.QueryEscape(`sum by (region) (m)`)
	want := ask(s.Handler(), http.MethodPost, "/api/v1/explain", form)
	require.Equal(t, http.StatusOK, want.Code, want.Body)
	require.Contains(t, want.Body.String(), "partition us (2 replicas)")

	got, err := explainOffline(t, "--config.file="+file, "--query.lookback-delta=7m", "explain", "--start=0", "--end=600", "--step=1m", `sum by (region) (m)`)
	require.NoError(t, err)
	require.Equal(t, want.Body.String(), got)
	require.Contains(t, got, "lookback 7m0s")

	got, err = explainOffline(t, "--config.file="+file, "explain", "m", "--enable-feature=promql-delayed-name-removal")
	require.NoError(t, err)
	require.Contains(t, got, "no parts: promql-delayed-name-removal")

	discovered := filepath.Join(t.TempDir(), "sd.yml")
	writeConfig(t, discovered, "server_groups: [{name: a, file_sd_configs: [{files: [x.json]}]}]")
	got, err = explainOffline(t, "--config.file="+discovered, "explain", "m")
	require.NoError(t, err)
	require.Contains(t, got, "partition a (replicas are discovered)")

	_, err = explainOffline(t, "--config.file="+file, "explain", "m +")
	require.EqualError(t, err, `invalid parameter "query": 1:4: parse error: unexpected end of input`)
	_, err = explainOffline(t, "--config.file="+file, "explain", "--start=1", "m")
	require.EqualError(t, err, `invalid parameter "end": cannot parse "" to a valid timestamp`)
	_, err = explainOffline(t, "--config.file=/does/not/exist", "explain", "m")
	require.ErrorContains(t, err, "configuration: open /does/not/exist")
}

// explainOffline runs a command line.
func explainOffline(t *testing.T, args ...string) (string, error) {
	t.Helper()
	app := kingpin.New("oneprom", "").Terminate(nil)
	var o Options
	var q explainapi.OfflineQuestion
	AddFlags(app, &o)
	q.AddFlags(app.Command("explain", ""))
	_, err := app.Parse(args)
	require.NoError(t, err)
	o.Now = func() time.Time { return time.Unix(3600, 0) }
	return ExplainOffline(o, q)
}

func TestExplain_BadParameters(t *testing.T) {
	s, _ := startedServer(t, oneGroup)
	for form, message := range map[string]string{
		"query=m%2B":                           `invalid parameter "query": 1:3: parse error: unexpected end of input`,
		"":                                     `invalid parameter "query": unknown position: parse error: no expression found in input`,
		"query=m%2B&analyze=true":              `invalid parameter "query": 1:3: parse error: unexpected end of input`,
		"query=m[5m]&start=1&end=2&step=1":     `invalid parameter "query": invalid expression type "range vector" for range query, must be Scalar or instant Vector`,
		"query=m&time=x":                       `invalid parameter "time": invalid time value for 'time': cannot parse "x" to a valid timestamp`,
		"query=m&end=2&step=1":                 `invalid parameter "start": cannot parse "" to a valid timestamp`,
		"query=m&start=1&step=1":               `invalid parameter "end": cannot parse "" to a valid timestamp`,
		"query=m&start=3&end=2&step=1":         `invalid parameter "end": end timestamp must not be before start time`,
		"query=m&start=1&end=2":                `invalid parameter "step": cannot parse "" to a valid duration`,
		"query=m&start=1&end=2&step=0":         `invalid parameter "step": zero or negative query resolution step widths are not accepted. Try a positive integer`,
		"query=m&start=1&end=2&step=1e99":      `invalid parameter "step": cannot parse "1e99" to a valid duration. It overflows int64`,
		"query=m&start=1&end=99999&step=1":     `exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)`,
		"query=m&timeout=x":                    `invalid parameter "timeout": cannot parse "x" to a valid duration`,
		"query=m&lookback_delta=x":             `error parsing lookback delta duration: cannot parse "x" to a valid duration`,
		"query=m&analyze=yes":                  `invalid parameter "analyze": "yes" is neither true nor false`,
		"query=m&format=yaml":                  `invalid parameter "format": "yaml" is neither json nor text`,
		"query=m&format=text&lookback_delta=x": `error parsing lookback delta duration: cannot parse "x" to a valid duration`,
	} {
		w := ask(s.Handler(), http.MethodGet, "/api/v1/explain?"+form, "")
		require.Equal(t, http.StatusBadRequest, w.Code, form)
		var body struct{ ErrorType, Error string }
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body), form)
		require.Equal(t, "bad_data", body.ErrorType, form)
		require.Equal(t, message, body.Error, form)

		// What upstream answers to the same.
		if strings.Contains(form, "analyze") || strings.Contains(form, "format") || !strings.HasPrefix(form, "query") {
			continue
		}
		path := "/api/v1/query?"
		if strings.Contains(form, "step") || strings.Contains(form, "end") {
			path = "/api/v1/query_range?"
		}
		require.Equal(t, get(s.Handler(), path+form).Body.String(), w.Body.String(), form)
	}
}

func TestExplain_Shape(t *testing.T) {
	s, _ := startedServer(t, oneGroup)
	w := ask(s.Handler(), http.MethodPost, "/api/v1/explain", "query=sum(m)&time=600&lookback_delta=1m")
	require.Equal(t, "application/json", w.Header().Get("Content-Type"))
	require.JSONEq(t, `{"status": "success", "data": {
		"query": "sum(m)", "steps": {"start": 600, "end": 600, "step": 0, "count": 1}, "lookbackDelta": 60,
		"planDigest": "0f9c96c6157da67a", "expression": "sum($1)", "selectors": [],
		"parts": [{
			"name": "$1", "expression": "sum({__name__=\"m\"})", "why": "sum again",
			"steps": {"start": 600, "end": 600, "step": 0, "count": 1}, "carries": [], "byName": false, "byTarget": true,
			"selectors": [{
				"selector": "{__name__=\"m\"}", "minTime": 540.001, "maxTime": 600,
				"steps": {"start": 600, "end": 600, "step": 0, "count": 1}, "groups": [{"name": "a", "asked": true}]
			}],
			"partitions": [{
				"groups": [{"name": "a", "replicas": 1}],
				"outlook": {"execution": "remote", "why": "the only replica, if probing shows that it evaluates as here", "text": "sum({__name__=\"m\"})"}
			}]
		}]
	}}`, w.Body.String())
}
