package verify

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
)

// What a dashboard of Grafana has queries in. Much of it has other types with other data sources, and is looked at late.
type (
	dashboardJSON struct {
		Dashboard  *dashboardJSON `json:"dashboard"` // as the API of Grafana wraps it
		Panels     []panelJSON    `json:"panels"`
		Rows       []panelJSON    `json:"rows"` // of old dashboards
		Templating struct {
			List []variableJSON `json:"list"`
		} `json:"templating"`
	}
	panelJSON struct {
		Title        string          `json:"title"`
		Datasource   json.RawMessage `json:"datasource"`
		Targets      []targetJSON    `json:"targets"`
		Panels       []panelJSON     `json:"panels"` // of a row
		LibraryPanel json.RawMessage `json:"libraryPanel"`
	}
	targetJSON struct {
		RefID      string          `json:"refId"`
		Datasource json.RawMessage `json:"datasource"`
		Expr       json.RawMessage `json:"expr"`
		Instant    json.RawMessage `json:"instant"`
		Range      json.RawMessage `json:"range"`
	}
	variableJSON struct {
		Name     string          `json:"name"`
		Query    json.RawMessage `json:"query"`
		AllValue json.RawMessage `json:"allValue"`
		Current  struct {
			Value json.RawMessage `json:"value"`
		} `json:"current"`
	}
)

// isDashboard reports whether JSON is a dashboard.
func isDashboard(data []byte) bool {
	var keys map[string]json.RawMessage
	if json.Unmarshal(data, &keys) != nil {
		return false
	}
	return slices.ContainsFunc([]string{"panels", "rows", "dashboard"}, func(key string) bool { return keys[key] != nil })
}

// dashboard reads the queries of a dashboard's panels.
func dashboard(data []byte, path string, w window) ([]Question, []Skip, error) {
	var d dashboardJSON
	if err := json.Unmarshal(data, &d); err != nil {
		return nil, nil, fmt.Errorf("%s: not a dashboard of Grafana: %w", path, err)
	}
	if d.Dashboard != nil {
		d = *d.Dashboard
	}
	r := dashboardReader{path: path, w: w, variables: map[string]string{}}
	for _, v := range d.Templating.List {
		r.variables[v.Name] = v.value()
	}
	for _, p := range append(d.Panels, d.Rows...) {
		r.panel(p)
	}
	return r.found, r.skipped, nil
}

// A dashboardReader gathers the queries of panels.
type dashboardReader struct {
	path      string
	w         window
	variables map[string]string
	found     []Question
	skipped   []Skip
}

func (r *dashboardReader) panel(p panelJSON) {
	from := fmt.Sprintf("%s: panel %q", r.path, p.Title)
	if len(p.LibraryPanel) > 0 && len(p.Targets) == 0 {
		r.skipped = append(r.skipped, Skip{from, "a library panel: its queries are not in the dashboard"})
	}
	for _, t := range p.Targets {
		if len(p.Targets) > 1 && t.RefID != "" {
			r.target(p, t, from+" "+t.RefID)
		} else {
			r.target(p, t, from)
		}
	}
	for _, below := range p.Panels {
		r.panel(below)
	}
}

func (r *dashboardReader) target(p panelJSON, t targetJSON, from string) {
	skip := func(why string) { r.skipped = append(r.skipped, Skip{from, why}) }
	for _, source := range []json.RawMessage{t.Datasource, p.Datasource} {
		if kind := kindOf(source); kind != "" && kind != "datasource" { // which is several: then the target's counts
			if !strings.Contains(kind, "prometheus") {
				skip("asks a data source of type " + kind)
				return
			}
			break
		}
	}
	var expr string
	if len(t.Expr) == 0 || json.Unmarshal(t.Expr, &expr) != nil || strings.TrimSpace(expr) == "" {
		skip("has no expression")
		return
	}
	query, why := r.replaced(expr)
	if why != "" {
		skip(why)
		return
	}
	r.found = append(r.found, r.w.question(query, from, string(t.Instant) == "true" && string(t.Range) != "true"))
}

// kindOf is the type of a data source, "" if only its name is there.
func kindOf(source json.RawMessage) string {
	var s struct {
		Type string `json:"type"`
	}
	_ = json.Unmarshal(source, &s) // a name, or nothing
	return s.Type
}

// anyValue stands for a variable of which all values are chosen.
const anyValue = "oneprom_any_value_of_the_variable"

// anyElsewhere is why an expression with anyValue in it may be skipped.
const anyElsewhere = "all values are chosen, or none, for a variable that stands for something else than the value of a label"

