package lint

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// TextError is what [ParseYAML] returns for a text that YAML allows, and of which Benthos would leave a part out in silence, or never come
// to an end: the same key twice, a second document, an alias inside of what it stands for.
type TextError struct {
	Line int // begins at 1
	What string
}

func (e *TextError) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.What) }

// Only decoding into a value looks for these; decoding into nodes, which keeps the lines, lets all pass.
var (
	twice     = regexp.MustCompile(`line (\d+): mapping key (".*") already defined at line (\d+)`)
	itself    = regexp.MustCompile(`anchor '(.*)' value contains itself`)
	excessive = regexp.MustCompile(`excessive aliasing`)
)

// ParseText reads a YAML text with one document. The node is empty when the text is.
func ParseText(text []byte) (*yaml.Node, error) {
	var root, second yaml.Node
	documents := yaml.NewDecoder(bytes.NewReader(text))
	if err := documents.Decode(&root); errors.Is(err, io.EOF) {
		return &root, nil
	} else if err != nil {
		return nil, err
	}
	// A document that is broken is one, too; only `---` at the very end begins none.
	err := documents.Decode(&second)
	if err == nil && !(len(second.Content) == 1 && second.Content[0].Tag == "!!null") {
		return nil, &TextError{Line: max(1, second.Line), What: "a second config begins here (---), and nobody would read it: put it into a file of its own"}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("after the end of the first config (---): %w", err)
	}
	var value any
	if err := root.Decode(&value); err != nil {
		switch found := twice.FindStringSubmatch(err.Error()); {
		case found != nil:
			line, _ := strconv.Atoi(found[1])
			return nil, &TextError{Line: line, What: fmt.Sprintf("%s is there twice, first in line %s, and only one of them would count: leave one out", strings.Trim(found[2], `"`), found[3])}
		case itself.MatchString(err.Error()):
			name := itself.FindStringSubmatch(err.Error())[1]
			return nil, &TextError{Line: anchored(&root, name), What: fmt.Sprintf("the alias *%s is inside of what it stands for, &%s: write out what is meant", name, name)}
		case excessive.MatchString(err.Error()):
			return nil, &TextError{Line: 1, What: "its aliases would make it too large: write out what is meant"}
		}
		return nil, err
	}
	return &root, nil
}

// anchored is the line of an anchor.
func anchored(n *yaml.Node, name string) int {
	if n.Anchor == name {
		return n.Line
	}
	for _, child := range n.Content {
		if line := anchored(child, name); line > 0 {
			return line
		}
	}
	return 0
}
