package lint

import (
	"maps"
	"slices"
	"strings"
)

// Names are those of all components.
func (c *Catalog) Names() []string {
	var all []string
	for _, kind := range slices.Sorted(maps.Keys(c.components)) {
		all = append(all, slices.Sorted(maps.Keys(c.components[kind]))...)
	}
	return all
}

// Siblings are the fields that a component or an object of fields has, from the path of one of them, known or not: output.pulsar.tpic
// asks for those of pulsar. None where the path leads nowhere that is known.
func (c *Catalog) Siblings(path string) (names []string) {
	steps := strings.Split(path, ".")
	parent, kind, known := c.find(steps[:len(steps)-1])
	switch {
	case !known:
		return nil
	case kind != "":
		return append(slices.Sorted(maps.Keys(c.components[kind])), "label", "processors")
	}
	for _, f := range parent.Children {
		names = append(names, f.Name)
	}
	return names
}

// Wants is what stands at a path: string, int, float, bool, array or object; "" where that is not known.
func (c *Catalog) Wants(path string) string {
	f, kind, known := c.find(strings.Split(path, "."))
	switch {
	case !known:
		return ""
	case f.Kind == "array" || f.Kind == "2darray":
		return "array"
	case kind != "" || f.Kind == "map":
		return "object"
	}
	return f.Type
}

// find follows a path. Kind is that of a component whose name would be the next step; "" for a field.
func (c *Catalog) find(steps []string) (at field, kind string, known bool) {
	at = c.root
	for _, step := range steps {
		switch {
		case strings.Trim(step, "0123456789") == "":
			at.Kind = "scalar" // an item of a list
			continue
		case kind != "":
			if step == "processors" { // inputs and outputs have some beside their name
				at, kind, known = field{Type: "processor", Kind: "array"}, "processor", true
				continue
			}
			at, known = c.components[kind][step]
		default:
			at, known = at.child(step)
		}
		if !known {
			return field{}, "", false
		}
		kind = ""
		if c.components[at.Type] != nil {
			kind = at.Type
		}
	}
	return at, kind, true
}
