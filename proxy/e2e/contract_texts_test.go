package e2e

import (
	"net/http"
	"net/url"
	"testing"
)

// Texts that clients show to people, or match.

// q encodes parameters given as name, value, name, value.
func q(params ...string) string {
	v := url.Values{}
	for i := 0; i < len(params); i += 2 {
		v.Add(params[i], params[i+1])
	}
	return v.Encode()
}

func TestContractRefusedParameters(t *testing.T) {
	shows(t, byHTTP, 3, 21)
	c := newContractPair(t)
	bad := func(name, path, message string) probe {
		return probe{name: name, path: "/api/v1" + path, status: http.StatusBadRequest, want: failure("bad_data", message)}
	}
	within := "&start=0&end=60&step=15"
	c.run(t, []probe{
		bad("no query", "/query", `invalid parameter "query": unknown position: parse error: no expression found in input`),
		bad("unclosed", "/query?"+q("query", "sum("), `invalid parameter "query": 1:5: parse error: unclosed left parenthesis`),
		bad("unclosed in a range", "/query_range?"+q("query", "sum(")+within, `invalid parameter "query": 1:5: parse error: unclosed left parenthesis`),
		bad("matrix operand", "/query?"+q("query", "m and on(a) (m[1m])"), `invalid parameter "query": 1:13: parse error: binary expression must contain only scalar and instant vector types`),
		bad("range of a matrix", "/query_range?"+q("query", "m[1m]")+within, `invalid parameter "query": invalid expression type "range vector" for range query, must be Scalar or instant Vector`),
		bad("range of a string", "/query_range?"+q("query", `"s"`)+within, `invalid parameter "query": invalid expression type "string" for range query, must be Scalar or instant Vector`),
		bad("end before start", "/query_range?query=m&start=60&end=0&step=15", `invalid parameter "end": end timestamp must not be before start time`),
		bad("exemplars end before start", "/query_exemplars?query=m&start=60&end=0", `end timestamp must not be before start timestamp`),
		bad("exemplars unclosed", "/query_exemplars?"+q("query", "sum("), `1:5: parse error: unclosed left parenthesis`),
		bad("step zero", "/query_range?query=m&start=0&end=60&step=0", `invalid parameter "step": zero or negative query resolution step widths are not accepted. Try a positive integer`),
		bad("step negative", "/query_range?query=m&start=0&end=60&step=-1", `invalid parameter "step": zero or negative query resolution step widths are not accepted. Try a positive integer`),
		bad("no step", "/query_range?query=m&start=0&end=60", `invalid parameter "step": cannot parse "" to a valid duration`),
		bad("11002 points", "/query_range?query=m&start=0&end=11001&step=1", `exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)`),
		bad("no start", "/query_range?query=m&end=60&step=15", `invalid parameter "start": cannot parse "" to a valid timestamp`),
		bad("no end", "/query_range?query=m&start=60&step=15", `invalid parameter "end": cannot parse "" to a valid timestamp`),
		bad("time", "/query?query=m&time=abc", `invalid parameter "time": invalid time value for 'time': cannot parse "abc" to a valid timestamp`),
		bad("timeout", "/query?query=m&timeout=1x", `invalid parameter "timeout": cannot parse "1x" to a valid duration`),
		bad("timeout of a range", "/query_range?query=m&timeout=1x"+within, `invalid parameter "timeout": cannot parse "1x" to a valid duration`),
		bad("lookback", "/query?query=m&lookback_delta=1x", `error parsing lookback delta duration: cannot parse "1x" to a valid duration`),
		bad("limit", "/query?query=m&limit=-1", `invalid parameter "limit": limit must be non-negative`),
		bad("limit of labels", "/labels?limit=-1", `invalid parameter "limit": limit must be non-negative`),
		bad("limit of series", "/series?match[]=m&limit=-1", `invalid parameter "limit": limit must be non-negative`),
		bad("series of nothing", "/series", `no match[] parameter provided`),
		bad("series of everything", "/series?"+q("match[]", `{a=""}`), `invalid parameter "match[]": match[] must contain at least one non-empty matcher`),
		bad("labels of everything", "/labels?"+q("match[]", `{a=""}`), `match[] must contain at least one non-empty matcher`),
		bad("values of everything", "/label/job/values?"+q("match[]", `{a=""}`), `match[] must contain at least one non-empty matcher`),
		bad("rules token", "/rules?group_limit=1&group_next_token=abc", `invalid parameter "group_next_token": invalid group_next_token 'abc'. were rule groups changed?`),
		bad("rules token without limit", "/rules?group_next_token=abc", `invalid parameter "group_next_token": group_limit needs to be present in order to paginate over the groups`),
		bad("format of nonsense", "/format_query?"+q("query", "sum("), `invalid parameter "query": 1:5: parse error: unclosed left parenthesis`),
		{name: "label name", path: "/api/v1/label/%ff/values", status: http.StatusBadRequest, want: `{"status":"error","errorType":"bad_data","error":"invalid label name: \"\\xff\""}`},
		{name: "series matcher", path: "/api/v1/series?match[]=%7B", status: http.StatusBadRequest},
		{name: "labels matcher", path: "/api/v1/labels?match[]=%7B", status: http.StatusBadRequest},
		{name: "tsdb limit", path: "/api/v1/status/tsdb?limit=10001", status: http.StatusBadRequest},
	})
}

