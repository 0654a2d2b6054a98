package e2e

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The contract: one request, asked of oneprom and of the Prometheus behind it.
// The expectation is written down, so that neither can drift, and both must
// agree. The tables are in the contract_*_test.go files.

// probe is one request and what must come of it.
type probe struct {
	name   string
	method string // GET if empty
	path   string // with the query string
	form   string // body of a POST, form encoded
	header map[string]string
	status int    // 200 if 0
	want   string // exact body; not checked if empty
	like   likeness
}

// likeness says how far oneprom's answer must agree with Prometheus'.
type likeness int

const (
	sameBytes    likeness = iota
	sameElements          // lists of the JSON in any order
	sameKeys              // the same keys on the way down, other values
	sameStatus            // status and content type only
	wider                 // Prometheus refuses what oneprom accepts
)

// reply is an answer, its body decoded.
type reply struct {
	status int
	header http.Header
	body   string
}

// contractPair is a oneprom and the Prometheus behind it.
type contractPair struct {
	client  *http.Client
	oneprom string
	direct  string
}

func newContractPair(t *testing.T, flags ...string) contractPair {
	t.Helper()
	backend := reference(t)
	direct := backend
	if len(flags) > 0 {
		direct = reference(t, flags...)
	}
	client := &http.Client{
		Transport:     &http.Transport{DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	t.Cleanup(client.CloseIdleConnections)
	through := oneprom(t, oneBackend([]string{hostPort(t, backend)}, "replica_labels: [replica]"), flags...)
	return contractPair{client: client, oneprom: through, direct: direct}
}

// run asks both and compares.
func (c contractPair) run(t *testing.T, probes []probe) {
	for _, p := range probes {
		t.Run(p.name, func(t *testing.T) {
			if p.like == wider {
				require.Equal(t, http.StatusMethodNotAllowed, c.ask(t, c.direct, p).status, "Prometheus has become wider too")
				c.expect(t, c.ask(t, c.oneprom, p), p)
				return
			}
			want, got := c.ask(t, c.direct, p), c.ask(t, c.oneprom, p)
			c.expect(t, want, p)
			c.expect(t, got, p)
			require.Equal(t, want.status, got.status)
			require.Equal(t, want.header.Get("Content-Type"), got.header.Get("Content-Type"))
			switch p.like {
			case sameBytes:
				require.Equal(t, want.body, got.body)
			case sameElements:
				require.Equal(t, canonical(t, want.body), canonical(t, got.body))
			case sameKeys:
				require.Equal(t, skeleton(t, want.body), skeleton(t, got.body))
			}
		})
	}
}

// expect checks an answer against what is written down.
func (c contractPair) expect(t *testing.T, r reply, p probe) {
	t.Helper()
	status := p.status
	if status == 0 {
		status = http.StatusOK
	}
	require.Equal(t, status, r.status, r.body)
	if p.want != "" && p.like == sameElements {
		require.Equal(t, canonical(t, p.want), canonical(t, r.body))
	} else if p.want != "" {
		require.Equal(t, p.want, r.body)
	}
}

func (c contractPair) ask(t *testing.T, base string, p probe) reply {
	t.Helper()
	method := p.method
	if method == "" {
		method = http.MethodGet
	}
	req, err := http.NewRequestWithContext(t.Context(), method, base+p.path, strings.NewReader(p.form))
	require.NoError(t, err)
	if p.form != "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for k, v := range p.header {
		req.Header.Set(k, v)
	}
	resp, err := c.client.Do(req)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return reply{status: resp.StatusCode, header: resp.Header, body: decoded(t, body, resp.Header.Get("Content-Encoding"))}
}

func decoded(t *testing.T, body []byte, encoding string) string {
	t.Helper()
	var r io.Reader = bytes.NewReader(body)
	var err error
	switch encoding {
	case "gzip":
		r, err = gzip.NewReader(r)
	case "deflate":
		r, err = zlib.NewReader(r)
	default:
		require.Empty(t, encoding)
	}
	require.NoError(t, err)
	text, err := io.ReadAll(r)
	require.NoError(t, err)
	return string(text)
}

// canonical is JSON with the lists of result series, data, warnings and infos
// sorted. Samples keep their order and numbers their digits.
func canonical(t *testing.T, body string) string {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(body))
	decoder.UseNumber()
	var tree any
	require.NoError(t, decoder.Decode(&tree), body)
	root, ok := tree.(map[string]any)
	require.True(t, ok, body)
	for _, key := range []string{"data", "warnings", "infos"} {
		sortList(root[key])
	}
	if data, ok := root["data"].(map[string]any); ok && data["resultType"] != "scalar" && data["resultType"] != "string" {
		sortList(data["result"])
	}
	text, err := json.MarshalIndent(root, "", " ")
	require.NoError(t, err)
	return string(text)
}

func sortList(list any) {
	if l, ok := list.([]any); ok {
		slices.SortFunc(l, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	}
}

// skeleton lists the paths of the values in a JSON text with their types, the
// elements of a list under one path.
func skeleton(t *testing.T, body string) []string {
	t.Helper()
	var tree any
	require.NoError(t, json.Unmarshal([]byte(body), &tree), body)
	var paths []string
	var walk func(at string, v any)
	walk = func(at string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for k, child := range v {
				walk(at+"."+k, child)
			}
		case []any:
			for _, child := range v {
				walk(at+"[]", child)
			}
		default:
			paths = append(paths, fmt.Sprintf("%s %T", at, v))
		}
	}
	walk("", tree)
	slices.Sort(paths)
	return slices.Compact(paths)
}

// failure is the body of an error answer.
func failure(errorType, message string) string {
	text, _ := json.Marshal(message)
	return fmt.Sprintf(`{"status":"error","errorType":"%s","error":%s}`, errorType, unescapeHTML(text))
}

// unescapeHTML undoes what encoding/json does for browsers and Prometheus does not.
func unescapeHTML(text []byte) string {
	return strings.NewReplacer(`\u003c`, "<", `\u003e`, ">", `\u0026`, "&").Replace(string(text))
}

func TestContractMachineryNoticesDifferences(t *testing.T) {
	a := `{"status":"success","data":{"resultType":"vector","result":[{"metric":{"a":"1"},"value":[1,"1"]},{"metric":{"a":"2"},"value":[1,"1.0"]}]}}`
	b := `{"status":"success","data":{"result":[{"metric":{"a":"2"},"value":[1,"1.0"]},{"value":[1,"1"],"metric":{"a":"1"}}],"resultType":"vector"}}`
	require.Equal(t, canonical(t, a), canonical(t, b))
	require.NotEqual(t, canonical(t, a), canonical(t, strings.Replace(a, `"1.0"`, `"1"`, 1)))
	require.NotEqual(t, canonical(t, a), canonical(t, strings.Replace(a, `[1,"1"]`, `[1.0,"1"]`, 1)))
	require.Equal(t, skeleton(t, a), skeleton(t, strings.ReplaceAll(a, "1", "7")))
	require.NotEqual(t, skeleton(t, a), skeleton(t, strings.NewReplacer(`"1"]`, `1]`, `"1.0"]`, `1.0]`).Replace(a)))
	require.JSONEq(t, `{"status":"error","errorType":"x","error":"a < \"b\""}`, failure("x", `a < "b"`))
}