// value is what a variable stands for.
func (v variableJSON) value() string {
	var one string
	var several []string
	if json.Unmarshal(v.Current.Value, &one) == nil {
		several = []string{one}
	} else {
		_ = json.Unmarshal(v.Current.Value, &several) // or there is none, which is taken for all
	}
	several = slices.DeleteFunc(several, func(s string) bool { return s == "" })
	var all string
	switch {
	case len(several) == 0 && json.Unmarshal(v.Query, &one) == nil && !strings.ContainsAny(one, "(, "):
		return one // a constant
	case slices.Contains(several, "$__all") && json.Unmarshal(v.AllValue, &all) == nil && all != "":
		return all
	case len(several) == 0 || slices.Contains(several, "$__all"):
		return anyValue
	case len(several) == 1:
		return several[0]
	}
	for i, s := range several {
		several[i] = strings.ReplaceAll(regexp.QuoteMeta(s), `\`, `\\`)
	}
	return "(" + strings.Join(several, "|") + ")"
}

// variable finds $name, ${name}, ${name:format}, [[name]].
var variable = regexp.MustCompile(`\$(\w+)|\$\{(\w+)(?::\w+)?\}|\[\[(\w+)(?::\w+)?\]\]`)

// replaced is an expression with its variables replaced, or why it cannot be asked.
func (r *dashboardReader) replaced(expr string) (query, why string) {
	unknown := ""
	query = variable.ReplaceAllStringFunc(expr, func(found string) string {
		name := strings.Trim(found, "${}[]")
		name, _, _ = strings.Cut(name, ":")
		value, ok := r.builtin(name)
		if !ok {
			value, ok = r.variables[name]
		}
		if strings.HasPrefix(value, "$__auto") { // of a variable that is an interval
			value, ok = r.builtin("__interval")
		}
		if !ok {
			unknown = found
		}
		return value
	})
	if unknown != "" {
		return "", fmt.Sprintf("uses the variable %s, of which the dashboard does not tell a value", unknown)
	}
	parsed, err := parse(query)
	switch {
	case err != nil && strings.Contains(query, anyValue):
		return "", anyElsewhere
	case err != nil && query != expr:
		return "", fmt.Sprintf("not PromQL once variables are replaced: %s", err)
	case err != nil:
		return "", fmt.Sprintf("not PromQL: %s", err)
	case !strings.Contains(query, anyValue):
		return query, ""
	}
	if !anyIsAny(parsed) || strings.Contains(parsed.String(), anyValue) {
		return "", anyElsewhere
	}
	return parsed.String(), ""
}

// scrapeInterval is the one that Grafana takes if the data source does not say it.
const scrapeInterval = 15 * time.Second

// builtin is the value of a variable of Grafana's own.
func (r *dashboardReader) builtin(name string) (value string, ok bool) {
	span, rate := r.w.end.Sub(r.w.start), max(r.w.step+scrapeInterval, 4*scrapeInterval)
	milliseconds := func(n int64) (string, bool) { return strconv.FormatInt(n, 10), true }
	switch name {
	case "__interval":
		return model.Duration(r.w.step).String(), true
	case "__interval_ms":
		return milliseconds(r.w.step.Milliseconds())
	case "__rate_interval":
		return model.Duration(rate).String(), true
	case "__rate_interval_ms":
		return milliseconds(rate.Milliseconds())
	case "__range":
		return model.Duration(span).String(), true
	case "__range_s":
		return milliseconds(int64(span.Seconds()))
	case "__range_ms":
		return milliseconds(span.Milliseconds())
	case "__from":
		return milliseconds(r.w.start.UnixMilli())
	case "__to":
		return milliseconds(r.w.end.UnixMilli())
	}
	return "", false
}

// anyIsAny makes matchers of an expression match any value where they were to match all those of a variable. It is false where that
// would turn into something else.
func anyIsAny(expr parser.Expr) bool {
	right := true
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		selector, ok := n.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		for i, m := range selector.LabelMatchers {
			if !strings.Contains(m.Value, anyValue) {
				continue
			}
			value := m.Value
			switch {
			case m.Name == labels.MetricName || m.Type == labels.MatchNotEqual || m.Type == labels.MatchNotRegexp:
				right = false
				continue
			case m.Type == labels.MatchEqual:
				value = regexp.QuoteMeta(value) // which leaves anyValue as it is
			}
			matcher, err := labels.NewMatcher(labels.MatchRegexp, m.Name, strings.ReplaceAll(value, anyValue, ".+"))
			if err != nil {
				right = false
				continue
			}
			selector.LabelMatchers[i] = matcher
		}
		return nil
	})
	return right
}
