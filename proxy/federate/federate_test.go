package federate

import (
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/completeness"
)

// federated is a federation at 600 s over some series.
func federated(t *testing.T) *Handler {
	t.Helper()
	s := promqltest.LoadedStorage(t, `
load 30s
  up{job="a",instance="0"} 0+1x20
  up{job="b",site="there"} 2x20
  old 1x9
  edge 1x10
  gone 1x19 stale
  after 1x19 3 4
  Mixed 5x20
  hist{job="a"} {{schema:0 sum:8 count:6 z_bucket:1 z_bucket_w:0.001 buckets:[1 2] n_buckets:[2]}}x20
  custom {{schema:-53 sum:9 count:7 custom_values:[5 10] buckets:[1 2 4]}}x20
`)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return &Handler{
		Storage: s, Parser: parser.NewParser(parser.Options{}), Lookback: 5 * time.Minute,
		ExternalLabels: func() labels.Labels { return labels.FromStrings("site", "here", "az", "1") },
		Now:            func() time.Time { return time.Unix(600, 0) },
		Logger:         slog.New(slog.DiscardHandler),
	}
}

func scrape(h http.Handler, query, accept string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, "/federate?"+query, nil)
	r.Header.Set("Accept", accept)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestFederation_Text(t *testing.T) {
	f := federated(t)
	g := func(query, want string) {
		t.Helper()
		w := scrape(f, query, "")
		require.Equal(t, http.StatusOK, w.Code)
		require.True(t, strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain; version=0.0.4"), w.Header())
		require.Equal(t, want, w.Body.String())
	}
	// Each with its own time; external labels and the instance where they are missing.
	g("match[]=up", `# TYPE up untyped
up{instance="0",job="a",az="1",site="here"} 20 600000
up{job="b",site="there",az="1",instance=""} 2 600000
`)
	// Two selectors find a series once; names are sorted.
	g(`match[]=up{job="a"}&match[]=Mixed&match[]={instance="0"}`, `# TYPE Mixed untyped
Mixed{az="1",instance="",site="here"} 5 600000
# TYPE up untyped
up{instance="0",job="a",az="1",site="here"} 20 600000
`)
	g("match[]=old", "") // 270 s: before the window
	g("match[]=edge", "# TYPE edge untyped\nedge{az=\"1\",instance=\"\",site=\"here\"} 1 300000\n")
	g("match[]=gone", "")
	g("match[]=after", "# TYPE after untyped\nafter{az=\"1\",instance=\"\",site=\"here\"} 3 600000\n")
	g("match[]=nope", "")
	g("", "")
	g("match[]=hist", "") // native histograms need protobuf
	g("match[]=custom", `# TYPE custom histogram
custom_bucket{az="1",instance="",site="here",le="5"} 1 600000
custom_bucket{az="1",instance="",site="here",le="10"} 3 600000
custom_bucket{az="1",instance="",site="here",le="+Inf"} 7 600000
custom_sum{az="1",instance="",site="here"} 9 600000
custom_count{az="1",instance="",site="here"} 7 600000
`)
	require.Equal(t, http.StatusBadRequest, scrape(f, "match[]={", "").Code)
}

func TestFederation_OpenMetrics(t *testing.T) {
	w := scrape(federated(t), `match[]=up{job="b"}`, "application/openmetrics-text;version=1.0.0,text/plain;q=0.1")
	require.True(t, strings.HasPrefix(w.Header().Get("Content-Type"), "application/openmetrics-text; version=1.0.0"), w.Header())
	require.Equal(t, "# TYPE up unknown\nup{job=\"b\",site=\"there\",az=\"1\",instance=\"\"} 2.0 600.0\n# EOF\n", w.Body.String())
}

func TestFederation_Protobuf(t *testing.T) {
	w := scrape(federated(t), "match[]=hist&match[]=custom&match[]=up", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited")
	dec := expfmt.NewDecoder(w.Body, expfmt.ResponseFormat(w.Header()))
	found := map[string]*dto.MetricFamily{}
	for range 3 {
		var mf dto.MetricFamily
		require.NoError(t, dec.Decode(&mf))
		found[mf.GetName()] = &mf
	}
	h := found["hist"].GetMetric()[0].GetHistogram()
	require.Equal(t, dto.MetricType_HISTOGRAM, found["hist"].GetType())
	require.Equal(t, 6.0, h.GetSampleCountFloat())
	require.Equal(t, 8.0, h.GetSampleSum())
	require.Equal(t, int32(0), h.GetSchema())
	require.Equal(t, 0.001, h.GetZeroThreshold())
	require.Equal(t, 1.0, h.GetZeroCountFloat())
	require.Equal(t, []float64{1, 2}, h.GetPositiveCount())
	require.Equal(t, []float64{2}, h.GetNegativeCount())
	require.Equal(t, uint32(2), h.GetPositiveSpan()[0].GetLength())
	require.Len(t, found["custom"].GetMetric()[0].GetHistogram().GetBucket(), 2)
	require.Len(t, found["up"].GetMetric(), 2)
}

func TestFederation_StorageFails(t *testing.T) {
	f := federated(t)
	for code, err := range map[int]error{
		http.StatusServiceUnavailable:  &completeness.UnavailableError{Lacks: []completeness.Lack{{Group: "a", Reason: "a did not answer"}}},
		http.StatusUnprocessableEntity: errors.New("a did not answer"),
	} {
		f.Storage = &storage.MockQueryable{MockQuerier: &storage.MockQuerier{
			SelectMockFunction: func(bool, *storage.SelectHints, ...*labels.Matcher) storage.SeriesSet {
				return storage.ErrSeriesSet(err)
			},
		}}
		w := scrape(f, "match[]=up", "")
		require.Equal(t, code, w.Code)
		require.Equal(t, "a did not answer\n", w.Body.String())
	}
}

// A storage may hand out more than was asked for.
func TestLastSample_StaysInItsWindow(t *testing.T) {
	series := promql.NewStorageSeries(promql.Series{Floats: []promql.FPoint{{T: 10, F: 1}, {T: 20, F: 2}, {T: 30, F: 3}}})
	f := func(mint, maxt int64, want sample, wantOK bool) {
		t.Helper()
		got, ok, err := lastSample(series.Iterator(nil), mint, maxt)
		require.NoError(t, err)
		require.Equal(t, wantOK, ok)
		require.Equal(t, want, got)
	}
	f(10, 29, sample{ts: 20, float: 2}, true)
	f(20, 20, sample{ts: 20, float: 2}, true)
	f(21, 29, sample{}, false)
	f(31, 40, sample{}, false)
}
