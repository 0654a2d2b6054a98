package demo

import (
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/prometheus/common/model"
)

// question is a query that one replica alone cannot answer rightly.
type question struct {
	query string
	// clockFree: each sample in the windows comes from a server on the clock of the
	// truth, or its value does not depend on the clock, so that oneprom's answer
	// must be equal.
	clockFree bool
	lacks     string // why the replica alone is wrong
}

var questions = []question{
	{`count(up)`, true, "the other region, node-2"},
	{`sum by (region) (rate(http_requests_total[5m]))`, true, "the other region"},
	{`sum(increase(http_requests_total[1h]))`, true, "the other region"},
	{`histogram_quantile(0.99, sum(rate(http_request_duration_seconds[10m])))`, true, "the other region, which is slower"},
	{`max(max_over_time(inflight_requests[5h]))`, true, "what only the archive still has"},
	{`sum(increase(http_requests_total[5h]))`, false, "what only the archive still has"},
	{`sum by (region) (rate(http_requests_total[5m] offset 70m))`, false, "everything: it was away"},
	{`sum(count_over_time(up{job="api"}[95m]))`, false, "the other region, and 20 min of its own"},
	{`sum(increase(node_network_receive_bytes_total[30m]))`, false, "node-2, which only eu-b reaches"},
}

// row is a question and the answers to it.
type row struct {
	question
	truth, alone, oneprom answer
}

// compare asks all questions of three servers, for the moment at.
func compare(ctx context.Context, client *http.Client, truthURL, aloneURL, onepromURL string, at time.Time) ([]row, error) {
	var rows []row
	for _, q := range questions {
		r := row{question: q}
		for _, side := range []struct {
			url string
			got *answer
		}{{truthURL, &r.truth}, {aloneURL, &r.alone}, {onepromURL, &r.oneprom}} {
			var err error
			if *side.got, err = ask(ctx, client, side.url, q.query, at); err != nil {
				return nil, err
			}
			slices.SortFunc(side.got.vector, func(a, b *model.Sample) int {
				return strings.Compare(a.Metric.String(), b.Metric.String())
			})
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// tolerance is how far, relatively, equal answers may be apart: sums of floats
// depend on the order of the summands.
const tolerance = 1e-9

// deviation is the largest relative difference between two answers, with its sign,
// and infinite if they do not have the same series.
func deviation(want, got model.Vector) float64 {
	if len(want) != len(got) {
		return math.Inf(1)
	}
	worst := 0.0
	for i, w := range want {
		if !w.Metric.Equal(got[i].Metric) {
			return math.Inf(1)
		}
		d := float64((got[i].Value - w.Value) / w.Value)
		switch {
		case got[i].Value == w.Value:
			d = 0
		case math.IsNaN(d):
			return math.Inf(1)
		}
		if math.Abs(d) > math.Abs(worst) {
			worst = d
		}
	}
	return worst
}

// mark says how an answer compares with the truth.
func mark(want, got model.Vector) string {
	d := deviation(want, got)
	switch {
	case math.Abs(d) <= tolerance:
		return "="
	case math.IsInf(d, 0):
		return "differs"
	}
	return fmt.Sprintf("%+.2g %%", 100*d)
}

// writeTable writes the rows, which are answers for the moment at, and how to read
// them.
func writeTable(out io.Writer, rows []row, at time.Time) error {
	fmt.Fprintf(out, "At %s:\n\n", at.Format(time.TimeOnly))
	tw := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(tw, "query\ttruth\t%s alone\toneprom\t\t%s lacks\n", alone, alone)
	allEqual := true
	var warnings []string
	for _, r := range rows {
		m := mark(r.truth.vector, r.oneprom.vector)
		allEqual = allEqual && m == "="
		warnings = append(warnings, r.oneprom.warnings...)
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\n", r.query, show(r.truth.vector), show(r.alone.vector), show(r.oneprom.vector), m, r.lacks)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	fmt.Fprint(out, "\n= is equal to the truth, up to rounding of the last digits.\n")
	if !allEqual {
		fmt.Fprintf(out, "A percentage is how far oneprom is from it. Where replica a has no samples, replica b's fill in. They\n"+
			"are true as well, but were taken %s later than those of the truth, and where the two meet there can be\n"+
			"one more or one less.\n", interval/2)
	}
	slices.Sort(warnings)
	for _, w := range slices.Compact(warnings) {
		fmt.Fprintf(out, "oneprom warns: %s\n", w)
	}
	return nil
}

// show writes a vector in a line, the region before its value.
func show(v model.Vector) string {
	if len(v) == 0 {
		return "nothing"
	}
	var parts []string
	for _, s := range v {
		value := number(float64(s.Value))
		switch region, ok := s.Metric["region"]; {
		case ok && len(s.Metric) == 1:
			value = string(region) + " " + value
		case len(s.Metric) > 0:
			value = s.Metric.String() + " " + value
		}
		parts = append(parts, value)
	}
	return strings.Join(parts, ", ")
}

// number writes a value with six digits, or all those before the point.
func number(f float64) string {
	if f == math.Trunc(f) && math.Abs(f) < 1e15 {
		return strconv.FormatFloat(f, 'f', 0, 64)
	}
	if a := math.Abs(f); a < 1e-3 || a >= 1e15 {
		return strconv.FormatFloat(f, 'g', 6, 64)
	}
	decimals := max(0, 5-int(math.Floor(math.Log10(math.Abs(f)))))
	return strconv.FormatFloat(f, 'f', decimals, 64)
}

// short writes a duration without its zeros: 2h, 1h30m.
func short(d time.Duration) string { return model.Duration(d).String() }
