package lint

import (
	"fmt"
	"slices"
	"strings"

	"github.com/redpanda-data/benthos/v4/public/service"
	"gopkg.in/yaml.v3"
)

// Level says what a finding means.
type Level string

// The levels of findings.
const (
	// Error: records get lost or out of order, or the config does not start. A config with one is not run.
	Error Level = "error"
	// Warning: it works, and not as well as it could.
	Warning Level = "warning"
)

// Rule is one thing that is looked for.
type Rule struct {
	// Name is what `lint.allow` calls it.
	Name  string
	Level Level
	// Title is what must not be, in a few words.
	Title string
	// Why says what happens otherwise, and Instead what to write. Both are Markdown, for the page of rules.
	Why, Instead string
	// Bad is a config that has a finding, for the page and for the test that the rule is not asleep.
	Bad string

	check func(*Config, report)
}

// Finding is a place where a rule is broken.
type Finding struct {
	Rule  string
	Level Level
	// Path is where in the config, such as output.pulsar.max_in_flight.
	Path string
	// File is set when the place is not in the config itself, but in resources that it uses.
	File string
	// Line and Column begin at 1; 0: not known.
	Line, Column int
	// What says what is wrong and what to write instead.
	What string
}

func (f Finding) String() string {
	at := f.Path + ": "
	if f.Line > 0 {
		at = fmt.Sprintf("(%d,%d) %s: ", f.Line, f.Column, f.Path)
	}
	return fmt.Sprintf("%s%s%s [%s]", f.File, at, f.What, f.Rule)
}

// report notes a finding at a node, which may be nil when only the path is known.
type report func(n *yaml.Node, path, format string, args ...any)

// Rules are all rules, in the order of the page that documents them.
func Rules() []Rule { return slices.Clone(rules) }

var rules = slices.Concat(orderRules, deduplicationRules, coordinationRules, paceRules, valueRules, fileRules)

// Check looks for everything that a config should not have. Rules that the config allows (see [Field]) find nothing.
func Check(c *Config) (found []Finding) {
	allowed := map[string]bool{}
	for _, name := range c.allowed {
		allowed[name] = true
	}
	for i, name := range c.Allowed() {
		if !slices.ContainsFunc(rules, func(r Rule) bool { return r.Name == name }) {
			item := at(c.root, fieldName, "allow").Content[i]
			found = append(found, Finding{
				Rule: "allow", Level: Error, Path: fmt.Sprintf("%s.allow.%d", fieldName, i), Line: item.Line, Column: item.Column,
				What: fmt.Sprintf("there is no rule %q; the rules are %s", name, names()),
			})
		}
		allowed[name] = true
	}
	for _, r := range rules {
		if !allowed[r.Name] {
			r.check(c, c.reporter(r, &found))
		}
	}
	return found
}

// reporter adds findings of a rule to a list.
func (c *Config) reporter(r Rule, found *[]Finding) report {
	return func(n *yaml.Node, path, format string, args ...any) {
		f := Finding{Rule: r.Name, Level: r.Level, Path: path, What: fmt.Sprintf(format, args...)}
		if n != nil {
			f.Line, f.Column, f.File = n.Line, n.Column, c.files[n]
		}
		*found = append(*found, f)
	}
}

func names() string {
	all := make([]string, len(rules))
	for i, r := range rules {
		all[i] = r.Name
	}
	return strings.Join(all, ", ")
}

const fieldName = "lint"

// Field is the field of a main config by which its owner accepts what a rule finds:
//
//	lint:
//	  allow: [ split-overtakes ]
func Field() *service.ConfigField {
	return service.NewObjectField(fieldName,
		service.NewStringListField("allow").Default([]any{}).
			Description("Names of rules that this config breaks on purpose. A rule that guards the order of records is allowed by those who give the order up."),
	).Advanced().Optional().Description("What the rules over the whole config may find.")
}

// The parts of a config that a record of Kinesis goes through.

// inputs are the kinesis_pulsar inputs that are read, and outputs the pulsar outputs that are written to.
func (c *Config) inputs() []*component  { return c.used("input", "kinesis_pulsar") }
func (c *Config) outputs() []*component { return c.used("output", "pulsar") }

// used are the components of a kind and name that records go through: in the stream itself, or in a resource that it uses.
func (c *Config) used(kind string, names ...string) (found []*component) {
	for _, k := range c.components {
		if k.kind == kind && slices.Contains(names, k.name) && c.isUsed(k) {
			found = append(found, k)
		}
	}
	return found
}

func (c *Config) isUsed(k *component) bool {
	return !k.top().isResource() || len(c.users(k.top())) > 0
}

func (c *component) top() *component {
	for c.parent != nil {
		c = c.parent
	}
	return c
}

// isResource tells whether a component is used by its label alone.
func (c *component) isResource() bool {
	root, _, _ := strings.Cut(c.path, ".")
	return strings.HasSuffix(root, "_resources")
}

// users are the components that stand for a resource wherever it is used.
func (c *Config) users(resource *component) (found []*component) {
	label, _ := text(at(resource.node, "label"))
	for _, user := range c.components {
		if user.kind != resource.kind || user.name != "resource" || label == "" {
			continue
		}
		if named, _ := text(user.config); named == label {
			found = append(found, user)
		}
	}
	return found
}

// around are the components that a component is in, the nearest first; those around a resource are those around its users.
func (c *Config) around(k *component) (found []*component) {
	waiting := []*component{k}
	for i := 0; i < len(waiting); i++ { // each component once, so resources that use each other do no harm
		next := waiting[i].parent
		switch {
		case next != nil:
			found = append(found, next)
		case waiting[i].isResource():
			for _, user := range c.users(waiting[i]) {
				if !slices.Contains(waiting, user) {
					waiting = append(waiting, user)
				}
			}
		}
		if next != nil && !slices.Contains(waiting, next) {
			waiting = append(waiting, next)
		}
	}
	return found
}
