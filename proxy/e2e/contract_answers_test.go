package e2e

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Answers: how values, times and lists are written, and what the parameters do.

func scalarAnswer(ts, v string) string {
	return `{"status":"success","data":{"resultType":"scalar","result":[` + ts + `,"` + v + `"]}}`
}

func oneSample(series, value string) string {
	return `{"status":"success","data":{"resultType":"vector","result":[{"metric":` + series + `,"value":[600,"` + value + `"]}]}}`
}

func TestContractNumbers(t *testing.T) {
	shows(t, byHTTP, 1, 2, 21)
	c := newContractPair(t)
	probes := []probe{
		{name: "health query of Grafana", path: "/api/v1/query?query=1%2B1&time=4", want: scalarAnswer("4", "2")},
		{name: "time in ms", path: "/api/v1/query?query=1&time=1435781451.781", want: scalarAnswer("1435781451.781", "1")},
		{name: "time finer than ms", path: "/api/v1/query?query=1&time=1795345124.400775", want: scalarAnswer("1795345124.401", "1")},
		{name: "time before 1970", path: "/api/v1/query?query=1&time=-59.2", want: scalarAnswer("-59.2", "1")},
		{name: "time just before 1970", path: "/api/v1/query?query=1&time=-0.5", want: scalarAnswer("-0.5", "1")},
		{name: "time of a vector before 1970", path: "/api/v1/query?query=vector(1)&time=-59.2", want: `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[-59.200,"1"]}]}}`},
		{name: "time as RFC 3339", path: "/api/v1/query?query=1&time=2015-07-01T20:10:51.781Z", want: scalarAnswer("1435781451.781", "1")},
		// Beyond what 64 bits of ns can hold the time wraps, so there is no literal.
		{name: "time in the year 55000", path: "/api/v1/query?query=1&time=1795341561502"},
		{name: "huge scalar", path: "/api/v1/query?query=1e300&time=4", want: scalarAnswer("4", strconv.FormatFloat(1e300, 'f', -1, 64))},
		{name: "tiny scalar", path: "/api/v1/query?query=1e-7&time=4", want: scalarAnswer("4", "0.0000001")},
		{name: "scalar NaN", path: "/api/v1/query?query=NaN&time=4", want: scalarAnswer("4", "NaN")},
		{name: "scalar Inf", path: "/api/v1/query?query=-Inf&time=4", want: scalarAnswer("4", "-Inf")},
		{name: "string", path: "/api/v1/query?query=%22a%3Cb%22&time=4", want: `{"status":"success","data":{"resultType":"string","result":[4,"a\u003cb"]}}`},
		{name: "huge vector", path: "/api/v1/query?query=vector(1e21)&time=600", want: oneSample("{}", "1e+21")},
		{name: "tiny vector", path: "/api/v1/query?query=vector(1e-7)&time=600", want: oneSample("{}", "1e-07")},
		{
			name: "native histogram", path: "/api/v1/query?query=nh&time=600",
			want: `{"status":"success","data":{"resultType":"vector","result":[{"metric":{"__name__":"nh","job":"a"},"histogram":[600,{"count":"6","sum":"8","buckets":[[1,"-1","-0.5","2"],[3,"-0.001","0.001","1"],[0,"0.5","1","1"],[0,"1","2","2"]]}]}]}}`,
		},
		{name: "native histograms in a range", path: "/api/v1/query_range?query=nh&start=600&end=630&step=30"},
	}
	for name, value := range map[string]string{
		"tiny": "1e-07", "small": "0.000001", "huge": "1e+21", "large": "123456789012345680000",
		"third": "0.3333333333333333", "inf": "+Inf", "neginf": "-Inf", "nan": "NaN", "negzero": "-0",
	} {
		metric := `{"__name__":"numbers","case":"` + name + `"}`
		probes = append(probes,
			probe{name: "sample " + name, path: "/api/v1/query?time=600&" + q("query", `numbers{case="`+name+`"}`), want: oneSample(metric, value)},
			probe{
				name: "raw " + name, path: "/api/v1/query?time=600&" + q("query", `numbers{case="`+name+`"}[1m]`),
				want: `{"status":"success","data":{"resultType":"matrix","result":[{"metric":` + metric + `,"values":[[600,"` + value + `"]]}]}}`,
			})
	}
	c.run(t, probes)
}

