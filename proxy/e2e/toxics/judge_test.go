package toxics

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/grafana/regexp"
	"github.com/stretchr/testify/require"
)

// outcome is what an answer is, the best first.
type outcome string

const (
	// right is the truth, and does not say that something is missing.
	right outcome = "right"
	// labelled says that zones are missing, or which server is not to be trusted. The rest is the truth.
	labelled outcome = "labelled"
	// failed is an error in time that names who failed.
	failed outcome = "error"
	// wrong is all else.
	wrong outcome = "WRONG"
)

type verdict struct {
	outcome outcome
	why     string // it is wrong
}

// ailment is who is in a fault.
type ailment struct {
	zones   []string // that have such a server
	servers []string // their addresses
	clocks  bool     // are what is wrong
}

// envelope is an answer of the API.
type envelope struct {
	Status, ErrorType, Error string
	Data                     json.RawMessage
	Warnings                 []string
}

// missing finds the groups that an answer says are missing.
var missing = regexp.MustCompile(`server group "([^"]+)"`)

// judge compares an answer with the truth, of which some zones may be no part: those that are not configured.
func (w *world) judge(q question, got reply, ails ailment, unknown []string) verdict {
	bad := func(format string, args ...any) verdict { return verdict{wrong, fmt.Sprintf(format, args...)} }
	switch {
	case got.err != nil:
		return bad("no answer: %s", got.err)
	case got.after > queryTimeout+slack:
		return bad("%s late", got.after-queryTimeout)
	case got.header.Get("Content-Type") != "application/json":
		return bad("content type %s", got.header.Get("Content-Type"))
	}
	var e envelope
	if err := json.Unmarshal([]byte(got.body), &e); err != nil {
		return bad("%s: %s", err, got.body)
	}
	if e.Status == "error" {
		return judgeError(got, e, ails)
	}
	if got.status != http.StatusOK || e.Status != "success" {
		return bad("status %d and %q", got.status, e.Status)
	}
	equal := func(gone []string) bool {
		var want envelope
		if err := json.Unmarshal([]byte(w.askTruth(q, slices.Concat(unknown, gone))), &want); err != nil {
			panic(fmt.Sprintf("the truth is no JSON: %v", err))
		}
		return sameData(want.Data, e.Data)
	}
	partial := got.header.Get("X-Oneprom-Completeness") == "partial"
	var gone []string
	some := false // of a zone something is missing, and not all
	for _, text := range e.Warnings {
		if !strings.Contains(text, "partial answer") {
			continue
		}
		partial = true
		some = some || strings.Contains(text, "the others have missed something")
		for _, m := range missing.FindAllStringSubmatch(text, -1) {
			gone = append(gone, m[1])
		}
	}
	switch {
	case partial && len(gone) == 0:
		return bad("partial, but of what? %s", got.body)
	case partial && slices.ContainsFunc(gone, func(z string) bool { return !slices.Contains(ails.zones, z) }):
		return bad("says that a healthy zone is missing: %s", got.body)
	case partial && (some || equal(gone) || equal(nil)):
		return verdict{outcome: labelled}
	case ails.clocks && slices.ContainsFunc(e.Warnings, func(text string) bool { return strings.Contains(text, "clock") && names(text, ails.servers) }):
		return verdict{outcome: labelled}
	case partial:
		return bad("not the truth without %s: %s", gone, got.body)
	case equal(nil):
		return verdict{outcome: right}
	default:
		return bad("not the truth, without saying so: %s", got.body)
	}
}

func judgeError(got reply, e envelope, ails ailment) verdict {
	quoted := make([]string, len(ails.zones))
	for i, z := range ails.zones {
		quoted[i] = strconv.Quote(z)
	}
	switch {
	case got.status < 400 || got.status == http.StatusInternalServerError:
		return verdict{wrong, fmt.Sprintf("an error with status %d: %s", got.status, got.body)}
	case e.ErrorType == "" || len(e.Data) > 0:
		return verdict{wrong, "no proper error: " + got.body}
	case !names(e.Error, quoted) && !names(e.Error, ails.servers):
		return verdict{wrong, "the error names nobody: " + got.body}
	}
	return verdict{outcome: failed}
}

// names reports whether a text names one of them.
func names(text string, list []string) bool {
	return slices.ContainsFunc(list, func(s string) bool { return strings.Contains(text, s) })
}

// sameData reports whether the data of two answers are the same, but for the order in vectors and the
// last digits of numbers.
func sameData(a, b json.RawMessage) bool {
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return false
	}
	return same(x, y)
}

func same(a, b any) bool {
	switch a := a.(type) {
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for k, v := range a {
			if w, ok := b[k]; !ok || !same(v, w) {
				return false
			}
		}
		return true
	case []any:
		b, ok := b.([]any)
		if !ok || len(a) != len(b) {
			return false
		}
		a, b = inOrder(a), inOrder(b)
		for i := range a {
			if !same(a[i], b[i]) {
				return false
			}
		}
		return true
	case string:
		b, ok := b.(string)
		if !ok {
			return false
		}
		x, errX := strconv.ParseFloat(a, 64)
		y, errY := strconv.ParseFloat(b, 64)
		return a == b || errX == nil && errY == nil && math.Abs(x-y) <= 1e-9*max(math.Abs(x), math.Abs(y))
	default:
		return a == b
	}
}

