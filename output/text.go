package output

import (
	"fmt"
	"regexp"

	"github.com/redpanda-data/benthos/v4/public/service"
)

// text is an interpolated string field. Two forms never reach Bloblang: a constant, and a lone reference to one
// metadata entry. The second is how a key is nearly always written, and Bloblang would turn an absent entry into the
// four letters "null", a key that nobody meant; here an absent entry is the empty string.
type text struct {
	constant string
	metadata string // name of the entry, "" if it is no lone reference
	expr     *service.InterpolatedString
}

// metadataReference matches ${! @name }, ${! @"name" }, ${! metadata("name") } and ${! meta("name") }, with or without a
// fallback to the empty string.
var metadataReference = regexp.MustCompile(
	`^\$\{!\s*(?:@([A-Za-z_][A-Za-z0-9_]*)|@"([^"\\]+)"|meta(?:data)?\("([^"\\]+)"\))(?:\.or\(""\)|\s*\|\s*"")?\s*\}$`)

// dottedMetadata is a reference to one of the input's metadata entries as one would guess it. To Bloblang the dots are a
// path within an entry named kinesis, which there never is: every message would get null.
var dottedMetadata = regexp.MustCompile(`@kinesis\.`)

// dottedRuleOf is the complaint about such a reference in a field.
func dottedRuleOf(field string) string {
	entry := "kinesis.partition.key"
	if field == fieldEventTime {
		entry = "kinesis.arrival.timestamp"
	}
	return fmt.Sprintf(`@kinesis.… is a path within an entry named kinesis; for an entry with dots in its name write ${! @%q }`, entry)
}

func newText(raw string, expr *service.InterpolatedString) text {
	if s, ok := expr.Static(); ok {
		return text{constant: s}
	}
	if m := metadataReference.FindStringSubmatch(raw); m != nil {
		return text{metadata: m[1] + m[2] + m[3]}
	}
	return text{expr: expr}
}

// static returns the text and true if it is the same for all messages.
func (t text) static() (string, bool) { return t.constant, t.metadata == "" && t.expr == nil }

// over prepares the text for the messages of a batch.
func (t text) over(batch service.MessageBatch) batchText {
	b := batchText{text: t, batch: batch}
	if t.expr != nil {
		b.executor = batch.InterpolationExecutor(t.expr)
	}
	return b
}

type batchText struct {
	text
	batch    service.MessageBatch
	executor *service.MessageBatchInterpolationExecutor
}

// at resolves the text for message i of the batch.
func (b *batchText) at(i int) (string, error) {
	switch {
	case b.executor != nil:
		return b.executor.TryString(i)
	case b.metadata != "":
		return metadataText(b.batch[i], b.metadata), nil
	default:
		return b.constant, nil
	}
}

// metadataText returns a metadata entry as text, "" if it is absent or null.
func metadataText(m *service.Message, name string) string {
	v, ok := m.MetaGetImmut(name)
	if !ok || v == nil {
		return ""
	}
	if s, ok := v.(string); ok {
		return s
	}
	s, _ := m.MetaGet(name)
	return s
}
