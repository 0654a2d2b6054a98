package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
)

// class is how an answer relates to the truth.
type class string

const (
	classExact     class = "exact"      // the same text of every number
	classNear      class = "near"       // numbers that differ in their last digits
	classErrorText class = "error-text" // both fail, in different words
	classOrder     class = "order"      // the expression promises an order, and this is another
	classDifferent class = "different"  // a number is another
	classExtra     class = "extra"      // a series or point too many
	classMissing   class = "missing"    // a series or point too few
	classOutcome   class = "outcome"    // one fails and the other does not, or the result type or status code is another
	classNotes     class = "annotations"
)

// nearEnough is by how many units in the last place two floats may differ that count as near, as sums do that
// are added up in another order.
const nearEnough = 2

// wrong reports whether the class means that the values of an answer are not those of the truth.
func (c class) wrong() bool {
	return c != classExact && c != classNear && c != classErrorText && c != classNotes
}

// classSeverity orders the classes of the parts of one answer: the worst one names the answer.
var classSeverity = []class{classExact, classNear, classErrorText, classOrder, classDifferent, classExtra, classMissing, classOutcome}

func worseClass(a, b class) class {
	if slices.Index(classSeverity, a) > slices.Index(classSeverity, b) {
		return a
	}
	return b
}

// verdict is the outcome of one comparison.
type verdict struct {
	values class
	notes  bool // the annotations differ
}

// apiAnswer is a response of the query API, read no further than needed.
type apiAnswer struct {
	Status    string
	ErrorType string
	Error     string
	Warnings  []string
	Infos     []string
	Data      struct {
		ResultType string
		Result     json.RawMessage
	}
}

// judge compares oneprom's answer with the truth's, which carries all its annotations.
func judge(ev evaluation, wantJSON []byte, code int, gotJSON []byte) verdict {
	var want, got apiAnswer
	if err := json.Unmarshal(wantJSON, &want); err != nil {
		panic(fmt.Sprintf("BUG: the truth is not JSON: %v: %s", err, wantJSON))
	}
	if err := json.Unmarshal(gotJSON, &got); err != nil {
		return verdict{values: classOutcome}
	}
	if want.Status != got.Status || code != statusCode(want) || want.Data.ResultType != got.Data.ResultType {
		return verdict{values: classOutcome}
	}
	v := verdict{
		values: classExact,
		notes:  !sameNotes("warning", want.Warnings, got.Warnings) || !sameNotes("info", want.Infos, got.Infos),
	}
	switch {
	case want.Status == "error" && (want.Error != got.Error || want.ErrorType != got.ErrorType):
		v.values = classErrorText
	case want.Data.ResultType == "scalar" || want.Data.ResultType == "string":
		v.values = classOfNumbers(want.Data.Result, got.Data.Result)
	case want.Status == "success":
		v.values = classOfSeries(ev, want.Data.ResultType, want.Data.Result, got.Data.Result)
	}
	return v
}

func statusCode(a apiAnswer) int {
	if a.Status == "success" {
		return 200
	}
	return map[string]int{"bad_data": 400, "execution": 422, "canceled": 499, "timeout": 503, "internal": 500}[a.ErrorType]
}

// sameNotes compares annotations; kind is warning or info. The API shows ten, whichever, and says how
// many more there were.
func sameNotes(kind string, want, got []string) bool {
	const shown = 10
	want, got = slices.Sorted(slices.Values(want)), slices.Clone(got)
	if len(want) <= shown {
		slices.Sort(got)
		return slices.Equal(want, got)
	}
	omitted := fmt.Sprintf("%d more %s annotations omitted", len(want)-shown, kind)
	if len(got) != shown+1 || got[shown] != omitted {
		return false
	}
	for _, note := range got[:shown] {
		if !slices.Contains(want, note) {
			return false
		}
	}
	return true
}

