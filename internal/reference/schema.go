package reference

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// jsonSchema is a schema of whole configs (draft-07, which editors know best), with the descriptions, defaults and enumerations
// that Benthos' own leaves out. Every component kind is a definition, so that nested ones are completed as well.
func jsonSchema(d described) ([]byte, error) {
	definitions := map[string]any{}
	for _, list := range [][]component{d.Buffers, d.Caches, d.Inputs, d.Outputs, d.Processors, d.RateLimits, d.Metrics, d.Tracers, d.Scanners} {
		if len(list) > 0 {
			definitions[list[0].Type] = kindSchema(list)
		}
	}
	root := objectSchema(d.Config)
	root["$schema"] = "http://json-schema.org/draft-07/schema#"
	root["$comment"] = "Written by go run ./internal/reference/generate."
	root["title"] = "kinesis-pulsar"
	root["definitions"] = definitions
	// A file of resources, or of a stream without an output of its own, is a config too.
	delete(root, "required")
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", " ")
	e.SetEscapeHTML(false)
	if err := e.Encode(root); err != nil {
		return nil, fmt.Errorf("writing the JSON schema: %w", err)
	}
	return b.Bytes(), nil
}

// kindSchema is a component of some kind: a mapping with the component's name, and what every component can have beside it.
func kindSchema(list []component) map[string]any {
	properties := map[string]any{
		"label": map[string]any{"type": "string", "description": "A name for the component, by which metrics and logs tell it apart, and resources are referred to."},
		"type":  map[string]any{"type": "string", "description": "The name of the component, where its fields stand below `plugin`."},
		"plugin": map[string]any{
			"description": "The fields of the component that `type` names.",
		},
	}
	if kind := list[0].Type; kind == "input" || kind == "output" {
		properties["processors"] = map[string]any{"type": "array", "items": ref("processor"), "description": "Processors of this " + kind + " alone."}
	}
	for _, c := range list {
		s := fieldSchema(c.Config)
		if text := describeComponent(c); text != "" {
			s["description"] = text
		}
		properties[c.Name] = s
	}
	return map[string]any{"type": "object", "properties": properties, "additionalProperties": false}
}

func describeComponent(c component) string {
	// The first sentence or two: an editor shows it in a small window.
	return strings.TrimSpace(c.Summary)
}

func ref(kind string) map[string]any { return map[string]any{"$ref": "#/definitions/" + kind} }

var componentKinds = []string{"buffer", "cache", "input", "output", "processor", "rate_limit", "metrics", "tracer", "scanner"}

// fieldSchema is a field with all that is known of it.
func fieldSchema(f field) map[string]any {
	one := map[string]any{}
	switch {
	case f.Type == "object":
		one = objectSchema(f.Children)
	case slices.Contains(componentKinds, f.Type):
		one = ref(f.Type)
	case f.Type == "string":
		one["type"] = "string"
		if values := options(f); len(values) > 0 {
			one["enum"] = values
		}
	case f.Type == "bool":
		one["type"] = "boolean"
	case f.Type == "int":
		one["type"] = "integer"
	case f.Type == "float":
		one["type"] = "number"
	}
	switch {
	case f.hint.Number:
		one["type"] = []string{"integer", "string"}
	case f.hint.Switch:
		one["type"] = []string{"boolean", "string"}
	case len(f.hint.Values) > 0:
		one["anyOf"] = []any{map[string]any{"enum": f.hint.Values}, map[string]any{"type": "integer"}, map[string]any{"type": "string", "pattern": `\$\{`}}
	}
	// Environment variables stand for anything.
	switch one["type"] {
	case "integer", "number", "boolean":
		one = map[string]any{"anyOf": []any{one, map[string]any{"type": "string", "pattern": `^\$\{[^!].*\}$`}}}
	}
	s := one
	switch f.Kind {
	case "array":
		s = map[string]any{"type": "array", "items": one}
	case "2darray":
		s = map[string]any{"type": "array", "items": map[string]any{"type": "array", "items": one}}
	case "map":
		s = map[string]any{"type": "object", "additionalProperties": one}
	}
	if _, isRef := s["$ref"]; isRef && (f.Description != "" || f.Default != nil) {
		s = map[string]any{"allOf": []any{s}} // beside a $ref everything else is ignored
	}
	if text := fieldText(f); text != "" {
		s["description"] = text
	}
	if f.Default != nil {
		s["default"] = *f.Default
	}
	if f.Deprecated {
		s["deprecated"] = true
	}
	if len(f.Examples) > 0 {
		s["examples"] = f.Examples
	}
	return s
}

func options(f field) (values []string) {
	for _, o := range f.AnnotatedOptions {
		values = append(values, o[0])
	}
	return append(values, f.Options...)
}

func fieldText(f field) string {
	var b strings.Builder
	b.WriteString(strings.TrimSpace(f.Description))
	for _, o := range f.AnnotatedOptions {
		fmt.Fprintf(&b, "\n%s: %s", o[0], paragraph(o[1]))
	}
	return b.String()
}

// objectSchema is a mapping with known keys.
func objectSchema(fields []field) map[string]any {
	properties := map[string]any{}
	required := map[string]bool{}
	for _, f := range fields {
		properties[f.Name] = fieldSchema(f)
		if f.required() && f.Type != "object" {
			required[f.Name] = true
		}
	}
	s := map[string]any{"type": "object", "properties": properties, "additionalProperties": false}
	if len(fields) == 0 {
		delete(s, "properties")
		delete(s, "additionalProperties")
		delete(s, "type") // nothing is known of it
	}
	if len(required) > 0 {
		s["required"] = slices.Sorted(maps.Keys(required))
	}
	return s
}
