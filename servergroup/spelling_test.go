package servergroup

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/metadata"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest"
	"github.com/oneprom/oneprom/servergroup/backendtest/dialect"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/lookup"
	"github.com/oneprom/oneprom/servergroup/survey"
)

// numbers are series of a histogram, a summary, and of metrics without type that have such labels.
const numbers = `load 15s
	x_bucket{i="1",le="0.5"} 0+1x4
	x_bucket{i="1",le="1.0"} 0+2x4
	x_bucket{i="1",le="+Inf"} 0+3x4
	x_bucket{i="2",le="1.0"} 0+3x4
	s{i="1",quantile="1.0"} 1x4
	s{i="2",quantile="0.5"} 1x4
	u{i="3",le="1"} 1x4
	v_bucket{i="4",le="1"} 1x4
	v_bucket{i="4",le="2"} 1x4
	w{i="5",quantile="1"} 1x4
	other{i="6"} 1x4`

var numberTypes = map[string][]metadata.Metadata{
	"x": {{Type: model.MetricTypeHistogram}}, "s": {{Type: model.MetricTypeSummary}}, "u": {{Type: model.MetricTypeGauge}},
	"v": {{Type: model.MetricTypeUnknown}}, "w": {{Type: model.MetricTypeUnknown}},
}

// TestSpelling_OfLookups compares what a Prometheus 3 tells of series with what servers tell that
// spell numbers in another way.
func TestSpelling_OfLookups(t *testing.T) {
	old := strings.ReplaceAll(numbers, `"1.0"`, `"1"`)
	both := numbers + old[len("load 15s"):strings.Index(old, "\tu{")]
	server := func(load string, as2 bool, read backendtest.RemoteRead) http.Handler {
		data := promqltest.LoadedStorage(t, load)
		app := data.Appender(t.Context())
		one := "1.0"
		if strings.Contains(load, `i="2",le="1"`) {
			one = "1"
		}
		_, err := app.AppendExemplar(0, labels.FromStrings("__name__", "x_bucket", "i", "1", "le", one), exemplar.Exemplar{Labels: labels.FromStrings("trace", "t"), Value: 1, Ts: 15_000, HasTs: true})
		require.NoError(t, err)
		require.NoError(t, app.Commit())
		o := backendtest.Options{Queryable: data, Exemplars: data, RemoteRead: read, Metadata: numberTypes}
		if as2 {
			return dialect.NewPrometheus2(o)
		}
		return backendtest.NewHandler(o)
	}
	of := func(handlers ...http.Handler) *Set {
		var servers []*httptest.Server
		for _, h := range handlers {
			servers = append(servers, serve(t, h))
		}
		return newTestSet(t, config.PartialError, groupOf("a", servers...))
	}
	truth := of(server(numbers, false, backendtest.Streamed))
	for name, s := range map[string]*Set{
		"Prometheus 2":           of(server(old, true, backendtest.Streamed)),
		"Prometheus 2, no read":  of(server(old, true, backendtest.NoRemoteRead)),
		"old blocks":             of(server(old, false, backendtest.Streamed)),
		"both spellings":         of(server(both, false, backendtest.SamplesOnly)),
		"in the middle":          of(server(old, true, backendtest.Streamed), server(numbers, false, backendtest.Streamed)),
		"in the middle, merging": of(server(both, false, backendtest.Streamed), server(old, true, backendtest.NoRemoteRead)),
	} {
		for _, selector := range []string{
			`x_bucket`, `x_bucket{le="1.0"}`, `x_bucket{le="1"}`, `{le="1"}`, `{le="1.0"}`, `{le=~"1|2"}`, `{le=~".+"}`, `{le!="",i!="4"}`,
			`x_bucket{le!="1.0"}`, `{le!~"1.*",i=~".+"}`, `{quantile="1"}`, `{quantile="1.0"}`, `s{quantile!="1.0"}`, `{quantile=~"0.5|1"}`,
			`{i=~".+"}`, `other`, `{le="",i=~".+"}`, `v_bucket`, `v_bucket{le="2.0"}`, `none{le="1.0"}`,
		} {
			for _, limit := range []int{0, 1} {
				l := lookupOf(t, selector, limit)
				if limit > 0 { // any one of them
					want, _, err := lookup.Series(t.Context(), truth.View(t.Context()), l)
					require.NoError(t, err)
					got, _, err := lookup.Series(t.Context(), s.View(t.Context()), l)
					require.NoError(t, err)
					require.Equal(t, len(want) > 0, len(got) > 0, "%s: %s", name, selector)
					continue
				}
				require.Equal(t, seriesShown(t, truth.View(t.Context()), l), seriesShown(t, s.View(t.Context()), l), "%s: %s", name, selector)
				require.Equal(t, namesOf(t, truth.View(t.Context()), l), namesOf(t, s.View(t.Context()), l), "%s: %s", name, selector)
				for _, label := range []string{"le", "quantile", "i", "__name__"} {
					require.Equal(t, valuesOf(t, truth.View(t.Context()), label, l), valuesOf(t, s.View(t.Context()), label, l), "%s: %s of %s", name, label, selector)
				}
				want, _, err := survey.Of(truth.View(t.Context())).Exemplars(t.Context(), 0, 60_000, [][]*labels.Matcher{l.Matchers})
				require.NoError(t, err)
				got, _, err := survey.Of(s.View(t.Context())).Exemplars(t.Context(), 0, 60_000, [][]*labels.Matcher{l.Matchers})
				require.NoError(t, err)
				require.Equal(t, want, got, "%s: exemplars of %s", name, selector)
			}
		}
		// all series
		for _, label := range []string{"le", "quantile"} {
			want, _, err := lookup.LabelValues(t.Context(), truth.View(t.Context()), label, lookup.Lookup{MaxT: 60_000})
			require.NoError(t, err)
			got, ws, err := lookup.LabelValues(t.Context(), s.View(t.Context()), label, lookup.Lookup{MaxT: 60_000})
			require.NoError(t, err)
			require.Empty(t, ws)
			require.Equal(t, want, got, "%s: all of %s", name, label)
		}
	}
}

// TestSpelling_DoubtIsAFinding: a Prometheus 3 that has one number in two spellings, and no metadata, is
// believed, and a finding says so.
func TestSpelling_DoubtIsAFinding(t *testing.T) {
	const doubt = "le of v_bucket has a number in two spellings"
	for load, doubtful := range map[string]bool{
		`v_bucket{le="1"} 1x4`:                              false,
		"v_bucket{le=\"1\"} 1x4\n v_bucket{le=\"1.0\"} 1x4": true,
	} {
		server := serve(t, backendtest.NewHandler(backendtest.Options{Queryable: promqltest.LoadedStorage(t, "load 15s\n "+load)}))
		s := newTestSet(t, config.PartialError, groupOf("a", server))
		require.Len(t, seriesShown(t, s.View(t.Context()), lookupOf(t, `v_bucket`, 0)), strings.Count(load, "v_bucket"), load)
		require.Equal(t, doubtful, strings.Contains(strings.Join(findingsOf(s, "a"), "\n"), doubt), load)
	}
}
