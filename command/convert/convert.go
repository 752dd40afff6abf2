// Package convert turns configs of other programs into configs of this one: that of a Pulsar source (the Java Kinesis
// connector, as it is given to `pulsar-admin sources create`), and that of Redpanda Connect or Bento with an aws_kinesis input
// or a pulsar output.
//
// Nothing is left out in silence: what cannot be carried over, or need not be, is named at the top of what is written, and in
// the notes. What is written is a whole config, and lints clean.
package convert

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/kinesis-pulsar/kinesis-pulsar/lint"
)

// Options fill in what the other program's config does not say.
type Options struct {
	// URL is the Pulsar cluster's service URL: a source runs inside of Pulsar, and does not name it.
	URL string
	// Topic is used when the config names none.
	Topic string
	// Source names the config in the first line of what is written.
	Source string
}

// DefaultURL is written when nobody says where Pulsar is.
const DefaultURL = "pulsar://localhost:6650"

// ErrUnknown is returned for a config of another kind than those that are known.
var ErrUnknown = errors.New("this is neither the config of a Pulsar source (configs:, or its keys such as awsKinesisStreamName) nor one of Redpanda Connect or Bento with an aws_kinesis input or a pulsar output")

// ErrOurs is returned for a config of this program: its output could be taken for that of another one, and changed for the worse.
var ErrOurs = errors.New("it has a kinesis_pulsar input already, so it is a config of this program: there is nothing to convert; lint tells whether it is right")

// Verdict says what became of a field.
type Verdict string

// What can become of a field that is not simply carried over.
const (
	// Changed: it is there in another form.
	Changed Verdict = "changed"
	// NotNeeded: nothing takes its place, and nothing is missing by that.
	NotNeeded Verdict = "not needed"
	// NotPossible: something is missing, and the reader has to decide.
	NotPossible Verdict = "not possible"
)

// Note is what became of one field.
type Note struct {
	Field   string
	Verdict Verdict
	What    string
}

func (n Note) String() string { return fmt.Sprintf("%s (%s): %s", n.Field, n.Verdict, n.What) }

// Result is a config of this program.
type Result struct {
	YAML  []byte
	Notes []Note
}

// Convert reads a config in YAML or JSON.
func Convert(text []byte, o Options) (Result, error) {
	root, err := lint.ParseText(text)
	if err != nil {
		return Result{}, fmt.Errorf("reading the config: %w", err)
	}
	if root.Kind != yaml.DocumentNode || len(root.Content) != 1 || root.Content[0].Kind != yaml.MappingNode {
		return Result{}, ErrUnknown
	}
	if o.URL == "" {
		o.URL = DefaultURL
	}
	c := &conversion{options: o}
	top := root.Content[0]
	switch {
	case at(top, "configs") != nil || isConfigs(top):
		err = c.source(top)
	case at(top, "input") != nil || at(top, "output") != nil:
		err = c.stream(top)
	default:
		err = ErrUnknown
	}
	if err != nil {
		return Result{}, err
	}
	return c.result()
}

// conversion collects what is written.
type conversion struct {
	options Options
	config  *yaml.Node
	notes   []Note
}

func (c *conversion) note(verdict Verdict, field, format string, args ...any) {
	c.notes = append(c.notes, Note{Field: field, Verdict: verdict, What: fmt.Sprintf(format, args...)})
}

func (c *conversion) result() (Result, error) {
	var head strings.Builder
	source := c.options.Source
	if source == "" {
		source = "another config"
	}
	fmt.Fprintf(&head, "Converted from %s. Look through it once, then:\n\n  kinesis-pulsar lint FILE, kinesis-pulsar dry-run FILE, kinesis-pulsar run FILE\n", source)
	for _, verdict := range []Verdict{NotPossible, Changed, NotNeeded} {
		first := true
		for _, n := range c.notes {
			if n.Verdict != verdict {
				continue
			}
			if first {
				fmt.Fprintf(&head, "\n%s:\n", strings.ToUpper(string(verdict[0]))+string(verdict[1:]))
				first = false
			}
			head.WriteString(indented(n.Field+": "+n.What, "- ", "  ") + "\n")
		}
	}
	var body bytes.Buffer
	e := yaml.NewEncoder(&body)
	e.SetIndent(2)
	if err := e.Encode(c.config); err != nil {
		return Result{}, fmt.Errorf("writing the config: %w", err)
	}
	var text bytes.Buffer
	for line := range strings.Lines(head.String()) {
		text.WriteString(strings.TrimRight("# "+line, " \n") + "\n")
	}
	text.WriteString("\n")
	text.Write(body.Bytes())
	return Result{YAML: text.Bytes(), Notes: c.notes}, nil
}

// indented breaks a text into lines.
func indented(text, first, rest string) string {
	const width = 110
	var b strings.Builder
	line := first
	for i, word := range strings.Fields(text) {
		if i > 0 && len(line)+1+len(word) > width {
			b.WriteString(line + "\n")
			line = rest + word
			continue
		}
		if i > 0 {
			line += " "
		}
		line += word
	}
	b.WriteString(line)
	return b.String()
}
