package servergroup

import (
	"net/http"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/lookup"
	"github.com/oneprom/oneprom/servergroup/survey"
	"github.com/oneprom/oneprom/servergroup/view"
)

// clusterView is a view of one group with the injected label cluster="eu" over
// series without samples of note.
func clusterView(t *testing.T, series string, change ...func(*config.Group)) *view.View {
	t.Helper()
	cfg := groupOf("a", backend(t, "load 15s\n"+series))
	cfg.Labels = map[string]string{"cluster": "eu"}
	for _, c := range change {
		c(&cfg)
	}
	return newTestSet(t, config.PartialWarn, cfg).View(t.Context())
}

func lookupOf(t *testing.T, selector string, limit int) lookup.Lookup {
	t.Helper()
	l := lookup.Lookup{MinT: 0, MaxT: 100_000, Limit: limit}
	if selector != "" {
		l.Matchers = matchersOf(t, selector)
	}
	return l
}

func namesOf(t *testing.T, v *view.View, l lookup.Lookup) []string {
	t.Helper()
	names, ws, err := lookup.LabelNames(t.Context(), v, l)
	require.NoError(t, err)
	require.Empty(t, strs(ws))
	return names
}

func valuesOf(t *testing.T, v *view.View, name string, l lookup.Lookup) []string {
	t.Helper()
	values, ws, err := lookup.LabelValues(t.Context(), v, name, l)
	require.NoError(t, err)
	require.Empty(t, strs(ws))
	return values
}

func seriesShown(t *testing.T, v *view.View, l lookup.Lookup) []string {
	t.Helper()
	series, ws, err := lookup.Series(t.Context(), v, l)
	require.NoError(t, err)
	require.Empty(t, strs(ws))
	var out []string
	for _, s := range series {
		out = append(out, s.String())
	}
	return out
}

func TestLookup_SelectorThatMatchesAllIsAccepted(t *testing.T) {
	v := clusterView(t, `foo{job="a"} 1x3`)
	foo := []string{`{__name__="foo", cluster="eu", job="a"}`}
	for _, selector := range []string{`{cluster="eu",job=~".*"}`, `{cluster="eu",job!="x"}`, `{cluster="eu"}`} {
		l := lookupOf(t, selector, 0)
		require.Equal(t, []string{"a"}, valuesOf(t, v, "job", l), selector)
		require.Equal(t, []string{"eu"}, valuesOf(t, v, "cluster", l), selector)
		require.Equal(t, []string{"__name__", "cluster", "job"}, namesOf(t, v, l), selector)
		require.Equal(t, foo, seriesShown(t, v, l), selector)
		_, _, err := survey.Of(v).Exemplars(t.Context(), 0, 100_000, [][]*labels.Matcher{l.Matchers})
		require.NoError(t, err, selector)
	}
}

func TestLookup_ExportedLabels(t *testing.T) {
	f := func(series string, names, values []string) {
		t.Helper()
		v := clusterView(t, series)
		require.Equal(t, names, namesOf(t, v, lookupOf(t, "", 0)))
		require.Equal(t, values, valuesOf(t, v, "exported_cluster", lookupOf(t, "", 0)))
	}
	f(`foo{cluster="eu"} 1x3`, []string{"__name__", "cluster"}, nil)
	f(`foo{cluster="us"} 1x3`, []string{"__name__", "cluster", "exported_cluster"}, []string{"us"})
	f(`foo{exported_cluster="es"} 1x3`, []string{"__name__", "cluster", "exported_cluster"}, []string{"es"})
	f(`foo{cluster="eu",exported_cluster="es"} 1x3`, []string{"__name__", "cluster", "exported_cluster"}, []string{"es"})
	// The name is taken in one series and not in the other.
	f("foo{cluster=\"us\",exported_cluster=\"es\"} 1x3\n bar{exported_cluster=\"es\"} 1x3",
		[]string{"__name__", "cluster", "exported_cluster", "exported_exported_cluster"}, []string{"es"})
	f("foo{cluster=\"us\"} 1x3\n bar{exported_cluster=\"es\"} 1x3",
		[]string{"__name__", "cluster", "exported_cluster"}, []string{"es", "us"})

	v := clusterView(t, `foo{cluster="us",exported_cluster="es"} 1x3`)
	require.Equal(t, []string{"us"}, valuesOf(t, v, "exported_exported_cluster", lookupOf(t, "", 0)))
}

