package convert

import (
	"strings"

	"gopkg.in/yaml.v3"
)

// resolved follows an alias.
func resolved(n *yaml.Node) *yaml.Node {
	if n != nil && n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// at is the value at a path of keys; nil when there is none.
func at(n *yaml.Node, path ...string) *yaml.Node {
	for _, key := range path {
		if n = resolved(n); n == nil || n.Kind != yaml.MappingNode {
			return nil
		}
		var found *yaml.Node
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == key {
				found = n.Content[i+1]
			}
		}
		n = found
	}
	return resolved(n)
}

// text is a scalar; "" for anything else, and for null.
func text(n *yaml.Node) string {
	if n = resolved(n); n == nil || n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		return ""
	}
	return n.Value
}

func isTrue(n *yaml.Node) bool { return strings.EqualFold(text(n), "true") }

// each calls f for every pair of a mapping.
func each(n *yaml.Node, f func(key string, value *yaml.Node)) {
	if n = resolved(n); n == nil || n.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		f(n.Content[i].Value, resolved(n.Content[i+1]))
	}
}

// mapping builds one.
type mapping struct{ *yaml.Node }

func newMapping() mapping { return mapping{&yaml.Node{Kind: yaml.MappingNode}} }

// add puts a pair at the end, with a comment above it.
func (m mapping) add(key string, value *yaml.Node, comment ...string) {
	k := &yaml.Node{Kind: yaml.ScalarNode, Value: key}
	if len(comment) > 0 && comment[0] != "" {
		k.HeadComment = indented(comment[0], "# ", "# ")
	}
	m.Content = append(m.Content, k, value)
}

func (m mapping) addText(key, value string, comment ...string) {
	m.add(key, textNode(value), comment...)
}

func textNode(s string) *yaml.Node {
	n := &yaml.Node{}
	n.SetString(s)
	return n
}

// plain is a scalar that is no text: a number or a boolean.
func plain(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Value: s} }

// clean takes the style of JSON away, which makes one long line of everything, and keeps quotes where they say that something
// is a text.
func clean(n *yaml.Node) *yaml.Node {
	n = resolved(n)
	c := *n
	c.Style &^= yaml.FlowStyle
	c.Anchor = ""
	if c.Kind == yaml.ScalarNode && c.Tag == "!!str" {
		c.Style = 0
		c.SetString(n.Value)
		if strings.ContainsAny(n.Value, `{}"`) && !strings.ContainsAny(n.Value, "'\n") {
			c.Style = yaml.SingleQuotedStyle
		}
		c.HeadComment, c.LineComment, c.FootComment = n.HeadComment, n.LineComment, n.FootComment
	}
	c.Content = nil
	for i, child := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 {
			key := *child
			key.Style, key.Anchor = 0, ""
			c.Content = append(c.Content, &key)
			continue
		}
		c.Content = append(c.Content, clean(child))
	}
	return &c
}