func TestContractResults(t *testing.T) {
	shows(t, byHTTP, 1, 2, 13, 21)
	c := newContractPair(t)
	c.run(t, []probe{
		{name: "empty vector", path: "/api/v1/query?query=nope&time=600", want: `{"status":"success","data":{"resultType":"vector","result":[]}}`},
		{name: "empty matrix", path: "/api/v1/query_range?query=nope&start=0&end=60&step=15", want: `{"status":"success","data":{"resultType":"matrix","result":[]}}`},
		{name: "absent", path: "/api/v1/query?time=600&" + q("query", `absent(nope{a="b"})`), want: oneSample(`{"a":"b"}`, "1")},
		{name: "vector", path: "/api/v1/query?query=m&time=600", like: sameElements},
		{name: "matrix sorted by labels", path: "/api/v1/query_range?query=m&start=0&end=600&step=60"},
		{name: "aggregate sorted by labels", path: "/api/v1/query_range?start=0&end=600&step=60&" + q("query", "sum by (job) (m)")},
		{name: "gaps stay gaps", path: "/api/v1/query_range?query=gaps&start=0&end=2400&step=30"},
		{name: "raw samples", path: "/api/v1/query?time=2400&" + q("query", "gaps[40m]")},
		{name: "subquery", path: "/api/v1/query?time=600&" + q("query", "sum(m)[5m:1m]")},
		{name: "default subquery step", path: "/api/v1/query?time=600&" + q("query", "sum(m)[5m:]")},
		{name: "11001 points", path: "/api/v1/query_range?query=vector(1)&start=0&end=11000&step=1"},
		{name: "before the data", path: "/api/v1/query_range?query=m&start=-600&end=60&step=60"},
		{
			name: "names with spaces and dots", path: "/api/v1/query?time=600&" + q("query", `{"utf8.metric","lab el"="x"}`),
			want: oneSample(`{"__name__":"utf8.metric","job":"a","lab el":"x"}`, "1"),
		},
		{name: "durations as text", path: "/api/v1/query_range?query=gaps&start=0&end=120&step=1m0s&timeout=1h30m"},
		{name: "at and offset", path: "/api/v1/query?time=4&" + q("query", "m @ 600 offset 1m"), like: sameElements},
		{name: "lookback shortened", path: "/api/v1/query?query=gaps&time=331&lookback_delta=30s", want: `{"status":"success","data":{"resultType":"vector","result":[]}}`},
		{
			name: "lookback as is", path: "/api/v1/query?query=gaps&time=331",
			want: `{"status":"success","data":{"resultType":"vector","result":[{"metric":{"__name__":"gaps","job":"a"},"value":[331,"1"]}]}}`,
		},
		{name: "stats", path: "/api/v1/query?query=m&time=600&stats=true", like: sameKeys},
		{name: "all stats of a range", path: "/api/v1/query_range?query=m&start=0&end=60&step=15&stats=all", like: sameKeys},
		{
			name: "format", path: "/api/v1/format_query?" + q("query", "sum by(job)(m{a='b'})/2"),
			want: `{"status":"success","data":"sum by (job) (m{a=\"b\"}) / 2"}`,
		},
		{name: "parse", path: "/api/v1/parse_query?" + q("query", `sum by(job)(rate(m{a=~"b"}[5m] offset 1m)) / on(x) group_left m`)},
		{name: "parse a subquery", path: "/api/v1/parse_query?" + q("query", `max_over_time((m > bool 2)[5m:1m] @ end())`)},
		{
			name: "exemplars", path: "/api/v1/query_exemplars?query=ex_total&start=0&end=900",
			want: `{"status":"success","data":[{"seriesLabels":{"__name__":"ex_total","job":"a"},"exemplars":[{"labels":{"trace_id":"a"},"value":"0.5","timestamp":600.500}]},{"seriesLabels":{"__name__":"ex_total","job":"b"},"exemplars":[{"labels":{"trace_id":"b"},"value":"1.5","timestamp":600.500}]}]}`,
		},
		{name: "no exemplars", path: "/api/v1/query_exemplars?query=m&start=0&end=900", want: `{"status":"success","data":[]}`},
		{name: "exemplars of the year 55000", path: "/api/v1/query_exemplars?query=test&start=1795341561502&end=1795345161502", want: `{"status":"success","data":[]}`},
		{name: "exemplars without selector", path: "/api/v1/query_exemplars?query=1&start=0&end=900", status: http.StatusNoContent},
	})
}

