package dynamotest

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// item is a stored or sent item. Values are never changed in place once they are in an item: a change makes a new one,
// so that items can be handed out of the lock and encoded there.
type item = map[string]types.AttributeValue

// The value types by their short names; the rest of the package reads better with them.
type (
	avS    = types.AttributeValueMemberS
	avN    = types.AttributeValueMemberN
	avB    = types.AttributeValueMemberB
	avBool = types.AttributeValueMemberBOOL
	avNull = types.AttributeValueMemberNULL
	avSS   = types.AttributeValueMemberSS
	avNS   = types.AttributeValueMemberNS
	avBS   = types.AttributeValueMemberBS
	avL    = types.AttributeValueMemberL
	avM    = types.AttributeValueMemberM
)

const (
	maxNesting  = 32
	maxItemSize = 400 << 10 // bytes, attribute names included
)

// wireItem is an item with DynamoDB's JSON form.
type wireItem item

func (w *wireItem) UnmarshalJSON(data []byte) error {
	decoded, err := decodeMap(data, 0)
	*w = decoded
	return err
}

func (w wireItem) MarshalJSON() ([]byte, error) { return json.Marshal(encodeMap(w)) }

// wireValue is a single value with DynamoDB's JSON form.
type wireValue struct{ types.AttributeValue }

func (w *wireValue) UnmarshalJSON(data []byte) (err error) {
	w.AttributeValue, err = decodeValue(data, 0)
	return err
}

func decodeMap(data []byte, depth int) (item, error) {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(data, &raw); err != nil {
		return nil, serialization("Start of structure or map found where not expected")
	}
	if raw == nil {
		return nil, nil
	}
	decoded := make(item, len(raw))
	for name, value := range raw {
		v, err := decodeValue(value, depth)
		if err != nil {
			return nil, err
		}
		decoded[name] = v
	}
	return decoded, nil
}

// decodeValue reads {"S": "x"}, checks it as DynamoDB does and brings numbers into their plain form.
func decodeValue(data []byte, depth int) (types.AttributeValue, error) {
	if depth >= maxNesting {
		return nil, validation("Nesting Levels have exceeded supported limits: Attributes in the item have nested levels beyond supported limit")
	}
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(data, &raw); err != nil {
		return nil, serialization("Unexpected value type in payload")
	}
	// A null member is an absent one; the Go SDK sends {"B": null} for a nil slice.
	maps.DeleteFunc(raw, func(_ string, content json.RawMessage) bool { return string(content) == "null" })
	switch len(raw) {
	case 0:
		return nil, validation("Supplied AttributeValue is empty, must contain exactly one of the supported datatypes")
	case 1:
	default:
		return nil, validation("Supplied AttributeValue has more than one datatypes set, must contain exactly one of the supported datatypes")
	}
	for kind, content := range raw {
		v, err := decodeKind(kind, content, depth)
		if err != nil {
			return nil, err
		}
		return v, nil
	}
	panic("unreachable: the map has one entry")
}

