package labelmap

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/oneprom/oneprom/servergroup/config"
)

// Resolved is what is left of a selector once the labels of a group have had
// their say.
type Resolved struct {
	// Send are the matchers for the backend.
	Send []*labels.Matcher
	// Check are those that what the backend sends must be checked against, because
	// the backend cannot.
	Check []*labels.Matcher
	// None says why no series of the group can match; "" if some may.
	None string
}

// Resolve decides the matchers on labels that the backend does not have.
func Resolve(c *config.Group, ms []*labels.Matcher) Resolved {
	var r Resolved
	for _, m := range ms {
		if v, injected, fixed := fixedValue(c, m.Name); fixed {
			switch {
			case m.Matches(v):
				continue
			case injected:
				return Resolved{None: fmt.Sprintf("the group's label %s=%q does not match %s", m.Name, v, m)}
			}
			return Resolved{None: fmt.Sprintf("no series shows the replica label that %s asks for", m)}
		}
		if MayBeExported(c, m.Name) {
			// Which label of the data that is can be another one for each series.
			r.Check = append(r.Check, m)
			continue
		}
		r.Send = append(r.Send, m)
	}
	return r
}

// Excludes reports whether Resolve finds that no series can match. It is what most of
// many groups are asked.
func Excludes(c *config.Group, ms []*labels.Matcher) bool {
	return slices.ContainsFunc(ms, func(m *labels.Matcher) bool {
		v, _, fixed := fixedValue(c, m.Name)
		return fixed && !m.Matches(v)
	})
}

// fixedValue returns the value that a label has in all series of the group, whatever the
// backend has: an injected label its own, a replica label none.
func fixedValue(c *config.Group, name string) (value string, injected, fixed bool) {
	value, injected = c.Labels[name]
	return value, injected, injected || slices.Contains(c.ReplicaLabels, name)
}

// Hides reports whether the group's configuration takes a label of this name away.
func Hides(c *config.Group, name string) bool {
	return c.Labels[name] != "" || slices.Contains(c.ReplicaLabels, name)
}

// MayBeExported reports whether a label of this name may be one of the data that an
// injected label has renamed.
func MayBeExported(c *config.Group, name string) bool {
	for {
		own, found := strings.CutPrefix(name, ExportedPrefix)
		if !found {
			return false
		}
		if _, injected := c.Labels[own]; injected {
			return true
		}
		name = own
	}
}

// Selectable returns matchers that make a selector which backends accept: one
// that does not match a series without labels.
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

// ForRead returns matchers that remote read answers as the query API does: a
// backend takes an equality with one of its external labels for its own doing
// and ignores it, but not a regular expression.
func ForRead(ms []*labels.Matcher, external map[string]string) []*labels.Matcher {
	out := slices.Clone(ms)
	for i, m := range out {
		if v, ok := external[m.Name]; ok && m.Type == labels.MatchEqual && m.Value == v {
			out[i] = labels.MustNewMatcher(labels.MatchRegexp, m.Name, regexp.QuoteMeta(m.Value))
		}
	}
	return out
}

// AnySeries are matchers that every series satisfies, as a selector that backends accept.
// They are not to be changed.
var AnySeries = []*labels.Matcher{labels.MustNewMatcher(labels.MatchNotEqual, labels.MetricName, "")}

// TargetLabel is the label by which targets are cut out.
const TargetLabel = "instance"

// AnyOf is the regular expression that matches some values and no others.
func AnyOf(values []string) string {
	quoted := make([]string, len(values))
	for i, v := range values {
		quoted[i] = regexp.QuoteMeta(v)
	}
	return strings.Join(quoted, "|")
}
