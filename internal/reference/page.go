package reference

import (
	"encoding/json"
	"fmt"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/kinesis-pulsar/kinesis-pulsar/lint"
	"github.com/kinesis-pulsar/kinesis-pulsar/metrics"
)

// componentPage is the page of one component.
func componentPage(c component, kind string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s (%s)\n\n%s%s\n\n", c.Name, kind, generated, strings.TrimSpace(c.Summary))
	if text := strings.TrimSpace(c.Description); text != "" {
		fmt.Fprintf(&b, "%s\n\n", text)
	}
	if len(c.Examples) == 0 {
		fmt.Fprintf(&b, "## What is usually set\n\n```yaml\n%s```\n\n", yamlOf(c, kind))
	}
	for _, e := range c.Examples {
		fmt.Fprintf(&b, "## Example: %s\n\n%s\n\n```yaml\n%s\n```\n\n", e.Title, strings.TrimSpace(e.Summary), strings.TrimSpace(e.Config))
	}
	b.WriteString("## Fields\n\n")
	var fields func(all []field, prefix string)
	fields = func(all []field, prefix string) {
		for _, f := range all {
			if f.Deprecated {
				continue
			}
			writeField(&b, f, prefix+f.Name)
			next := prefix + f.Name + "."
			if f.Kind == "array" {
				next = prefix + f.Name + "[]."
			}
			fields(f.Children, next)
		}
	}
	fields(c.Config.Children, "")
	return strings.TrimRight(b.String(), "\n") + "\n"
}

func writeField(b *strings.Builder, f field, name string) {
	fmt.Fprintf(b, "### `%s`\n\n", name)
	if f.Description != "" {
		fmt.Fprintf(b, "%s\n\n", strings.TrimSpace(f.Description))
	}
	if f.Interpolated {
		b.WriteString("Interpolation functions (`${! … }`) are resolved for each message.\n\n")
	}
	var facts []string
	if t := typeName(f); t != "" {
		facts = append(facts, "type "+t)
	}
	switch {
	case f.required():
		facts = append(facts, "required")
	case f.Default != nil && (f.Type != "object" || f.Kind != "scalar"):
		facts = append(facts, "default `"+compact(*f.Default)+"`")
	case f.Default == nil && f.Type != "object":
		facts = append(facts, "no default")
	}
	if f.Secret {
		facts = append(facts, "secret: hidden by `echo` and in logs")
	}
	if f.Advanced {
		facts = append(facts, "rarely set")
	}
	if len(facts) > 0 {
		fmt.Fprintf(b, "*%s*\n\n", strings.Join(facts, ", "))
	}
	if len(f.AnnotatedOptions) > 0 {
		b.WriteString("| value | |\n|---|---|\n")
		for _, o := range f.AnnotatedOptions {
			fmt.Fprintf(b, "| `%s` | %s |\n", o[0], paragraph(o[1]))
		}
		b.WriteString("\n")
	} else if len(f.Options) > 0 {
		fmt.Fprintf(b, "One of `%s`.\n\n", strings.Join(f.Options, "`, `"))
	}
	if len(f.Examples) > 0 {
		// No yaml block: a field alone is no config, and all yaml blocks are linted.
		b.WriteString("```\n")
		for _, e := range f.Examples {
			if written, err := yaml.Marshal(map[string]any{f.Name: e}); err == nil {
				b.Write(written)
			}
		}
		b.WriteString("```\n\n")
	}
}

func typeName(f field) string {
	name := f.Type
	switch name {
	case "unknown":
		switch {
		case f.hint.Number:
			return "integer, or a text with one"
		case f.hint.Switch:
			return "boolean, or a text with one"
		}
		return ""
	case "bool":
		name = "boolean"
	case "int":
		name = "integer"
	case "float":
		name = "number"
	}
	switch f.Kind {
	case "array":
		return "list of " + name
	case "2darray":
		return "list of lists of " + name
	case "map":
		return "map of " + name
	}
	return name
}

func compact(raw json.RawMessage) string {
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		return string(raw)
	}
	text, err := json.Marshal(v)
	if err != nil {
		return string(raw)
	}
	return string(text)
}

// yamlOf is a config of the component with its required fields, and those that are not advanced.
func yamlOf(c component, kind string) string {
	body := &yaml.Node{Kind: yaml.MappingNode}
	for _, f := range c.Config.Children {
		if f.Deprecated || f.Advanced || f.Type == "object" {
			continue
		}
		value := &yaml.Node{}
		switch {
		case f.Default != nil:
			if err := yaml.Unmarshal(*f.Default, value); err != nil || len(value.Content) == 0 {
				continue
			}
			value = value.Content[0]
			value.Style = 0
		case len(f.Examples) > 0:
			if err := value.Encode(f.Examples[0]); err != nil {
				continue
			}
			if !f.required() {
				continue
			}
		default:
			continue
		}
		key := &yaml.Node{Kind: yaml.ScalarNode, Value: f.Name}
		if f.required() {
			value.LineComment = "required"
		}
		body.Content = append(body.Content, key, value)
	}
	inner := &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{{Kind: yaml.ScalarNode, Value: c.Name}, body}}
	outer := &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{{Kind: yaml.ScalarNode, Value: kind}, inner}}
	var b strings.Builder
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(outer); err != nil {
		return ""
	}
	return b.String()
}

// rulesPage documents what lint finds over whole configs.
func rulesPage() string {
	var b strings.Builder
	b.WriteString("# Rules over a whole config\n\n" + generated)
	b.WriteString("`kinesis-pulsar lint` tells what is wrong with single components, and what these rules find between them. `run` and `streams` look for the same before\n" +
		"anything connects, and do not start when there is an error; `--chilled` starts all the same. Single findings are accepted in the main config, in streams\n" +
		"mode in that of the service (`-o`):\n\n" +
		"```yaml\nlint:\n  allow: [ split-overtakes ]\n```\n\n" +
		"A config with an error that comes through the streams API is answered with 400 and the findings, as Benthos' own are; `?chilled=true` takes it all the same.\n" +
		"A key that is there twice in one object, a second document in a file (`---`), and an alias inside of what it stands for are errors too, and have no rule that could be allowed: a part of the config would be left out in silence.\n" +
		"What changes on disk under `--watcher` is not held against these rules, nor are resources that are sent to the API by themselves. `lint` looks at the files of a folder of streams together\n" +
		"(`kinesis-pulsar lint ./streams/...`), and into the files of resources that a config uses (`-r`).\n\n" +
		"| rule | | what must not be |\n|---|---|---|\n")
	rules := lint.Rules()
	for _, r := range rules {
		fmt.Fprintf(&b, "| [%s](#%s) | %s | %s |\n", r.Name, r.Name, r.Level, r.Title)
	}
	for _, r := range rules {
		fmt.Fprintf(&b, "\n## %s\n\n%s: %s.\n\n%s\n\n**Instead:** %s\n\nFound in:\n\n```\n%s\n```\n", r.Name, r.Level, r.Title, r.Why, r.Instead, strings.TrimSpace(r.Bad))
	}
	return b.String()
}

// metricsTable documents what the input and the output count.
func metricsTable() string {
	var b strings.Builder
	b.WriteString("\n## Metrics of the input and the output\n\nBeside these labels every series has Benthos' `label` and `path`, and `stream` in streams mode.\n\n| metric | kind | labels | |\n|---|---|---|---|\n")
	for _, m := range metrics.Metrics() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.Name, m.Kind, strings.Join(m.Labels, ", "), m.Help)
	}
	return b.String()
}
