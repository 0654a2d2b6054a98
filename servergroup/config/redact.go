package config

import (
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/discovery"
	"gopkg.in/yaml.v3"

	"github.com/oneprom/oneprom/servergroup/redact"
)

// MarshalYAML implements yaml.Marshaler. Secrets are redacted, those too whose types do
// not hide them: parameters of OAuth 2, those of targets (__param_), and what URLs carry.
func (c Group) MarshalYAML() (any, error) {
	inline, err := discovery.MarshalYAMLWithInlineConfigs(&c)
	if err != nil {
		return nil, err
	}
	var n yaml.Node
	if err := n.Encode(inline); err != nil {
		return nil, err
	}
	Redact(&n)
	return &n, nil
}

// A replacement of a relabelling that only copies from other labels is no secret.
var onlyCopies = regexp.MustCompile(`^(\$\w+|\$\{\w+\})*$`)

// Redact hides what is secret in a configuration that was written as YAML, and whose types
// do not hide it.
func Redact(n *yaml.Node) { hide(n, false) }

// hide hides what is secret below a node. sd reports whether it belongs to a service discovery.
func hide(n *yaml.Node, sd bool) {
	if n.Kind == yaml.ScalarNode {
		if shown := redact.URLs(n.Value); shown != n.Value {
			n.Value = shown
		}
	}
	if n.Kind == yaml.MappingNode && sd {
		// DigitalOcean's has a field for tests that is written as if it were a key.
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == "httpclient" {
				n.Content = slices.Delete(n.Content, i, i+2)
				break
			}
		}
	}
	setsParam := false // a relabelling of a parameter
	for i, child := range n.Content {
		if n.Kind != yaml.MappingNode {
			hide(child, sd)
			continue
		}
		if i%2 == 0 {
			setsParam = setsParam || child.Value == "target_label" && strings.HasPrefix(n.Content[i+1].Value, model.ParamLabelPrefix)
			continue
		}
		switch key := n.Content[i-1].Value; {
		case key == "regex": // which matches URLs, and is none
		case key == "endpoint_params" && child.Kind == yaml.MappingNode:
			for j := 1; j < len(child.Content); j += 2 {
				child.Content[j].SetString(redact.Text)
			}
		case strings.HasPrefix(key, model.ParamLabelPrefix) && child.Kind == yaml.ScalarNode:
			child.SetString(redact.Text)
		default:
			hide(child, sd || strings.HasSuffix(key, "_sd_configs"))
		}
	}
	if setsParam {
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == "replacement" && !onlyCopies.MatchString(n.Content[i+1].Value) {
				n.Content[i+1].SetString(redact.Text)
			}
		}
	}
}
