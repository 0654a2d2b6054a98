package verify

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/promql/parser"
)

// Differences lists how the data of an answer differ from what was wanted, most telling first; none means that the answers are the same. Of
// equal values, topk may choose any.
func Differences(query string, want, got *Answer, t Tolerance) []string {
	if want.Status != got.Status || want.ErrorType != got.ErrorType || want.Error != got.Error || want.HTTPStatus != got.HTTPStatus {
		return []string{fmt.Sprintf("status: want %d %s %s %q, got %d %s %s %q",
			want.HTTPStatus, want.Status, want.ErrorType, want.Error, got.HTTPStatus, got.Status, got.ErrorType, got.Error)}
	}
	if want.Data.ResultType != got.Data.ResultType {
		return []string{fmt.Sprintf("result type: want %s, got %s", want.Data.ResultType, got.Data.ResultType)}
	}
	var out []string
	if !t.same(Point{V: want.Single}, Point{V: got.Single}) {
		out = append(out, fmt.Sprintf("value: want %s, got %s", want.Single, got.Single))
	}
	if chooses(query) && slices.Equal(valuesByTime(want), valuesByTime(got)) {
		return out
	}
	out = append(out, t.seriesDifferences(want.Series, got.Series)...)
	if len(out) == 0 && want.Data.ResultType == "vector" && ordered(query) {
		out = append(out, OrderDifference(want.Series, got.Series)...)
	}
	return out
}

// NoticeDifferences lists how the warnings and the infos of an answer differ from what was wanted.
func NoticeDifferences(want, got *Answer) (warnings, infos []string) {
	return setDifference("warnings", want.Warnings, got.Warnings), setDifference("infos", want.Infos, got.Infos)
}

// seriesDifferences compares the series by their labels.
func (t Tolerance) seriesDifferences(want, got []Series) []string {
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
		if d := t.pointDifference(w, g); d != "" {
			out = append(out, d)
		}
	}
	for name, s := range byName {
		out = append(out, fmt.Sprintf("series too many: %s (%d points, first %s %s)", name, len(s.Points), s.Points[0].T, s.Points[0].V))
	}
	slices.Sort(out)
	return out
}

// chooses reports whether the query takes some of several series, which are any where values are equal.
func chooses(query string) bool {
	expr, err := parse(query)
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

// A Tolerance reports whether two values that differ are close enough to be the same. Where the groups' sums are added up, the order of the
// additions is not that of one Prometheus.
type Tolerance func(want, got float64) bool

// Within tolerates a relative difference.
func Within(relative float64) Tolerance {
	return func(want, got float64) bool { return math.Abs(want-got) <= relative*math.Abs(want) }
}

// Ulps tolerates a number of units in the last place: n-1 representable floats lie between the values.
func Ulps(n uint64) Tolerance {
	return func(want, got float64) bool {
		d, ok := ulps(want, got)
		return ok && d <= n
	}
}

// ulps is the distance of two finite values in units in the last place.
func ulps(a, b float64) (n uint64, ok bool) {
	if math.IsNaN(a) || math.IsNaN(b) || math.IsInf(a, 0) || math.IsInf(b, 0) {
		return 0, false
	}
	// The bits of floats are ordered as the floats are, apart from the sign.
	x, y := math.Float64bits(math.Abs(a)), math.Float64bits(math.Abs(b))
	if math.Signbit(a) != math.Signbit(b) {
		return x + y, true
	}
	return max(x, y) - min(x, y), true
}

// same reports whether two points, or histograms, are the same but for what is tolerated.
func (t Tolerance) same(want, got Point) bool {
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
		if errW != nil || errG != nil || w != g && !t(w, g) {
			return false
		}
	}
	return true
}

// pointDifference describes the first point in which two series differ, and how many do.
func (t Tolerance) pointDifference(want, got Series) string {
	if slices.EqualFunc(want.Points, got.Points, t.same) {
		return ""
	}
	have := map[string]Point{}
	for _, p := range got.Points {
		have[p.T] = p
	}
	wrong, first := 0, Point{}
	for _, p := range want.Points {
		if !t.same(p, have[p.T]) {
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

// distance returns how many representable floats lie between two values.
func distance(want, got Point) string {
	if want.Histogram || got.Histogram {
		return ""
	}
	a, errA := want.Float()
	b, errB := got.Float()
	if errA != nil || errB != nil {
		return ""
	}
	n, ok := ulps(a, b)
	if !ok {
		return ""
	}
	return fmt.Sprintf(" (%d ulp, relative %.2g)", n, math.Abs(b/a-1))
}

// ordered reports whether the order of a vector is part of the answer: if the outermost function says so, or if a limit decides which series
// are seen first.
func ordered(query string) bool {
	expr, err := parse(query)
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

// OrderDifference says where the order of series is another one.
func OrderDifference(want, got []Series) []string {
	for i := range min(len(want), len(got)) {
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
