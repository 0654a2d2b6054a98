package toxics

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// doc is where the tables are kept.
const doc = "../../../docs/resilience.md"

// matrixTable is a line for each cell.
func matrixTable(cells []*cell) string {
	var b strings.Builder
	b.WriteString("| Fault | At | First answers | ms | Later answers | ms | Right again, ms |\n|---|---|---|--:|---|--:|--:|\n")
	for _, c := range cells {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %d |\n", c.toxic.name, c.scope.name,
			c.outcomes(cold), times(c.answers[cold]), c.outcomes(warm), times(c.answers[warm]), c.recovered.Milliseconds())
	}
	return b.String()
}

// times are the median and the maximum in ms.
func times(list []answered) string {
	if len(list) == 0 {
		return ""
	}
	after := durations(list)
	return fmt.Sprintf("%d / %d", quantile(after, 0.5).Milliseconds(), quantile(after, 1).Milliseconds())
}

// quantile is the smallest value that so many are not above.
func quantile(list []time.Duration, q float64) time.Duration {
	list = slices.SortedFunc(slices.Values(list), cmp.Compare)
	return list[min(len(list)-1, int(q*float64(len(list))))]
}

// checkTable compares the words of a table, outcomes among them, with what is documented under its name,
// or documents it. Outcomes in parentheses are those that come at some moments only.
func checkTable(t *testing.T, name, table string) {
	t.Helper()
	text, err := os.ReadFile(doc)
	require.NoError(t, err)
	begin, end := "<!-- begin "+name+" -->\n", "<!-- end "+name+" -->"
	before, rest, ok := strings.Cut(string(text), begin)
	require.True(t, ok, "%s has no %q", doc, begin)
	documented, after, ok := strings.Cut(rest, end)
	require.True(t, ok, "%s has no %q", doc, end)
	if *updateFlag {
		require.True(t, full, "-update needs -tags e2e")
		require.NoError(t, os.WriteFile(doc, []byte(before+begin+table+end+after), 0o600))
		return
	}
	known := slices.Collect(strings.Lines(documented))
	for line := range strings.Lines(table) {
		documents := func(known string) bool { return allows(words(known), words(line)) }
		require.True(t, slices.ContainsFunc(known, documents), "not so in %s, see -update: %s", doc, line)
	}
}

// allows reports whether words are those that are documented, but for some of those in parentheses.
func allows(documented, line string) bool {
	want, got := strings.Split(documented, "|"), strings.Split(line, "|")
	if len(want) != len(got) {
		return false
	}
	for i := range want {
		left := strings.Split(got[i], ", ")
		for item := range strings.SplitSeq(want[i], ", ") {
			plain := strings.Trim(item, "()")
			at := slices.Index(left, plain)
			switch {
			case at >= 0:
				left = slices.Delete(left, at, at+1)
			case plain == item:
				return false
			}
		}
		if len(left) > 0 {
			return false
		}
	}
	return true
}

// words are the cells of a line but for those that begin with a digit and end with one: times.
func words(line string) string {
	var kept []string
	for c := range strings.SplitSeq(strings.TrimSpace(line), "|") {
		c = strings.TrimSpace(c)
		if c == "" || isDigit(c[0]) && isDigit(c[len(c)-1]) && len(kept) > 0 {
			continue
		}
		kept = append(kept, c)
	}
	return strings.Join(kept, "|")
}

func isDigit(b byte) bool { return '0' <= b && b <= '9' }
