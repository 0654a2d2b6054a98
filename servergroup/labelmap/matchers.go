package labelmap

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/servergroup/config"
)

// Resolved is the matchers of a selector for the replicas of a group.
type Resolved struct {
	// Send are the matchers that replicas are asked with.
	Send []*labels.Matcher
	// Check are the matchers that only the labels to show decide. Series of replicas are
	// checked against them.
	Check []*labels.Matcher
	// Excluded is the reason why no series of the group can match; "" if some may.
	Excluded string
}

// Resolve divides the matchers of a selector into those for the replicas of a group and those to
// check here. Matchers on labels that all series of the group share are decided at once.
func Resolve(c *config.Group, ms []*labels.Matcher) Resolved {
	var r Resolved
	if leavesOut(c.Portion, ms) {
		return Resolved{Excluded: "the selector leaves out this portion of the group"}
	}
	ms = and(ms, c.Only())
	for _, m := range ms {
		if v, injected, fixed := fixedValue(c, m.Name); fixed {
			switch {
			case m.Matches(v):
				continue
			case injected:
				return Resolved{Excluded: fmt.Sprintf("the group's label %s=%q does not match %s", m.Name, v, m)}
			}
			return Resolved{Excluded: fmt.Sprintf("no series shows the replica label that %s asks for", m)}
		}
		if MayBeExported(c, m.Name) {
			// Each series may have another label of the data under this name.
			r.Check = append(r.Check, m)
			continue
		}
		r.Send = append(r.Send, m)
	}
	return r
}

// leavesOut reports whether a selector matches no series of a portion of a group.
func leavesOut(p *config.Portion, ms []*labels.Matcher) bool {
	switch {
	case p == nil:
		return false
	case p.Rest && len(p.Only) == 0:
		return slices.ContainsFunc(p.Holds, func(held []*labels.Matcher) bool { return Within(ms, held) })
	}
	return len(p.Only) > 0 && Apart(ms, p.Only)
}

// and returns the matchers with those of only that they do not imply.
func and(ms, only []*labels.Matcher) []*labels.Matcher {
	out := slices.Clip(ms)
	for _, m := range only {
		if !implies(ms, m) {
			out = append(out, m)
		}
	}
	return out
}

// Excludes reports whether Resolve would return a reason in Excluded. It is faster, as where there
// are many groups, a selector excludes most of them.
func Excludes(c *config.Group, ms []*labels.Matcher) bool {
	return leavesOut(c.Portion, ms) || slices.ContainsFunc(ms, func(m *labels.Matcher) bool {
		v, _, fixed := fixedValue(c, m.Name)
		return fixed && !m.Matches(v)
	})
}

// fixedValue returns the value that a label has in all series of the group, and reports whether
// there is one: the value of an injected label, or "" for a replica label.
func fixedValue(c *config.Group, name string) (value string, injected, fixed bool) {
	value, injected = c.Labels[name]
	return value, injected, injected || slices.Contains(c.ReplicaLabels, name)
}

// Hides reports whether the group injects or drops a label of this name, so that the one of the
// data is not shown.
func Hides(c *config.Group, name string) bool {
	return c.Labels[name] != "" || slices.Contains(c.ReplicaLabels, name)
}

// MayBeExported reports whether a label of this name may be one of the data that was renamed
// because of an injected label.
func MayBeExported(c *config.Group, name string) bool {
	for {
		own, ok := strings.CutPrefix(name, ExportedPrefix)
		if !ok {
			return false
		}
		if _, injected := c.Labels[own]; injected {
			return true
		}
		name = own
	}
}

// Selectable returns the matchers, with one more if needed, as a selector that servers accept: it
// must not match a series without labels.
func Selectable(send []*labels.Matcher) []*labels.Matcher {
	for _, m := range send {
		if !m.Matches("") {
			return send
		}
	}
	return append(slices.Clip(send), AnySeries...)
}

// MatchesAll reports whether a series satisfies all matchers.
func MatchesAll(l labels.Labels, ms []*labels.Matcher) bool {
	for _, m := range ms {
		if !m.Matches(l.Get(m.Name)) {
			return false
		}
	}
	return true
}

// ForRead returns matchers for remote read that select what ms select by the query API, whatever
// external labels the server has at that moment. Remote read ignores an equality with an external
// label, but not a regular expression.
func ForRead(ms []*labels.Matcher) []*labels.Matcher {
	out := slices.Clone(ms)
	for i, m := range out {
		// No external label is empty or not UTF-8.
		if m.Type == labels.MatchEqual && m.Name != labels.MetricName && m.Value != "" && utf8.ValidString(m.Value) {
			out[i] = labels.MustNewMatcher(labels.MatchRegexp, m.Name, regexp.QuoteMeta(m.Value))
		}
	}
	return out
}

// AnySeries is a selector of all series that servers accept. It must not be changed.
var AnySeries = []*labels.Matcher{labels.MustNewMatcher(labels.MatchNotEqual, labels.MetricName, "")}

// TargetLabel is the label that identifies targets where some are treated apart.
const TargetLabel = "instance"

// AnyOf returns the regular expression that matches these values and no others.
func AnyOf(values []string) string {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = regexp.QuoteMeta(v)
	}
	return strings.Join(quoted, "|")
}
