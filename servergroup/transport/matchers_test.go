package transport

import (
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"
)

func TestPortable_OnlyDotsAreWrittenInAnotherWay(t *testing.T) {
	f := func(pattern, unknown, victoriaMetrics string) {
		t.Helper()
		influx := "^(?s:" + strings.ReplaceAll(pattern, "(?<n>a|b)", "(?P<n>[ab])") + ")$"
		for kind, want := range map[Kind]string{UnknownKind: unknown, VictoriaMetrics: victoriaMetrics, InfluxDB: influx} {
			for _, typ := range []labels.MatchType{labels.MatchRegexp, labels.MatchNotRegexp} {
				ms := []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "a", pattern), labels.MustNewMatcher(typ, "b", pattern)}
				got := DialectOf(kind, false).portable(ms)
				require.Equal(t, want, got[1].Value, kind)
				require.Equal(t, ms[0], got[0])
				require.Equal(t, pattern, ms[1].Value, "the argument does not change")
				require.Equal(t, ms, Dialect{Current: true}.portable(ms))
			}
		}
	}
	same := func(pattern string) { f(pattern, pattern, pattern) }
	same("a|b")
	same(`a\.b|c[.]d`)
	same("[^a]*|\n")
	f("a.b", "(?s:a.b)", "(?s:a.b)")
	f(".*", "(?s:.*)", "(?s:.*)")
	f(".+", "(?s:.+)", "(?s:.+)")
	f("|.+", "(?s:|.+)", `(?s:(?:|.+)(?:\b|\B))`)
	f("(?-s:.+)", "(?-s:.+)", `(?s:(?:(?-s:.+))(?:\b|\B))`)
	f("(?<n>a|b)", "(?P<n>[ab])", "(?P<n>[ab])")
	f("(?P<n>a.)", "(?s:(?P<n>a.))", "(?s:(?P<n>a.))")
}

func TestPortable_MeansToOldServersWhatItMeansHere(t *testing.T) {
	values := []string{"", "\n", "a", "a\nb", "a.b", "ab", "\na", "a\n", "A\nB\n", "\n\n", "é\nü"}
	for _, pattern := range []string{
		".*", ".+", ".", ".?", "a.b", `a\.b`, "a.*", ".*b", ".*\n.*", "(?i)a.*", "|.+", ".+|", "a.b|", "(a|.)+", "(?-s:.*)", "(?-s:a.)b|.", "(?s)a.b", "(?m)^a.*$", "[^a].*", "(?U).+", `\Qa.b\E.*`, "(?<x>a).(?<y>b)",
	} {
		m := labels.MustNewMatcher(labels.MatchRegexp, "a", pattern)
		for _, d := range []Dialect{DialectOf(UnknownKind, false), DialectOf(VictoriaMetrics, false)} {
			text := d.portable([]*labels.Matcher{m})[0].Value
			old := regexp.MustCompile("^(?:" + text + ")$")
			for _, v := range values {
				require.Equal(t, m.Matches(v), old.MatchString(v), "%q as %q on %q", pattern, text, v)
			}
		}
	}
}

func TestIsCurrent(t *testing.T) {
	f := func(want bool, kind Kind, e Engine) {
		t.Helper()
		require.Equal(t, want, Identity{Kind: kind, Engine: e}.IsCurrent())
	}
	all := Engine{Known: true, LeftOpen: true, DotAll: true}
	f(true, Prometheus, all)
	f(true, Oneprom, all)
	f(false, Prometheus, Engine{})
	f(false, Prometheus, Engine{Known: true})
	f(false, Prometheus, Engine{Known: true, LeftOpen: true})
	f(false, Mimir, all)
	f(false, UnknownKind, all)
}

// A matcher on this name is a query of Graphite to VictoriaMetrics.
func TestVictoriaMetrics_ReservedNameIsNeverInASelector(t *testing.T) {
	var asked []string
	names := `"job"`
	c := served(t, func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		asked = append(asked, r.URL.Path+" "+r.Form.Get("match[]"))
		body := `{"status":"success","data":[` + names + `]}`
		w.Header().Set("Content-Type", "application/json")
		switch r.URL.Path {
		case "/api/v1/export":
			body = `{"metric":{"__name__":"m","__graphite__":"a"},"values":[1],"timestamps":[10]}` + "\n" + `{"metric":{"__name__":"m"},"values":[1],"timestamps":[10]}`
		case "/api/v1/series":
			body = `{"status":"success","data":[{"__name__":"m","__graphite__":"a"},{"__name__":"m"}]}`
		}
		_, _ = w.Write([]byte(body))
	}).As(DialectOf(VictoriaMetrics, false))
	m := func(typ labels.MatchType, value string) []*labels.Matcher {
		return []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "m"), labels.MustNewMatcher(typ, "__graphite__", value)}
	}
	count := func(ms []*labels.Matcher) (fetched, listed int) {
		t.Helper()
		list, err := c.Fetch(t.Context(), ExportAPI, Request{Matchers: ms, MaxT: 100, Labels: showLabels})
		require.NoError(t, err)
		series, _, err := c.Series(t.Context(), Lookup{Matchers: ms, MaxT: 100})
		require.NoError(t, err)
		return len(list), len(series)
	}
	f := func(typ labels.MatchType, value string, want int) {
		t.Helper()
		fetched, listed := count(m(typ, value))
		require.Equal(t, []int{want, want}, []int{fetched, listed})
	}
	f(labels.MatchEqual, "a", 0)
	names = `"job","__graphite__"`
	f(labels.MatchEqual, "a", 1)
	f(labels.MatchEqual, "b*", 0)
	f(labels.MatchNotEqual, "a", 1)
	for _, text := range asked {
		require.NotContains(t, text, "__graphite__")
	}
	_, err := c.Fetch(t.Context(), ExportAPI, Request{Matchers: m(labels.MatchEqual, "a")[1:], MaxT: 100, Labels: showLabels})
	require.ErrorContains(t, err, "means something else there")
}

// It lists __name__ where it has nothing to list.
func TestVictoriaMetrics_SeriesThatAreNotThereHaveNoLabelNames(t *testing.T) {
	metrics := ""
	c := served(t, func(w http.ResponseWriter, r *http.Request) {
		names := `"__name__"`
		if r.URL.Path == "/api/v1/label/__name__/values" {
			names = metrics
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"status":"success","data":[` + names + `]}`))
	}).As(DialectOf(VictoriaMetrics, false))
	l := Lookup{Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "m")}, MaxT: 100}
	names, _, err := c.LabelNames(t.Context(), l)
	require.NoError(t, err)
	require.Empty(t, names)
	metrics = `"m"`
	names, _, err = c.LabelNames(t.Context(), l)
	require.NoError(t, err)
	require.Equal(t, []string{"__name__"}, names)
}
