package config

import (
	"errors"
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"gopkg.in/yaml.v3"

	groupconfig "github.com/oneprom/oneprom/servergroup/config"
)

// Tenant is who may be shown some series only, or is an administrator. As soon as there
// is one, a request that is nobody's is refused.
type Tenant struct {
	Name string `yaml:"name"`

	// HeaderValues are values of global.tenant_header, Users those of basic authentication,
	// Certificates common names, or alternative ones, of verified client certificates.
	HeaderValues []string `yaml:"header_values,omitempty"`
	Users        []string `yaml:"users,omitempty"`
	Certificates []string `yaml:"certificates,omitempty"`

	// Selector is of the series that the tenant is shown.
	Selector string `yaml:"selector,omitempty"`
	// Admin: the tenant is shown everything, and may do everything.
	Admin bool `yaml:"admin,omitempty"`
	// MaxConcurrency is how many requests are worked on at once; 0 is no bound.
	MaxConcurrency int `yaml:"max_concurrency,omitempty"`
}

// Matchers are those of the selector.
func (t *Tenant) Matchers() ([]*labels.Matcher, error) {
	ms, err := parser.NewParser(parser.Options{}).ParseMetricSelector(t.Selector)
	if err == nil && !slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return !m.Matches("") }) {
		err = errors.New("each of its matchers matches series that lack the label")
	}
	return ms, err
}

// readTenants decodes and checks the tenants that are clean.
func (c *checker) readTenants(list *yaml.Node, header string) []Tenant {
	tenants := make([]Tenant, len(list.Content))
	owners := map[string]string{} // of what a tenant is known by, with its line
	for i, n := range list.Content {
		path := groupconfig.Path{"tenants", i}
		if !c.clean(path...) {
			continue
		}
		t := &tenants[i]
		if err := n.Decode(t); err != nil {
			c.add(n, path, "%s", plain(err))
			continue
		}
		add := func(msg string, at ...any) { c.add(locate(n, at, n), append(path[:2:2], at...), "%s", msg) }
		own := func(kind, value string, at ...any) {
			key := kind + " " + value
			switch first := owners[key]; {
			case value == "":
				add("empty", at...)
			case first != "":
				add("a tenant has this already ("+first+"): a request must be of one tenant", at...)
			}
			owners[key] = fmt.Sprintf("line %d", locate(n, at, n).Line)
		}
		switch {
		case t.Name == "":
			add("the tenant has no name: add `name: …`, unique among the tenants", "name")
		case !printable(t.Name):
			add("not printable: logs carry it", "name")
		default:
			own("name", t.Name, "name")
		}
		if len(t.HeaderValues) > 0 && header == "" && c.clean("global") {
			add("nothing says which header: set global.tenant_header", "header_values")
		}
		for kind, values := range map[string][]string{"header_values": t.HeaderValues, "users": t.Users, "certificates": t.Certificates} {
			for j, value := range values {
				own(kind, value, kind, j)
			}
		}
		if len(slices.Concat(t.HeaderValues, t.Users, t.Certificates)) == 0 {
			add("nobody can be this tenant: add header_values, users or certificates")
		}
		_, err := t.Matchers()
		switch {
		case t.Admin && t.Selector != "":
			add("an administrator is shown everything: remove it, or `admin`", "selector")
		case !t.Admin && t.Selector == "":
			add(`nothing says what it is shown: add a selector, as in '{team="a"}', or admin: true`)
		case !t.Admin && err != nil:
			add("not a selector that leaves something out: "+err.Error(), "selector")
		}
		if t.MaxConcurrency < 0 {
			add("must not be negative", "max_concurrency")
		}
	}
	return tenants
}
