package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	commoncfg "github.com/prometheus/common/config"
	"gopkg.in/yaml.v3"

	groupconfig "github.com/oneprom/oneprom/servergroup/config"
)

// check compares what is at n with the type that it will be decoded into. at is
// the node to report: the key of n, or n itself.
func (c *checker) check(n *yaml.Node, t reflect.Type, path groupconfig.Path, at *yaml.Node) {
	n = deref(n)
	if isNull(n) {
		return // a key without a value is like a key that is not there
	}
	form, before := shape(t), len(c.problems)
	want := kindOf(form)
	switch {
	case form.Kind() == reflect.Interface:
		if err := n.Decode(reflect.New(form).Interface()); err != nil {
			c.add(at, path, "%s", plain(err))
		}
	case n.Kind != want, want == yaml.ScalarNode && n.Decode(reflect.New(form).Interface()) != nil:
		what, open := describe(form)
		c.add(at, path, "expected %s, found %s", what, found(n, open))
	case want == yaml.ScalarNode:
		c.url(n, form, path, at)
	case want == yaml.SequenceNode:
		c.list(n, form.Elem(), path)
	case want == yaml.MappingNode:
		c.mapping(n, form, path)
		if bare := reflect.New(indirect(t)); len(c.problems) == before && unmarshals(bare.Type().Elem()) && form != groupType() {
			// What upstream's unmarshalers say of the whole. A group has a round
			// of its own, which does not stop at the first problem.
			if err := n.Decode(bare.Interface()); err != nil {
				c.add(at, path, "%s", withoutSecrets(plain(err), n, form))
			}
		}
	}
}

// withoutSecrets hides the secrets of a mapping in what an unmarshaler says of it: those
// of some service discoveries show them.
func withoutSecrets(text string, n *yaml.Node, form reflect.Type) string {
	for _, f := range fieldsOf(form) {
		if indirect(f.typ) != reflect.TypeFor[commoncfg.Secret]() {
			continue
		}
		if _, value := lookup(n, f.key); value != nil && deref(value).Value != "" {
			text = strings.ReplaceAll(text, deref(value).Value, "<secret>")
		}
	}
	return text
}

// kindOf returns the kind of node that a shape is written as.
func kindOf(form reflect.Type) yaml.Kind {
	_, scalar := scalars[form]
	switch {
	case scalar:
		return yaml.ScalarNode
	case form.Kind() == reflect.Struct || form.Kind() == reflect.Map:
		return yaml.MappingNode
	case form.Kind() == reflect.Slice:
		return yaml.SequenceNode
	}
	return yaml.ScalarNode
}

// found says what is at n, and shows a scalar only if its place is open.
func found(n *yaml.Node, open bool) string {
	switch {
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case open && len(n.Value) < 64:
		return fmt.Sprintf("%q", n.Value)
	}
	switch n.ShortTag() {
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "true or false"
	case "!!timestamp":
		return "a time"
	}
	return "a string"
}

func (c *checker) list(n *yaml.Node, elem reflect.Type, path groupconfig.Path) {
	for i, item := range n.Content {
		below := append(slices.Clone(path), i)
		if isNull(item) {
			c.add(item, below, "the entry is empty: fill it in or remove it")
			continue
		}
		c.check(item, elem, below, item)
	}
}

func (c *checker) mapping(n *yaml.Node, form reflect.Type, path groupconfig.Path) {
	first := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		name := deref(key)
		if name.Kind != yaml.ScalarNode {
			c.add(key, path, "a key must be a string, found %s", found(name, false))
			continue
		}
		below := append(slices.Clone(path), name.Value)
		if there := first[name.Value]; there != nil {
			c.add(key, below, "the key is there twice (line %d): remove one", there.Line)
			continue
		}
		first[name.Value] = key
		switch t := valueType(form, name.Value); {
		case isMerge(key):
			c.merge(key, value, form, path)
		case t == nil:
			c.add(key, below, "unknown key; %s", hint(form, name.Value))
		default:
			c.check(value, t, below, key)
		}
	}
}

// merge checks what `<<` merges into a mapping.
func (c *checker) merge(key, value *yaml.Node, form reflect.Type, path groupconfig.Path) {
	mappings, ok := merged(value)
	if !ok {
		c.add(key, path, "<< takes a mapping or a list of mappings")
	}
	for _, m := range mappings {
		c.mapping(m, form, path)
	}
}

// valueType returns the type of the value of a key, or nil if there is no such
// key.
func valueType(form reflect.Type, key string) reflect.Type {
	if form.Kind() == reflect.Map {
		return form.Elem()
	}
	for _, f := range fieldsOf(form) {
		if f.key == key {
			return f.typ
		}
	}
	return nil
}

// hint says what to do about an unknown key of form.
func hint(form reflect.Type, key string) string {
	keys, group := keysOf(form), keysOf(groupType())
	if hint := foreignKey(form, key); hint != "" {
		return hint
	}
	if parent, listed := parentOf(form, key); listed {
		return fmt.Sprintf("it belongs into an entry of the list %q", parent)
	} else if parent != "" {
		return fmt.Sprintf("it belongs under %q", parent)
	}
	switch {
	case slices.Contains(keysOf(reflect.TypeFor[Config]()), key):
		return "it belongs at the top level"
	case slices.Contains(keysOf(reflect.TypeFor[Global]()), key):
		return `it belongs under "global"`
	case form != reflect.TypeFor[Config]() && slices.Contains(group, key):
		return "it belongs right into the server group"
	}
	if near := nearest(key, keys); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	if strings.Contains(key, ":") {
		return "a space must follow the colon of a key"
	}
	if len(keys) > 12 {
		return "config.example.yaml has the keys"
	}
	return "the keys here are " + strings.Join(keys, ", ")
}
