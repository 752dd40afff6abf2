package lint

import (
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// component is a part of a config: an input, processor, output or one of the rest.
type component struct {
	kind   string // input, output, processor, buffer, …
	name   string // kinesis_pulsar, split, …
	path   string // such as input.broker.inputs.0
	node   *yaml.Node
	config *yaml.Node // what stands under its name; nil: nothing
	parent *component // nil: none
}

// at is the node of a field of the component; nil when it is not set.
func (c *component) at(path ...string) *yaml.Node { return at(c.config, path...) }

// text is the value of a field that is set, else what it is by default.
func (c *component) text(byDefault string, path ...string) (value string, known bool) {
	n := c.at(path...)
	if n == nil || n.Tag == "!!null" {
		return byDefault, true
	}
	return text(n)
}

// number is [component.text] for integers.
func (c *component) number(byDefault int, path ...string) (value int, known bool) {
	s, known := c.text(strconv.Itoa(byDefault), path...)
	if !known {
		return 0, false
	}
	value, err := strconv.Atoi(strings.TrimSpace(s))
	return value, err == nil
}

// enabled tells whether a boolean field is true.
func (c *component) enabled(path ...string) bool {
	s, known := c.text("false", path...)
	return known && strings.EqualFold(strings.TrimSpace(s), "true")
}

// within tells whether an ancestor of the component, or itself, is one of a kind and of one of the names.
func (c *component) within(kind string, names ...string) *component {
	for ; c != nil; c = c.parent {
		if c.kind != kind {
			continue
		}
		for _, n := range names {
			if c.name == n {
				return c
			}
		}
	}
	return nil
}

// value is a field of some component that holds a plain value.
type value struct {
	path string
	node *yaml.Node
	spec field
}

// Config is a config as the rules look at it.
type Config struct {
	root       *yaml.Node
	components []*component // in the order of the text, parents first
	values     []value
	beside     []Resources
	files      map[*yaml.Node]string // of the nodes that are not in the config itself
	allowed    []string
}

// Resources are components beside a config that it uses by their labels: a file given by --resources, or the service's config in
// streams mode.
type Resources struct {
	File string
	Root *yaml.Node
}

// Read finds the components of a config, and those of the resources that it may use. What it cannot understand it leaves out:
// that is for Benthos' own lint to tell.
func (c *Catalog) Read(root *yaml.Node, resources ...Resources) *Config {
	r := &reading{catalog: c, config: &Config{root: root, beside: resources, files: map[*yaml.Node]string{}}}
	r.object(root, c.root, "", nil)
	r.componentsOnly = true // the values of a file of resources are found fault with when it is linted itself
	for _, more := range resources {
		for _, e := range entries(more.Root) {
			if f, known := c.root.child(e.key.Value); known && strings.HasSuffix(e.key.Value, "_resources") {
				r.field(e.value, f, e.key.Value, nil)
			}
		}
		r.config.comeFrom(more.Root, more.File, 0)
	}
	return r.config
}

// comeFrom notes the file of a node and of all below it.
func (c *Config) comeFrom(n *yaml.Node, file string, depth int) {
	if n == nil || depth > maxDepth || c.files[n] != "" {
		return
	}
	c.files[n] = file
	for _, child := range n.Content {
		c.comeFrom(child, file, depth+1)
	}
}

// setting is a field that holds for the whole service: in streams mode it is not in the config of a stream.
func (c *Config) setting(path ...string) *yaml.Node {
	n := at(c.root, path...)
	for i := 0; n == nil && i < len(c.beside); i++ {
		n = at(c.beside[i].Root, path...)
	}
	return n
}

// Allow accepts what the rules of these names find, beside those that the config's own `lint.allow` names.
func (c *Config) Allow(rules ...string) { c.allowed = append(c.allowed, rules...) }

// Allowed are the names in the config's own `lint.allow`.
func (c *Config) Allowed() (rules []string) {
	if list := at(c.root, fieldName, "allow"); list != nil && list.Kind == yaml.SequenceNode {
		for _, item := range list.Content {
			name, _ := text(item)
			rules = append(rules, name)
		}
	}
	return rules
}

type reading struct {
	catalog        *Catalog
	config         *Config
	depth          int
	fields         int
	componentsOnly bool
}

// Far above any config that a person writes; aliases could otherwise go round in circles, or multiply.
const (
	maxDepth  = 100
	maxFields = 200_000
)

func join(path, step string) string {
	if path == "" {
		return step
	}
	return path + "." + step
}

// object reads the fields of an object.
func (r *reading) object(n *yaml.Node, spec field, path string, parent *component) {
	for _, e := range entries(n) {
		if f, known := spec.child(e.key.Value); known {
			r.field(e.value, f, join(path, e.key.Value), parent)
		}
	}
}

// field reads what stands under a field: one thing, or many of a kind.
func (r *reading) field(n *yaml.Node, spec field, path string, parent *component) {
	r.depth++
	defer func() { r.depth-- }()
	if r.fields++; r.depth > maxDepth || r.fields > maxFields {
		return
	}
	if n = resolved(n); n == nil {
		return
	}
	switch spec.Kind {
	case "array", "2darray":
		if n.Kind == yaml.SequenceNode {
			for i, item := range n.Content {
				each := spec
				each.Kind = "scalar"
				if spec.Kind == "2darray" {
					each.Kind = "array"
				}
				r.field(item, each, join(path, strconv.Itoa(i)), parent)
			}
		}
	case "map":
		for _, e := range entries(n) {
			each := spec
			each.Kind = "scalar"
			r.field(e.value, each, join(path, e.key.Value), parent)
		}
	default:
		switch {
		case r.catalog.components[spec.Type] != nil:
			r.component(n, spec.Type, path, parent)
		case spec.Type == "object":
			r.object(n, spec, path, parent)
		case spec.Type != "unknown" && !r.componentsOnly:
			r.config.values = append(r.config.values, value{path: path, node: n, spec: spec})
		}
	}
}

// component reads a component: a mapping with its name as one of the keys, or with a `type`.
func (r *reading) component(n *yaml.Node, kind, path string, parent *component) {
	known := r.catalog.components[kind]
	c := &component{kind: kind, path: path, node: n, parent: parent}
	if declared, ok := text(at(n, "type")); ok {
		if _, has := known[declared]; has {
			c.name = declared
		}
	}
	for _, e := range entries(n) {
		if _, has := known[e.key.Value]; has && (c.name == "" || c.name == e.key.Value) {
			c.name, c.config = e.key.Value, e.value
		}
	}
	if c.name == "" {
		return
	}
	r.config.components = append(r.config.components, c)
	if c.config != nil {
		r.field(c.config, known[c.name], join(path, c.name), c)
	}
	// Inputs and outputs have processors of their own beside the component's name.
	if kind == "input" || kind == "output" {
		r.field(at(n, "processors"), field{Type: "processor", Kind: "array"}, join(path, "processors"), c)
	}
}
