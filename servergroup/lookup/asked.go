package lookup

import (
	"context"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/labelmap"
	"github.com/oneprom/oneprom/servergroup/replica"
	"github.com/oneprom/oneprom/servergroup/transport"
	"github.com/oneprom/oneprom/servergroup/view"
)

// Asked is a replica that is asked for a lookup.
type Asked struct {
	Config *config.Group
	// Resolved are the matchers for this replica.
	Resolved labelmap.Resolved
	Client   *transport.Client

	shown     []*labels.Matcher // those of the series that the request may see; none for all
	spellings *labelmap.Spellings
	unknown   []labelmap.Sighting // odd spellings that the profile does not know
}

func newAsked(v *view.View, t *view.RoutedGroup, p *replica.Profile) *Asked {
	return &Asked{shown: t.With(nil), Config: t.Config, Resolved: p.Spellings.Resolve(t.Route.Resolved), Client: v.ClientOf(t.Config, p), spellings: p.Spellings}
}

// Shown returns the labels to show of series, but no series that the matchers exclude, and the
// warnings about them. tell is called with the place of a series in the list, its labels, and those
// that were dropped.
func (a *Asked) Shown(list []labels.Labels, tell func(i int, shown labels.Labels, dropped string)) (warnings []string) {
	rules := labelmap.NewRules(a.Config, nil).Respell(a.spellings).About(a.shown)
	for i, ls := range list {
		if shown, dropped := rules.ApplyTo(ls); labelmap.MatchesAll(shown, a.Resolved.Check) {
			tell(i, shown, dropped)
		}
	}
	a.unknown = append(a.unknown, rules.Unknown()...)
	for _, s := range rules.PresumedNumbers() {
		warnings = append(warnings, completeness.Describe(a.Config.Name, a.Client.URL(), replica.PresumedText(s.Label.Name, s.Metric)))
	}
	return warnings
}

// maxLiterals bounds the metric names in a selector.
const maxLiterals = 100

// numbersOf returns the values to show of a label that has numbers.
func numbersOf(ctx context.Context, a *Asked, name string, tl transport.Lookup) ([]string, []string, error) {
	if !a.spellings.Odd(name) {
		values, ws, err := a.Client.LabelValues(ctx, name, tl)
		for _, v := range values {
			if _, odd := labelmap.Canonical(v); odd {
				a.unknown = append(a.unknown, labelmap.Sighting{Label: labels.Label{Name: name, Value: v}})
				break
			}
		}
		return values, ws, err
	}
	tl.Limit = 0 // the server would count values that are shown as one
	literals, ok := a.spellings.Literals(name, tl.Matchers)
	if !ok || len(literals) > maxLiterals {
		tl.Matchers = append(slices.Clip(tl.Matchers), labels.MustNewMatcher(labels.MatchNotEqual, name, ""))
		return valuesOfSeries(ctx, a, name, tl)
	}
	numbers := tl
	var kept, warnings []string
	if len(literals) > 0 {
		text := labelmap.AnyOf(literals)
		tl.Matchers = append(slices.Clip(tl.Matchers), labels.MustNewMatcher(labels.MatchRegexp, labels.MetricName, text))
		numbers.Matchers = append(slices.Clip(numbers.Matchers), labels.MustNewMatcher(labels.MatchNotRegexp, labels.MetricName, text))
		numbers.Matchers = labelmap.Selectable(numbers.Matchers)
		var err error
		if kept, warnings, err = a.Client.LabelValues(ctx, name, tl); err != nil {
			return nil, warnings, err
		}
	}
	values, ws, err := a.Client.LabelValues(ctx, name, numbers)
	for _, v := range values {
		canonical, odd := labelmap.Canonical(v)
		if odd && !a.spellings.Knows(name, v) {
			a.unknown = append(a.unknown, labelmap.Sighting{Label: labels.Label{Name: name, Value: v}})
		}
		kept = append(kept, canonical)
	}
	slices.Sort(kept)
	return slices.Compact(kept), append(warnings, ws...), err
}
