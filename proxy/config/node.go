package config

import (
	"gopkg.in/yaml.v3"

	groupconfig "github.com/oneprom/oneprom/servergroup/config"
)

// deref follows an alias.
func deref(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool {
	n = deref(n)
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}

// isMerge reports whether a node is the key `<<`, below which other mappings are merged in.
func isMerge(key *yaml.Node) bool {
	return key.Kind == yaml.ScalarNode && key.ShortTag() == "!!merge"
}

// merged returns the mappings that the value of `<<` names, the strongest first,
// and whether it names nothing else.
func merged(value *yaml.Node) (mappings []*yaml.Node, ok bool) {
	value = deref(value)
	switch value.Kind {
	case yaml.MappingNode:
		return []*yaml.Node{value}, true
	case yaml.SequenceNode:
		for _, item := range value.Content {
			if item = deref(item); item.Kind != yaml.MappingNode {
				return nil, false
			}
			mappings = append(mappings, item)
		}
		return mappings, true
	}
	return nil, false
}

// resolved returns a copy of n in which aliases and merged mappings are replaced by
// what they stand for.
func resolved(n *yaml.Node) *yaml.Node {
	n = deref(n)
	c := *n
	c.Anchor, c.Content = "", nil
	if n.Kind != yaml.MappingNode {
		for _, child := range n.Content {
			c.Content = append(c.Content, resolved(child))
		}
		return &c
	}
	var below []*yaml.Node // what is merged in, the strongest first
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if !isMerge(key) {
			c.Content = append(c.Content, resolved(key), resolved(value))
			continue
		}
		mappings, _ := merged(value)
		below = append(below, mappings...)
	}
	for _, m := range below {
		m = resolved(m)
		for i := 0; i+1 < len(m.Content); i += 2 {
			if there, _ := lookup(&c, m.Content[i].Value); there == nil {
				c.Content = append(c.Content, m.Content[i], m.Content[i+1])
			}
		}
	}
	return &c
}

// lookup finds a key of a mapping, merged ones included.
func lookup(mapping *yaml.Node, name string) (key, value *yaml.Node) {
	mapping = deref(mapping)
	if mapping.Kind != yaml.MappingNode {
		return nil, nil
	}
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if k := deref(mapping.Content[i]); k.Value == name && k.Kind == yaml.ScalarNode && !isMerge(k) {
			return mapping.Content[i], mapping.Content[i+1]
		}
	}
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if !isMerge(mapping.Content[i]) {
			continue
		}
		below, _ := merged(mapping.Content[i+1])
		for _, m := range below {
			if key, value = lookup(m, name); key != nil {
				return key, value
			}
		}
	}
	return nil, nil
}

// locate returns the node that shows where the setting is that path leads to from
// n: its key, or item of a list, or the last of its parents that is there. at
// stands for n itself.
func locate(n *yaml.Node, path groupconfig.Path, at *yaml.Node) *yaml.Node {
	if len(path) == 0 {
		return at
	}
	switch step := path[0].(type) {
	case string:
		if key, value := lookup(n, step); key != nil {
			return locate(value, path[1:], key)
		}
	case int:
		if list := deref(n); list.Kind == yaml.SequenceNode && step < len(list.Content) {
			return locate(list.Content[step], path[1:], list.Content[step])
		}
	}
	return at
}

// maxNodes bounds the nodes of a file in which each alias is replaced by what it
// stands for.
const maxNodes = 1 << 20

// An aliasGuard finds aliases that make a small file huge, or endless.
type aliasGuard struct {
	sizes map[*yaml.Node]int // of what aliases stand for; -1: being counted
	total int
}

// tooMuch returns the node at which the limit is passed or an alias contains
// itself, or nil.
func (g *aliasGuard) tooMuch(n *yaml.Node) *yaml.Node {
	if n.Anchor != "" {
		g.sizes[n] = -1
	}
	before := g.total
	g.total++
	if n.Kind == yaml.AliasNode {
		if g.sizes[n.Alias] < 0 {
			return n
		}
		g.total += g.sizes[n.Alias]
	}
	for _, child := range n.Content {
		if at := g.tooMuch(child); at != nil {
			return at
		}
	}
	if g.total > maxNodes {
		return n
	}
	if n.Anchor != "" {
		g.sizes[n] = g.total - before
	}
	return nil
}
