package view

import (
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/servergroup/completeness"
	"github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/findings"
	"github.com/oneprom/oneprom/servergroup/labelmap"
	"github.com/oneprom/oneprom/servergroup/routing"
	"github.com/oneprom/oneprom/servergroup/transport"
)

// ContradictHolds notes that another group has a series that matches a selector of `holds`. It returns
// what there is to say of it.
func ContradictHolds(holding *Belief, selector []*labels.Matcher, series labels.Labels, other string, now time.Time) string {
	return holding.contradict(func() string {
		return fmt.Sprintf("`holds` says that no other group has series of %s, but server group %q has %s: it is not relied on; remove the selector, make it narrower, or remove those series",
			transport.Selector(selector), other, findings.Shorten(series.String()))
	}, now)
}

// Divided returns a group for each of the portions that `holds` divides g into.
func (g Group) Divided(portions []*config.Group) []Group {
	out := make([]Group, len(portions))
	for i, portion := range portions {
		out[i] = g
		if portion != g.Config {
			out[i].Config, out[i].Whole = portion, g.Config
		}
	}
	return out
}

// Claims returns the selectors of `holds` that another group contradicts if it has such series.
func (g Group) Claims(other *config.Group) [][]*labels.Matcher {
	if g.Config.Portion == nil || g.Config.Name == other.Name {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(g.Config.Portion.Holds), func(ms []*labels.Matcher) bool { return routing.MayHold(other, ms) })
}

// noteDenied warns that the `holds` of a group is not relied on. A restricted request is not told, as
// that shows what others have; its answer is right nevertheless.
func (v *View) noteDenied(g Group, remarks *completeness.Remarks) {
	if g.Config.Portion != nil && g.Config.Portion.Denied && !g.Restricted() {
		remarks.Warn(completeness.Describe(g.Config.Name, "", g.Holding.Contradiction(v.Now)))
	}
}

// noteHeldElsewhere looks in an answer for series that another group says it holds alone.
func (v *View) noteHeldElsewhere(sources []source, sel Selection, remarks *completeness.Remarks) {
	for _, holder := range v.holders {
		if holder.Holding == nil || holder.Config.Portion.Denied {
			continue
		}
		for _, s := range sources {
			for _, ms := range holder.Claims(s.group.Config) {
				if labelmap.Apart(sel.Matchers, ms) {
					continue
				}
				i := slices.IndexFunc(s.series, func(one transport.Series) bool { return labelmap.MatchesAll(one.Labels, ms) })
				if i >= 0 {
					text := ContradictHolds(holder.Holding, ms, s.series[i].Labels, s.group.Config.Name, v.Now)
					holder.Findings.Add("holds", text, v.Now)
					if s.group.Restricted() { // perhaps it may not even see the holder
						remarks.Warn(completeness.Describe(s.group.Config.Name, "", completeness.Withheld))
					} else {
						remarks.Warn(completeness.Describe(holder.Config.Name, "", text))
					}
				}
			}
		}
	}
}
