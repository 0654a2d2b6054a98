package config

import (
	"errors"
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// mostHolds bounds the selectors of `holds`: each is compared with every selector of a query.
const mostHolds = 10

// A Portion is which series of a group are meant where `holds` divides them: those that the group
// alone holds are asked for without its time_range, and are copies of no others. A group of the file has
// none.
type Portion struct {
	// Holds are the matchers of each selector of `holds`.
	Holds [][]*labels.Matcher
	// Only are the matchers of the series that are meant; none for all series.
	Only []*labels.Matcher
	// Held reports whether Only is one of Holds.
	Held bool
	// Rest reports whether other portions have the series that match Holds. Only excludes these where
	// matchers can say that.
	Rest bool
	// Denied reports whether another group has shown such series, too. `holds` then proves nothing.
	Denied bool
}

// parseHolds returns the matchers of a selector of `holds`.
func parseHolds(selector string) ([]*labels.Matcher, error) {
	ms, err := parser.NewParser(parser.Options{}).ParseMetricSelector(selector)
	if err == nil && !slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return !m.Matches("") }) {
		err = errors.New("each of its matchers matches series that lack the label")
	}
	return ms, err
}

func (c *Group) validateHolds(errs *FieldErrors) {
	if len(c.Holds) > mostHolds {
		errs.Add(fmt.Sprintf("more than %d selectors: join some by a regular expression", mostHolds), "holds")
		return
	}
	for i, selector := range c.Holds {
		ms, err := parseHolds(selector)
		if err != nil {
			errs.Add(`not a selector that leaves something out, as '{source="oneprom"}' does: `+err.Error(), "holds", i)
		}
		if slices.Index(c.Holds, selector) < i {
			errs.Add("the selector is there twice: remove one", "holds", i)
		}
		for _, m := range ms {
			value, injected := c.Labels[m.Name]
			switch {
			case injected && !m.Matches(value):
				errs.Add(fmt.Sprintf("no series of the group matches it: its label %s=%q does not match %s", m.Name, value, m), "holds", i)
			case slices.Contains(c.ReplicaLabels, m.Name) && !m.Matches(""):
				errs.Add(fmt.Sprintf("no series of the group matches it: %q is one of its replica_labels, which are dropped", m.Name), "holds", i)
			}
		}
	}
}

// Portions divides the group by `holds`, which must be valid: into what each of the selectors holds,
// and the rest. There is one portion if nothing is won by that.
func (c *Group) Portions(denied bool) []*Group {
	if len(c.Holds) == 0 {
		return []*Group{c}
	}
	holds := make([][]*labels.Matcher, len(c.Holds))
	for i, selector := range c.Holds {
		holds[i], _ = parseHolds(selector) // Validate has found no error
	}
	portion := func(p Portion) *Group {
		one := *c
		p.Holds, p.Denied = holds, denied
		one.Portion = &p
		return &one
	}
	if c.TimeRange.IsZero() && len(c.CopiesOf) == 0 {
		return []*Group{portion(Portion{})}
	}
	var portions []*Group
	for _, ms := range holds {
		held := portion(Portion{Only: ms, Held: true})
		held.TimeRange = TimeRange{}
		portions = append(portions, held)
	}
	return append(portions, portion(Portion{Only: negated(holds), Rest: true}))
}

// NotHeld returns matchers of the series that `holds` does not name; none if that is all series. It is not ok
// if matchers cannot say that.
func (c *Group) NotHeld() (ms []*labels.Matcher, ok bool) {
	var holds [][]*labels.Matcher
	for _, selector := range c.Holds {
		ms, _ := parseHolds(selector) // Validate has found no error
		holds = append(holds, ms)
	}
	ms = negated(holds)
	return ms, len(ms) == len(holds)
}

// negated returns matchers of the series that none of the selectors matches; none if matchers
// cannot say that, because a selector has several.
func negated(selectors [][]*labels.Matcher) []*labels.Matcher {
	var out []*labels.Matcher
	for _, ms := range selectors {
		if len(ms) != 1 {
			return nil
		}
		m, err := ms[0].Inverse()
		if err != nil {
			return nil
		}
		out = append(out, m)
	}
	return out
}

// Only returns the matchers of the series that are meant, if they are a portion of the group's.
func (c *Group) Only() []*labels.Matcher {
	if c.Portion == nil {
		return nil
	}
	return c.Portion.Only
}
