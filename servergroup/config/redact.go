package config

import (
	"net/url"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/discovery"
	"gopkg.in/yaml.v3"
)

// secretText stands for what is not shown, as upstream's types do of themselves.
const secretText = "<secret>"

// MarshalYAML implements yaml.Marshaler. Secrets are redacted, those too whose types do
// not hide them: parameters of OAuth 2, and what URLs of service discoveries carry.
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

// Redact hides what is secret in a configuration that was written as YAML, and whose types
// do not hide it.
func Redact(n *yaml.Node) { redact(n, false) }

// redact hides what is secret below a node. sd reports whether it belongs to a service discovery.
func redact(n *yaml.Node, sd bool) {
	if n.Kind == yaml.ScalarNode && sd {
		n.Value = redactedURL(n.Value)
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
	for i, child := range n.Content {
		if n.Kind != yaml.MappingNode {
			redact(child, sd)
			continue
		}
		if i%2 == 0 {
			continue
		}
		key := n.Content[i-1].Value
		redact(child, sd || strings.HasSuffix(key, "_sd_configs"))
		if key == "endpoint_params" && child.Kind == yaml.MappingNode {
			for j := 1; j < len(child.Content); j += 2 {
				child.Content[j].SetString(secretText)
			}
		}
	}
}

// redactedURL hides the password and the parameters of a URL. What is none stays.
func redactedURL(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User == nil && u.RawQuery == "" {
		return text
	}
	if u.RawQuery != "" {
		u.RawQuery = secretText
	}
	if _, ok := u.User.Password(); !ok && u.User != nil {
		u.User = url.User("xxxxx") // as a token stands there
	}
	return u.Redacted()
}