func TestLookup_MatchersOnExportedLabelsHold(t *testing.T) {
	v := clusterView(t, "foo{cluster=\"us\",i=\"1\"} 1x3\n foo{exported_cluster=\"es\",k=\"2\"} 1x3\n foo{j=\"3\"} 1x3")
	f := func(selector string, names, clusters, i []string) {
		t.Helper()
		for _, limit := range []int{0, 1} {
			l := lookupOf(t, selector, limit)
			require.Equal(t, names, namesOf(t, v, l))
			require.Equal(t, clusters, valuesOf(t, v, "cluster", l))
			require.Equal(t, i, valuesOf(t, v, "i", l))
			require.Len(t, seriesShown(t, v, l), len(clusters))
		}
	}
	eu := []string{"eu"}
	f(`foo{exported_cluster=""}`, []string{"__name__", "cluster", "j"}, eu, nil)
	f(`foo{exported_cluster="us"}`, []string{"__name__", "cluster", "exported_cluster", "i"}, eu, []string{"1"})
	f(`{exported_cluster="es"}`, []string{"__name__", "cluster", "exported_cluster", "k"}, eu, nil)
	f(`foo{exported_cluster="eu"}`, nil, nil, nil)

	v = clusterView(t, "foo{cluster=\"us\",i=\"1\"} 1x3\n foo{j=\"3\"} 1x3")
	require.Equal(t, []string{"__name__", "cluster", "j"}, namesOf(t, v, lookupOf(t, `foo{exported_cluster=""}`, 0)))
}

func TestLookup_LimitCountsWhatIsShown(t *testing.T) {
	load := "foo{a_replica=\"1\",i=\"1\"} 1x3\n foo{a_replica=\"2\",i=\"1\"} 1x3\n foo{a_replica=\"1\",i=\"2\"} 1x3"
	v := clusterView(t, load, func(c *config.Group) { c.Labels, c.ReplicaLabels = nil, []string{"a_replica"} })
	l := lookupOf(t, `foo`, 2)
	require.Equal(t, []string{`{__name__="foo", i="1"}`, `{__name__="foo", i="2"}`}, seriesShown(t, v, l))
	require.Equal(t, []string{"__name__", "i"}, namesOf(t, v, l))

	// Whichever two of foo the backend takes, one has a label that is dropped.
	v = clusterView(t, "foo{i=\"1\"} 1x3\n foo{cluster=\"eu\",i=\"1\"} 1x3\n foo{cluster=\"eu\",i=\"2\"} 1x3\n bar{cluster=\"us\"} 1x3")
	require.Len(t, seriesShown(t, v, lookupOf(t, `foo`, 2)), 2)
	require.Equal(t, []string{"us"}, valuesOf(t, v, "exported_cluster", lookupOf(t, "", 1)))
	require.Equal(t, []string{"eu"}, valuesOf(t, v, "cluster", lookupOf(t, "", 1)))
}

func TestLookup_LimitIsSentWhereItCountsTheSame(t *testing.T) {
	limits := make(chan string, 10)
	h := backendtest.NewHandler(backendtest.Options{Queryable: promqltest.LoadedStorage(t, "load 15s\n foo{i=\"1\"} 1x3")})
	cfg := groupOf("a", serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err == nil && r.Form.Has("limit") {
			limits <- r.URL.Path + " " + r.Form.Get("limit")
		}
		h.ServeHTTP(w, r)
	})))
	v := newTestSet(t, config.PartialWarn, cfg).View(t.Context())
	l := lookupOf(t, `foo`, 7)
	namesOf(t, v, l)
	require.Equal(t, "/api/v1/labels 7", <-limits)
	valuesOf(t, v, "i", l)
	require.Equal(t, "/api/v1/label/i/values 7", <-limits)
	seriesShown(t, v, l)
	require.Equal(t, "/api/v1/series 7", <-limits)
}

func TestSelect_ExportedLabels(t *testing.T) {
	for _, change := range []func(*backendtest.Options){func(*backendtest.Options) {}, noRemoteRead} {
		cfg := groupOf("a", backend(t, `load 15s
			es{cluster="eu",exported_cluster="es1"} 1x3
			es{cluster="us"} 2x3
			dup{cluster="us",exported_cluster="es1"} 3x3
			same{cluster="eu"} 4x3
			same _ _ _ 5`, change))
		cfg.Labels = map[string]string{"cluster": "eu"}
		s := newTestSet(t, config.PartialWarn, cfg)
		var warnings int
		f := func(selector, want string) {
			t.Helper()
			got, ws, err := selectText(t, s, selector, 45_000, 45_000)
			require.NoError(t, err)
			// The configuration is a mistake, and every answer that shows it says so.
			require.Len(t, strs(ws), warnings)
			require.Equal(t, want, got)
		}
		warnings = 1
		f(`es{exported_cluster="es1"}`, `{__name__="es", cluster="eu", exported_cluster="es1"} 45:1`+"\n")
		f(`es{exported_cluster="us"}`, `{__name__="es", cluster="eu", exported_cluster="us"} 45:2`+"\n")
		f(`es{exported_cluster=""}`, "")
		f(`dup`, `{__name__="dup", cluster="eu", exported_cluster="es1", exported_exported_cluster="us"} 45:3`+"\n")
		warnings = 0
		f(`same`, `{__name__="same", cluster="eu"} 45:5`+"\n")
	}
}
