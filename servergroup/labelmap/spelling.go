package labelmap

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
)

// The labels le of histograms and quantile of summaries are numbers, which can be spelled in several
// ways. Prometheus 3 stores "1.0" whatever a target spells, if the target says that the metric is a
// histogram or a summary. Prometheus 2 stores what the target spells, and so do other stores.
// oneprom shows what Prometheus 3 would have stored.

// NumberLabels are the labels whose values Prometheus 3 brings to its spelling.
var NumberLabels = []string{model.BucketLabel, model.QuantileLabel}

// Canonical returns a number as Prometheus 3 spells it. It is not odd if it is no number, or is
// spelled so already.
func Canonical(value string) (canonical string, odd bool) {
	f, err := strconv.ParseFloat(value, 64)
	if err != nil {
		return value, false
	}
	canonical = labels.FormatOpenMetricsFloat(f)
	return canonical, canonical != value
}

// Meaning is what an odd value of a label is in the series of a metric.
type Meaning int

const (
	// Literal is a value that Prometheus 3 stores as it is.
	Literal Meaning = iota
	// Number is a value of a histogram or summary.
	Number
	// Presumed is like Number, but nothing proves that it is one.
	Presumed
)

// Presume returns what an odd value most likely is where nothing but names is known. Buckets have a
// suffix, but a rule that writes them may have any name, which has a colon by convention.
func Presume(label, metric string) Meaning {
	if label == model.QuantileLabel || strings.HasSuffix(metric, "_bucket") || strings.Contains(metric, ":") {
		return Presumed
	}
	return Literal
}

// Spelling is what is known of the odd values of a label in the series of one server.
type Spelling struct {
	// Values are the odd values of all series. Unlisted reports that there are others.
	Values   []string
	Unlisted bool
	// Metrics are the names of the metrics of such series. Unnamed reports that there are others.
	Metrics map[string]Meaning
	Unnamed bool
	// Doubtful is a metric that has a number in two spellings, of which nothing tells whether they are
	// one; "" if there is none. It is shown as it is.
	Doubtful string
}

// Bounded returns s with so many values and metrics at most.
func (s Spelling) Bounded(values, metrics int) Spelling {
	if len(s.Values) > values {
		s.Values, s.Unlisted = nil, true
	}
	if len(s.Metrics) > metrics {
		s.Metrics, s.Unnamed = nil, true
	}
	return s
}

// Spellings are how a server spells numbers. Nil is the way of Prometheus 3.
type Spellings struct {
	// Verbatim reports whether the server stores numbers as they come, so that there may be odd
	// values that are not known yet.
	Verbatim bool
	// Of has what is known of the NumberLabels, by name. A label of which the server has no odd values
	// is not there.
	Of map[string]Spelling
}

// meaning returns what odd values of a label are in the series of a metric.
func (s Spelling) meaning(label, metric string) (m Meaning, known bool) {
	if m, known = s.Metrics[metric]; !known && s.Unnamed {
		return Presume(label, metric), true
	}
	return m, known
}

// Knows reports whether it is known that the server has an odd value of a label.
func (s *Spellings) Knows(label, value string) bool {
	if s == nil {
		return false
	}
	of, ok := s.Of[label]
	return ok && (of.Unlisted || slices.Contains(of.Values, value))
}

// meaning returns what an odd value of a label is in the series of a metric. It is not known if the
// server had no such value when it was asked.
func (s *Spellings) meaning(label, metric, value string) (m Meaning, known bool) {
	if !s.Knows(label, value) {
		return Literal, false
	}
	return s.Of[label].meaning(label, metric)
}

// Concerns reports whether the server may have series, of which it shows numbers in another way than
// oneprom, that a selector finds there or here.
func (s *Spellings) Concerns(ms []*labels.Matcher) bool {
	return s != nil && slices.ContainsFunc(NumberLabels, func(label string) bool { return s.concerns(label, ms) })
}

func (s *Spellings) concerns(label string, ms []*labels.Matcher) bool {
	of, ok := s.Of[label]
	if !ok {
		return false
	}
	var own, names []*labels.Matcher
	for _, m := range ms {
		switch m.Name {
		case label:
			own = append(own, m)
		case labels.MetricName:
			names = append(names, m)
		}
	}
	return (of.Unlisted || slices.ContainsFunc(of.Values, func(v string) bool {
		canonical, _ := Canonical(v)
		return satisfies(own, v) || satisfies(own, canonical)
	})) && of.concerns(label, names)
}

// satisfies reports whether a value satisfies all matchers.
func satisfies(ms []*labels.Matcher, value string) bool {
	return !slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return !m.Matches(value) })
}

// concerns reports whether matchers on the name find metrics whose odd values are numbers.
func (s Spelling) concerns(label string, names []*labels.Matcher) bool {
	for _, m := range names {
		if m.Type == labels.MatchEqual {
			meaning, _ := s.meaning(label, m.Value)
			return meaning != Literal
		}
	}
	for metric, m := range s.Metrics {
		if m != Literal && satisfies(names, metric) {
			return true
		}
	}
	return s.Unnamed
}

// Resolve changes matchers so that the server finds what oneprom would show to match, and perhaps
// more. The labels to show are checked.
func (s *Spellings) Resolve(r Resolved) Resolved {
	if s == nil {
		return r
	}
	sent := r.Send
	for _, label := range NumberLabels {
		if !slices.ContainsFunc(sent, func(m *labels.Matcher) bool { return m.Name == label }) {
			continue
		}
		concerned := s.concerns(label, sent)
		var send []*labels.Matcher
		for _, m := range r.Send {
			if m.Name != label {
				send = append(send, m)
				continue
			}
			more, all := s.alternatives(m, concerned)
			if concerned || all || len(more) > 0 {
				r.Check = append(slices.Clip(r.Check), m)
			}
			switch {
			case all:
			case len(more) > 0:
				send = append(send, widened(m, more))
			default:
				send = append(send, m)
			}
		}
		r.Send = send
	}
	return r
}

