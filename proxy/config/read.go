package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"sort"
	"strings"
	"unicode/utf8"

	"github.com/prometheus/common/model"
	upstream "github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"gopkg.in/yaml.v3"

	groupconfig "github.com/oneprom/oneprom/servergroup/config"
	"github.com/oneprom/oneprom/servergroup/targets"
)

// read makes a Config of a file, section by section, so that a problem of one
// does not hide those of the others.
func (c *checker) read(data []byte) *Config {
	root := c.parse(data)
	if root == nil || c.stranger(root) {
		return nil
	}
	c.check(root, reflect.TypeFor[Config](), nil, root)
	if !isNull(root) && deref(root).Kind != yaml.MappingNode {
		return nil
	}
	cfg := &Config{Global: DefaultGlobal, Rules: DefaultRules, places: places{file: c.file, lines: map[string]int{}}}
	cfg.places.add(root, nil, 3)
	if key, n := lookup(root, "global"); n != nil && c.clean("global") {
		if err := n.Decode(&cfg.Global); err != nil {
			c.add(key, groupconfig.Path{"global"}, "%s", plain(err))
		}
		c.checkGlobal(n, &cfg.Global)
	}
	if _, n := lookup(root, "tracing"); n != nil && !isNull(n) && c.clean("tracing") {
		cfg.Tracing = c.readTracing(n)
	}
	if _, n := lookup(root, "cache"); n != nil && !isNull(n) && c.clean("cache") {
		cfg.Cache = c.readCache(n)
	}
	if _, list := lookup(root, "query_rules"); list != nil && deref(list).Kind == yaml.SequenceNode {
		cfg.QueryRules = c.readRules(deref(list))
	}
	if _, list := lookup(root, "tenants"); list != nil && deref(list).Kind == yaml.SequenceNode {
		cfg.Tenants = c.readTenants(deref(list), cfg.Global.TenantHeader)
	}
	c.readRuling(root, cfg)
	key, list := lookup(root, "server_groups")
	switch {
	case list == nil:
		c.add(root, nil, "there are no server_groups: list the Prometheus servers to ask under `server_groups`")
		return nil
	case c.clean("server_groups") && len(deref(list).Content) == 0:
		c.add(key, groupconfig.Path{"server_groups"}, "empty: list the Prometheus servers to ask")
	case deref(list).Kind == yaml.SequenceNode:
		cfg.ServerGroups = c.readGroups(deref(list))
	}
	return cfg
}

// parse returns the root of the only document, or nil after a problem.
func (c *checker) parse(data []byte) *yaml.Node {
	first, second, err := documents(data)
	switch {
	case err != nil:
		c.syntaxError(data, err)
	case first == nil:
		c.addLine(1, 1, nil, "the file is empty: see config.example.yaml")
	case second != nil:
		c.add(second, nil, "a second document begins here: one file holds one")
	default:
		root := first.Content[0]
		at := (&aliasGuard{sizes: map[*yaml.Node]int{}}).tooMuch(root)
		if at == nil {
			return root
		}
		c.add(at, nil, "YAML aliases expand too far or are recursive")
	}
	return nil
}

// documents parses the first two documents; nil stands for one that is not there.
func documents(data []byte) (first, second *yaml.Node, err error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	for _, doc := range []**yaml.Node{&first, &second} {
		var n yaml.Node
		switch err := dec.Decode(&n); {
		case errors.Is(err, io.EOF):
			return first, second, nil
		case err != nil:
			return nil, nil, err
		}
		*doc = &n
	}
	return first, second, nil
}

var yamlLine = regexp.MustCompile(`^yaml: (line \d+: )?`)

// syntaxError adds an error of the YAML parser. Its line is not that of the
// parser, which often is the one where the surrounding list or mapping begins,
// but the first line up to which the file has the error.
func (c *checker) syntaxError(data []byte, err error) {
	text := func(err error) string { return yamlLine.ReplaceAllString(err.Error(), "") }
	msg := text(err)
	var ends []int
	for i, b := range data {
		if b == '\n' {
			ends = append(ends, i+1)
		}
	}
	line := 1 + sort.Search(len(ends), func(i int) bool {
		_, _, err := documents(data[:ends[i]])
		return err != nil && text(err) == msg
	})
	if strings.HasPrefix(msg, "unknown anchor ") {
		// It may be a password that begins with a star: not shown.
		msg = "an alias (*…) without its anchor (&…): quote a value that begins with a star"
	}
	c.addLine(line, 1, nil, "not YAML: "+msg)
}

// plain is the text of an error of the YAML library, or of an unmarshaler that
// it calls, without values of the file.
func plain(err error) string {
	if parse, ok := errors.AsType[*url.Error](err); ok {
		return "not a URL: " + parse.Err.Error()
	}
	if _, ok := errors.AsType[*yaml.TypeError](err); ok || strings.HasPrefix(err.Error(), "yaml: ") {
		return "cannot be read"
	}
	if strings.HasSuffix(err.Error(), "is not a valid hostname") {
		// Upstream's check of targets shows what may hold a password.
		return "a target is host:port: give the rest by `scheme` and `path_prefix`"
	}
	return err.Error()
}

