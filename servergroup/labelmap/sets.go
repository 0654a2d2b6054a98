package labelmap

import (
	"slices"

	"github.com/prometheus/prometheus/model/labels"
)

// Apart reports whether two selectors provably have no series in common. It may fail to prove it.
func Apart(a, b []*labels.Matcher) bool {
	for _, m := range b {
		if contradict(a, b, m.Name) {
			return true
		}
	}
	return false
}

// contradict reports whether no value of a label satisfies all matchers of two selectors.
func contradict(a, b []*labels.Matcher, name string) bool {
	for _, ms := range [][]*labels.Matcher{a, b} {
		for _, m := range ms {
			if m.Name != name {
				continue
			}
			if list, finite := valuesOf(m); finite && !anyMatches(list, a, b, name) {
				return true
			}
			if opposed(a, m) || opposed(b, m) {
				return true
			}
		}
	}
	return false
}

// valuesOf returns the values that a matcher matches, if it names them all.
func valuesOf(m *labels.Matcher) (values []string, finite bool) {
	switch {
	case m.Type == labels.MatchEqual:
		return []string{m.Value}, true
	case m.Type == labels.MatchRegexp && len(m.SetMatches()) > 0:
		return m.SetMatches(), true
	case m.Type == labels.MatchNotRegexp && m.Value == ".+":
		return []string{""}, true
	}
	return nil, false
}

// anyMatches reports whether one of the values of a label satisfies all matchers.
func anyMatches(values []string, a, b []*labels.Matcher, name string) bool {
	for _, v := range values {
		if matches(v, a, name) && matches(v, b, name) {
			return true
		}
	}
	return false
}

// matches reports whether a value of a label satisfies the matchers on that label.
func matches(value string, ms []*labels.Matcher, name string) bool {
	for _, m := range ms {
		if m.Name == name && !m.Matches(value) {
			return false
		}
	}
	return true
}

// opposed reports whether one of the matchers is the negation of m.
func opposed(ms []*labels.Matcher, m *labels.Matcher) bool {
	for _, o := range ms {
		if o.Name == m.Name && o.Value == m.Value && o.Type == negation[m.Type] {
			return true
		}
	}
	return false
}

var negation = map[labels.MatchType]labels.MatchType{
	labels.MatchEqual: labels.MatchNotEqual, labels.MatchNotEqual: labels.MatchEqual,
	labels.MatchRegexp: labels.MatchNotRegexp, labels.MatchNotRegexp: labels.MatchRegexp,
}

// Within reports whether all series of a selector provably are among those of another one. It may
// fail to prove it.
func Within(ms, of []*labels.Matcher) bool {
	for _, m := range of {
		if !implies(ms, m) {
			return false
		}
	}
	return true
}

// implies reports whether every value that satisfies the matchers on its label satisfies m, too.
func implies(ms []*labels.Matcher, m *labels.Matcher) bool {
	if m.Type == labels.MatchRegexp && m.Value == ".*" {
		return true
	}
	if others, finite := valuesNotOf(m); finite && !anyMatches(others, ms, nil, m.Name) {
		return true
	}
	for _, o := range ms {
		if o.Name != m.Name {
			continue
		}
		if o.Type == m.Type && o.Value == m.Value {
			return true
		}
		list, finite := valuesOf(o)
		if finite && !slices.ContainsFunc(list, func(v string) bool { return matches(v, ms, m.Name) && !m.Matches(v) }) {
			return true
		}
	}
	return false
}

// valuesNotOf returns the values that a matcher does not match, if they can be named.
func valuesNotOf(m *labels.Matcher) (values []string, finite bool) {
	switch {
	case m.Type == labels.MatchNotEqual:
		return []string{m.Value}, true
	case m.Type == labels.MatchRegexp && m.Value == ".+":
		return []string{""}, true
	case m.Type == labels.MatchNotRegexp && len(m.SetMatches()) > 0:
		return m.SetMatches(), true
	}
	return nil, false
}
