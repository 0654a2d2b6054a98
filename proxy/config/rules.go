package config

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/prometheus/common/model"
	"gopkg.in/yaml.v3"

	groupconfig "github.com/oneprom/oneprom/servergroup/config"
)

// QueryRule refuses or bounds the queries for which all of its conditions hold. It
// has at least one.
type QueryRule struct {
	Name string `yaml:"name"`

	// Regex holds if it matches the text of the query.
	Regex string `yaml:"regex,omitempty"`
	// MaxRange holds if the range of the query is longer, or that of a selector or
	// subquery in it.
	MaxRange model.Duration `yaml:"max_range,omitempty"`
	// MinStep holds if the step of the query is shorter, or that of a subquery in it.
	MinStep model.Duration `yaml:"min_step,omitempty"`
	// SelectorWithoutMatchers holds if a selector in the query may select nearly
	// everything.
	SelectorWithoutMatchers bool `yaml:"selector_without_matchers,omitempty"`
	// UserAgent holds if it matches the header User-Agent.
	UserAgent string `yaml:"user_agent,omitempty"`
	// Tenant holds if it matches the name of the tenant whose query it is; that is empty if
	// there are no tenants.
	Tenant string `yaml:"tenant,omitempty"`
	// Header holds if all match the headers that they are named after.
	Header map[string]string `yaml:"header,omitempty"`

	// Action is "" if the queries are not refused but bounded, by MaxConcurrency.
	Action         QueryAction `yaml:"action,omitempty"`
	Reason         string      `yaml:"reason,omitempty"` // why they are refused, for people
	MaxConcurrency int         `yaml:"max_concurrency,omitempty"`
}

// QueryAction is what a query rule does.
type QueryAction string

// ActionRefuse refuses queries.
const ActionRefuse QueryAction = "refuse"

// CompileRegex compiles a regular expression of a query rule. It is anchored at
// both ends, as in PromQL.
func CompileRegex(expr string) (*regexp.Regexp, error) {
	if _, err := syntax.Parse(expr, syntax.Perl); err != nil { // before anchoring could hide what is wrong
		return nil, err
	}
	return regexp.Compile("^(?s:" + expr + ")$")
}

// readRules decodes and checks the query rules that are clean.
func (c *checker) readRules(list *yaml.Node) []QueryRule {
	rules := make([]QueryRule, len(list.Content))
	lines := map[string]int{} // of the names
	for i, n := range list.Content {
		path := groupconfig.Path{"query_rules", i}
		if !c.clean(path...) {
			continue
		}
		if err := n.Decode(&rules[i]); err != nil {
			c.add(n, path, "%s", plain(err))
			continue
		}
		r := ruleChecker{c, n, path, &rules[i]}
		r.name(lines)
		r.conditions()
		r.effect()
	}
	return rules
}

// ruleChecker finds what is wrong with a query rule.
type ruleChecker struct {
	c    *checker
	n    *yaml.Node
	path groupconfig.Path
	rule *QueryRule
}

func (r ruleChecker) add(msg string, path ...any) {
	r.c.add(locate(r.n, path, r.n), append(r.path[:2:2], path...), "%s", msg)
}

// has reports whether a key has a value.
func (r ruleChecker) has(key string) bool {
	_, value := lookup(r.n, key)
	return value != nil && !isNull(value)
}

func (r ruleChecker) name(lines map[string]int) {
	name, line := r.rule.Name, locate(r.n, groupconfig.Path{"name"}, r.n).Line
	switch first := lines[name]; {
	case name == "":
		r.add("the rule has no name: add `name: …`, unique among the rules", "name")
	case !printable(name):
		r.add("not printable: errors and metrics carry it", "name")
	case first != 0:
		r.add(fmt.Sprintf("%q is the name of another rule too (line %d): rename one of them", name, first), "name")
	default:
		lines[name] = line
	}
}

func (r ruleChecker) conditions() {
	rule := r.rule
	if rule.Regex == "" && rule.MaxRange == 0 && rule.MinStep == 0 && !rule.SelectorWithoutMatchers && rule.UserAgent == "" && rule.Tenant == "" && len(rule.Header) == 0 {
		r.add("the rule would apply to every query: add a condition (regex, max_range, min_step, selector_without_matchers: true, user_agent, tenant, header)")
	}
	if rule.MaxRange == 0 && r.has("max_range") {
		r.add("must be longer than 0s", "max_range")
	}
	if rule.MinStep == 0 && r.has("min_step") {
		r.add("must be longer than 0s", "min_step")
	}
	r.regex(rule.Regex, "regex")
	r.regex(rule.UserAgent, "user_agent")
	r.regex(rule.Tenant, "tenant")
	spelt := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(rule.Header)) {
		canonical := http.CanonicalHeaderKey(name)
		switch {
		case !isToken(name):
			r.add("not the name of an HTTP header", "header", name)
		case canonical == "Host":
			r.add("rules do not see this header: remove it", "header", name)
		case spelt[canonical]:
			r.add("the header is there twice, in different letters: remove one", "header", name)
		}
		spelt[canonical] = true
		r.regex(rule.Header[name], "header", name)
	}
}

// regex says what is wrong with a regular expression, but not with which: that of
// a header may hold a secret.
func (r ruleChecker) regex(expr string, path ...any) {
	_, err := CompileRegex(expr)
	var bad *syntax.Error
	switch {
	case errors.As(err, &bad):
		r.add("not a regular expression: "+string(bad.Code), path...)
	case err != nil:
		r.add("not a regular expression", path...)
	}
}

func (r ruleChecker) effect() {
	rule, refuses, bounds := r.rule, r.has("action"), r.has("max_concurrency")
	switch {
	case refuses && bounds:
		r.add("queries that are refused need no limit: remove one of action and max_concurrency", "max_concurrency")
	case !refuses && !bounds:
		r.add("the rule does nothing: add `action: refuse` with a reason, or `max_concurrency`")
	case refuses && rule.Action != ActionRefuse:
		r.add(fmt.Sprintf("%q is not refuse, the only action", string(rule.Action)), "action")
	case refuses && rule.Reason == "":
		r.add("add `reason: …`: it is all that the user will be told")
	case bounds && rule.MaxConcurrency < 1:
		r.add("must be at least 1", "max_concurrency")
	case bounds && r.has("reason"):
		r.add("it belongs to `action: refuse`: remove it", "reason")
	}
	if !utf8.ValidString(rule.Reason) {
		r.add("not UTF-8", "reason")
	}
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// isToken reports whether s can be the name of an HTTP header.
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	})
}