func decodeKind(kind string, content json.RawMessage, depth int) (types.AttributeValue, error) {
	read := func(into any) error {
		if err := json.Unmarshal(content, into); err != nil {
			return serialization("Unexpected value type in payload")
		}
		return nil
	}
	switch kind {
	case "S":
		v := &avS{}
		return v, read(&v.Value)
	case "N":
		v := &avN{}
		if err := read(&v.Value); err != nil {
			return nil, err
		}
		d, err := parseDecimal(v.Value)
		if err != nil {
			return nil, err
		}
		v.Value = d.String()
		return v, nil
	case "B":
		v := &avB{}
		return v, read(&v.Value)
	case "BOOL":
		v := &avBool{}
		return v, read(&v.Value)
	case "NULL":
		v := &avNull{}
		if err := read(&v.Value); err != nil {
			return nil, err
		}
		if !v.Value {
			return nil, validation("One or more parameter values were invalid: Null attribute value types must have the value of true")
		}
		return v, nil
	case "SS":
		v := &avSS{}
		if err := read(&v.Value); err != nil {
			return nil, err
		}
		return v, checkSet("string set", v.Value)
	case "NS":
		v := &avNS{}
		if err := read(&v.Value); err != nil {
			return nil, err
		}
		for i, n := range v.Value {
			d, err := parseDecimal(n)
			if err != nil {
				return nil, err
			}
			v.Value[i] = d.String()
		}
		return v, checkSet("number set", v.Value)
	case "BS":
		v := &avBS{}
		if err := read(&v.Value); err != nil {
			return nil, err
		}
		return v, checkSet("binary set", binaryStrings(v.Value))
	case "L":
		var list []json.RawMessage
		if err := read(&list); err != nil {
			return nil, err
		}
		v := &avL{Value: make([]types.AttributeValue, len(list))}
		for i, element := range list {
			var err error
			if v.Value[i], err = decodeValue(element, depth+1); err != nil {
				return nil, err
			}
		}
		return v, nil
	case "M":
		m, err := decodeMap(content, depth+1)
		if err != nil {
			return nil, err
		}
		if m == nil {
			m = item{}
		}
		return &avM{Value: m}, nil
	}
	return nil, validation("Supplied AttributeValue is empty, must contain exactly one of the supported datatypes")
}

func checkSet(what string, elements []string) error {
	if len(elements) == 0 {
		return validation("One or more parameter values were invalid: An %s  may not be empty", what)
	}
	seen := make(map[string]bool, len(elements))
	for _, e := range elements {
		if seen[e] {
			return validation("One or more parameter values were invalid: Input collection [%s] contains duplicates.", strings.Join(elements, ", "))
		}
		seen[e] = true
	}
	return nil
}

func binaryStrings(list [][]byte) []string {
	out := make([]string, len(list))
	for i, b := range list {
		out[i] = string(b)
	}
	return out
}

func encodeMap(m item) map[string]any {
	out := make(map[string]any, len(m))
	for name, v := range m {
		out[name] = encodeValue(v)
	}
	return out
}

func encodeValue(v types.AttributeValue) map[string]any {
	var content any
	switch v := v.(type) {
	case *avS:
		content = v.Value
	case *avN:
		content = v.Value
	case *avB:
		content = append(make([]byte, 0, len(v.Value)), v.Value...) // never nil: an empty binary is "", not null
	case *avBool:
		content = v.Value
	case *avNull:
		content = v.Value
	case *avSS:
		content = v.Value
	case *avNS:
		content = v.Value
	case *avBS:
		content = v.Value
	case *avL:
		list := make([]any, len(v.Value))
		for i, element := range v.Value {
			list[i] = encodeValue(element)
		}
		content = list
	case *avM:
		content = encodeMap(v.Value)
	}
	return map[string]any{kindOf(v): content}
}

// kindOf is the wire name of the value's type ("S", "NS", …).
func kindOf(v types.AttributeValue) string {
	switch v.(type) {
	case *avS:
		return "S"
	case *avN:
		return "N"
	case *avB:
		return "B"
	case *avBool:
		return "BOOL"
	case *avNull:
		return "NULL"
	case *avSS:
		return "SS"
	case *avNS:
		return "NS"
	case *avBS:
		return "BS"
	case *avL:
		return "L"
	case *avM:
		return "M"
	}
	return ""
}

// equal is DynamoDB's '=': same type and same value; sets without order.
func equal(a, b types.AttributeValue) bool {
	switch a := a.(type) {
	case *avS:
		b, ok := b.(*avS)
		return ok && a.Value == b.Value
	case *avN:
		b, ok := b.(*avN)
		return ok && a.Value == b.Value // both in plain form
	case *avB:
		b, ok := b.(*avB)
		return ok && bytes.Equal(a.Value, b.Value)
	case *avBool:
		b, ok := b.(*avBool)
		return ok && a.Value == b.Value
	case *avNull:
		_, ok := b.(*avNull)
		return ok
	case *avSS, *avNS, *avBS:
		x, y := setElements(a), setElements(b)
		if kindOf(a) != kindOf(b) || len(x) != len(y) {
			return false
		}
		slices.Sort(x)
		slices.Sort(y)
		return slices.Equal(x, y)
	case *avL:
		b, ok := b.(*avL)
		return ok && slices.EqualFunc(a.Value, b.Value, equal)
	case *avM:
		b, ok := b.(*avM)
		return ok && maps.EqualFunc(a.Value, b.Value, equal)
	}
	return false
}

