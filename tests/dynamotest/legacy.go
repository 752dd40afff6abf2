package dynamotest

import (
	"maps"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// legacyRequest holds the parameters from before expressions. The Kinesis Client Library still sends them: Expected and
// AttributeUpdates for every lease write. They are translated into the same conditions and updates.
type legacyRequest struct {
	Expected            map[string]legacyCondition
	AttributeUpdates    map[string]legacyUpdate
	ConditionalOperator string
	AttributesToGet     []string
	ScanFilter          map[string]legacyCondition
	QueryFilter         map[string]legacyCondition
	KeyConditions       map[string]legacyCondition
}

type legacyCondition struct {
	Value              *wireValue
	Exists             *bool
	ComparisonOperator string
	AttributeValueList []wireValue
}

type legacyUpdate struct {
	Action string // PUT when empty
	Value  *wireValue
}

// checkMixed refuses a request that has both kinds of parameters.
func (in *itemRequest) checkMixed() error {
	names := func(given map[string]bool) string {
		return strings.Join(slices.Sorted(maps.Keys(given)), ", ")
	}
	expressions, legacy := map[string]bool{}, map[string]bool{}
	for name, given := range map[string]bool{
		"ConditionExpression": in.ConditionExpression != nil, "UpdateExpression": in.UpdateExpression != nil,
		"FilterExpression": in.FilterExpression != nil, "ProjectionExpression": in.ProjectionExpression != nil,
		"KeyConditionExpression": in.KeyConditionExpression != nil,
	} {
		if given {
			expressions[name] = true
		}
	}
	for name, given := range map[string]bool{
		"Expected": in.Expected != nil, "AttributeUpdates": in.AttributeUpdates != nil, "AttributesToGet": in.AttributesToGet != nil,
		"ScanFilter": in.ScanFilter != nil, "QueryFilter": in.QueryFilter != nil, "KeyConditions": in.KeyConditions != nil,
		"ConditionalOperator": in.ConditionalOperator != "",
	} {
		if given {
			legacy[name] = true
		}
	}
	if len(expressions) > 0 && len(legacy) > 0 {
		return validation("Can not use both expression and non-expression parameters in the same request: Non-expression parameters: {%s} Expression parameters: {%s}", names(legacy), names(expressions))
	}
	return nil
}

func (in *itemRequest) parseLegacy() (x expressions, err error) {
	if x.condition, err = in.translateAll(in.Expected); err != nil {
		return x, err
	}
	if x.filter, err = in.translateAll(in.ScanFilter); err != nil {
		return x, err
	}
	if in.QueryFilter != nil {
		if x.filter, err = in.translateAll(in.QueryFilter); err != nil {
			return x, err
		}
	}
	if x.keyCondition, err = in.translateAll(in.KeyConditions); err != nil {
		return x, err
	}
	for _, name := range in.AttributesToGet {
		x.projection = append(x.projection, path{{name: name}})
	}
	if in.AttributeUpdates != nil {
		x.update, err = translateUpdates(in.AttributeUpdates)
	}
	return x, err
}

// translateAll joins the conditions on single attributes by ConditionalOperator; nil without any.
func (in *itemRequest) translateAll(conditions map[string]legacyCondition) (condition, error) {
	var all condition
	for _, name := range slices.Sorted(maps.Keys(conditions)) {
		c, err := conditions[name].translate(name)
		switch {
		case err != nil:
			return nil, err
		case all == nil:
			all = c
		case in.ConditionalOperator == "OR":
			all = orCondition{all, c}
		default:
			all = andCondition{all, c}
		}
	}
	return all, nil
}

func (l legacyCondition) translate(name string) (condition, error) {
	target := path{{name: name}}
	if l.ComparisonOperator == "" {
		exists := l.Exists == nil || *l.Exists
		switch {
		case exists && l.Value == nil:
			return nil, validation("One or more parameter values were invalid: Value must be provided when Exists is true for Attribute: %s", name)
		case !exists && l.Value != nil:
			return nil, validation("One or more parameter values were invalid: Value cannot be used when Exists is false for Attribute: %s", name)
		case exists:
			return compareCondition{"=", target, valueOperand{value: l.Value.AttributeValue}}, nil
		}
		return functionCondition{"attribute_not_exists", []operand{target}}, nil
	}
	var operands []operand
	for _, v := range l.AttributeValueList {
		operands = append(operands, valueOperand{value: v.AttributeValue})
	}
	if l.Value != nil {
		operands = append(operands, valueOperand{value: l.Value.AttributeValue})
	}
	want := map[string]int{"NULL": 0, "NOT_NULL": 0, "BETWEEN": 2, "EQ": 1, "NE": 1, "LT": 1, "LE": 1, "GT": 1, "GE": 1, "BEGINS_WITH": 1, "CONTAINS": 1, "NOT_CONTAINS": 1}
	switch n, known := want[l.ComparisonOperator]; {
	case l.ComparisonOperator == "IN":
		if len(operands) == 0 {
			return nil, invalidArguments(l.ComparisonOperator)
		}
		return inCondition{target, operands}, nil
	case !known:
		return nil, validation("1 validation error detected: Value '%s' at 'comparisonOperator' failed to satisfy constraint: Member must satisfy enum value set: [IN, NULL, BETWEEN, LT, NOT_CONTAINS, EQ, GT, NOT_NULL, NE, LE, BEGINS_WITH, GE, CONTAINS]", l.ComparisonOperator)
	case n != len(operands):
		return nil, invalidArguments(l.ComparisonOperator)
	}
	switch l.ComparisonOperator {
	case "NULL":
		return functionCondition{"attribute_not_exists", []operand{target}}, nil
	case "NOT_NULL":
		return functionCondition{"attribute_exists", []operand{target}}, nil
	case "BETWEEN":
		return betweenCondition{target, operands[0], operands[1]}, nil
	case "BEGINS_WITH":
		return functionCondition{"begins_with", []operand{target, operands[0]}}, nil
	case "CONTAINS":
		return functionCondition{"contains", []operand{target, operands[0]}}, nil
	case "NOT_CONTAINS":
		// Unlike NOT contains(), this is false for a missing attribute.
		return andCondition{
			functionCondition{"attribute_exists", []operand{target}},
			notCondition{functionCondition{"contains", []operand{target, operands[0]}}},
		}, nil
	}
	operator := map[string]string{"EQ": "=", "NE": "<>", "LT": "<", "LE": "<=", "GT": ">", "GE": ">="}[l.ComparisonOperator]
	return compareCondition{operator, target, operands[0]}, nil
}

func invalidArguments(operator string) error {
	return validation("One or more parameter values were invalid: Invalid number of argument(s) for the %s ComparisonOperator", operator)
}

func translateUpdates(updates map[string]legacyUpdate) (*update, error) {
	u := &update{}
	for _, name := range slices.Sorted(maps.Keys(updates)) {
		change := updates[name]
		target := path{{name: name}}
		var v types.AttributeValue
		if change.Value != nil {
			v = change.Value.AttributeValue
		}
		switch change.Action {
		case "", "PUT":
			if v == nil {
				return nil, validation("One or more parameter values were invalid: Only DELETE action is allowed when no attribute value is specified")
			}
			u.set = append(u.set, setAction{target, plainValue{valueOperand{value: v}}})
		case "ADD":
			if v == nil || kindOf(v) != "N" && setElements(v) == nil {
				return nil, validation("One or more parameter values were invalid: ADD action is not supported for the type of attribute %s", name)
			}
			u.add = append(u.add, valueAction{target, v})
		case "DELETE":
			switch {
			case v == nil:
				u.remove = append(u.remove, target)
			case setElements(v) == nil:
				return nil, validation("One or more parameter values were invalid: DELETE action with value is not supported for the type of attribute %s", name)
			default:
				u.delete = append(u.delete, valueAction{target, v})
			}
		default:
			return nil, validation("1 validation error detected: Value '%s' at 'attributeUpdates.%s.member.action' failed to satisfy constraint: Member must satisfy enum value set: [ADD, DELETE, PUT]", change.Action, name)
		}
	}
	return u, nil
}
