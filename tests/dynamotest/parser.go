package dynamotest

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// scope holds a request's names and values and which of them its expressions used: AWS refuses a request with unused ones.
type scope struct {
	names      map[string]string
	values     item
	usedNames  map[string]bool
	usedValues map[string]bool
}

func newScope(names map[string]string, values item) *scope {
	return &scope{names, values, map[string]bool{}, map[string]bool{}}
}

// checkUsed is called when every expression of the request is parsed.
func (s *scope) checkUsed() error {
	for _, name := range slices.Sorted(maps.Keys(s.values)) {
		if !s.usedValues[name] {
			return validation("Value provided in ExpressionAttributeValues unused in expressions: keys: {%s}", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.names)) {
		if !s.usedNames[name] {
			return validation("Value provided in ExpressionAttributeNames unused in expressions: keys: {%s}", name)
		}
	}
	return nil
}

// parser is a recursive-descent parser over one expression. Errors travel as panics of *apiError inside the package's own
// parse functions only (see recoverParse), which keeps the grammar readable.
type parser struct {
	*scope
	kind   string // "ConditionExpression", …: for messages
	source string
	tokens []token
	pos    int
}

func newParser(kind, source string, s *scope) (*parser, error) {
	tokens, err := lex(kind, source)
	if err != nil {
		return nil, err
	}
	return &parser{scope: s, kind: kind, source: source, tokens: tokens}, nil
}

// recoverParse turns a parser's panic into its error and lets every other panic pass.
func recoverParse(err *error) {
	switch r := recover().(type) {
	case nil:
	case *apiError:
		*err = r
	default:
		panic(r)
	}
}

func parseCondition(kind, source string, s *scope) (c condition, err error) {
	p, err := newParser(kind, source, s)
	if err != nil {
		return nil, err
	}
	defer recoverParse(&err)
	n := p.or()
	p.end()
	return p.asCondition(n), nil
}

func parseProjection(source string, s *scope) (paths []path, err error) {
	p, err := newParser("ProjectionExpression", source, s)
	if err != nil {
		return nil, err
	}
	defer recoverParse(&err)
	paths = append(paths, p.path())
	for p.accept(",") {
		paths = append(paths, p.path())
	}
	p.end()
	p.checkOverlap(paths)
	return paths, nil
}

func (p *parser) peek() token { return p.tokens[p.pos] }

func (p *parser) next() token {
	t := p.tokens[p.pos]
	if t.kind != tokenEnd {
		p.pos++
	}
	return t
}

func (p *parser) unexpected() {
	t := p.peek()
	panic(syntaxError(p.kind, p.source, t.at, min(t.at+len(t.text), len(p.source))))
}

func (p *parser) fail(format string, args ...any) {
	panic(validation("Invalid %s: %s", p.kind, fmt.Sprintf(format, args...)))
}

func (p *parser) end() {
	if p.peek().kind != tokenEnd {
		p.unexpected()
	}
}

// accept consumes the symbol if it is next.
func (p *parser) accept(symbol string) bool {
	if t := p.peek(); t.kind == tokenSymbol && t.text == symbol {
		p.pos++
		return true
	}
	return false
}

func (p *parser) expect(symbol string) {
	if !p.accept(symbol) {
		p.unexpected()
	}
}

// keyword consumes the word, in any case, if it is next.
func (p *parser) keyword(word string) bool {
	if t := p.peek(); t.kind == tokenName && strings.EqualFold(t.text, word) {
		p.pos++
		return true
	}
	return false
}

// node is a part of a condition: parentheses may hold a condition or an operand, and which it is shows only at its end.
type node struct {
	condition condition
	operand   operand
	// parenthesised: the part is one pair of parentheses and what is in it.
	parenthesised bool
}

// asCondition is the node's condition; a bare operand is none.
func (p *parser) asCondition(n node) condition {
	if n.condition == nil {
		p.unexpected()
	}
	return n.condition
}

func (p *parser) or() node {
	n := p.and()
	for p.keyword("OR") {
		n = node{condition: orCondition{p.asCondition(n), p.asCondition(p.and())}}
	}
	return n
}

func (p *parser) and() node {
	n := p.not()
	for p.keyword("AND") {
		n = node{condition: andCondition{p.asCondition(n), p.asCondition(p.not())}}
	}
	return n
}

func (p *parser) not() node {
	if p.keyword("NOT") {
		return node{condition: notCondition{p.asCondition(p.not())}}
	}
	return p.primary()
}

// primary is an atom or a comparison of atoms.
func (p *parser) primary() node {
	n := p.atom()
	if n.operand == nil {
		return n
	}
	left := n.operand
	switch t := p.peek(); {
	case p.keyword("BETWEEN"):
		low := p.operand()
		if !p.keyword("AND") {
			p.unexpected()
		}
		high := p.operand()
		p.checkBetween(low, high)
		p.checkDistinct("BETWEEN", left, low, high)
		return node{condition: betweenCondition{left, low, high}}
	case p.keyword("IN"):
		p.expect("(")
		in := inCondition{left, []operand{p.operand()}}
		for p.accept(",") {
			in.list = append(in.list, p.operand())
		}
		p.expect(")")
		if len(in.list) > 100 {
			p.fail("The IN operator is provided with too many operands; number of operands: %d", len(in.list))
		}
		p.checkDistinct("IN", left, in.list...)
		return node{condition: in}
	case t.kind == tokenSymbol && slices.Contains([]string{"=", "<>", "<", "<=", ">", ">="}, t.text):
		p.pos++
		right := p.operand()
		p.checkComparison(t.text, left, right)
		return node{condition: compareCondition{t.text, left, right}}
	}
	return n
}

// atom is something in parentheses, a function, a :value or a path.
func (p *parser) atom() node {
	if p.accept("(") {
		n := p.or()
		p.expect(")")
		if n.parenthesised {
			p.fail("The expression has redundant parentheses;")
		}
		n.parenthesised = true
		return n
	}
	switch t := p.peek(); {
	case t.kind == tokenValueRef:
		p.pos++
		return node{operand: p.value(t.text)}
	case t.kind == tokenName && p.tokens[p.pos+1].text == "(":
		if t.text == "size" {
			return node{operand: p.size()}
		}
		return node{condition: p.function()}
	}
	return node{operand: p.path()}
}

// operand is an atom that yields a value.
func (p *parser) operand() operand {
	n := p.atom()
	if n.operand == nil {
		p.unexpected()
	}
	return n.operand
}

func (p *parser) size() operand {
	p.pos += 2 // "size", "("
	inner := p.operand()
	p.expect(")")
	if _, ok := inner.(sizeOperand); ok {
		p.fail("Incorrect operand type for operator or function; operator or function: size, operand type: N")
	}
	if v, ok := inner.(valueOperand); ok {
		if _, has := sizeOf(v.value); !has {
			p.fail("Incorrect operand type for operator or function; operator or function: size, operand type: %s", kindOf(v.value))
		}
	}
	return sizeOperand{inner}
}

func (p *parser) checkComparison(operator string, left, right operand) {
	if operator != "=" && operator != "<>" {
		for _, o := range []operand{left, right} {
			if v, ok := o.(valueOperand); ok && !ordered(v.value) {
				p.fail("Incorrect operand type for operator or function; operator: %s, operand type: %s", operator, typeName(v.value))
			}
		}
	}
	p.checkDistinct(operator, left, right)
}

// checkDistinct refuses "a = a" and the like.
func (p *parser) checkDistinct(operator string, first operand, others ...operand) {
	a, ok := first.(path)
	if !ok {
		return
	}
	for _, other := range others {
		if b, ok := other.(path); ok && slices.Equal(a, b) {
			p.fail("The first operand must be distinct from the remaining operands for this operator or function; operator: %s, first operand: %s", operator, a)
		}
	}
}

func (p *parser) checkBetween(low, high operand) {
	a, okA := low.(valueOperand)
	b, okB := high.(valueOperand)
	for _, o := range []operand{low, high} {
		if v, ok := o.(valueOperand); ok && !ordered(v.value) {
			p.fail("Incorrect operand type for operator or function; operator: BETWEEN, operand type: %s", typeName(v.value))
		}
	}
	if !okA || !okB {
		return
	}
	order, ok := compare(a.value, b.value)
	if !ok {
		p.fail("The BETWEEN operator requires same data type for lower and upper bounds; lower bound operand: AttributeValue: {%s}, upper bound operand: AttributeValue: {%s}", describe(a.value), describe(b.value))
	}
	if order > 0 {
		p.fail("The BETWEEN operator requires upper bound to be greater than or equal to lower bound; lower bound operand: AttributeValue: {%s}, upper bound operand: AttributeValue: {%s}", describe(a.value), describe(b.value))
	}
}

// operandCount is how many operands each condition function takes.
var operandCount = map[string]int{"attribute_exists": 1, "attribute_not_exists": 1, "attribute_type": 2, "begins_with": 2, "contains": 2}

func (p *parser) function() condition {
	name := p.next().text
	p.expect("(")
	want, known := operandCount[name]
	if !known {
		if name == "if_not_exists" || name == "list_append" {
			p.fail("The function is not allowed in a condition expression; function: %s", name)
		}
		p.fail("Invalid function name; function: %s", name)
	}
	operands := []operand{p.operand()}
	for p.accept(",") {
		operands = append(operands, p.operand())
	}
	p.expect(")")
	if len(operands) != want {
		p.fail("Incorrect number of operands for operator or function; operator or function: %s, number of operands: %d", name, len(operands))
	}
	if strings.HasPrefix(name, "attribute_") {
		if _, ok := operands[0].(path); !ok {
			p.fail("Operator or function requires a document path; operator or function: %s", name)
		}
	}
	if v, ok := operands[want-1].(valueOperand); ok && want == 2 {
		switch kind := kindOf(v.value); {
		case name == "attribute_type" && kind != "S", name == "begins_with" && kind != "S" && kind != "B":
			p.fail("Incorrect operand type for operator or function; operator or function: %s, operand type: %s", name, kind)
		case name == "attribute_type":
			if t := v.value.(*avS).Value; !slices.Contains([]string{"B", "NULL", "SS", "BOOL", "L", "BS", "N", "NS", "S", "M"}, t) {
				p.fail("Invalid attribute type name found; type: %s, valid types: {B,NULL,SS,BOOL,L,BS,N,NS,S,M}", t)
			}
		}
	}
	if _, ok := operands[want-1].(sizeOperand); ok && (name == "begins_with" || name == "attribute_type") {
		p.fail("Incorrect operand type for operator or function; operator or function: %s, operand type: N", name)
	}
	p.checkDistinct(name, operands[0], operands[1:]...)
	return functionCondition{name, operands}
}

func (p *parser) value(name string) valueOperand {
	v, ok := p.values[name]
	if !ok {
		p.fail("An expression attribute value used in expression is not defined; attribute value: %s", name)
	}
	p.usedValues[name] = true
	return valueOperand{name, v}
}

// path is a document path: a.#b[3].c
func (p *parser) path() path {
	out := path{p.step()}
	for {
		switch {
		case p.accept("."):
			out = append(out, p.step())
		case p.accept("["):
			t := p.next()
			index, err := strconv.Atoi(t.text)
			if t.kind != tokenNumber || err != nil {
				p.pos--
				p.unexpected()
			}
			p.expect("]")
			out = append(out, step{index: index, isIndex: true})
		default:
			if len(out) > maxNesting {
				p.fail("The document path has too many nesting elements; nesting levels: %d", len(out))
			}
			return out
		}
	}
}

func (p *parser) step() step {
	switch t := p.peek(); t.kind {
	case tokenName:
		if reservedWords[strings.ToUpper(t.text)] {
			p.fail("Attribute name is a reserved keyword; reserved keyword: %s", t.text)
		}
		p.pos++
		return step{name: t.text}
	case tokenNameRef:
		name, ok := p.names[t.text]
		if !ok {
			p.fail("An expression attribute name used in the document path is not defined; attribute name: %s", t.text)
		}
		p.pos++
		p.usedNames[t.text] = true
		return step{name: name}
	}
	p.unexpected()
	return step{}
}

// checkOverlap refuses two paths of which one lies on or under the other.
func (p *parser) checkOverlap(paths []path) {
	for i, a := range paths {
		for _, b := range paths[:i] {
			n := min(len(a), len(b))
			if slices.Equal(a[:n], b[:n]) {
				p.fail("Two document paths overlap with each other; must remove or rewrite one of these paths; path one: %s, path two: %s", b, a)
			}
			for k := range n {
				if a[k] == b[k] {
					continue
				}
				if a[k].isIndex != b[k].isIndex {
					p.fail("Two document paths conflict with each other; must remove or rewrite one of these paths; path one: %s, path two: %s", b, a)
				}
				break
			}
		}
	}
}

func ordered(v types.AttributeValue) bool { return slices.Contains([]string{"S", "N", "B"}, kindOf(v)) }

// typeName is the long name some messages use.
func typeName(v types.AttributeValue) string {
	return map[string]string{"S": "STRING", "N": "NUMBER", "B": "BINARY", "BOOL": "BOOLEAN", "NULL": "NULL", "SS": "STRING_SET", "NS": "NUMBER_SET", "BS": "BINARY_SET", "L": "LIST", "M": "MAP"}[kindOf(v)]
}

func describe(v types.AttributeValue) string {
	switch v := v.(type) {
	case *avS:
		return "S:" + v.Value
	case *avN:
		return "N:" + v.Value
	}
	return kindOf(v)
}
