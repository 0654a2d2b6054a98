package verify

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

const (
	maxQueryWidth = 70   // of the table, in runes
	maxTextWidth  = 1200 // of a difference
)

// A report is what a verification has found.
type report struct {
	results []result
	all     int // questions that there are
	skipped []Skip
}

// exitCode reports whether the answers are equal. What is not compared is not equal.
func (r *report) exitCode() int {
	count := r.counts()
	switch good := count[isEqual] + count[onlyInfos]; {
	case len(r.results) < r.all:
		return exitUnknown
	case count[isDifferent]+count[isPartial]+count[testFails] > 0:
		return exitDiffers
	case good == 0 || count[referenceFails] > 0:
		return exitUnknown
	}
	return exitEqual
}

func (r *report) counts() map[verdict]int {
	count := map[verdict]int{}
	for _, result := range r.results {
		count[result.verdict]++
	}
	return count
}

// write writes the table, the first difference of each query that is not equal, what was skipped, and a summary in the last line.
func (r *report) write(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 1, 2, ' ', 0)
	fmt.Fprintln(w, "query\tverdict\treference\ttest\tratio")
	for _, result := range r.results {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%.2f\n", oneLine(result.Query, maxQueryWidth), result.verdict, milliseconds(result.reference), milliseconds(result.test), result.ratio())
	}
	_ = w.Flush() // as with other output, nobody is there to be told
	for _, result := range r.results {
		if result.text != "" {
			fmt.Fprintf(out, "\n%s: %s\n  %s, %s\n  %s\n", result.verdict, oneLine(result.Query, maxTextWidth), result.From, result.when(), oneLine(result.text, maxTextWidth))
		}
	}
	for i, s := range r.skipped {
		if i == 0 {
			fmt.Fprintln(out)
		}
		fmt.Fprintf(out, "skipped: %s: %s\n", s.From, oneLine(s.Why, maxTextWidth))
	}
	fmt.Fprintf(out, "\n%s\n", r.summary())
}

func (r *report) summary() string {
	if r.all == 0 {
		return fmt.Sprintf("there is no query to ask, %d skipped", len(r.skipped))
	}
	count := r.counts()
	var parts []string
	for _, v := range verdicts {
		if count[v] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", count[v], v))
		}
	}
	if len(r.skipped) > 0 {
		parts = append(parts, fmt.Sprintf("%d skipped", len(r.skipped)))
	}
	text := fmt.Sprintf("%d queries", len(r.results))
	if len(r.results) < r.all {
		text = fmt.Sprintf("interrupted, %d of %d queries", len(r.results), r.all)
	}
	if len(parts) > 0 {
		text += ": " + strings.Join(parts, ", ")
	}
	if len(r.results) > 0 {
		text += fmt.Sprintf("; medians: reference %s, test %s, ratio %.2f",
			milliseconds(median(r.results, func(r result) time.Duration { return r.reference })),
			milliseconds(median(r.results, func(r result) time.Duration { return r.test })),
			median(r.results, result.ratio))
	}
	return text
}

// ratio is how many times as long as the reference the test took.
func (r result) ratio() float64 { return r.test.Seconds() / max(r.reference.Seconds(), 1e-6) }

func median[T cmp.Ordered](results []result, of func(result) T) T {
	values := make([]T, len(results))
	for i, r := range results {
		values[i] = of(r)
	}
	slices.Sort(values)
	return values[len(values)/2]
}

func milliseconds(d time.Duration) string {
	decimals := 0
	if d < 100*time.Millisecond {
		decimals = 1
	}
	return fmt.Sprintf("%.*f ms", decimals, float64(d.Microseconds())/1000)
}

// oneLine is text without control characters, cut off if it is long.
func oneLine(text string, width int) string {
	runes := []rune(strings.Join(strings.Fields(strings.Map(printed, text)), " "))
	if len(runes) > width {
		return string(runes[:width-1]) + "…"
	}
	return string(runes)
}

// printed keeps what servers say from controlling a terminal.
func printed(r rune) rune {
	if r < ' ' || r >= 0x7f && r < 0xa0 {
		return ' '
	}
	return r
}
