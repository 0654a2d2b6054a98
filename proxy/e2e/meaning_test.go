//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/proxy/e2e/internal/world"
)

// TestMeaning_OfSelectors asks a Prometheus 2, a VictoriaMetrics and an InfluxDB through oneprom for what they might understand in another
// way than a Prometheus 3 does: regular expressions, and names that are not legacy names.
func TestMeaning_OfSelectors(t *testing.T) {
	values := []string{"plain text", "x\ny", "x.y", "xzy", "\n", "first", "first line\nsecond line", "FIRST\nx\n", "é\nü"}
	named := []string{"k8s.pod.name", "a b", "é", "日本", `a"b`, `a\b`, "1a", "a\nb", "a{b", "a/b", "a%b", "a:b", "😀", "or", "__graphite__"}
	var plain, odd []labels.Labels
	for i, v := range values {
		plain = append(plain, labels.FromStrings("__name__", "m", "job", "j", "instance", strconv.Itoa(i), "msg", v))
	}
	plain = append(plain, labels.FromStrings("__name__", "m", "job", "j", "instance", "none"))
	for _, name := range named {
		odd = append(odd, labels.FromStrings("__name__", "odd", "job", "j", "instance", name, name, "v\nw"), labels.FromStrings("__name__", name, "job", "named"))
	}

	var selectors []string
	for _, p := range []string{
		".*", ".+", "x.y", `x\.y`, "x.*", ".*y", ".*line.*", ".+line", ".", ".?", "|.+", ".+|x|", "(?-s:.*)", "x(?-s:.)y|.", "(?i)first.*", "(?<n>x.y)", "[^a]*", "x[.]y", "é.*", "first.*|", "(?m)^x.y$", "a|x.y", "first|",
	} {
		selectors = append(selectors, fmt.Sprintf("m{msg=~%q}", p), fmt.Sprintf("m{msg!~%q}", p))
	}
	matchers := []string{`="v\nw"`, `!~".+"`, `!="v\nw"`, `=""`, `=~"v.w|x"`, `!=""`, `=~".*"`, `!~"v.*"`}
	for i, name := range append(named, "none.such") {
		q := strconv.Quote(name)
		for j := range 3 {
			selectors = append(selectors, fmt.Sprintf(`odd{%s%s}`, q, matchers[(3*i+j)%len(matchers)]))
		}
		selectors = append(selectors, fmt.Sprintf(`{__name__=%s,job="named"}`, q))
	}
	now := time.Now().Truncate(time.Minute)
	from, to := now.Add(-10*time.Minute).UnixMilli(), now.UnixMilli()
	all := slices.Concat(plain, odd)
	var paths []string
	for i, selector := range selectors { // each by two of the ways
		ways := meaningPaths(selector, from, to)
		paths = append(paths, ways[i%len(ways)], ways[(i+3)%len(ways)])
	}
	for _, name := range append(named, "none.such") {
		paths = append(paths, "/api/v1/label/U__"+underscored(name)+"/values?"+url.Values{"match[]": {`{job="j"}`}}.Encode())
	}
	truth := world.RunFed(t, world.Prometheus, all, from, to)
	want := map[string]string{}
	for _, path := range paths {
		want[path] = meant(t, truth.URL+path)
	}
	for _, c := range []struct {
		kind    world.Kind
		options []string
	}{
		{world.Prometheus, []string{"remote_read: never"}},
		{world.Prometheus2, nil},
		{world.Prometheus2, []string{"remote_read: never"}},
		{world.VictoriaMetrics, nil},
		{world.InfluxDB, []string{"query_params: {db: [prom]}"}},
	} {
		t.Run(fmt.Sprint(c.kind, c.options), func(t *testing.T) {
			base := oneprom(t, oneBackend([]string{hostPort(t, world.RunFed(t, c.kind, all, from, to).URL)}, c.options...))
			for _, path := range paths {
				require.Equal(t, want[path], meant(t, base+path), path)
			}
		})
	}
}

// meaningPaths are the requests about a selector.
func meaningPaths(selector string, from, to int64) []string {
	window := url.Values{"match[]": {selector}, "start": {strconv.FormatInt(from/1000, 10)}, "end": {strconv.FormatInt(to/1000, 10)}}.Encode()
	query := func(text string) string {
		return "/api/v1/query?" + url.Values{"query": {text}, "time": {strconv.FormatInt(to/1000, 10)}}.Encode()
	}
	return []string{
		query(selector), query("count by (job) (" + selector + ")"), query("absent_over_time(" + selector + "[5m:1m])"),
		"/api/v1/query_range?step=60&" + url.Values{"query": {"count_over_time(" + selector + "[3m])"}, "start": {strconv.FormatInt(from/1000, 10)}, "end": {strconv.FormatInt(to/1000, 10)}}.Encode(),
		"/api/v1/series?" + window, "/api/v1/labels?" + window, "/api/v1/label/instance/values?" + window, "/federate?" + window,
	}
}

// underscored is the rest of a label name in a path, after U__.
func underscored(name string) string {
	var b strings.Builder
	for _, r := range name {
		switch {
		case r == '_':
			b.WriteString("__")
		case r < 128 && (r >= '0' && r <= '9' || r >= 'a' && r <= 'z'):
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, "_%x_", r)
		}
	}
	return b.String()
}

// meant is the answer to a request, in an order of its own.
func meant(t *testing.T, url string) string {
	t.Helper()
	return meantFor(t, url, nil)
}

// meantFor is meant for who sends these headers.
func meantFor(t *testing.T, url string, header http.Header) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	req.Header = header
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	var answer struct {
		Data     json.RawMessage
		Warnings []string
		Error    string
	}
	if json.Unmarshal(body, &answer) != nil { // federation
		lines := strings.Split(string(body), "\n")
		slices.Sort(lines)
		return strings.Join(lines, "\n")
	}
	require.Empty(t, answer.Warnings, url)
	require.Empty(t, answer.Error, url)
	var result struct{ Result []json.RawMessage }
	if json.Unmarshal(answer.Data, &result) != nil {
		require.NoError(t, json.Unmarshal(answer.Data, &result.Result))
	}
	var texts []string
	for _, one := range result.Result {
		var value any
		require.NoError(t, json.Unmarshal(one, &value))
		text, err := json.Marshal(value)
		require.NoError(t, err)
		texts = append(texts, string(text))
	}
	slices.Sort(texts)
	return strings.Join(texts, "\n")
}