// setElements is a fresh slice of a set's elements as strings; nil for what is no set.
func setElements(v types.AttributeValue) []string {
	switch v := v.(type) {
	case *avSS:
		return slices.Clone(v.Value)
	case *avNS:
		return slices.Clone(v.Value)
	case *avBS:
		return binaryStrings(v.Value)
	}
	return nil
}

// withElements is a set of the type of like; nil without elements, since DynamoDB has no empty sets.
func withElements(like types.AttributeValue, elements []string) types.AttributeValue {
	if len(elements) == 0 {
		return nil
	}
	switch like.(type) {
	case *avSS:
		return &avSS{Value: elements}
	case *avNS:
		return &avNS{Value: elements}
	}
	set := &avBS{}
	for _, e := range elements {
		set.Value = append(set.Value, []byte(e))
	}
	return set
}

// compare orders two values of one scalar type; ok is false for other pairs, which no ordering operator accepts.
func compare(a, b types.AttributeValue) (order int, ok bool) {
	switch a := a.(type) {
	case *avS:
		if b, ok := b.(*avS); ok {
			return strings.Compare(a.Value, b.Value), true
		}
	case *avB:
		if b, ok := b.(*avB); ok {
			return bytes.Compare(a.Value, b.Value), true
		}
	case *avN:
		if b, ok := b.(*avN); ok {
			x, errX := parseDecimal(a.Value)
			y, errY := parseDecimal(b.Value)
			return x.cmp(y), errX == nil && errY == nil
		}
	}
	return 0, false
}

// itemSize is the size DynamoDB bills and limits: attribute names and values, in bytes.
func itemSize(m item) int {
	size := 0
	for name, v := range m {
		size += len(name) + valueSize(v)
	}
	return size
}

func valueSize(v types.AttributeValue) int {
	switch v := v.(type) {
	case *avS:
		return len(v.Value)
	case *avN:
		return numberSize(v.Value)
	case *avB:
		return len(v.Value)
	case *avSS, *avBS:
		size := 0
		for _, e := range setElements(v) {
			size += len(e)
		}
		return size
	case *avNS:
		size := 0
		for _, e := range v.Value {
			size += numberSize(e)
		}
		return size
	case *avL:
		size := 3
		for _, e := range v.Value {
			size += 1 + valueSize(e)
		}
		return size
	case *avM:
		size := 3 + len(v.Value)
		return size + itemSize(v.Value)
	}
	return 1 // BOOL, NULL
}

var signs = strings.NewReplacer("-", "", ".", "")

// numberSize follows AWS' rule of thumb: a byte per two significant digits, one more, and one for the sign.
func numberSize(s string) int {
	digits := strings.Trim(signs.Replace(s), "0")
	size := (len(digits)+1)/2 + 1
	if strings.HasPrefix(s, "-") {
		size++
	}
	return size
}

// clone is a deep copy, for values that leave the package or come from a test.
func clone(v types.AttributeValue) types.AttributeValue {
	switch v := v.(type) {
	case *avS:
		return &avS{Value: v.Value}
	case *avN:
		return &avN{Value: v.Value}
	case *avB:
		return &avB{Value: append(make([]byte, 0, len(v.Value)), v.Value...)}
	case *avBool:
		return &avBool{Value: v.Value}
	case *avNull:
		return &avNull{Value: v.Value}
	case *avSS, *avNS, *avBS:
		return withElements(v, setElements(v))
	case *avL:
		list := make([]types.AttributeValue, len(v.Value))
		for i, e := range v.Value {
			list[i] = clone(e)
		}
		return &avL{Value: list}
	case *avM:
		return &avM{Value: cloneItem(v.Value)}
	}
	return nil
}

func cloneItem(m item) item {
	if m == nil {
		return nil
	}
	out := make(item, len(m))
	for name, v := range m {
		out[name] = clone(v)
	}
	return out
}
