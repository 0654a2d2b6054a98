package differential

import (
	"encoding/json"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/oneprom/oneprom/servergroup/backendtest"
)

// answer is a response of the query API; numbers stay the text that was sent.
type answer struct {
	Status    string
	ErrorType string
	Error     string
	Warnings  []string
	Infos     []string
	// completeness is what oneprom says of it: whole or partial.
	completeness string
	cache        string // what oneprom's cache had of it
	Data         struct {
		ResultType string
		Result     json.RawMessage
	}
}

// outcome is what a comparison finds.
type outcome struct {
	kind         string // of difference; empty: the answers are the same
	at           string // where the results differ
	failed       bool   // both are errors
	empty        bool   // the truth has no series
	undetermined bool   // the truth has several answers
	notes        bool   // warnings or infos differ
	said         bool   // oneprom says that something is missing
	cached       bool   // oneprom's cache had some of it, or all
	want, got    string // the bodies
}

const (
	// inNotes is where the results differ if only the annotations do.
	inNotes = "annotations"
	// inOrder is where they differ if only the order of series does.
	inOrder = "order"
)

func (o outcome) String() string {
	if o.at == "" {
		return o.kind
	}
	return o.kind + " at " + o.at
}

// compare asks oneprom and the truth the same. Values are the same if their texts
// are: they are the shortest that tell a float64 from any other.
func (run *running) compare(q question) (outcome, error) {
	want, wantBody, err := run.askTruth(q)
	if err != nil {
		return outcome{}, err
	}
	before := run.turns()
	got, gotBody, err := run.askOneprom(q)
	if err != nil {
		return outcome{want: wantBody, got: gotBody, kind: "no answer: " + err.Error()}, nil
	}
	o := outcome{
		want: wantBody, got: gotBody, failed: want.Status != "success",
		notes:  run.notesOf(want) != run.notesOf(got),
		cached: got.cache == "hit" || got.cache == "partial",
	}
	o.empty = o.failed || string(want.Data.Result) == "[]"
	if err := run.compareResults(q, want, got, &o); err != nil || o.at == "" {
		return o, err
	}
	if run.first.changing && (got.completeness == "partial" || got.Status == "error" && strings.Contains(got.Error, "server group ")) {
		o.at, o.said = "", true
		return o, nil
	}
	if run.first.shifted() && (before.doubted || run.turns() != before) {
		// A replica was late, on a busy machine, or had failed, and another one has answered, which is as whole, by its own clock.
		if got, o.got, err = run.askInTime(q); err != nil {
			return o, err
		}
		if err := run.compareResults(q, want, got, &o); err != nil || o.at == "" {
			o.undetermined = true
			return o, err
		}
	}
	o.kind = "results differ"
	if want.Status != got.Status {
		o.kind = "one fails"
	}
	return o, nil
}

// askInTime asks oneprom again until no replica is late or has failed, or too often.
func (run *running) askInTime(q question) (a answer, body string, err error) {
	for range 20 {
		before := run.turns()
		if a, body, err = run.askOneprom(q); err != nil || !before.doubted && run.turns() == before {
			break
		}
	}
	return a, body, err
}

// attempts is how often a question is asked again to see whether the truth itself
// has several answers: upstream's engine gathers the series of an inner expression
// in a map, so that the last digit of a sum over them, or which of them limitk
// takes, is up to chance. So is which types an annotation about a binary operator
// names if there are several. Some orders of eight series add up to a last digit
// that one answer in a thousand has.
const attempts = 5000

// byOrder are the operations whose result may depend on the order of series.
var byOrder = regexp.MustCompile(`\b(sum|avg|stddev|stdvar|topk|bottomk|limitk|sort\w*)\b`)

// firstOfEqual are those that take the first of 0 and -0.
var firstOfEqual = regexp.MustCompile(`\b(min|max)\b`)

// compareResults compares point by point. Where the order of series may matter,
// one of oneprom's answers must be one of the truth's, for each point.
func (run *running) compareResults(q question, want, got answer, o *outcome) error {
	wants, gots := choices{lenient: run.early}, choices{}
	wants.add(run.pointsOf(q, want))
	gots.add(run.pointsOf(q, got))
	o.at = wants.apart(gots)
	if inner := chosenIn(q.query); o.at != "" && run.early && want.Status != got.Status && inner != "" {
		// What is taken shows by itself: what comes after it may fail for some of equal values.
		inside := q
		inside.query = inner
		w, _, err := run.askTruth(inside)
		if err != nil {
			return err
		}
		g, _, err := run.askOneprom(inside)
		if err != nil {
			return err
		}
		if !sameSeries(w, g) && tied(inside, w, g) {
			o.at, o.undetermined = "", true
		}
	}
	if o.at != "" && run.early && tied(q, want, got) {
		o.at, o.undetermined = "", true
	}
	chance := byOrder.MatchString(q.query) || firstOfEqual.MatchString(q.query) || o.at == inNotes
	for i := 0; i < attempts && o.at != "" && chance; i++ {
		o.undetermined = true
		a, _, err := run.askTruth(q)
		if err != nil {
			return err
		}
		wants.add(run.pointsOf(q, a))
		if !run.first.changing { // there only the first answer counts
			if a, _, err = run.askOneprom(q); err != nil {
				return err
			}
			gots.add(run.pointsOf(q, a))
		}
		o.at = wants.apart(gots)
	}
	return nil
}

