// Package reference writes the pages of docs/reference from what the components say of themselves, so that no page can tell of
// a field that is not there, or of a default that has changed: a page for each component of ours and for the rules of lint, and
// a JSON Schema by which editors complete and check configs.
//
// `go run ./internal/reference/generate` writes them; a test finds pages that are out of date.
package reference

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/redpanda-data/benthos/v4/public/service"

	"github.com/kinesis-pulsar/kinesis-pulsar/input"
)

// component is one component, as Benthos describes it.
type component struct {
	Name        string    `json:"name"`
	Type        string    `json:"type"`
	Status      string    `json:"status"`
	Summary     string    `json:"summary"`
	Description string    `json:"description"`
	Examples    []example `json:"examples"`
	Config      field     `json:"config"`
}

type example struct {
	Title   string `json:"title"`
	Summary string `json:"summary"`
	Config  string `json:"config"`
}

// field is one field of a component.
type field struct {
	Name             string           `json:"name"`
	Type             string           `json:"type"`
	Kind             string           `json:"kind"`
	Description      string           `json:"description"`
	Default          *json.RawMessage `json:"default"`
	Options          []string         `json:"options"`
	AnnotatedOptions [][2]string      `json:"annotated_options"`
	Examples         []any            `json:"examples"`
	Children         []field          `json:"children"`
	Optional         bool             `json:"is_optional"`
	Advanced         bool             `json:"is_advanced"`
	Deprecated       bool             `json:"is_deprecated"`
	Secret           bool             `json:"is_secret"`
	Interpolated     bool             `json:"interpolated"`

	hint input.Hint
}

// required tells whether a config without the field is wrong.
func (f field) required() bool {
	if f.Optional || f.Default != nil || f.Deprecated {
		return false
	}
	if f.Type == "object" && f.Kind == "scalar" {
		for _, c := range f.Children {
			if c.required() {
				return true
			}
		}
		return false
	}
	return true
}

// described is all that a binary can do.
type described struct {
	Config     []field     `json:"config"`
	Buffers    []component `json:"buffers"`
	Caches     []component `json:"caches"`
	Inputs     []component `json:"inputs"`
	Outputs    []component `json:"outputs"`
	Processors []component `json:"processors"`
	RateLimits []component `json:"rate-limits"`
	Metrics    []component `json:"metrics"`
	Tracers    []component `json:"tracers"`
	Scanners   []component `json:"scanners"`
}

func describe(schema *service.ConfigSchema) (d described, err error) {
	text, err := schema.MarshalJSONV0()
	if err != nil {
		return d, fmt.Errorf("asking for the components: %w", err)
	}
	if err := json.Unmarshal(text, &d); err != nil {
		return d, fmt.Errorf("reading the description of the components: %w", err)
	}
	for _, c := range d.Inputs {
		if c.Name != input.Name {
			continue
		}
		for i := range c.Config.Children {
			f := &c.Config.Children[i]
			f.hint = input.Hints()[f.Name]
			f.Options = f.hint.Values
		}
	}
	return d, nil
}

func find(all []component, name string) (component, error) {
	for _, c := range all {
		if c.Name == name {
			return c, nil
		}
	}
	return component{}, fmt.Errorf("there is no component %s", name)
}

// Pages are the files of docs/reference by their names.
func Pages(schema *service.ConfigSchema) (map[string][]byte, error) {
	d, err := describe(schema)
	if err != nil {
		return nil, err
	}
	pages := map[string][]byte{"lint.md": []byte(rulesPage())}
	for _, p := range []struct {
		of   []component
		name string
		kind string
	}{{d.Inputs, "kinesis_pulsar", "input"}, {d.Outputs, "pulsar", "output"}, {d.Metrics, "prometheus", "metrics"}} {
		c, err := find(p.of, p.name)
		if err != nil {
			return nil, err
		}
		pages[p.name+".md"] = []byte(componentPage(c, p.kind))
	}
	pages["prometheus.md"] = append(pages["prometheus.md"], metricsTable()...)
	if pages["config.schema.json"], err = jsonSchema(d); err != nil {
		return nil, err
	}
	return pages, nil
}

const generated = "<!-- Written by go run ./internal/reference/generate; changes by hand are lost. -->\n\n"

// paragraph makes one line of a text, for a table cell or a list item.
func paragraph(s string) string { return strings.Join(strings.Fields(s), " ") }