func TestContractEvaluationErrors(t *testing.T) {
	shows(t, byHTTP, 3, 21)
	c := newContractPair(t)
	c.run(t, []probe{
		{
			name: "timeout zero", path: "/api/v1/query?query=m&timeout=0", status: http.StatusServiceUnavailable,
			want: failure("timeout", "query timed out in query execution"), like: sameStatus,
		},
		{name: "many to many", path: "/api/v1/query?time=600&" + q("query", "m + on(job) m"), status: http.StatusUnprocessableEntity, like: sameStatus},
		{name: "bad regexp in label_replace", path: "/api/v1/query?time=600&" + q("query", `label_replace(m, "a", "b", "job", "(")`), status: http.StatusUnprocessableEntity},
	})
}

func TestContractTooManySamples(t *testing.T) {
	shows(t, byHTTP, 3, 21)
	c := newContractPair(t, "--query.max-samples=3")
	c.run(t, []probe{{
		name: "max-samples", path: "/api/v1/query?time=600&query=" + url.QueryEscape("m[5m]"), status: http.StatusUnprocessableEntity,
		want: failure("execution", "query processing would load too many samples into memory in query execution"),
	}})
}

func TestContractWarnings(t *testing.T) {
	shows(t, byHTTP, 4, 21)
	c := newContractPair(t)
	c.run(t, []probe{
		{
			name: "limit of a vector", path: "/api/v1/query?query=sort(m)&time=600&limit=1",
			want: `{"status":"success","data":{"resultType":"vector","result":[{"metric":{"__name__":"m","instance":"0","job":"b"},"value":[600,"5"]}]},"warnings":["results truncated due to limit"]}`,
		},
		{
			name: "limit of a matrix", path: "/api/v1/query_range?query=m&start=60&end=60&step=15&limit=1",
			want: `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":"m","instance":"0","job":"a"},"values":[[60,"2"]]}]},"warnings":["results truncated due to limit"]}`,
		},
		{
			name: "limit not reached", path: "/api/v1/query_range?query=gaps&start=60&end=60&step=15&limit=1",
			want: `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":"gaps","job":"a"},"values":[[60,"1"]]}]}}`,
		},
		{name: "limit of labels", path: "/api/v1/labels?limit=1", want: `{"status":"success","data":["__name__"],"warnings":["results truncated due to limit"]}`},
		{name: "limit of values", path: "/api/v1/label/job/values?limit=1", want: `{"status":"success","data":["a"],"warnings":["results truncated due to limit"]}`},
		// Which of them is left is not promised.
		{name: "limit of series", path: "/api/v1/series?match[]=m&start=0&end=60&limit=1", like: sameKeys},
		{
			name: "sort in a range", path: "/api/v1/query_range?query=sort(gaps)&start=60&end=75&step=15",
			want: `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":"gaps","job":"a"},"values":[[60,"1"],[75,"1"]]}]},"warnings":["PromQL warning: sort is ineffective for range queries since results are always ordered by labels (1:1)"]}`,
		},
		{
			name: "rate of a gauge", path: "/api/v1/query?time=120&" + q("query", "rate(gaps[1m])"),
			want: `{"status":"success","data":{"resultType":"vector","result":[{"metric":{"job":"a"},"value":[120,"0"]}]},"infos":["PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: \"gaps\" (1:6)"]}`,
		},
		{name: "odd stats", path: "/api/v1/query?query=1&time=4&stats=foo", like: sameKeys},
		{
			name: "position in the user's query", path: "/api/v1/query?time=120&" + q("query", "sum by (job) (  rate(gaps[1m]))"),
			want: `{"status":"success","data":{"resultType":"vector","result":[{"metric":{"job":"a"},"value":[120,"0"]}]},"infos":["PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: \"gaps\" (1:22)"]}`,
		},
	})
}

func TestContractDisabledFeatures(t *testing.T) {
	shows(t, byHTTP, 3, 12)
	c := newContractPair(t)
	const off = http.StatusInternalServerError
	probes := []probe{
		{name: "search", path: "/api/v1/search/metric_names", status: off},
		// Prometheus names flags that oneprom does not have.
		{name: "write", method: "POST", path: "/api/v1/write", status: http.StatusNotFound, like: sameStatus},
		{name: "otlp", method: "POST", path: "/api/v1/otlp/v1/metrics", status: http.StatusNotFound, like: sameStatus},
		{name: "reload by POST", method: "POST", path: "/-/reload", status: http.StatusForbidden, want: "Lifecycle API is not enabled."},
		{name: "quit by PUT", method: "PUT", path: "/-/quit", status: http.StatusForbidden, want: "Lifecycle API is not enabled."},
		{name: "reload by GET", path: "/-/reload", status: http.StatusMethodNotAllowed, want: "Only POST or PUT requests allowed"},
		{name: "quit by GET", path: "/-/quit", status: http.StatusMethodNotAllowed, want: "Only POST or PUT requests allowed"},
	}
	for _, action := range []string{"delete_series", "clean_tombstones", "snapshot"} {
		for _, method := range []string{"POST", "PUT"} {
			probes = append(probes, probe{
				name: method + " " + action, method: method, path: "/api/v1/admin/tsdb/" + action, status: off,
				want: failure("unavailable", "admin APIs disabled"),
			})
		}
	}
	c.run(t, probes)
}
