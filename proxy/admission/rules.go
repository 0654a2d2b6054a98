package admission

import (
	"fmt"
	"math"
	"net/http"
	"regexp"
	"regexp/syntax"
	"slices"
	"time"
	"unicode"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/oneprom/oneprom/proxy/config"
)

// Rules are the query rules of a configuration. None are nil, too.
type Rules struct {
	rules []rule
}

type rule struct {
	config.QueryRule
	regex     *regexp.Regexp // nil: no condition
	userAgent *regexp.Regexp // nil: no condition
	tenant    *regexp.Regexp // nil: no condition
	header    map[string]*regexp.Regexp
	pool      *Pool // nil: it refuses
}

// Query is what rules look at.
type Query struct {
	Text       string
	Expr       parser.Expr // of Text, with all durations in numbers
	Start, End time.Time   // the same for an instant query
	Step       time.Duration
	Header     http.Header
	Tenant     string // "" if there are none
}

// NewRules returns the rules of a configuration. Those that were there before, with
// the same limit, keep their slots, so that queries under way count.
func NewRules(configured []config.QueryRule, before *Rules) (*Rules, error) {
	out := &Rules{}
	for _, c := range configured {
		r := rule{QueryRule: c, header: map[string]*regexp.Regexp{}}
		var err error
		compile := func(expr string) (compiled *regexp.Regexp) {
			if err == nil {
				compiled, err = config.CompileRegex(expr)
			}
			return compiled
		}
		if c.Regex != "" {
			r.regex = compile(c.Regex)
		}
		if c.UserAgent != "" {
			r.userAgent = compile(c.UserAgent)
		}
		if c.Tenant != "" {
			r.tenant = compile(c.Tenant)
		}
		for name, expr := range c.Header {
			r.header[name] = compile(expr)
		}
		if err != nil {
			return nil, fmt.Errorf("query rule %q: %w", c.Name, err)
		}
		if c.Action != config.ActionRefuse {
			r.pool = before.poolLike(c)
		}
		out.rules = append(out.rules, r)
	}
	return out, nil
}

// poolLike returns the slots of a rule: those that it has, or else new ones.
func (rs *Rules) poolLike(c config.QueryRule) *Pool {
	if rs != nil {
		for _, r := range rs.rules {
			if r.Name == c.Name && r.pool != nil && r.pool.slots == c.MaxConcurrency {
				return r.pool
			}
		}
	}
	return NewPool("rule", fmt.Sprintf("max_concurrency of the query rule %q", c.Name), c.MaxConcurrency)
}

// Any reports whether there are rules.
func (rs *Rules) Any() bool { return rs != nil && len(rs.rules) > 0 }

// Judge returns the pools that a query needs slots of, or a *Forbidden if a rule
// refuses it.
func (rs *Rules) Judge(q Query) ([]*Pool, error) {
	if !rs.Any() {
		return nil, nil
	}
	var pools []*Pool
	for _, r := range rs.rules {
		switch {
		case !r.applies(q):
		case r.pool != nil:
			pools = append(pools, r.pool)
		default:
			return nil, &Forbidden{Rule: r.Name, reason: r.Reason}
		}
	}
	return pools, nil
}

// Forbidden is a query that a rule refuses.
type Forbidden struct{ Rule, reason string }

func (f *Forbidden) Error() string {
	return fmt.Sprintf("the query rule %q refuses this query: %s", f.Rule, f.reason)
}

// applies reports whether all conditions hold.
func (r *rule) applies(q Query) bool {
	if r.regex != nil && !r.regex.MatchString(q.Text) || r.userAgent != nil && !r.userAgent.MatchString(q.Header.Get("User-Agent")) {
		return false
	}
	if r.tenant != nil && !r.tenant.MatchString(q.Tenant) {
		return false
	}
	for name, regex := range r.header {
		if !regex.MatchString(q.Header.Get(name)) {
			return false
		}
	}
	if longest := time.Duration(r.MaxRange); longest > 0 && longestRange(q) <= longest {
		return false
	}
	if shortest := time.Duration(r.MinStep); shortest > 0 && shortestStep(q) >= shortest {
		return false
	}
	return !r.SelectorWithoutMatchers || hasSelectorWithoutMatchers(q.Expr)
}

// longestRange is the longest of the query's and those in it.
func longestRange(q Query) time.Duration {
	longest := q.End.Sub(q.Start)
	parser.Inspect(q.Expr, func(node parser.Node, _ []parser.Node) error {
		switch n := node.(type) {
		case *parser.MatrixSelector:
			longest = max(longest, n.Range)
		case *parser.SubqueryExpr:
			longest = max(longest, n.Range)
		}
		return nil
	})
	return longest
}

// shortestStep is the shortest of the query's, if it has steps, and of those that
// subqueries in it name.
func shortestStep(q Query) time.Duration {
	shortest := time.Duration(math.MaxInt64)
	if q.Step > 0 {
		shortest = q.Step
	}
	parser.Inspect(q.Expr, func(node parser.Node, _ []parser.Node) error {
		if n, ok := node.(*parser.SubqueryExpr); ok && n.Step > 0 {
			shortest = min(shortest, n.Step)
		}
		return nil
	})
	return shortest
}

func hasSelectorWithoutMatchers(expr parser.Expr) (found bool) {
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		// The labels that info() adds are not selected by their own matchers alone.
		if n, ok := node.(*parser.VectorSelector); ok && !n.BypassEmptyMatcherCheck && !slices.ContainsFunc(n.LabelMatchers, selects) {
			found = true
		}
		return nil
	})
	return found
}

// selects reports whether a matcher leaves out nearly everything, as far as that can
// be told without data: it wants a value, or one of some values, or one of a form.
// A name is in each series, and patterns of names are how everything is asked for;
// so a name is wanted only by a list of whole ones.
func selects(m *labels.Matcher) bool {
	switch {
	case m.Type == labels.MatchEqual:
		return m.Value != ""
	case m.Type != labels.MatchRegexp || m.Matches(""):
		return false
	case m.Name == labels.MetricName:
		return len(m.SetMatches()) > 0
	}
	re, err := syntax.Parse(m.Value, syntax.Perl|syntax.DotNL)
	return err == nil && !anyText(re)
}

// anyText reports whether a regular expression says no more of a text than how long
// it is.
func anyText(re *syntax.Regexp) bool {
	switch re.Op {
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL, syntax.OpEmptyMatch, syntax.OpBeginText, syntax.OpEndText, syntax.OpBeginLine, syntax.OpEndLine:
		return true
	case syntax.OpCharClass: // as [\s\S]
		return slices.Equal(re.Rune, []rune{0, unicode.MaxRune})
	case syntax.OpStar, syntax.OpPlus, syntax.OpQuest, syntax.OpRepeat, syntax.OpCapture, syntax.OpConcat:
		return !slices.ContainsFunc(re.Sub, func(sub *syntax.Regexp) bool { return !anyText(sub) })
	case syntax.OpAlternate: // one that takes any text makes the others idle
		return slices.ContainsFunc(re.Sub, anyText)
	}
	return false
}
