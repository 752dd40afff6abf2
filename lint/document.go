package lint

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// environment variables as Benthos writes them: ${NAME}, ${NAME:default}. ${{NAME}} is an escape.
var variable = regexp.MustCompile(`\$\{([0-9A-Za-z_.]+)(?::((?:\$\{[^}]+\}|[^}])*))?\}`)

// ParseYAML reads a config as text, with environment variables put in as Benthos does. Lookup is os.LookupEnv, or something
// in its place; a variable that is not set and has no default stays as it is, and is not looked at any closer. The error is a
// [*TextError] where YAML itself sees nothing wrong.
func ParseYAML(text []byte, lookup func(string) (string, bool)) (*yaml.Node, error) {
	if lookup == nil {
		lookup = os.LookupEnv
	}
	expanded := expand(text, lookup, func(found string) string { return found })
	root, err := ParseText([]byte(expanded))
	if err != nil {
		return nil, fmt.Errorf("reading YAML: %w", err)
	}
	return document(root)
}

// expand puts environment variables in; unset says what stands for one that is not set and has no default.
func expand(text []byte, lookup func(string) (string, bool), unset func(string) string) string {
	return variable.ReplaceAllStringFunc(string(text), func(found string) string {
		parts := variable.FindStringSubmatch(found)
		value, set := lookup(parts[1])
		switch {
		case set && value != "":
			return strings.ReplaceAll(value, "\n", `\n`)
		case strings.Contains(found, ":"):
			return parts[2]
		}
		return unset(found)
	})
}

// FillUnset puts a word in the place of every variable that is not set and has no default, for somebody who lints a config where its
// variables are not known: Benthos would lint empty fields. What is found at one of these lines, which begin at 1, is about the word.
func FillUnset(text []byte) (filled []byte, lines map[int]bool) {
	lines = map[int]bool{}
	var b strings.Builder
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		b.WriteString(expand([]byte(line), os.LookupEnv, func(string) string {
			lines[n] = true
			return "unset"
		}))
	}
	return []byte(b.String()), lines
}

// ParseValue takes a config that was read by somebody else. Its findings have no lines.
func ParseValue(v any) (*yaml.Node, error) {
	var root yaml.Node
	if err := root.Encode(v); err != nil {
		return nil, fmt.Errorf("reading the config: %w", err)
	}
	return document(&root)
}

// ErrNoMapping is returned for a config that is a list, a text or a number.
var ErrNoMapping = errors.New("a config is a mapping: input, pipeline, output")

func document(n *yaml.Node) (*yaml.Node, error) {
	if n.Kind == yaml.DocumentNode && len(n.Content) == 1 {
		n = n.Content[0]
	}
	if n = resolved(n); n == nil || n.Kind == 0 {
		return &yaml.Node{Kind: yaml.MappingNode}, nil // an empty file
	}
	if n.Kind != yaml.MappingNode {
		return nil, ErrNoMapping
	}
	return n, nil
}

// resolved follows an alias to what it stands for.
func resolved(n *yaml.Node) *yaml.Node {
	for n != nil && n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// entry is one pair of a mapping.
type entry struct {
	key   *yaml.Node
	value *yaml.Node
}

// entries are the pairs of a mapping, merged ones (<<) included; none for anything else.
func entries(n *yaml.Node) (all []entry) {
	if n = resolved(n); n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], resolved(n.Content[i+1])
		if key.Tag == "!!merge" {
			for _, e := range entries(value) {
				if at(n, e.key.Value) == nil {
					all = append(all, e)
				}
			}
			continue
		}
		all = append(all, entry{key, value})
	}
	return all
}

// at is the node at a path of keys and indexes below n; nil when there is none.
func at(n *yaml.Node, path ...string) *yaml.Node {
	for _, step := range path {
		n = resolved(n)
		if n == nil {
			return nil
		}
		switch n.Kind {
		case yaml.SequenceNode:
			i, err := strconv.Atoi(step)
			if err != nil || i < 0 || i >= len(n.Content) {
				return nil
			}
			n = n.Content[i]
		case yaml.MappingNode:
			var found *yaml.Node
			for i := 0; i+1 < len(n.Content); i += 2 {
				if n.Content[i].Value == step {
					found = n.Content[i+1]
				}
			}
			n = found
		default:
			return nil
		}
	}
	return resolved(n)
}

// text is a scalar's text; ok is false for anything else, for null, and for a variable that nobody has set.
func text(n *yaml.Node) (s string, ok bool) {
	if n = resolved(n); n == nil || n.Kind != yaml.ScalarNode || n.Tag == "!!null" || variable.MatchString(n.Value) {
		return "", false
	}
	return n.Value, true
}