var chosen = regexp.MustCompile(`\b(topk|bottomk)\b`)

// chosenIn is the only topk or bottomk within a query that is evaluated at the query's own steps; empty if
// there is none, or several.
func chosenIn(query string) (text string) {
	e, err := backendtest.NewParser().ParseExpr(query)
	if err != nil {
		return ""
	}
	found := 0
	parser.Inspect(e, func(node parser.Node, path []parser.Node) error {
		n, ok := node.(*parser.AggregateExpr)
		if ok && (n.Op == parser.TOPK || n.Op == parser.BOTTOMK) {
			found++
			if !slices.ContainsFunc(path, func(above parser.Node) bool { _, is := above.(*parser.SubqueryExpr); return is }) {
				text = n.String()
			}
		}
		return nil
	})
	if found != 1 {
		return ""
	}
	return text
}

// sameSeries reports whether two answers have the same series.
func sameSeries(a, b answer) bool {
	series := func(a answer) (list []string) {
		var of []struct{ Metric json.RawMessage }
		if json.Unmarshal(a.Data.Result, &of) != nil {
			return nil
		}
		for _, s := range of {
			list = append(list, string(s.Metric))
		}
		slices.Sort(list)
		return list
	}
	return slices.Equal(series(a), series(b))
}

var oneValue = regexp.MustCompile(`\[\d+(\.\d+)?,"[^"]*"\]`)

// tied reports whether two answers have the same values at the same times, of other
// series: those that topk takes of equal values are any.
func tied(q question, want, got answer) bool {
	values := func(a answer) []string {
		return slices.Sorted(slices.Values(oneValue.FindAllString(string(a.Data.Result), -1)))
	}
	return chosen.MatchString(q.query) && want.Status == "success" && got.Status == "success" && slices.Equal(values(want), values(got))
}

// choices are the texts that each point had in several answers.
type choices struct {
	lenient bool // values that are added up in another order will do
	answers int
	points  map[string]map[string]int // by point and text: in how many answers
}

func (c *choices) add(points map[string]string) {
	if c.points == nil {
		c.points = map[string]map[string]int{}
	}
	c.answers++
	for key, text := range points {
		if c.points[key] == nil {
			c.points[key] = map[string]int{}
		}
		c.points[key][text]++
	}
}

// missing reports whether some answer had no such point.
func (c *choices) missing(key string) bool {
	n := 0
	for _, times := range c.points[key] {
		n += times
	}
	return n < c.answers
}

// spread reports whether a point has so many values by chance that some others are
// as good: those that are not further from them than they are from each other. Of so
// many orders any is: with delayed name removal, upstream's engine puts series whose
// names had told them apart together in a map, after it has sorted them.
func (c *choices) spread(others map[string]int, key string) bool {
	if key == inOrder {
		return len(c.points[key]) >= 5
	}
	lo, hi := rangeOf(c.points[key])
	otherLo, otherHi := rangeOf(others)
	width := hi - lo
	return len(c.points[key]) >= 5 && otherLo >= lo-width && otherHi <= hi+width
}

var number = regexp.MustCompile(`-?\d+(\.\d+)?(e[-+]?\d+)?`)

// lastDigits are some of a sum of about a thousand. They are still there when sums are
// subtracted from each other, as by mad_over_time, and little else is left.
const lastDigits = 1e-12

// bucket is one of a histogram, with its count.
var bucket = regexp.MustCompile(`,?\[\d,"[^"]+","[^"]+","([^"]+)"\]`)

// filled is a text without the buckets that hold nothing but last digits: in another
// order their sum may be 0, and then they are not shown.
func filled(text string) string {
	return bucket.ReplaceAllStringFunc(text, func(b string) string {
		if v, err := strconv.ParseFloat(bucket.FindStringSubmatch(b)[1], 64); err == nil && math.Abs(v) <= lastDigits {
			return ""
		}
		return strings.TrimPrefix(b, ",")
	})
}

