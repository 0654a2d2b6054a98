package transport

import (
	"fmt"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
)

// selector prints matchers in the backend's syntax, so that they mean there what they mean here.
func (c *Client) selector(ms []*labels.Matcher) string {
	ms = c.dialect.portable(ms)
	if !c.dialect.EscapedNames {
		return Selector(ms)
	}
	texts := make([]string, len(ms))
	for i, m := range ms {
		texts[i] = escapeMetricsQL(m.Name) + m.Type.String() + strconv.Quote(m.Value)
	}
	return "{" + strings.Join(texts, ",") + "}"
}

// escapeMetricsQL puts a backslash before the characters that a name cannot have unescaped, and
// writes those that are not ASCII as their bytes in hexadecimal digits
// (https://docs.victoriametrics.com/victoriametrics/metricsql/).
func escapeMetricsQL(name string) string {
	var b strings.Builder
	for i := range len(name) {
		switch ch := name[i]; {
		case ch == '_', 'a' <= ch && ch <= 'z', 'A' <= ch && ch <= 'Z', i > 0 && '0' <= ch && ch <= '9':
			b.WriteByte(ch)
		case ' ' <= ch && ch <= '~':
			b.WriteByte('\\')
			b.WriteByte(ch)
		default:
			fmt.Fprintf(&b, `\x%02x`, ch)
		}
	}
	return b.String()
}

// portable returns matchers that select in the dialect what ms select in a Prometheus 3. It changes
// only regular expressions with a dot that is not escaped.
func (d Dialect) portable(ms []*labels.Matcher) []*labels.Matcher {
	out := ms
	for i, m := range ms {
		if m.Type != labels.MatchRegexp && m.Type != labels.MatchNotRegexp {
			continue
		}
		if text := d.portableRegexp(m); text != m.Value {
			if &out[0] == &ms[0] {
				out = slices.Clone(ms)
			}
			out[i] = labels.MustNewMatcher(m.Type, m.Name, text)
		}
	}
	return out
}

// barrier matches the empty string anywhere. It keeps VictoriaMetrics from taking the expression
// before it for a simpler one: for example, it takes `|.+` for `.+`, and `(?-s:.*)` for `.*`.
const barrier = `(?:\b|\B)`

func (d Dialect) portableRegexp(m *labels.Matcher) string {
	text := m.Value
	named := strings.Contains(text, namedGroup)
	if d.Current || !named && !d.UnanchoredRegexps && !strings.Contains(text, ".") {
		return text
	}
	tree, err := syntax.Parse(text, syntax.Perl|syntax.DotNL)
	if err != nil {
		return text // cannot be: it is a matcher
	}
	if named {
		text = tree.String() // which says (?P<name>…)
	}
	if d.UnanchoredRegexps {
		return "^(?s:" + text + ")$"
	}
	dot, noBreak := has(tree, syntax.OpAnyChar), has(tree, syntax.OpAnyCharNotNL)
	mayBeEmpty := m.Matches("") == (m.Type == labels.MatchRegexp)
	switch {
	case d.RegexpShortcuts && (noBreak || dot && mayBeEmpty && text != ".*"):
		return "(?s:(?:" + text + ")" + barrier + ")"
	case dot:
		return "(?s:" + text + ")"
	}
	return text
}

// namedGroup begins a named group in a form that Go has read since 1.22. Older servers cannot.
const namedGroup = "(?<"

// has reports whether an operation occurs in a regular expression.
func has(tree *syntax.Regexp, op syntax.Op) bool {
	return tree.Op == op || slices.ContainsFunc(tree.Sub, func(sub *syntax.Regexp) bool { return has(sub, op) })
}