func (c *checker) checkGlobal(n *yaml.Node, g *Global) {
	add := func(msg string, path ...any) {
		c.add(locate(n, path, n), append(groupconfig.Path{"global"}, path...), "%s", msg)
	}
	if g.EvaluationInterval <= 0 {
		add("must be longer than 0s", "evaluation_interval")
	}
	if g.PartialResponse != groupconfig.PartialWarn && g.PartialResponse != groupconfig.PartialError {
		add(fmt.Sprintf("%q is neither warn nor error", string(g.PartialResponse)), "partial_response")
	}
	if g.Pushdown != groupconfig.PushdownProvable && g.Pushdown != groupconfig.PushdownOff {
		add(fmt.Sprintf("%q is neither provable nor off", string(g.Pushdown)), "pushdown")
	}
	switch g.ReadyWhen {
	case ReadyNone, ReadyAny, ReadyAll:
	default:
		add(fmt.Sprintf("%q is none of none, any, all", string(g.ReadyWhen)), "ready_when")
	}
	if g.QueryLogMinDuration > 0 && g.QueryLogFile == "" {
		add("there is no query log: set query_log_file, too", "query_log_min_duration")
	}
	if g.TenantHeader != "" && !isToken(g.TenantHeader) {
		add("not the name of an HTTP header", "tenant_header")
	}
	g.ExternalLabels.Range(func(l labels.Label) {
		switch {
		case !model.UTF8Validation.IsValidLabelName(l.Name):
			add(fmt.Sprintf("%q is not a label name", l.Name), "external_labels", l.Name)
		case l.Name == model.MetricNameLabel:
			add("not an external label: it names metrics", "external_labels", l.Name)
		case l.Value == "":
			add("an empty value is the same as no label", "external_labels", l.Name)
		case !utf8.ValidString(l.Value):
			add("the value is not UTF-8", "external_labels", l.Name)
		}
	})
}

// readTracing decodes `tracing`, which check has found to be clean.
func (c *checker) readTracing(n *yaml.Node) *upstream.TracingConfig {
	t := &upstream.TracingConfig{}
	if err := n.Decode(t); err != nil {
		c.add(n, groupconfig.Path{"tracing"}, "%s", plain(err))
	}
	c.checkCollector(n, t)
	if !(t.SamplingFraction >= 0 && t.SamplingFraction <= 1) {
		path := groupconfig.Path{"sampling_fraction"}
		c.add(locate(n, path, n), append(groupconfig.Path{"tracing"}, path...), "must be from 0 (none) to 1 (all)")
	}
	return t
}

// readGroups decodes and validates the groups that are clean.
func (c *checker) readGroups(list *yaml.Node) []groupconfig.Group {
	groups := make([]groupconfig.Group, len(list.Content))
	var read []int
	for i, n := range list.Content {
		path := groupconfig.Path{"server_groups", i}
		if !c.clean(path...) {
			continue
		}
		if err := n.Decode(&groups[i]); err != nil {
			c.add(n, path, "%s", plain(err))
			continue
		}
		read = append(read, i)
		for _, err := range slices.Concat(unjoin(groups[i].Validate()), unjoin(targets.Validate(&groups[i]))) {
			if field, ok := errors.AsType[*groupconfig.FieldError](err); ok {
				c.add(locate(n, field.Path, n), append(path, field.Path...), "%s", field.Msg)
			}
		}
	}
	c.checkUnique(list, groups, read)
	c.checkCopies(list, groups, read)
	return groups
}

// checkCopies finds names in `copies_of` that are not those of groups with samples of their own.
func (c *checker) checkCopies(list *yaml.Node, groups []groupconfig.Group, read []int) {
	if len(read) < len(groups) {
		return // the group may be one that could not be read
	}
	for i, g := range groups {
		for j, name := range g.CopiesOf {
			path := groupconfig.Path{"copies_of", j}
			at := slices.IndexFunc(groups, func(o groupconfig.Group) bool { return o.Name == name })
			switch {
			case at < 0:
				c.add(locate(list.Content[i], path, list.Content[i]), append(groupconfig.Path{"server_groups", i}, path...), "there is no server group %q: name the groups that the data comes from", name)
			case at != i && len(groups[at].CopiesOf) > 0:
				c.add(locate(list.Content[i], path, list.Content[i]), append(groupconfig.Path{"server_groups", i}, path...), "%q holds copies itself: name the groups that it has them of", name)
			}
		}
	}
}

func unjoin(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return nil
}

// checkUnique finds names that two groups have, and URLs that are there twice.
func (c *checker) checkUnique(list *yaml.Node, groups []groupconfig.Group, read []int) {
	type use struct {
		group, line int
		params      string
	}
	names, urls := map[string]use{}, map[string][]use{}
	for _, i := range read {
		g, n := &groups[i], list.Content[i]
		at := locate(n, groupconfig.Path{"name"}, n)
		if first, ok := names[g.Name]; ok && g.Name != "" {
			c.add(at, groupconfig.Path{"server_groups", i, "name"}, "%q is the name of server_groups[%d] too (line %d): rename one of them", g.Name, first.group, first.line)
		} else {
			names[g.Name] = use{group: i, line: at.Line}
		}
		for _, j := range read {
			if maker := &groups[j]; targets.Makes(maker, g.Name) {
				c.add(at, groupconfig.Path{"server_groups", i, "name"}, "the groups that `group_by` makes of %q have such names: rename one of them", maker.Name)
			}
		}
		for _, t := range targets.StaticTargets(g) {
			at := locate(n, t.Path, n)
			path := append(groupconfig.Path{"server_groups", i}, t.Path...)
			for _, first := range urls[t.URL] {
				if first.params != t.Params {
					continue
				}
				if first.group == i {
					c.add(at, path, "%s is there twice (line %d): remove one", t.URL, first.line)
					break
				}
				if g.AsksLike(&groups[first.group]) {
					c.add(at, path, "%s is a replica of server_groups[%d] too (line %d): remove one, or merge the groups", t.URL, first.group, first.line)
					break
				}
			}
			urls[t.URL] = append(urls[t.URL], use{i, at.Line, t.Params})
		}
	}
}
