package lint

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/redpanda-data/benthos/v4/public/service"
)

// field is one field of a component, as Benthos describes it.
type field struct {
	Name     string  `json:"name"`
	Type     string  `json:"type"` // string, int, float, bool, object, unknown, or a kind of component
	Kind     string  `json:"kind"` // scalar, array, 2darray, map
	Default  any     `json:"default"`
	Children []field `json:"children"`
}

func (f field) child(name string) (field, bool) {
	i := slices.IndexFunc(f.Children, func(c field) bool { return c.Name == name })
	if i < 0 {
		return field{}, false
	}
	return f.Children[i], true
}

// Catalog knows the fields of every component of a Benthos binary. It is made once, and safe for concurrent use.
type Catalog struct {
	root       field
	components map[string]map[string]field // by kind, by name
}

// NewCatalog asks a schema for its components.
func NewCatalog(schema *service.ConfigSchema) (*Catalog, error) {
	described, err := schema.MarshalJSONV0()
	if err != nil {
		return nil, fmt.Errorf("asking for the components: %w", err)
	}
	type component struct {
		Name   string `json:"name"`
		Type   string `json:"type"`
		Config field  `json:"config"`
	}
	var all struct {
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
	if err := json.Unmarshal(described, &all); err != nil {
		return nil, fmt.Errorf("reading the description of the components: %w", err)
	}
	c := &Catalog{root: field{Type: "object", Kind: "scalar", Children: all.Config}, components: map[string]map[string]field{}}
	for _, list := range [][]component{all.Buffers, all.Caches, all.Inputs, all.Outputs, all.Processors, all.RateLimits, all.Metrics, all.Tracers, all.Scanners} {
		for _, component := range list {
			if c.components[component.Type] == nil {
				c.components[component.Type] = map[string]field{}
			}
			c.components[component.Type][component.Name] = component.Config
		}
	}
	return c, nil
}
