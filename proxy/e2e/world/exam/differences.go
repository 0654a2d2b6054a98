package exam

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/promql/parser"
)

// Differences lists how got differs from the truth, most telling first; none means that the answers are the same.
func Differences(q Query, want, got *Answer) []string {
	if want.Status != got.Status || want.ErrorType != got.ErrorType || want.Error != got.Error || want.HTTPStatus != got.HTTPStatus {
		return []string{fmt.Sprintf("status: want %d %s %s %q, got %d %s %s %q",
			want.HTTPStatus, want.Status, want.ErrorType, want.Error, got.HTTPStatus, got.Status, got.ErrorType, got.Error)}
	}
	if want.Data.ResultType != got.Data.ResultType {
		return []string{fmt.Sprintf("result type: want %s, got %s", want.Data.ResultType, got.Data.ResultType)}
	}
	var out []string
	if !same(Point{V: want.Single}, Point{V: got.Single}) {
		out = append(out, fmt.Sprintf("value: want %s, got %s", want.Single, got.Single))
	}
	tied := chooses(q) && slices.Equal(valuesByTime(want), valuesByTime(got))
	if !tied {
		out = append(out, seriesDifferences(want.Series, got.Series)...)
	}
	if len(out) == 0 && !tied && ordered(q, want) {
		out = append(out, orderDifference(want.Series, got.Series)...)
	}
	out = append(out, setDifference("warnings", want.Warnings, got.Warnings)...)
	return append(out, setDifference("infos", want.Infos, got.Infos)...)
}

// seriesDifferences compares the series by their labels.
func seriesDifferences(want, got []Series) []string {
	var out []string
	byName := map[string]Series{}
	for _, s := range got {
		if _, twice := byName[s.Name]; twice {
			out = append(out, "series twice: "+s.Name)
		}
		byName[s.Name] = s
	}
	for _, w := range want {
		g, ok := byName[w.Name]
		if !ok {
			out = append(out, fmt.Sprintf("series missing: %s (%d points)", w.Name, len(w.Points)))
			continue
		}
		delete(byName, w.Name)
		if d := pointDifference(w, g); d != "" {
			out = append(out, d)
		}
	}
	for name, s := range byName {
		out = append(out, fmt.Sprintf("series too many: %s (%d points, first %s %s)", name, len(s.Points), s.Points[0].T, s.Points[0].V))
	}
	slices.Sort(out)
	return out
}

// chooses tells whether the query takes some of several series, which are any where values are equal.
func chooses(q Query) bool {
	expr, err := parse(q.Text)
	if err != nil {
		return false
	}
	e, ok := expr.(*parser.AggregateExpr)
	return ok && (e.Op == parser.TOPK || e.Op == parser.BOTTOMK)
}

// valuesByTime are the values of an answer, whichever series they are of. Those of a vector are in its order.
func valuesByTime(a *Answer) []string {
	var out []string
	for _, s := range a.Series {
		for _, p := range s.Points {
			out = append(out, p.T+" "+p.V)
		}
	}
	if a.Data.ResultType == "matrix" {
		slices.Sort(out)
	}
	return out
}

var number = regexp.MustCompile(`-?\d+(\.\d+)?(e[-+]?\d+)?`)

// LastDigits is how far, relatively, two values may be apart that are the same: four units in the last place. Where the
// groups' sums are added up, the order of the additions is not that of one Prometheus.
const LastDigits = 9e-16

// same tells whether two points, or histograms, are the same but for their last digits.
func same(want, got Point) bool {
	if want == got {
		return true
	}
	if want.T != got.T || number.ReplaceAllString(want.V, "") != number.ReplaceAllString(got.V, "") {
		return false
	}
	wants, gots := number.FindAllString(want.V, -1), number.FindAllString(got.V, -1)
	for i := range wants {
		w, errW := strconv.ParseFloat(wants[i], 64)
		g, errG := strconv.ParseFloat(gots[i], 64)
		if errW != nil || errG != nil || math.Abs(w-g) > LastDigits*math.Abs(w) {
			return false
		}
	}
	return true
}

// pointDifference describes the first point in which two series differ, and how many do.
func pointDifference(want, got Series) string {
	if slices.EqualFunc(want.Points, got.Points, same) {
		return ""
	}
	have := map[string]Point{}
	for _, p := range got.Points {
		have[p.T] = p
	}
	wrong, first := 0, Point{}
	for _, p := range want.Points {
		if !same(p, have[p.T]) {
			if wrong == 0 {
				first = p
			}
			wrong++
		}
	}
	text := fmt.Sprintf("values: %s: %d points wanted, %d of them wrong or missing, %d points got", want.Name, len(want.Points), wrong, len(got.Points))
	if wrong == 0 {
		return text
	}
	for _, p := range got.Points {
		if p.T == first.T {
			return text + fmt.Sprintf("; at %s want %s, got %s%s", first.T, first.V, p.V, distance(first, p))
		}
	}
	return text + fmt.Sprintf("; at %s want %s, got nothing", first.T, first.V)
}

// distance tells how many representable floats lie between two values.
func distance(want, got Point) string {
	if want.Histogram || got.Histogram {
		return ""
	}
	a, errA := want.Float()
	b, errB := got.Float()
	if errA != nil || errB != nil || math.IsNaN(a) || math.IsNaN(b) || math.IsInf(a, 0) || math.IsInf(b, 0) || (a < 0) != (b < 0) {
		return ""
	}
	n := int64(math.Float64bits(a)) - int64(math.Float64bits(b))
	return fmt.Sprintf(" (%d ulp, relative %.2g)", max(n, -n), math.Abs(b/a-1))
}

// ordered tells whether the order of the result is part of the answer: always for a matrix, which is sorted by labels, and for a vector
// if the outermost function says so, or if a limit decides which series are seen first.
func ordered(q Query, a *Answer) bool {
	if a.Data.ResultType == "matrix" {
		return true
	}
	expr, err := parse(q.Text)
	if err != nil {
		return false
	}
	switch e := expr.(type) {
	case *parser.Call:
		return strings.HasPrefix(e.Func.Name, "sort")
	case *parser.AggregateExpr:
		return e.Op == parser.TOPK || e.Op == parser.BOTTOMK || e.Op == parser.LIMITK
	}
	return false
}

// parse understands the whole language, with all the extensions that the servers have switched on.
func parse(text string) (parser.Expr, error) {
	return parser.NewParser(parser.Options{
		EnableExperimentalFunctions:  true,
		ExperimentalDurationExpr:     true,
		EnableExtendedRangeSelectors: true,
		EnableBinopFillModifiers:     true,
	}).ParseExpr(text)
}

func orderDifference(want, got []Series) []string {
	for i := range want {
		if want[i].Name != got[i].Name {
			return []string{fmt.Sprintf("order: at position %d want %s, got %s", i, want[i].Name, got[i].Name)}
		}
	}
	return nil
}

func setDifference(what string, want, got []string) []string {
	w, g := slices.Sorted(slices.Values(want)), slices.Sorted(slices.Values(got))
	if slices.Equal(w, g) {
		return nil
	}
	return []string{fmt.Sprintf("%s: want %q, got %q", what, w, g)}
}