// nearly reports whether two values, or histograms, differ by no more than adding up
// the same numbers in another order explains.
func nearly(text, other string) bool {
	text, other = filled(text), filled(other)
	if number.ReplaceAllString(text, "") != number.ReplaceAllString(other, "") {
		return false
	}
	as, bs := number.FindAllString(text, -1), number.FindAllString(other, -1)
	for i := range as {
		lo, hi := rangeOf(map[string]int{as[i]: 1, bs[i]: 1})
		if !(hi-lo <= max(lastDigits, 1e-13*math.Abs(lo), 1e-13*math.Abs(hi))) {
			return false
		}
	}
	return true
}

// rangeOf is the least and the greatest of numbers in quotes, NaN if one is none.
func rangeOf(texts map[string]int) (lo, hi float64) {
	lo, hi = math.Inf(1), math.Inf(-1)
	for text := range texts {
		v, err := strconv.ParseFloat(strings.Trim(text, ` "`), 64)
		if err != nil {
			return math.NaN(), math.NaN()
		}
		lo, hi = min(lo, v), max(hi, v)
	}
	return lo, hi
}

// apart returns the first point of which no text is in both, empty if there is
// none. c are those of the truth.
func (c *choices) apart(d choices) string {
	both := maps.Clone(c.points)
	maps.Copy(both, d.points)
	for _, key := range slices.Sorted(maps.Keys(both)) {
		same := c.missing(key) && d.missing(key)
		for text := range c.points[key] {
			same = same || d.points[key][text] > 0
			for other := range d.points[key] {
				same = same || c.lenient && nearly(text, other)
			}
		}
		if !same && !c.spread(d.points[key], key) {
			return key
		}
	}
	return ""
}

// pointsOf are the points of an answer by series and time, with what else must be
// the same. The order of an instant vector is up to upstream's maps, unless the
// question sorts it; of what sort() sorts, equal values may change places.
func (run *running) pointsOf(q question, a answer) map[string]string {
	points := map[string]string{"status": a.Status + " " + a.ErrorType + " " + a.Data.ResultType}
	if !run.weak {
		points[inNotes] = run.notesOf(a)
	}
	if a.Status != "success" {
		return points
	}
	if a.Data.ResultType == "scalar" {
		points["scalar"] = string(a.Data.Result)
		return points
	}
	var list []struct {
		Metric             json.RawMessage
		Value, Histogram   []json.RawMessage
		Values, Histograms [][]json.RawMessage
	}
	if err := json.Unmarshal(a.Data.Result, &list); err != nil {
		points["broken"] = err.Error()
	}
	var order strings.Builder
	for _, s := range list {
		series := string(s.Metric)
		switch {
		case strings.HasPrefix(q.query, "sort_by_label"):
			if !strings.Contains(series, sortedBy(q.query)+":") { // upstream finds it both before and after the others
				points[inOrder] = "any"
			}
			order.WriteString(series)
		case strings.HasPrefix(q.query, "sort") && len(s.Value) == 2:
			order.Write(s.Value[1])
		case a.Data.ResultType == "matrix" && !byOrder.MatchString(q.query):
			order.WriteString(series)
		}
		for _, p := range append(s.Values, s.Value) {
			addPoint(points, series, p)
		}
		for _, p := range append(s.Histograms, s.Histogram) {
			addPoint(points, series+" histogram", p)
		}
	}
	if points[inOrder] == "" {
		points[inOrder] = order.String()
	}
	return points
}

// sortedBy is the label, in quotes, that sort_by_label sorts by.
func sortedBy(query string) string {
	quoted := quotedName.FindAllString(query, -1)
	return quoted[len(quoted)-1]
}

var quotedName = regexp.MustCompile(`"[a-z]+"`)

// addPoint adds a point, several of the same time too.
func addPoint(points map[string]string, series string, p []json.RawMessage) {
	if len(p) == 2 {
		points[series+" "+string(p[0])] += " " + string(p[1])
	}
}

// lostNote is the one annotation that streamed remote read may lose: see "What
// differs still" in docs/fidelity.md.
const lostNote = "conflicting counter resets during histogram aggregation"

// lostReplica is what an answer says that needed the twin of a server that has just been started
// again. It is true.
const lostReplica = "answered without a replica"

// notesOf are the annotations, as text.
func (run *running) notesOf(a answer) string {
	warnings := slices.DeleteFunc(slices.Clone(a.Warnings), func(w string) bool { return strings.Contains(w, lostNote) })
	infos := slices.DeleteFunc(slices.Clone(a.Infos), func(i string) bool { return run.first.changing && strings.Contains(i, lostReplica) })
	return listOf(warnings) + "\n\n" + listOf(infos)
}

// listOf is a list of annotations in one order. The API shows ten, whichever, and
// says how many more there are: then that is all that can be compared.
func listOf(notes []string) string {
	const shown = 10
	if len(notes) > shown {
		return notes[shown]
	}
	return strings.Join(slices.Sorted(slices.Values(notes)), "\n")
}