// alternatives returns the odd values that a matcher must match, as it matches the numbers, but does
// not. all reports that it must match all values.
func (s *Spellings) alternatives(m *labels.Matcher, concerned bool) (more []string, all bool) {
	of := s.Of[m.Name]
	negative := m.Type == labels.MatchNotEqual || m.Type == labels.MatchNotRegexp
	if concerned {
		if of.Unlisted {
			return nil, true
		}
		for _, v := range of.Values {
			if canonical, _ := Canonical(v); m.Matches(canonical) && !m.Matches(v) {
				if negative {
					return nil, true
				}
				more = append(more, v)
			}
		}
	}
	if canonical, odd := Canonical(m.Value); s.Verbatim && m.Type == labels.MatchEqual && !odd && canonical != "" {
		// It may have come to the server after that was asked.
		for _, v := range usual(m.Value) {
			if !slices.Contains(more, v) {
				more = append(more, v)
			}
		}
	}
	return more, false
}

// usual returns the odd spellings of a number that exporters use.
func usual(canonical string) []string {
	f, err := strconv.ParseFloat(canonical, 64)
	if err != nil {
		return nil
	}
	plain := strconv.FormatFloat(f, 'f', -1, 64)
	var out []string
	for _, v := range []string{strings.TrimSuffix(canonical, ".0"), plain, plain + ".0"} {
		if again, odd := Canonical(v); odd && again == canonical && !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	return out
}

// widened returns a matcher that matches more values. m is an equality or a regular expression.
func widened(m *labels.Matcher, more []string) *labels.Matcher {
	text := AnyOf(append([]string{m.Value}, more...))
	if m.Type == labels.MatchRegexp {
		text = "(?:" + m.Value + ")|" + AnyOf(more)
	}
	return labels.MustNewMatcher(labels.MatchRegexp, m.Name, text)
}

// Odd reports whether the server has odd values of a label.
func (s *Spellings) Odd(label string) bool {
	if s == nil {
		return false
	}
	_, ok := s.Of[label]
	return ok
}

// Literals returns the metrics, of those that matchers on the name find, whose odd values of a label are
// no numbers. It is not ok if there may be others.
func (s *Spellings) Literals(label string, ms []*labels.Matcher) (metrics []string, ok bool) {
	of := s.Of[label]
	names := slices.DeleteFunc(slices.Clone(ms), func(m *labels.Matcher) bool { return m.Name != labels.MetricName })
	for _, metric := range slices.Sorted(maps.Keys(of.Metrics)) {
		if of.Metrics[metric] == Literal && satisfies(names, metric) {
			metrics = append(metrics, metric)
		}
	}
	return metrics, !of.Unnamed
}

// Sighting is a value of a label in a series of a metric.
type Sighting struct {
	Label  labels.Label
	Metric string
}

// maxSightings bounds what is remembered of one fetch.
const maxSightings = 100

// Respell has the rules show numbers as Prometheus 3 spells them. spellings are those of the server.
func (r *Rules) Respell(spellings *Spellings) *Rules {
	r.respells, r.spellings = true, spellings
	return r
}

// respell returns the value to show of one of the NumberLabels of a series.
func (r *Rules) respell(l labels.Label, raw []labels.Label) string {
	canonical, ok := r.canonical[l.Value]
	if !ok {
		canonical = r.learn(l.Value)
	}
	if canonical == l.Value {
		return l.Value
	}
	i := slices.IndexFunc(raw, func(l labels.Label) bool { return l.Name == labels.MetricName })
	if i < 0 {
		return l.Value
	}
	m, known := r.spellings.meaning(l.Name, raw[i].Value, l.Value)
	if !known {
		r.unknown = sight(r.unknown, l, raw[i].Value)
	}
	if m == Literal {
		return l.Value
	}
	if m == Presumed {
		r.noted = append(r.noted, Sighting{l, raw[i].Value})
	}
	r.spelled, r.respelled = append(r.spelled, l), true
	return canonical
}

// maxCanonical bounds what is remembered of the numbers of one fetch.
const maxCanonical = 1000

// learn returns a value as Prometheus 3 spells it, and remembers that.
func (r *Rules) learn(value string) string {
	if r.canonical == nil {
		r.canonical = map[string]string{}
	}
	value = strings.Clone(value)
	canonical, odd := Canonical(value)
	if !odd {
		canonical = value
	}
	if len(r.canonical) < maxCanonical {
		r.canonical[value] = canonical
	}
	return canonical
}

// sight adds a sighting to a list, once for each metric.
func sight(list []Sighting, l labels.Label, metric string) []Sighting {
	if len(list) >= maxSightings || slices.ContainsFunc(list, func(s Sighting) bool { return s.Metric == metric && s.Label.Name == l.Name }) {
		return list
	}
	return append(list, Sighting{clone(l), strings.Clone(metric)})
}

// Respelled reports whether numbers of a series were shown in another spelling.
func (r *Rules) Respelled() bool { return r.respelled }

// Unknown returns odd values that the spellings do not know.
func (r *Rules) Unknown() []Sighting { return r.unknown }

// PresumedNumbers returns an odd value of each metric that was only presumed to be a number.
func (r *Rules) PresumedNumbers() []Sighting { return r.presumed }
