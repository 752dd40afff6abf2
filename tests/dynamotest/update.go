package dynamotest

import (
	"maps"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// update is a parsed UpdateExpression (or legacy AttributeUpdates). Its paths do not overlap, so the order of actions matters
// only for list elements.
type update struct {
	set    []setAction
	remove []path
	add    []valueAction
	delete []valueAction
}

type setAction struct {
	path  path
	value setValue
}

type valueAction struct {
	path  path
	value types.AttributeValue
}

// setValue is the right side of a SET action; it reads the item as it was before the update.
type setValue interface {
	eval(item) (types.AttributeValue, error)
}

type (
	plainValue       struct{ operand operand }
	ifNotExistsValue struct {
		path     path
		fallback setValue
	}
	listAppendValue struct{ a, b setValue }
	sumValue        struct {
		a, b     setValue
		subtract bool
	}
)

func (v plainValue) eval(m item) (types.AttributeValue, error) {
	if found := v.operand.of(m); found != nil {
		return found, nil
	}
	return nil, validation("The provided expression refers to an attribute that does not exist in the item")
}

func (v ifNotExistsValue) eval(m item) (types.AttributeValue, error) {
	// The fallback is evaluated in any case: one that refers to a missing attribute is an error even where it is not needed.
	fallback, err := v.fallback.eval(m)
	if found := v.path.of(m); found != nil && err == nil {
		return found, nil
	}
	return fallback, err
}

func (v listAppendValue) eval(m item) (types.AttributeValue, error) {
	a, err := v.a.eval(m)
	if err != nil {
		return nil, err
	}
	b, err := v.b.eval(m)
	if err != nil {
		return nil, err
	}
	x, okX := a.(*avL)
	y, okY := b.(*avL)
	if !okX || !okY {
		return nil, wrongOperand()
	}
	return &avL{Value: slices.Concat(x.Value, y.Value)}, nil
}

func (v sumValue) eval(m item) (types.AttributeValue, error) {
	a, err := v.a.eval(m)
	if err != nil {
		return nil, err
	}
	b, err := v.b.eval(m)
	if err != nil {
		return nil, err
	}
	return addNumbers(a, b, v.subtract)
}

func addNumbers(a, b types.AttributeValue, subtract bool) (types.AttributeValue, error) {
	x, okX := a.(*avN)
	y, okY := b.(*avN)
	if !okX || !okY {
		return nil, wrongOperand()
	}
	dx, err := parseDecimal(x.Value)
	if err != nil {
		return nil, err
	}
	dy, err := parseDecimal(y.Value)
	if err != nil {
		return nil, err
	}
	sum, err := dx.add(dy, subtract)
	if err != nil {
		return nil, err
	}
	return &avN{Value: sum.String()}, nil
}

func wrongOperand() error {
	return validation("An operand in the update expression has an incorrect data type")
}

func wrongPath() error {
	return validation("The document path provided in the update expression is invalid for update")
}

func parseUpdate(source string, s *scope) (u *update, err error) {
	p, err := newParser("UpdateExpression", source, s)
	if err != nil {
		return nil, err
	}
	defer recoverParse(&err)
	u = &update{}
	seen := map[string]bool{}
	for p.peek().kind != tokenEnd {
		section := strings.ToUpper(p.peek().text)
		if p.peek().kind != tokenName || !slices.Contains([]string{"SET", "REMOVE", "ADD", "DELETE"}, section) {
			p.unexpected()
		}
		p.pos++
		if seen[section] {
			p.fail("The %q section can only be used once in an update expression;", section)
		}
		seen[section] = true
		for again := true; again; again = p.accept(",") {
			target := p.path()
			switch section {
			case "SET":
				p.expect("=")
				u.set = append(u.set, setAction{target, p.sum()})
			case "REMOVE":
				u.remove = append(u.remove, target)
			default:
				t := p.next()
				if t.kind != tokenValueRef {
					p.pos--
					p.unexpected()
				}
				v := p.value(t.text)
				set := setElements(v.value) != nil
				if _, number := v.value.(*avN); !set && (!number || section == "DELETE") {
					p.fail("Incorrect operand type for operator or function; operator: %s, operand type: %s", section, typeName(v.value))
				}
				action := valueAction{target, v.value}
				if section == "ADD" {
					u.add = append(u.add, action)
				} else {
					u.delete = append(u.delete, action)
				}
			}
		}
	}
	p.checkOverlap(u.paths())
	return u, nil
}

func (p *parser) sum() setValue {
	v := p.setOperand()
	for _, operator := range []string{"+", "-"} {
		if p.accept(operator) {
			w := p.setOperand()
			for _, side := range []setValue{v, w} {
				if plain, ok := side.(plainValue); ok {
					if c, ok := plain.operand.(valueOperand); ok && kindOf(c.value) != "N" {
						p.fail("Incorrect operand type for operator or function; operator or function: %s, operand type: %s", operator, kindOf(c.value))
					}
				}
			}
			return sumValue{v, w, operator == "-"}
		}
	}
	return v
}

func (p *parser) setOperand() setValue {
	t := p.peek()
	if p.accept("(") {
		v := p.sum()
		p.expect(")")
		return v
	}
	if t.kind != tokenName || p.tokens[p.pos+1].text != "(" {
		if t.kind == tokenValueRef {
			p.pos++
			return plainValue{p.value(t.text)}
		}
		return plainValue{p.path()}
	}
	p.pos += 2
	var v setValue
	switch t.text {
	case "if_not_exists":
		if k := p.peek().kind; k == tokenValueRef {
			p.fail("Operator or function requires a document path; operator or function: if_not_exists")
		}
		target := p.path()
		p.expect(",")
		fallback := p.setOperand()
		if _, ok := fallback.(listAppendValue); ok {
			p.fail("The function is not allowed to be used this way in an expression; function: list_append")
		}
		if plain, ok := fallback.(plainValue); ok {
			p.checkDistinct("if_not_exists", target, plain.operand)
		}
		v = ifNotExistsValue{target, fallback}
	case "list_append":
		a := p.setOperand()
		p.expect(",")
		v = listAppendValue{a, p.setOperand()}
	case "size", "attribute_exists", "attribute_not_exists", "attribute_type", "begins_with", "contains":
		p.fail("The function is not allowed in an update expression; function: %s", t.text)
	default:
		p.fail("Invalid function name; function: %s", t.text)
	}
	p.expect(")")
	return v
}

// paths are the paths the update changes.
func (u *update) paths() []path {
	var out []path
	for _, a := range u.set {
		out = append(out, a.path)
	}
	out = append(out, u.remove...)
	for _, a := range slices.Concat(u.add, u.delete) {
		out = append(out, a.path)
	}
	return out
}

// apply is the item after the update. old is not changed; values it shares with the result are not either.
func (u *update) apply(old item) (item, error) {
	// List elements beyond the end are appended in the order of their indexes.
	set := slices.Clone(u.set)
	slices.SortStableFunc(set, func(a, b setAction) int { return a.path[len(a.path)-1].index - b.path[len(b.path)-1].index })
	values := make([]types.AttributeValue, len(set))
	for i, action := range set {
		var err error
		if values[i], err = action.value.eval(old); err != nil {
			return nil, err
		}
	}
	out := maps.Clone(old)
	for _, p := range u.paths() {
		if len(p) > 1 { // the container is about to be changed in place
			if v, ok := out[p[0].name]; ok {
				out[p[0].name] = clone(v)
			}
		}
	}
	for i, action := range set {
		if err := assign(out, action.path, values[i]); err != nil {
			return nil, err
		}
	}
	for _, action := range u.add {
		v, err := added(action.path.of(out), action.value)
		if err != nil {
			return nil, err
		}
		if err := assign(out, action.path, v); err != nil {
			return nil, err
		}
	}
	for _, action := range u.delete {
		if err := deleteElements(out, action); err != nil {
			return nil, err
		}
	}
	// Highest list index first: indexes mean the list as it was.
	removes := slices.Clone(u.remove)
	slices.SortStableFunc(removes, func(a, b path) int { return b[len(b)-1].index - a[len(a)-1].index })
	for _, p := range removes {
		if err := remove(out, p); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func added(old, operand types.AttributeValue) (types.AttributeValue, error) {
	if old == nil {
		return operand, nil
	}
	if kindOf(old) != kindOf(operand) {
		return nil, wrongOperand()
	}
	if _, number := old.(*avN); number {
		return addNumbers(old, operand, false)
	}
	elements := setElements(old)
	for _, e := range setElements(operand) {
		if !slices.Contains(elements, e) {
			elements = append(elements, e)
		}
	}
	return withElements(old, elements), nil
}

func deleteElements(m item, action valueAction) error {
	old := action.path.of(m)
	if old == nil {
		return remove(m, action.path) // nothing there, but the path must be possible
	}
	if kindOf(old) != kindOf(action.value) {
		return wrongOperand()
	}
	gone := setElements(action.value)
	left := slices.DeleteFunc(setElements(old), func(e string) bool { return slices.Contains(gone, e) })
	if len(left) == 0 {
		return remove(m, action.path)
	}
	return assign(m, action.path, withElements(old, left))
}

// container finds what holds the last step of the path.
func container(m item, p path) types.AttributeValue {
	return p[:len(p)-1].of(m)
}

func assign(m item, p path, v types.AttributeValue) error {
	last := p[len(p)-1]
	switch c := container(m, p).(type) {
	case *avM:
		if last.isIndex {
			return wrongPath()
		}
		c.Value[last.name] = v
	case *avL:
		if !last.isIndex {
			return wrongPath()
		}
		if last.index < len(c.Value) {
			c.Value[last.index] = v
		} else {
			c.Value = append(c.Value, v)
		}
	default:
		return wrongPath()
	}
	return nil
}

func remove(m item, p path) error {
	last := p[len(p)-1]
	switch c := container(m, p).(type) {
	case *avM:
		if last.isIndex {
			return wrongPath()
		}
		delete(c.Value, last.name)
	case *avL:
		if !last.isIndex {
			return wrongPath()
		}
		if last.index < len(c.Value) {
			c.Value = slices.Delete(c.Value, last.index, last.index+1)
		}
	default:
		return wrongPath()
	}
	return nil
}

// project is the part of the item under the paths, nested as in the item; list elements keep their order but close ranks.
func project(m item, paths []path) item {
	root := &projection{}
	for _, p := range paths {
		if p.of(m) != nil {
			root.include(p)
		}
	}
	if root.children == nil {
		return item{}
	}
	return root.of(&avM{Value: m}).(*avM).Value
}

// projection is a tree of the wanted steps; a node without children is wanted whole.
type projection struct{ children map[step]*projection }

func (n *projection) include(p path) {
	for _, s := range p {
		if n.children == nil {
			n.children = map[step]*projection{}
		}
		if n.children[s] == nil {
			n.children[s] = &projection{}
		}
		n = n.children[s]
	}
}

func (n *projection) of(v types.AttributeValue) types.AttributeValue {
	if n.children == nil {
		return v
	}
	switch v := v.(type) {
	case *avM:
		out := &avM{Value: item{}}
		for s, child := range n.children {
			out.Value[s.name] = child.of(v.Value[s.name])
		}
		return out
	case *avL:
		out := &avL{}
		for i, e := range v.Value {
			if child := n.children[step{index: i, isIndex: true}]; child != nil {
				out.Value = append(out.Value, child.of(e))
			}
		}
		return out
	}
	return v
}