// classOfSeries compares two vectors or two matrices.
func classOfSeries(ev evaluation, resultType string, wantRaw, gotRaw json.RawMessage) class {
	want, err := seriesOf(wantRaw)
	if err != nil {
		panic(fmt.Sprintf("BUG: the truth is no %s: %v: %s", resultType, err, wantRaw))
	}
	got, err := seriesOf(gotRaw)
	if err != nil {
		return classOutcome
	}
	left := map[string]apiSeries{}
	for _, s := range want {
		left[s.key] = s
	}
	c := classExact
	for _, g := range got {
		w, ok := left[g.key]
		if !ok { // unknown, or there twice
			c = worseClass(c, classExtra)
			continue
		}
		delete(left, g.key)
		c = worseClass(c, classOfPoints(w.points, g.points))
	}
	if len(left) > 0 {
		c = worseClass(c, classMissing)
	}
	if !sameOrder(ev.query, resultType, want, got) {
		c = worseClass(c, classOrder)
	}
	return c
}

// apiSeries is a series of a result; points has the text of each value or histogram by kind and time.
type apiSeries struct {
	metric map[string]string
	key    string // its labels, printed in one way
	points map[string]json.RawMessage
}

func seriesOf(raw json.RawMessage) ([]apiSeries, error) {
	var list []struct {
		Metric             map[string]string
		Value, Histogram   []json.RawMessage
		Values, Histograms [][]json.RawMessage
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, err
	}
	out := make([]apiSeries, 0, len(list))
	for _, s := range list {
		key, err := json.Marshal(s.Metric) // sorts the labels
		if err != nil {
			return nil, err
		}
		series := apiSeries{metric: s.Metric, key: string(key), points: map[string]json.RawMessage{}}
		if s.Value != nil {
			s.Values = append(s.Values, s.Value)
		}
		if s.Histogram != nil {
			s.Histograms = append(s.Histograms, s.Histogram)
		}
		if err := series.add("float", s.Values); err != nil {
			return nil, err
		}
		if err := series.add("histogram", s.Histograms); err != nil {
			return nil, err
		}
		out = append(out, series)
	}
	return out, nil
}

// add takes points of one kind, which must be in the order of time.
func (s apiSeries) add(kind string, points [][]json.RawMessage) error {
	last := math.Inf(-1)
	for _, p := range points {
		if len(p) != 2 {
			return fmt.Errorf("a point of %d elements", len(p))
		}
		t, err := strconv.ParseFloat(string(p[0]), 64)
		if err != nil || t <= last {
			return fmt.Errorf("a point at %s after one at %g", p[0], last)
		}
		last = t
		s.points[kind+" "+string(p[0])] = p[1]
	}
	return nil
}

func classOfPoints(want, got map[string]json.RawMessage) class {
	c := classExact
	for t, w := range want {
		g, ok := got[t]
		if !ok {
			c = worseClass(c, classMissing)
			continue
		}
		c = worseClass(c, classOfNumbers(w, g))
	}
	for t := range got {
		if _, ok := want[t]; !ok {
			c = worseClass(c, classExtra)
		}
	}
	return c
}

// classOfNumbers compares two values or histograms: exact, near or different.
func classOfNumbers(want, got json.RawMessage) class {
	if bytes.Equal(want, got) {
		return classExact
	}
	var w, g any
	if json.Unmarshal(want, &w) != nil || json.Unmarshal(got, &g) != nil || !alike(w, g) {
		return classDifferent
	}
	return classNear
}

// alike compares what encoding/json makes of a value or histogram, number by number.
func alike(want, got any) bool {
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok || len(w) != len(g) {
			return false
		}
		for k := range w {
			if !alike(w[k], g[k]) {
				return false
			}
		}
		return true
	case []any:
		g, ok := got.([]any)
		return ok && slices.EqualFunc(w, g, alike)
	case string:
		g, ok := got.(string)
		return ok && (w == g || alikeFloats(w, g))
	}
	return want == got
}

func alikeFloats(want, got string) bool {
	w, wErr := strconv.ParseFloat(want, 64)
	g, gErr := strconv.ParseFloat(got, 64)
	if wErr != nil || gErr != nil {
		return false
	}
	if w == g && math.Signbit(w) == math.Signbit(g) || math.IsNaN(w) && math.IsNaN(g) {
		return true
	}
	if math.Signbit(w) != math.Signbit(g) || math.IsInf(w, 0) || math.IsInf(g, 0) {
		return false
	}
	units := int64(math.Float64bits(w)) - int64(math.Float64bits(g))
	return max(units, -units) <= nearEnough
}
