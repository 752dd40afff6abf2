package command

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/kinesis-pulsar/kinesis-pulsar/lint"
)

// explainer says in other words what Benthos' lint finds: which field it is about, where that is not said, and what to write instead.
// Benthos tells of node kinds (`expected object value, got !!str`), and of names that it does not know.
type explainer struct {
	catalog *lint.Catalog
	root    *yaml.Node // nil: not known
	name    string     // of the binary
}

var (
	unknownField     = regexp.MustCompile(`^field (\S+) not recognised$`)
	unknownComponent = regexp.MustCompile(`^unable to infer component type: (\S+)$`)
	wrongKind        = regexp.MustCompile(`^expected (string|int|float|bool|object|array) value(?:, got !!(\w+))?$`)
)

// sourceKeys are fields at the top of the config of a Pulsar source.
var sourceKeys = []string{"configs", "awsKinesisStreamName", "awsRegion", "topicName", "className", "archive", "parallelism", "producerConfig"}

func (e explainer) explain(line int, what string) string {
	if found := unknownField.FindStringSubmatch(what); found != nil {
		path, _ := e.field(line, func(_ string, key, _ *yaml.Node) bool { return key.Line == line && key.Value == found[1] })
		if path == found[1] && slices.Contains(sourceKeys, path) {
			return fmt.Sprintf("%s; it is one of the config of a Pulsar source, which `%s convert` turns into one of this program", what, e.name)
		}
		return what + similar(found[1], e.catalog.Siblings(path))
	}
	if found := unknownComponent.FindStringSubmatch(what); found != nil {
		if found[1] == "aws_kinesis" {
			return fmt.Sprintf("%s; the input of this program is kinesis_pulsar, and `%s convert` turns the one into the other", what, e.name)
		}
		if known := similar(found[1], e.catalog.Names()); known != "" {
			return what + known
		}
		return fmt.Sprintf("%s; this program has no component of that name, see `%s list`", what, e.name)
	}
	if found := wrongKind.FindStringSubmatch(what); found != nil {
		if e.root != nil && len(e.root.Content) == 0 {
			return "the config is empty; it has an input and an output, as `" + e.name + " create kinesis_pulsar//pulsar` shows"
		}
		kind := map[string]yaml.Kind{"object": yaml.MappingNode, "array": yaml.SequenceNode}[found[1]]
		if kind == 0 {
			kind = yaml.ScalarNode
		}
		// Many fields may stand in one line: it is about the one that is something else than it has to be.
		path, ok := e.field(line, func(path string, _, value *yaml.Node) bool {
			return value.Line == line && (value.Kind != kind || value.Tag == "!!null") && e.catalog.Wants(path) == found[1]
		})
		if !ok {
			return what
		}
		return fmt.Sprintf("%s: %s", path, map[string]string{
			"object": "there must be fields below it, each with a name", "array": "it must be a list",
			"string": "it must be one text", "int": "it must be one number", "float": "it must be one number", "bool": "it must be true or false",
		}[found[1]])
	}
	return what
}

// field is the path of the outermost pair that is wanted; ok is false when there is none, or more than one beside each other.
func (e explainer) field(line int, wanted func(path string, key, value *yaml.Node) bool) (path string, ok bool) {
	var found []string
	var walk func(n *yaml.Node, path string)
	walk = func(n *yaml.Node, path string) {
		for i := 0; n.Kind == yaml.SequenceNode && i < len(n.Content); i++ {
			walk(n.Content[i], fmt.Sprintf("%s.%d", path, i))
		}
		for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
			here := strings.TrimPrefix(path+"."+n.Content[i].Value, ".")
			if wanted(here, n.Content[i], n.Content[i+1]) {
				found = append(found, here)
				continue
			}
			walk(n.Content[i+1], here)
		}
	}
	if e.root != nil {
		walk(e.root, "")
	}
	if len(found) != 1 {
		return "", false
	}
	return found[0], true
}

// similar is a question for the name that was meant, if there is one.
func similar(name string, known []string) string {
	best, distance := "", 1+len(name)/4
	for _, k := range known {
		if d := edits(strings.ToLower(name), strings.ToLower(k)); d <= distance && (best == "" || d < distance) {
			best, distance = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; is %s meant?", best)
}

// edits is how many letters have to be added, taken away or changed to make a of b.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(diagonal+cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