func TestContractLabelsAndSeries(t *testing.T) {
	shows(t, byHTTP, 5, 6, 21)
	c := newContractPair(t)
	within := "start=0&end=3600&"
	c.run(t, []probe{
		{name: "labels", path: "/api/v1/labels?start=0&end=3600", want: `{"status":"success","data":["__name__","case","instance","job","lab el","le"]}`},
		{name: "labels of one", path: "/api/v1/labels?" + within + q("match[]", "m", "match[]", "nh"), want: `{"status":"success","data":["__name__","instance","job"]}`},
		{name: "labels of none", path: "/api/v1/labels?match[]=nope", want: `{"status":"success","data":[]}`},
		{name: "label limit zero means all", path: "/api/v1/labels?limit=0&start=0&end=3600", want: `{"status":"success","data":["__name__","case","instance","job","lab el","le"]}`},
		{name: "label values", path: "/api/v1/label/job/values", want: `{"status":"success","data":["a","b"]}`},
		{name: "matched label values", path: "/api/v1/label/instance/values?" + within + q("match[]", `m{job="b"}`, "match[]", `m{instance="1"}`), want: `{"status":"success","data":["0","1"]}`},
		{name: "values of an unknown label", path: "/api/v1/label/nope/values", want: `{"status":"success","data":[]}`},
		{name: "escaped label name", path: "/api/v1/label/U__lab_20_el/values", want: `{"status":"success","data":["x","y"]}`},
		{name: "percent-encoded label name", path: "/api/v1/label/lab%20el/values", want: `{"status":"success","data":["x","y"]}`},
		{name: "metric names", path: "/api/v1/label/__name__/values?start=0&end=3600&limit=40000"},
		{name: "series", path: "/api/v1/series?" + within + q("match[]", "up"), like: sameElements},
		{name: "series of everything", path: "/api/v1/series?" + within + q("match[]", `{__name__!=""}`, "limit", "40000"), like: sameElements},
		{name: "no series", path: "/api/v1/series?match[]=nope", want: `{"status":"success","data":[]}`},
		{
			name: "series until a formatted time", path: "/api/v1/series?match[]=gaps&" + q("start", "-292273086-05-16T16:47:06Z", "end", "292277025-08-18T07:12:54.999999999Z"),
			want: `{"status":"success","data":[{"__name__":"gaps","job":"a"}]}`,
		},
		{name: "metadata", path: "/api/v1/metadata", like: sameElements, want: metadataBody},
		{name: "values by POST", method: "POST", path: "/api/v1/label/job/values?" + q("match[]", `m{job="b"}`), like: wider, want: `{"status":"success","data":["b"]}`},
		{name: "buildinfo by POST", method: "POST", path: "/api/v1/status/buildinfo", like: wider},
	})
}

// Parameters may stand in the URL, in the form, or in both; the form wins.
func TestContractWhereParametersStand(t *testing.T) {
	shows(t, byHTTP, 1, 2, 5, 6, 13, 21)
	c := newContractPair(t)
	two := scalarAnswer("4", "2")
	c.run(t, []probe{
		{name: "form", method: "POST", path: "/api/v1/query", form: "query=1%2B1&time=4", want: two},
		{name: "URL of a POST without body", method: "POST", path: "/api/v1/query?query=1%2B1&time=4", want: two},
		{name: "half and half", method: "POST", path: "/api/v1/query?time=4", form: "query=1%2B1", want: two},
		{name: "form wins", method: "POST", path: "/api/v1/query?query=5&time=9", form: "query=1%2B1&time=4", want: two},
		{
			name: "union of matchers", method: "POST", path: "/api/v1/series?start=0&end=60&match[]=gaps", form: q("match[]", "nh"),
			want: `{"status":"success","data":[{"__name__":"gaps","job":"a"},{"__name__":"nh","job":"a"}]}`, like: sameElements,
		},
		{
			name: "union of matchers for labels", method: "POST", path: "/api/v1/labels?start=0&end=60&match[]=lat_bucket", form: q("match[]", "nh"),
			want: `{"status":"success","data":["__name__","job","le"]}`,
		},
		{name: "range", method: "POST", path: "/api/v1/query_range", form: "query=gaps&start=0&end=60&step=15"},
		{name: "exemplars", method: "POST", path: "/api/v1/query_exemplars", form: "query=ex_total&start=0&end=900"},
		{name: "format", method: "POST", path: "/api/v1/format_query", form: "query=m", want: `{"status":"success","data":"m"}`},
		{name: "parse", method: "POST", path: "/api/v1/parse_query", form: "query=m"},
		{name: "parameters of others", path: "/api/v1/query?query=1%2B1&time=4&dedup=true&partial_response=1&engine=x&explain=0&max_source_resolution=5m&max_samples_processed_warning_threshold=1", want: two},
	})
}

// Twelve warnings come as ten and a count; which ten is chance.
func TestContractWarningsAreCapped(t *testing.T) {
	shows(t, byHTTP, 4, 21)
	c := newContractPair(t)
	terms := make([]string, 12)
	for i := range terms {
		terms[i] = "quantile(" + strconv.Itoa(i+2) + ", gaps)"
	}
	p := probe{path: "/api/v1/query?time=300&query=" + url.QueryEscape(strings.Join(terms, "+"))}
	for _, base := range []string{c.direct, c.oneprom} {
		var answer struct {
			Warnings []string `json:"warnings"`
		}
		require.NoError(t, json.Unmarshal([]byte(c.ask(t, base, p).body), &answer))
		require.Len(t, answer.Warnings, 11)
		require.Contains(t, answer.Warnings, "2 more warning annotations omitted")
	}
}

// Readers that stream rely on the type before the result, and stats at the end.
func TestContractOrderOfTheKeys(t *testing.T) {
	shows(t, byHTTP, 1, 21)
	c := newContractPair(t)
	for _, base := range []string{c.direct, c.oneprom} {
		body := c.ask(t, base, probe{path: "/api/v1/query?query=1&time=4&stats=true"}).body
		require.Regexp(t, `^\{"status":"success","data":\{"resultType":"scalar","result":\[4,"1"\],"stats":\{"timings":\{"evalTotalTime":.*\},"samples":\{"totalQueryableSamples":.*\}\}\}\}$`, body)
	}
}
