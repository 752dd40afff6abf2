package dynamotest

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"unicode/utf16"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// condition is a parsed condition or filter, evaluated on an item (empty when there is none).
type condition interface{ holds(item) bool }

// operand yields a value from an item; nil when the item has none there.
type operand interface {
	of(item) types.AttributeValue
}

// path is a document path. It is comparable step by step.
type path []step

type step struct {
	name    string
	index   int
	isIndex bool
}

// String is the path as DynamoDB's messages print it: [a, b, [0]].
func (p path) String() string {
	parts := make([]string, len(p))
	for i, s := range p {
		if parts[i] = s.name; s.isIndex {
			parts[i] = fmt.Sprintf("[%d]", s.index)
		}
	}
	return "[" + strings.Join(parts, ", ") + "]"
}

func (p path) of(m item) types.AttributeValue {
	var v types.AttributeValue = &avM{Value: m}
	for _, s := range p {
		switch container := v.(type) {
		case *avM:
			if s.isIndex {
				return nil
			}
			v = container.Value[s.name]
		case *avL:
			if !s.isIndex || s.index >= len(container.Value) {
				return nil
			}
			v = container.Value[s.index]
		default:
			return nil
		}
	}
	return v
}

type valueOperand struct {
	name  string
	value types.AttributeValue
}

func (o valueOperand) of(item) types.AttributeValue { return o.value }

type sizeOperand struct{ operand operand }

func (o sizeOperand) of(m item) types.AttributeValue {
	n, ok := sizeOf(o.operand.of(m))
	if !ok {
		return nil
	}
	return &avN{Value: fmt.Sprint(n)}
}

// sizeOf is the size function: characters, bytes or elements. Numbers, booleans and nulls have none.
func sizeOf(v types.AttributeValue) (int, bool) {
	switch v := v.(type) {
	case *avS:
		// The service is written in Java and counts UTF-16 units.
		return len(utf16.Encode([]rune(v.Value))), true
	case *avB:
		return len(v.Value), true
	case *avSS, *avNS, *avBS:
		return len(setElements(v)), true
	case *avL:
		return len(v.Value), true
	case *avM:
		return len(v.Value), true
	}
	return 0, false
}

type (
	andCondition struct{ a, b condition }
	orCondition  struct{ a, b condition }
	notCondition struct{ c condition }
)

func (c andCondition) holds(m item) bool { return c.a.holds(m) && c.b.holds(m) }
func (c orCondition) holds(m item) bool  { return c.a.holds(m) || c.b.holds(m) }
func (c notCondition) holds(m item) bool { return !c.c.holds(m) }

type compareCondition struct {
	operator    string
	left, right operand
}

func (c compareCondition) holds(m item) bool {
	a, b := c.left.of(m), c.right.of(m)
	switch c.operator {
	case "=":
		return a != nil && b != nil && equal(a, b)
	case "<>":
		// A missing attribute differs from every value.
		return a == nil || b == nil || !equal(a, b)
	}
	order, ok := compare(a, b)
	if !ok {
		return false
	}
	switch c.operator {
	case "<":
		return order < 0
	case "<=":
		return order <= 0
	case ">":
		return order > 0
	}
	return order >= 0
}

type betweenCondition struct{ operand, low, high operand }

func (c betweenCondition) holds(m item) bool {
	v := c.operand.of(m)
	low, okLow := compare(v, c.low.of(m))
	high, okHigh := compare(v, c.high.of(m))
	return okLow && okHigh && low >= 0 && high <= 0
}

type inCondition struct {
	operand operand
	list    []operand
}

func (c inCondition) holds(m item) bool {
	v := c.operand.of(m)
	return v != nil && slices.ContainsFunc(c.list, func(o operand) bool {
		candidate := o.of(m)
		return candidate != nil && equal(v, candidate)
	})
}

type functionCondition struct {
	name     string
	operands []operand
}

func (c functionCondition) holds(m item) bool {
	v := c.operands[0].of(m)
	switch c.name {
	case "attribute_exists":
		return v != nil
	case "attribute_not_exists":
		return v == nil
	}
	second := c.operands[1].of(m)
	if v == nil || second == nil {
		return false
	}
	switch c.name {
	case "attribute_type":
		t, ok := second.(*avS)
		return ok && kindOf(v) == t.Value
	case "begins_with":
		return beginsWith(v, second)
	}
	return contains(v, second)
}

func beginsWith(v, prefix types.AttributeValue) bool {
	switch v := v.(type) {
	case *avS:
		p, ok := prefix.(*avS)
		return ok && strings.HasPrefix(v.Value, p.Value)
	case *avB:
		p, ok := prefix.(*avB)
		return ok && bytes.HasPrefix(v.Value, p.Value)
	}
	return false
}

// contains is substring for strings and binaries, membership for sets and lists.
func contains(v, part types.AttributeValue) bool {
	switch v := v.(type) {
	case *avS:
		p, ok := part.(*avS)
		return ok && strings.Contains(v.Value, p.Value)
	case *avB:
		p, ok := part.(*avB)
		return ok && bytes.Contains(v.Value, p.Value)
	case *avSS:
		p, ok := part.(*avS)
		return ok && slices.Contains(v.Value, p.Value)
	case *avNS:
		p, ok := part.(*avN)
		return ok && slices.Contains(v.Value, p.Value)
	case *avBS:
		p, ok := part.(*avB)
		return ok && slices.ContainsFunc(v.Value, func(b []byte) bool { return bytes.Equal(b, p.Value) })
	case *avL:
		return slices.ContainsFunc(v.Value, func(e types.AttributeValue) bool { return equal(e, part) })
	}
	return false
}