// inOrder sorts elements that are series by their labels.
func inOrder(list []any) []any {
	key := func(v any) string {
		series, _ := v.(map[string]any)
		text, _ := json.Marshal([]any{series["metric"], series["seriesLabels"], series["__name__"], series["zone"], series["instance"]})
		return string(text)
	}
	if len(list) == 0 {
		return list
	}
	if _, ok := list[0].(map[string]any); !ok {
		return list
	}
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b any) int { return cmp.Compare(key(a), key(b)) })
	return list
}

// The judge must see what is wrong, or the matrix shows nothing.
func TestJudge(t *testing.T) {
	w := sharedWorld()
	q := questions(0)[1] // sum by (zone)
	ails := ailment{zones: []string{"us-east"}, servers: []string{"127.1.2.3:4"}}
	truth, rest := w.askTruth(q, nil), w.askTruth(q, []string{"us-east"})
	require.NotEqual(t, truth, rest)
	warned := func(body, text string) string {
		return strings.TrimSuffix(body, "}") + `,"warnings":["` + text + `"]}`
	}
	const (
		gone   = `partial answer: server group \"us-east\" (region \"us\") did not answer`
		broken = `{"status":"error","errorType":"execution","error":"%s"}`
	)
	jsonHeader := http.Header{"Content-Type": {"application/json"}}
	f := func(want outcome, status int, body string) {
		t.Helper()
		v := w.judge(q, reply{status: status, header: jsonHeader, body: body, after: queryTimeout}, ails, nil)
		require.Equal(t, want, v.outcome, v.why)
		require.Equal(t, want == wrong, v.why != "")
		late := w.judge(q, reply{status: status, header: jsonHeader, body: body, after: queryTimeout + slack + time.Millisecond}, ails, nil)
		require.Equal(t, wrong, late.outcome)
		html := w.judge(q, reply{status: status, header: http.Header{"Content-Type": {"text/html"}}, body: body}, ails, nil)
		require.Equal(t, wrong, html.outcome)
	}
	f(right, 200, truth)
	f(wrong, 500, truth)
	f(wrong, 200, rest)
	f(wrong, 200, `{"status":"success","data":{"resultType":"matrix","result":[]}}`)
	f(wrong, 200, strings.Replace(truth, `"zone":"us-east"`, `"zone":"mars"`, 1))
	f(wrong, 200, truth[:len(truth)/2])
	f(wrong, 200, `<html>`)
	f(labelled, 200, warned(truth, gone))
	f(labelled, 200, warned(rest, gone))
	f(wrong, 200, warned(rest, "something else"))
	f(wrong, 200, warned(rest, "partial answer: something"))
	f(wrong, 200, warned(rest, `partial answer: server group \"eu\" did not answer`))
	f(wrong, 200, warned(w.askTruth(q, []string{"eu"}), gone))
	f(failed, 503, fmt.Sprintf(broken, `server group \"us-east\" did not answer`))
	f(failed, 422, fmt.Sprintf(broken, `http://127.1.2.3:4: reset`))
	f(wrong, 500, fmt.Sprintf(broken, `server group \"us-east\" did not answer`))
	f(wrong, 200, fmt.Sprintf(broken, `server group \"us-east\" did not answer`))
	f(wrong, 503, fmt.Sprintf(broken, `query timed out`))
	f(wrong, 503, `{"status":"error","error":"server group \"us-east\" did not answer"}`)

	for _, header := range []http.Header{jsonHeader, {"Content-Type": {"application/json"}, "X-Oneprom-Completeness": {"partial"}}} {
		v := w.judge(q, reply{status: 200, header: header, body: truth}, ails, nil)
		require.Equal(t, len(header) == 2, v.outcome == wrong, "partial of what?")
	}
	v := w.judge(q, reply{status: 200, header: jsonHeader, body: warned(rest, `the clock of http://127.1.2.3:4 is wrong`)}, ails, nil)
	require.Equal(t, wrong, v.outcome)
	ails.clocks = true
	v = w.judge(q, reply{status: 200, header: jsonHeader, body: warned(rest, `the clock of http://127.1.2.3:4 is wrong`)}, ails, nil)
	require.Equal(t, labelled, v.outcome)
}

func TestSame(t *testing.T) {
	f := func(want bool, a, b string) {
		t.Helper()
		require.Equal(t, want, sameData(json.RawMessage(a), json.RawMessage(b)))
		require.Equal(t, want, sameData(json.RawMessage(b), json.RawMessage(a)))
	}
	f(true, `[1,"0.1"]`, `[1,"0.10000000000000001"]`)
	f(false, `[1,"0.1"]`, `[1,"0.1001"]`)
	f(false, `[1,"0.1"]`, `[2,"0.1"]`)
	f(false, `["a","b"]`, `["b","a"]`)
	f(true, `[{"metric":{"a":"1"}},{"metric":{"a":"2"}}]`, `[{"metric":{"a":"2"}},{"metric":{"a":"1"}}]`)
	f(false, `[{"metric":{"a":"1"}},{"metric":{"a":"2"}}]`, `[{"metric":{"a":"1"}}]`)
	f(false, `{"a":"1"}`, `{"a":"1","b":"2"}`)
	f(false, `{"a":"1"}`, `["1"]`)
	f(false, `null`, `[]`)
	require.False(t, sameData(nil, bytes.Repeat([]byte("["), 3)))
}
